#include "client/command.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct opts {
	const char *socket;
};

static const struct sk_option options[] = {
	{"socket", 's', SK_OPTION_STRING, offsetof(struct opts, socket), "PATH",
	 .help = "Where the daemon listens."},
	{0},
};

/* Whole numbers with white space or commas between them. */
static int parse_ids(const struct sk_input *input, int32_t **ret_ids, size_t *ret_n_ids)
{
	size_t n_ids = 0;
	int32_t *ids = malloc((input->n_bytes / 2 + 1) *
			      sizeof *ids); /* an id takes a digit and what divides it */
	if (!ids)
		return sk_said(EX_OSERR, "not enough memory for the ids");
	for (const char *at = input->bytes, *end = at + input->n_bytes; at < end;) {
		char *behind;
		if (isspace((unsigned char)*at) || *at == ',') {
			at++;
			continue;
		}
		errno = 0;
		long id = strtol(at, &behind, 10);
		if (behind == at || errno || id < 0 || id > INT32_MAX ||
		    (behind < end && !isspace((unsigned char)*behind) && *behind != ',')) {
			free(ids);
			return sk_said(EX_DATAERR, "'%.*s' is no token id",
				       (int)strcspn(at, " \t\n,"), at);
		}
		ids[n_ids++] = (int32_t)id;
		at = behind;
	}
	*ret_ids = ids;
	*ret_n_ids = n_ids;
	return 0;
}

static int run(const void *from, int n_rest, char **rest)
{
	const struct opts *opts = from;
	struct streamkv_error error;
	struct sk_input input;
	int32_t *ids = NULL;
	size_t n_ids = 0, n_bytes;
	void *text;
	int exit_code;

	exit_code = sk_read_input(n_rest, rest, &input);
	if (exit_code)
		return exit_code;
	exit_code = parse_ids(&input, &ids, &n_ids);
	free(input.bytes);
	if (exit_code)
		return exit_code;
	struct streamkv *kv = sk_connect(opts->socket, &exit_code);
	if (kv) {
		int err = streamkv_detokenize(kv, ids, n_ids, &text, &n_bytes, &error);
		exit_code = err < 0 ? sk_said(sk_exit_code_of(err), "%s", error.text)
				    : sk_write_out(text, n_bytes);
		if (err == 0)
			free(text);
	}
	free(ids);
	streamkv_close(kv);
	return exit_code;
}

const struct sk_command sk_command_detokenize = {
	.help = {.name = "streamkv-client detokenize",
		 .synopsis = "[ID...]",
		 .summary = "show the text of token ids",
		 .text = "Ids are whole numbers with spaces or commas between them, from the "
			 "arguments or from standard input. The "
			 "text is written as it is, with nothing added: what tokenize read comes "
			 "out again, byte for byte, where "
			 "the tokenizer normalises nothing.",
		 .exits = sk_command_exits},
	.options = options,
	.opts_bytes = sizeof(struct opts),
	.run = run,
};
