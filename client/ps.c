/* streamkv-client ps: the requests that run and those that wait. */
#include "client/command.h"
#include "client/json_out.h"
#include "client/listing_out.h"

struct opts {
	const char *socket;
	bool json;
};

static const struct sk_option options[] = {
	{"json", 0, SK_OPTION_FLAG, offsetof(struct opts, json),
	 .help = "Print a JSON array of objects, one for each request."},
	{"socket", 's', SK_OPTION_STRING, offsetof(struct opts, socket), "PATH",
	 .help = "Where the daemon listens."},
	{0},
};

static int print_json(const struct streamkv_list *list)
{
	json_t *array = json_array();
	for (size_t i = 0; i < list->n_requests; i++)
		json_array_append_new(array, sk_request_json(&list->requests[i]));
	return sk_json_print(array, JSON_INDENT(2));
}

static int print_text(const struct streamkv_list *list)
{
	struct sk_page page = {0};
	if (sk_page_init(&page) < 0)
		return sk_said(EX_OSERR, "not enough memory");
	int exit_code = sk_put_requests(list, &page, SIZE_MAX) < 0
				? sk_said(EX_OSERR, "not enough memory")
				: sk_page_write(&page);
	sk_page_finish(&page);
	return exit_code;
}

static int run(const void *from, int n_rest, char **rest)
{
	const struct opts *opts = from;
	struct streamkv_error error;
	struct streamkv_list list;
	int exit_code;

	if (n_rest)
		return sk_said(EX_USAGE, "'%s': ps takes options only", rest[0]);
	struct streamkv *kv = sk_connect(opts->socket, &exit_code);
	if (!kv)
		return exit_code;
	int err = streamkv_list(kv, &list, &error);
	streamkv_close(kv);
	if (err < 0)
		return sk_said(sk_exit_code_of(err), "%s", error.text);
	sk_list_sort(&list, false);
	exit_code = (opts->json ? print_json : print_text)(&list);
	streamkv_list_free(&list);
	return exit_code;
}

const struct sk_command sk_command_ps = {
	.help = {.name = "streamkv-client ps",
		 .synopsis = "",
		 .summary = "list the requests that run and those that wait",
		 .text = "A line for each request: whose it is, the process that sent it and how "
			 "that numbers it, what it does (tokenizing, queued, prompt or scoring, "
			 "decode; paused while its reader does not read), its session, tokens of "
			 "the prompt and tokens generated, entries live in the session's cache, "
			 "its "
			 "place in the queue, how full its connection's token ring is, and its "
			 "age.\n\nOne's own requests are listed; root and the daemon's own user "
			 "see "
			 "everybody's.",
		 .exits = sk_command_exits},
	.options = options,
	.opts_bytes = sizeof(struct opts),
	.run = run,
};
