/* streamkv-client generate: a prompt to the daemon, tokens to standard output as they come. */
#include "client/command.h"
#include "client/json_out.h"
#include "client/trace.h"

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
	double temperature, top_p, min_p, repeat_penalty;
	int mode;
	struct sk_option_list stops;
	bool endless, plain, ignore_eos, show_special, json, stats, quiet;
};

#define UNSET      SK_OPTION_UNSET /* of a number that the daemon or the session then chooses */
#define UNSET_TEXT SK_OPTION_UNSET_TEXT

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
	{"quiet", 'q', SK_OPTION_FLAG, AT(quiet),
	 .help = "No progress, no remarks; errors are still told."},
	{"socket", 's', SK_OPTION_STRING, AT(socket), "PATH", .help = "Where the daemon listens."},
	{0},
};

/* --- Output --- */

struct output {
	const struct opts *opts;
	struct sk_trace trace;
	bool ends_line;
};

/* JSON wants UTF-8; a byte that is none is told as U+FFFD, and the id tells exactly. */
static json_t *text_of(const uint8_t *text, size_t n_bytes)
{
	json_t *string = json_stringn((const char *)text, n_bytes);
	if (string)
		return string;
	char *clean = malloc(3 * n_bytes + 1);
	size_t n = 0;
	for (size_t i = 0; clean && i < n_bytes; i++) {
		if (text[i] < 0x80) {
			clean[n++] = (char)text[i];
		} else {
			memcpy(clean + n, "\xef\xbf\xbd", 3);
			n += 3;
		}
	}
	string = clean ? json_stringn(clean, n) : NULL;
	free(clean);
	return string ? string : json_string("");
}

static int print_object(json_t *object)
{
	return sk_json_print(object, JSON_COMPACT | JSON_REAL_PRECISION(9));
}

static int print_token(struct output *output, const struct streamkv_token *token)
{
	if (token->step) {
		sk_trace_step(&output->trace, token->step);
		return 0;
	}
	if (token->id >= 0)
		sk_trace_token(&output->trace, token);
	if (!output->opts->json) {
		if (token->n_text_bytes)
			output->ends_line = token->text[token->n_text_bytes - 1] == '\n';
		return sk_write_out(token->text, token->n_text_bytes);
	}
	json_t *object = json_object();
	json_object_set_new(object, "text", text_of(token->text, token->n_text_bytes));
	if (token->id >= 0) {
		json_object_set_new(object, "id", json_integer(token->id));
		json_object_set_new(object, "logprob", json_real((double)token->logprob));
		json_object_set_new(object, "live", json_integer(token->live));
		json_object_set_new(object, "evicted", json_integer(token->evicted));
		json_object_set_new(object, "seconds", json_real(token->seconds));
	}
	return print_object(object);
}

static int print_end_json(const struct streamkv_result *r)
{
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"prompt_tokens", r->prompt_tokens},
		{"evaluated_tokens", r->evaluated_tokens},
		{"reused_tokens", r->reused_tokens},
		{"generated_tokens", r->generated_tokens},
		{"evicted_tokens", r->evicted_tokens},
		{"evictions", r->evictions},
		{"live_min", r->live_min},
		{"live_max", r->live_max},
		{"position", r->position},
		{"seed", r->seed},
		{"queue_ns", r->queue_ns},
		{"prefill_ns", r->prefill_ns},
		{"first_token_ns", r->first_token_ns},
		{"decode_ns", r->decode_ns},
	};
	json_t *object = json_object();
	json_object_set_new(object, "stop", json_string(streamkv_stop_name(r->stop)));
	json_object_set_new(object, "reason",
			    text_of((const uint8_t *)r->reason, strlen(r->reason)));
	if (r->stop == STREAMKV_STOP_STRING)
		json_object_set_new(
			object, "stop_string",
			text_of((const uint8_t *)r->stop_string, strlen(r->stop_string)));
	for (unsigned i = 0; i < sizeof numbers / sizeof *numbers;
	     i++) /* a seed keeps its bits, as a signed number */
		json_object_set_new(object, numbers[i].name,
				    json_integer((json_int_t)numbers[i].value));
	return print_object(object);
}

