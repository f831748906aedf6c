#include "client/command.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct opts {
	const char *socket;
	bool plain, bos, count, json;
};

static const struct sk_option options[] = {
	{"count", 'c', SK_OPTION_FLAG, offsetof(struct opts, count),
	 .help = "Print only how many tokens there are."},
	{"plain", 0, SK_OPTION_FLAG, offsetof(struct opts, plain),
	 .help = "Special tokens spelt out in the text are plain text."},
	{"bos", 0, SK_OPTION_FLAG, offsetof(struct opts, bos),
	 .help = "Begin with the model's begin-of-text token, where it has one."},
	{"json", 0, SK_OPTION_FLAG, offsetof(struct opts, json),
	 .help = "Print {\"count\": N, \"ids\": [...]}."},
	{"socket", 's', SK_OPTION_STRING, offsetof(struct opts, socket), "PATH",
	 .help = "Where the daemon listens."},
	{0},
};

/* Ids one after the other, in one write a few thousand. */
static int print_ids(const int32_t *ids, size_t n_ids, const char *between)
{
	char text[1 << 16];
	size_t at = 0;
	int err = 0;

	for (size_t i = 0; i < n_ids && !err; i++) {
		at += (size_t)snprintf(text + at, sizeof text - at, "%s%d", i ? between : "",
				       ids[i]);
		if (at > sizeof text - 32 || i + 1 == n_ids) {
			err = sk_write_out(text, at);
			at = 0;
		}
	}
	return err;
}

static int print_answer(const struct opts *opts, const int32_t *ids, size_t n_ids)
{
	char head[64];

	if (opts->count && !opts->json)
		return sk_write_out(head, (size_t)snprintf(head, sizeof head, "%zu\n", n_ids));
	if (!opts->json) {
		int err = print_ids(ids, n_ids, " ");
		return err ? err : sk_write_out("\n", 1);
	}
	if (opts->count)
		return sk_write_out(
			head, (size_t)snprintf(head, sizeof head, "{\"count\": %zu}\n", n_ids));
	int err = sk_write_out(
		head, (size_t)snprintf(head, sizeof head, "{\"count\": %zu, \"ids\": [", n_ids));
	if (!err)
		err = print_ids(ids, n_ids, ", ");
	return err ? err : sk_write_out("]}\n", 3);
}

static int run(const void *from, int n_rest, char **rest)
{
	const struct opts *opts = from;
	struct streamkv_error error;
	struct sk_input input;
	int32_t *ids;
	size_t n_ids;
	int exit_code;

	struct streamkv *kv = sk_connect(opts->socket, &exit_code);
	if (!kv)
		return exit_code;
	exit_code = sk_read_input(n_rest, rest, &input);
	if (!exit_code) {
		int err = streamkv_tokenize(kv, input.bytes, input.n_bytes, opts->plain, opts->bos,
					    &ids, &n_ids, &error);
		exit_code = err < 0 ? sk_said(sk_exit_code_of(err), "%s", error.text)
				    : print_answer(opts, ids, n_ids);
		if (err == 0)
			free(ids);
		free(input.bytes);
	}
	streamkv_close(kv);
	return exit_code;
}

const struct sk_command sk_command_tokenize = {
	.help = {.name = "streamkv-client tokenize",
		 .synopsis = "[TEXT...]",
		 .summary = "show the token ids of a text",
		 .text = "TEXT is the arguments joined by spaces; - among them, or none at all, is "
			 "standard input. Any bytes are "
			 "taken, NUL and broken UTF-8 too.",
		 .examples = "  streamkv-client tokenize --count < book.txt\n",
		 .exits = sk_command_exits},
	.options = options,
	.opts_bytes = sizeof(struct opts),
	.run = run,
};
