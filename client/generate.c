/* streamkv-client generate: a prompt to the daemon, tokens to standard output as they come. */
#include "client/answer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct opts {
	const char *socket, *session, *chat, *system, *trace;
	struct sk_cache_opts cache;
	uint64_t max_tokens, top_k, repeat_last, seed;
	double temperature, top_p, min_p, repeat_penalty, retry;
	int mode;
	struct sk_option_list stops;
	bool endless, plain, ignore_eos, show_special, json, stats, quiet;
};

#define UNSET      SK_OPTION_UNSET /* of a number that the daemon or the session then chooses */
#define UNSET_TEXT SK_OPTION_UNSET_TEXT

#define RETRY_S 30.0

static const char *const modes[] = {"default", "streaming", "window", "dense", NULL};

#define AT(member) offsetof(struct opts, member)
static const struct sk_option options[] = {
	{"max-tokens", 'n', SK_OPTION_UINT, AT(max_tokens), "N",
	 .help = "Tokens to generate at most. 0 is the daemon's default."},
	{"endless", 0, SK_OPTION_FLAG, AT(endless),
	 .help = "Go on until Ctrl-C, past any end-of-text token."},
	{"session", 0, SK_OPTION_STRING, AT(session), "NAME",
	 .help = "Go on with the session of this name, or begin it: what was said before need not "
		 "be said again."},
	{"mode", 0, SK_OPTION_CHOICE, AT(mode), NULL, "default", .choices = modes,
	 .help = "How the session's cache is cut: sinks and a window, a window alone, or not at "
		 "all (then it ends with the "
		 "model's context)."},
	SK_CACHE_OPTIONS(AT(cache)),
	{"temp", 't', SK_OPTION_FLOAT, AT(temperature), "T", "0", .fmax = 100,
	 .help = "Temperature. 0 takes the likeliest token."},
	{"top-k", 0, SK_OPTION_UINT, AT(top_k), "K", .max = 1 << 24,
	 .help = "Draw among the K likeliest tokens; 0 is all."},
	{"top-p", 0, SK_OPTION_FLOAT, AT(top_p), "P", "1", .fmin = 1e-6, .fmax = 1,
	 .help = "Draw among the likeliest tokens that together have probability P."},
	{"min-p", 0, SK_OPTION_FLOAT, AT(min_p), "P", "0", .fmax = 1,
	 .help = "Leave out tokens less than P times as likely as the likeliest."},
	{"repeat-penalty", 0, SK_OPTION_FLOAT, AT(repeat_penalty), "R", "1", .fmin = 0.1,
	 .fmax = 10, .help = "Make recent tokens less likely; 1 does not."},
	{"repeat-last", 0, SK_OPTION_UINT, AT(repeat_last), "N", "64", .min = 1, .max = 4096,
	 .help = "Tokens back that the penalty looks at."},
	{"seed", 0, SK_OPTION_UINT, AT(seed), "N", UNSET_TEXT,
	 .help = "The same seed makes the same text. Without it, a random one, which --stats and "
		 "--json tell."},
	{"stop", 0, SK_OPTION_LIST, AT(stops), "TEXT",
	 .help = "End before TEXT would be printed; may be given 16 times. \\n, \\t and \\\\ are "
		 "read as in C."},
	{"chat", 0, SK_OPTION_STRING, AT(chat), "NAME",
	 .help = "The prompt is a user's turn in a chat: wrap it in this template, or in the "
		 "model's own (auto)."},
	{"system", 0, SK_OPTION_STRING, AT(system), "TEXT",
	 .help = "The system's turn before it. Implies --chat auto."},
	{"plain", 0, SK_OPTION_FLAG, AT(plain),
	 .help = "Special tokens spelt out in the prompt are plain text."},
	{"ignore-eos", 0, SK_OPTION_FLAG, AT(ignore_eos),
	 .help = "An end-of-text token does not end it."},
	{"show-special", 0, SK_OPTION_FLAG, AT(show_special), .help = "Print special tokens too."},
	{"json", 0, SK_OPTION_FLAG, AT(json),
	 .help = "Print a JSON object a line: each token, then how it ended."},
	{"trace", 0, SK_OPTION_STRING, AT(trace), "FILE",
	 .help = "Write a CSV row for every step of the model: text position, tokens run, entries "
		 "cached "
		 "before and after, entries evicted, bounds of sinks and window, time, and the "
		 "token "
		 "drawn."},
	{"stats", 0, SK_OPTION_FLAG, AT(stats),
	 .help = "Say on standard error how it ended, and how fast it was."},
	{"retry", 0, SK_OPTION_FLOAT, AT(retry), "SECONDS", "-1", .fmin = -1, .fmax = 86400,
	 .help = "For so long wait for a daemon; and for the next one where it dies, or ends, in "
		 "the "
		 "middle of an answer on a named session, which then goes on where it broke off. "
		 "0: "
		 "do not. -1: 30 seconds where it dies in the middle of such an answer. What only "
		 "the "
		 "daemon that died knew, --stats and --json leave out."},
	{"quiet", 'q', SK_OPTION_FLAG, AT(quiet),
	 .help = "No progress, no remarks; errors are still told."},
	{"socket", 's', SK_OPTION_STRING, AT(socket), "PATH", .help = "Where the daemon listens."},
	{0},
};

