/* streamkv-client ppl: the perplexity of a text, under one way of cutting the cache or several. */
#include "client/evaluation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct opts {
	const char *socket, *file, *session, *per_token, *trace;
	struct sk_cache_opts cache;
	uint64_t tokens, chunk;
	int mode;
	bool baseline, bytes, plain, no_bos, json, quiet;
};

static const char *const modes[] = {"default", "streaming", "window", "dense", "recompute", NULL};

#define AT(member) offsetof(struct opts, member)
static const struct sk_option options[] = {
	{"file", 'f', SK_OPTION_STRING, AT(file), "TEXT",
	 .help = "The text, in UTF-8; - is standard input."},
	{"tokens", 'n', SK_OPTION_UINT, AT(tokens), "N", .help = "Its first N tokens; 0 is all."},
	{"mode", 0, SK_OPTION_CHOICE, AT(mode), NULL, "default", .choices = modes,
	 .help = "How the cache is cut: sinks and a window, a window alone, not at all (up to the "
		 "model's context), or the last sink + window tokens computed afresh for every "
		 "token, "
		 "which costs that much more."},
	SK_CACHE_OPTIONS(AT(cache)),
	{"baseline", 0, SK_OPTION_FLAG, AT(baseline),
	 .help = "Run dense, window (of sink + window tokens) and streaming side by side, and "
		 "recompute too where --mode names it."},
	{"per-token", 0, SK_OPTION_STRING, AT(per_token), "FILE",
	 .help = "Write a CSV row for every token scored: pos (in this text),id,logprob,live. With "
		 "--baseline a "
		 "file "
		 "for each mode, its name before the dot: FILE-dense.csv."},
	{"trace", 0, SK_OPTION_STRING, AT(trace), "FILE",
	 .help = "Write a CSV row for every step of the model. With --baseline as --per-token."},
	{"chunk", 0, SK_OPTION_UINT, AT(chunk), "N", .max = UINT32_MAX,
	 .help = "Run N tokens a step at most; 0 is as many as a step holds. 1 is how a stream is "
		 "generated. The answer is the same."},
	{"session", 0, SK_OPTION_STRING, AT(session), "NAME",
	 .help = "Go on in the session of this name, or begin it, and leave the text in it."},
	{"bytes", 0, SK_OPTION_FLAG, AT(bytes), .help = "Take a text that is not UTF-8 as it is."},
	{"plain", 0, SK_OPTION_FLAG, AT(plain),
	 .help = "Special tokens spelt out in the text are plain text."},
	{"no-bos", 0, SK_OPTION_FLAG, AT(no_bos),
	 .help = "No beginning-of-text token, even where the model wants one."},
	{"json", 0, SK_OPTION_FLAG, AT(json),
	 .help = "Print one JSON object; with --baseline a list."},
	{"quiet", 'q', SK_OPTION_FLAG, AT(quiet), .help = "No progress; errors are still told."},
	{"socket", 's', SK_OPTION_STRING, AT(socket), "PATH", .help = "Where the daemon listens."},
	{0},
};

/* --- Runs --- */

/* FILE.csv, or FILE-MODE.csv where several modes run. NULL stays NULL; heap. */
static char *path_of(const char *path, const char *mode, bool is_one)
{
	char *made = NULL;
	const char *dot = path ? strrchr(path, '.') : NULL;

	if (!path)
		return NULL;
	if (is_one)
		return strdup(path);
	if (!dot || strchr(dot, '/'))
		dot = path + strlen(path);
	return asprintf(&made, "%.*s-%s%s", (int)(dot - path), path, mode, dot) < 0 ? NULL : made;
}

static int run_into(struct streamkv *kv, const struct opts *opts, const struct sk_input *text,
		    struct sk_evaluation *run, const char *per_token, const char *trace_path)
{
	struct streamkv_evaluate ask = STREAMKV_EVALUATE_INIT;
	struct sk_trace trace = {0};
	struct sk_csv rows = {0};
	struct sk_scores_output output = {
		.label = opts->session ? opts->session : streamkv_mode_name(run->policy.mode),
		.quiet = opts->quiet,
		.per_token = &rows,
		.trace = &trace,
	};