static void say_stats(const struct streamkv_result *r)
{
	double per_token = r->generated_tokens > 1
				   ? (double)r->decode_ns * 1e-6 / (double)(r->generated_tokens - 1)
				   : 0;
	double prefill_s = (double)r->prefill_ns * 1e-9;
	fprintf(stderr,
		"streamkv-client: %s%s%s\n"
		"  prompt     %llu tokens, %llu evaluated in %.2f s (%.0f tokens/s), %llu reused\n"
		"  generated  %llu tokens, first after %.0f ms, then %.2f ms each (%.1f tokens/s)\n"
		"  cache      %llu to %llu entries live, %llu evicted in %llu cuts; text position "
		"%llu; seed %llu\n",
		streamkv_stop_name(r->stop), r->reason[0] ? ": " : "", r->reason,
		(unsigned long long)r->prompt_tokens, (unsigned long long)r->evaluated_tokens,
		prefill_s, prefill_s > 0 ? (double)r->evaluated_tokens / prefill_s : 0,
		(unsigned long long)r->reused_tokens, (unsigned long long)r->generated_tokens,
		(double)r->first_token_ns * 1e-6, per_token, per_token > 0 ? 1000 / per_token : 0,
		(unsigned long long)r->live_min, (unsigned long long)r->live_max,
		(unsigned long long)r->evicted_tokens, (unsigned long long)r->evictions,
		(unsigned long long)r->position, (unsigned long long)r->seed);
}

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

static void show_prefill(const struct opts *opts, const struct streamkv_stream *stream,
			 double *begun_s)
{
	uint64_t n_prompt, n_done;
	if (opts->quiet)
		return;
	if (sk_show_place(stream)) {
		*begun_s = sk_now_s(); /* of reading the prompt */
		return;
	}
	double passed_s = sk_now_s() - *begun_s;
	streamkv_progress(stream, &n_prompt, &n_done);
	if (n_prompt && passed_s > 0.5)
		sk_terminal_bar("reading the prompt", (double)n_done / (double)n_prompt,
				(double)n_done / passed_s, "tokens");
}

/* Prints tokens until the end: 0, or the exit code of a fault. */
static int follow(struct output *output, struct streamkv_stream *stream)
{
	struct streamkv_error error;
	struct streamkv_token token;
	double begun_s = sk_now_s();
	bool is_cancelled = false, has_token = false;
	int got, err = 0;

	for (;;) {
		if (sk_interrupted() && !is_cancelled) {
			is_cancelled = true;
			(void)streamkv_cancel(stream, NULL);
		}
		got = streamkv_next(stream, has_token ? 1000 : 100, &token, &error);
		if (got == -EINTR || got == -ETIMEDOUT) {
			if (!has_token)
				show_prefill(output->opts, stream, &begun_s);
			continue;
		}
		if (got != 1)
			break;
		if (!token.step) {
			if (!has_token)
				sk_terminal_clear();
			has_token = true;
		}
		err = print_token(output, &token);
		if (!err && sk_csv_failed(&output->trace.csv))
			err = sk_trace_close(&output->trace);
		if (err)
			return err; /* closing the stream cancels it */
	}
	sk_terminal_clear();
	return got < 0 ? sk_said(sk_exit_code_of(got), "%s", error.text) : 0;
}

static int say_end(const struct output *output, const struct streamkv_result *result)
{
	const struct opts *opts = output->opts;
	int err = 0;

	if (opts->json)
		err = print_end_json(result);
	else if (isatty(STDOUT_FILENO) && !output->ends_line && result->generated_tokens)
		err = sk_write_out("\n", 1);
	if (opts->stats)
		say_stats(result);
	else if (opts->trace && !opts->json && !opts->quiet)
		sk_said(0,
			"trace: %llu steps, %llu entries evicted in %llu cuts, %llu to %llu live",
			(unsigned long long)result->steps,
			(unsigned long long)result->evicted_tokens,
			(unsigned long long)result->evictions, (unsigned long long)result->live_min,
			(unsigned long long)result->live_max);
	if (!opts->stats && result->stop == STREAMKV_STOP_LIMIT && result->reason[0] &&
	    !opts->quiet)
		sk_said(0, "%s", result->reason);
	return err;
}

static int generate(struct streamkv *kv, const struct opts *opts, const struct sk_input *input)
{
	struct output output = {.opts = opts};
	struct streamkv_generate ask = request_of(opts, input);
	struct streamkv_stream *stream;
	struct streamkv_error error;

	int exit_code = sk_trace_open(&output.trace, opts->trace);
	if (exit_code)
		return exit_code;
	sk_interrupt_catch();
	int err = streamkv_generate(kv, &ask, &stream, &error);
	exit_code = err < 0 ? sk_said(sk_exit_code_of(err), "%s", error.text) : 0;
	if (!exit_code) {
		exit_code = follow(&output, stream);
		if (!exit_code)
			exit_code = say_end(&output, streamkv_result(stream));
		if (!exit_code)
			exit_code = sk_conclude(streamkv_result(stream), NULL);
		streamkv_stream_close(stream);
	}
	int trace_code = sk_trace_close(&output.trace);
	return exit_code ? exit_code : trace_code;
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
	struct streamkv *kv = sk_connect(opts->socket, &exit_code);
	if (kv)
		exit_code = generate(kv, opts, &input);
	free(input.bytes);
	streamkv_close(kv);
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