/* --- The request --- */

/* Reads \n, \t and \\ as C does, in place. */
static void unescape(char *text)
{
	char *to = text;
	for (; *text; text++) {
		if (text[0] == '\\' && (text[1] == 'n' || text[1] == 't' || text[1] == '\\')) {
			text++;
			*to++ = *text == 'n' ? '\n' : *text == 't' ? '\t' : '\\';
		} else {
			*to++ = *text;
		}
	}
	*to = '\0';
}

static struct streamkv_generate request_of(const struct opts *opts, const struct sk_input *input)
{
	struct streamkv_generate ask = STREAMKV_GENERATE_INIT;
	for (unsigned i = 0; i < opts->stops.n_items; i++)
		unescape((char *)opts->stops.items[i]);
	ask.prompt = input->bytes;
	ask.n_prompt_bytes = input->n_bytes;
	ask.max_tokens = opts->max_tokens;
	ask.endless = opts->endless;
	ask.session = opts->session;
	ask.policy = sk_policy_of(opts->mode, &opts->cache);
	ask.trace = opts->trace;
	ask.temperature = (float)opts->temperature;
	ask.top_k = (uint32_t)opts->top_k;
	ask.top_p = (float)opts->top_p;
	ask.min_p = (float)opts->min_p;
	ask.repeat_penalty = (float)opts->repeat_penalty;
	ask.repeat_last = (uint32_t)opts->repeat_last;
	ask.has_seed = opts->seed != UNSET;
	ask.seed = opts->seed;
	ask.stops = opts->stops.items;
	ask.n_stops = opts->stops.n_items;
	ask.plain = opts->plain;
	ask.ignore_eos = opts->ignore_eos;
	ask.show_special = opts->show_special;
	ask.chat = opts->chat ? opts->chat : opts->system ? "auto" : NULL;
	ask.system = opts->system;
	return ask;
}

static int generate(const struct opts *opts, const struct sk_input *input)
{
	const bool is_told = opts->retry >= 0;
	struct sk_answer answer = {
		.socket = opts->socket,
		.ask = request_of(opts, input),
		.out = {.json = opts->json,
			.stats = opts->stats,
			.quiet = opts->quiet,
			.has_trace = opts->trace},
		.retry_s = is_told         ? opts->retry
			   : opts->session ? RETRY_S
					   : 0,
		.waits = opts->retry > 0,
	};
	const int exit_code = sk_trace_open(&answer.out.trace, opts->trace);
	if (exit_code)
		return exit_code;
	const int answer_code = sk_answer_run(&answer);
	const int trace_code = sk_trace_close(&answer.out.trace);
	return answer_code ? answer_code : trace_code;
}

static int run(const void *from, int n_rest, char **rest)
{
	const struct opts *opts = from;
	struct sk_input input;
	int exit_code;

	if (opts->endless && opts->max_tokens)
		return sk_said(EX_USAGE, "--endless and --max-tokens: give one of them");
	exit_code = sk_check_cache(opts->mode, &opts->cache);
	if (!exit_code)
		exit_code = sk_check_session("--session", opts->session);
	/* Input first: in a pipeline of two the second must not hold a place while it waits for the first. */
	if (!exit_code)
		exit_code = sk_read_input(n_rest, rest, &input);
	if (exit_code)
		return exit_code;
	exit_code = generate(opts, &input);
	free(input.bytes);
	return exit_code;
}

const struct sk_command sk_command_generate = {
	.help = {.name = "streamkv-client generate",
		 .synopsis = "[PROMPT...]",
		 .summary = "stream a model's continuation of a prompt",
		 .text = "PROMPT is the arguments joined by spaces; - among them, or none at all, "
			 "is standard input. Any bytes are "
			 "taken, of any length; what the model cannot hold at once streams through "
			 "its cache, and nothing is cut "
			 "silently.\n\nTokens go to standard output as they come, all else to "
			 "standard error. Ctrl-C ends the answer; "
			 "what was generated stays, and so does a named session.",
		 .examples = "  streamkv-client generate -n 100 \"Once upon a time\"\n"
			     "  streamkv-client generate --chat auto \"Why is the sky blue?\"\n"
			     "  tail -f log | streamkv-client generate --session watch --chat auto "
			     "\"What is wrong here?\" -\n"
			     "  streamkv-client generate --endless --temp 0.8 \"It was a dark "
			     "night\" | head -c 2000\n",
		 .exits = sk_command_exits},
	.options = options,
	.opts_bytes = sizeof(struct opts),
	.run = run,
};