	ask.text = text->bytes;
	ask.n_text_bytes = text->n_bytes;
	ask.max_tokens = opts->tokens;
	ask.session = opts->session;
	ask.policy = opts->session ? sk_policy_of(opts->mode, &opts->cache) : run->policy;
	ask.chunk_tokens = (uint32_t)opts->chunk;
	ask.plain = opts->plain;
	ask.no_bos = opts->no_bos;
	ask.trace = trace_path;
	int exit_code = sk_csv_open(&rows, per_token, sk_scores_csv_header);
	if (!exit_code)
		exit_code = sk_trace_open(&trace, trace_path);
	if (!exit_code)
		exit_code = sk_scores_run(kv, &ask, &output, &run->scores);
	if (run->scores.result.policy.mode != STREAMKV_DEFAULT)
		run->policy = run->scores.result.policy; /* a session keeps its own */
	int rows_code = sk_csv_close(&rows), trace_code = sk_trace_close(&trace);
	return exit_code ? exit_code : rows_code ? rows_code : trace_code;
}

static int run_one(struct streamkv *kv, const struct opts *opts, const struct sk_input *text,
		   struct sk_evaluation *run)
{
	const char *mode = streamkv_mode_name(run->policy.mode);
	char *per_token = path_of(opts->per_token, mode, !opts->baseline);
	char *trace = path_of(opts->trace, mode, !opts->baseline);
	int exit_code = (opts->per_token && !per_token) || (opts->trace && !trace)
				? sk_said(EX_OSERR, "not enough memory")
				: run_into(kv, opts, text, run, per_token, trace);
	free(per_token);
	free(trace);
	return exit_code;
}

/* What runs, the options laid over what the daemon would do. */
static unsigned plan(const struct streamkv *kv, const struct opts *opts,
		     struct sk_evaluation runs[4])
{
	struct streamkv_policy policy = streamkv_welcome(kv)->policy;
	struct streamkv_policy asked = sk_policy_of(opts->mode, &opts->cache);
	unsigned n = 0;

	policy.mode = asked.mode != STREAMKV_DEFAULT ? asked.mode : policy.mode;
	policy.window = asked.window >= 0 ? asked.window : policy.window;
	policy.slack = asked.slack >= 0 ? asked.slack : policy.slack;
	if (asked.sink >= 0)
		policy.sink = asked.sink;
	else if (policy.mode == STREAMKV_WINDOW && !opts->baseline)
		policy.sink = 0; /* the daemon's default is for other modes */
	if (!opts->baseline) {
		runs[0].policy = policy;
		return 1;
	}
	for (int mode = STREAMKV_RECOMPUTE; mode >= STREAMKV_STREAMING; mode--) {
		if (mode == STREAMKV_RECOMPUTE && policy.mode != STREAMKV_RECOMPUTE)
			continue;
		runs[n].policy = policy;
		runs[n].policy.mode = mode;
		if (mode == STREAMKV_WINDOW) { /* of the same capacity */
			runs[n].policy.window += policy.sink;
			runs[n].policy.sink = 0;
		}
		n++;
	}
	if (runs[0].policy.mode == STREAMKV_RECOMPUTE) { /* the slowest last, dense first */
		struct sk_evaluation recompute = runs[0];
		memmove(runs, runs + 1, (n - 1) * sizeof *runs);
		runs[n - 1] = recompute;
	}
	return n;
}

static int ppl(struct streamkv *kv, const struct opts *opts, const struct sk_input *text)
{
	struct sk_evaluation runs[4] = {0};
	unsigned n_runs = plan(kv, opts, runs);
	const struct sk_evaluation *last = NULL; /* that scored anything */
	int exit_code = 0, err = 0;

	sk_interrupt_catch();
	for (unsigned i = 0; i < n_runs && !exit_code && !sk_interrupted(); i++) {
		exit_code = run_one(kv, opts, text, &runs[i]);
		if (sk_evaluation_has_scores(&runs[i]))
			last = &runs[i];
		else if (opts->baseline && runs[i].policy.mode == STREAMKV_DENSE &&
			 runs[i].scores.result.error == -ERANGE)
			exit_code = sk_said(0, "so dense is left out; --tokens would make it fit");
	}
	if (last) /* whatever ended it, this is what came */
		err = opts->json       ? sk_evaluation_print_json(runs, n_runs, opts->baseline)
		      : opts->baseline ? sk_evaluation_print_table(runs, n_runs)
				       : sk_evaluation_print(last);
	if (!exit_code && sk_interrupted())
		exit_code = last ? sk_said(128 + sk_interrupted(),
					   "interrupted: this is of %llu tokens",
					   (unsigned long long)last->scores.n_tokens)
				 : sk_said(128 + sk_interrupted(),
					   "interrupted: nothing is scored yet");
	else if (exit_code && last && !last->scores.is_whole)
		sk_said(0, "what is told is of the first %llu tokens",
			(unsigned long long)last->scores.n_tokens);
	return exit_code ? exit_code : err;
}

static int run(const void *from, int n_rest, char **rest)
{
	const struct opts *opts = from;
	const char *file = opts->file ? opts->file : n_rest == 1 ? rest[0] : NULL;
	struct sk_input text;

	if (!file || n_rest > (opts->file ? 0 : 1))
		return sk_said(EX_USAGE, "one text is wanted: --file TEXT");
	if (opts->baseline && opts->session)
		return sk_said(EX_USAGE, "--baseline: every mode needs a session of its own, so "
					 "--session makes no sense with it");
	if (opts->tokens == 1)
		return sk_said(EX_USAGE, "--tokens: 2 or more are wanted, or 0 for all");
	if (opts->mode == STREAMKV_RECOMPUTE && opts->trace)
		return sk_said(EX_USAGE, "--trace: the steps of recompute are no part of a "
					 "timeline; --per-token tells its scores");
	if (opts->mode == STREAMKV_RECOMPUTE && opts->session)
		return sk_said(
			EX_USAGE,
			"--mode recompute keeps no cache, so --session makes no sense with it");
	int exit_code =
		sk_check_cache(opts->baseline ? STREAMKV_DEFAULT : opts->mode, &opts->cache);
	if (!exit_code)
		exit_code = sk_check_session("--session", opts->session);
	if (exit_code)
		return exit_code;
	exit_code = sk_read_file(file, &text);
	if (exit_code)
		return exit_code;
	if (!text.n_bytes)
		exit_code =
			sk_said(EX_DATAERR, "%s is empty: a text of two tokens or more is wanted",
				sk_file_name(file));
	if (!exit_code && !opts->bytes)
		exit_code = sk_check_utf8(sk_file_name(file), &text);
	struct streamkv *kv = exit_code ? NULL : sk_connect(opts->socket, &exit_code);
	if (kv)
		exit_code = ppl(kv, opts, &text);
	free(text.bytes);
	streamkv_close(kv);
	return exit_code;
}

const struct sk_command sk_command_ppl = {
	.help = {.name = "streamkv-client ppl",
		 .synopsis = "--file TEXT",
		 .summary = "measure how well the model predicts a text",
		 .text = "Prints the perplexity of a text: e to the mean of -log p of each token "
			 "given "
			 "those before it that the cache holds. Text of any length streams through "
			 "the "
			 "cache at the speed of prompts, and the answer is that of one token at a "
			 "time.\n\nCtrl-C ends it early and prints what there is.",
		 .examples =
			 "  streamkv-client ppl --file book.txt --tokens 4096 --sink 4 --window "
			 "252\n"
			 "  streamkv-client ppl --file book.txt --tokens 2000 --baseline\n"
			 "  streamkv-client ppl --file book.txt --mode window --window 256 "
			 "--per-token "
			 "w.csv\n"
			 "  streamkv-client ppl --file book.txt --tokens 1000 --mode recompute\n",
		 .exits = sk_command_exits},
	.options = options,
	.opts_bytes = sizeof(struct opts),
	.run = run,
};
