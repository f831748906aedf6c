/* streamkv-client compare: dense against streaming on the user's own model and text, or many ways of cutting
 * the cache: quality, memory, speed. */
#include "client/sweep.h"
#include "client/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct opts {
	const char *socket, *file;
	struct sk_sweep_opts sweep;
	uint64_t tokens, prompt_tokens, repeat;
	bool no_speed, bytes, plain, json, csv, markdown, quiet;
};

#define AT(member) offsetof(struct opts, member)
static const struct sk_option options[] = {
	{"file", 'f', SK_OPTION_STRING, AT(file), "TEXT",
	 .help = "The text, in UTF-8; - is standard input."},
	{"tokens", 'n', SK_OPTION_UINT, AT(tokens), "N", "1000",
	 .help = "Its first N tokens; 0 is all."},
	{"sink", 'S', SK_OPTION_UINT, AT(sweep.sink), "N", "8", .max = 1 << 30,
	 .help = "First tokens that are never evicted; 0 is a window alone."},
	{"window", 'W', SK_OPTION_UINT, AT(sweep.window), "N", "248", .min = 1, .max = 1 << 30,
	 .help = "Most recent tokens that are kept."},
	{"slack", 'K', SK_OPTION_UINT, AT(sweep.slack), "N", "64", .max = 1 << 30,
	 .help = "Entries that the cache may grow past sink + window before it is cut back."},
	{"sweep", 0, SK_OPTION_STRING, AT(sweep.capacities), "LIST",
	 .help = "Compare these capacities (sink + window), as 256,512,1024: a row each, with "
		 "--sink sinks."},
	{"sinks", 0, SK_OPTION_STRING, AT(sweep.sinks), "LIST",
	 .help = "Compare these numbers of sinks, as 0,1,2,4,8: a row each, of --sink + --window "
		 "entries; with --sweep, of each of its capacities."},
	{"no-dense", 0, SK_OPTION_FLAG, AT(sweep.no_dense),
	 .help = "Leave out the dense baseline, which holds no more than the model's context."},
	{"no-speed", 0, SK_OPTION_FLAG, AT(no_speed),
	 .help = "Measure perplexity and cache alone, which makes a large sweep quick."},
	{"prompt-tokens", 'p', SK_OPTION_UINT, AT(prompt_tokens), "P", "128", .min = 1,
	 .help = "The speed runs read the first P of the N tokens and generate the others."},
	{"repeat", 'r', SK_OPTION_UINT, AT(repeat), "N", "3", .min = 1,
	 .max = SK_MEASURE_REPEAT_MOST, .help = "Speed runs of each; medians are told."},
	{"bytes", 0, SK_OPTION_FLAG, AT(bytes), .help = "Take a text that is not UTF-8 as it is."},
	{"plain", 0, SK_OPTION_FLAG, AT(plain),
	 .help = "Special tokens spelt out in the text are plain text."},
	{"json", 0, SK_OPTION_FLAG, AT(json),
	 .help = "Print one JSON object: every quantity of each configuration, with the least and "
		 "the most of timings."},
	{"csv", 0, SK_OPTION_FLAG, AT(csv),
	 .help = "Print a header and a row for each configuration; what was not measured is "
		 "empty."},
	{"markdown", 0, SK_OPTION_FLAG, AT(markdown), .help = "Print a Markdown table."},
	{"quiet", 'q', SK_OPTION_FLAG, AT(quiet), .help = "No progress; errors are still told."},
	{"socket", 's', SK_OPTION_STRING, AT(socket), "PATH", .help = "Where the daemon listens."},
	{0},
};

/* --- The text --- */

static int said_by(int err, const struct streamkv_error *error)
{
	return sk_said(sk_exit_code_of(err), "%s", error->text);
}

/* Cuts off what comes well after the first tokens that are wanted, so that a long text is not read whole by
 * every run; only where they are the same ones then, else (and where anything fails) it stays. ids: the whole
 * text's, of which the first n_bos are none of it. */
static void cut_text(struct streamkv *kv, struct sk_subject *subject, const int32_t *ids,
		     size_t n_ids, size_t n_bos)
{
	size_t n_kept = subject->n_tokens + 64, n_bytes, n_again;
	int32_t *again;
	void *start;

	if (n_kept >= n_ids ||
	    streamkv_detokenize(kv, ids + n_bos, n_kept - n_bos, &start, &n_bytes, NULL) < 0)
		return;
	bool is_same = n_bytes <= subject->text.n_bytes &&
		       memcmp(start, subject->text.bytes, n_bytes) == 0;
	if (is_same && streamkv_tokenize(kv, start, n_bytes, subject->plain, true, &again, &n_again,
					 NULL) == 0) {
		if (n_again >= subject->n_tokens &&
		    memcmp(again, ids, subject->n_tokens * sizeof *ids) == 0)
			subject->text.n_bytes = n_bytes;
		free(again);
	}
	free(start);
}

/* The text that makes the prompt of the speed runs. */
static int cut_prompt(struct streamkv *kv, const struct opts *opts, struct sk_subject *subject,
		      const int32_t *ids, size_t n_bos)
{
	struct streamkv_error error;
	void *prompt;

	subject->n_prompt = opts->prompt_tokens;
	if (subject->n_prompt >= subject->n_tokens) {
		subject->n_generate = 0;
		return subject->has_speed
			       ? sk_said(EX_DATAERR,
					 "%s has %llu tokens, and a prompt of %llu leaves none to "
					 "generate; ask for a smaller --prompt-tokens",
					 sk_file_name(opts->file),
					 (unsigned long long)subject->n_tokens,
					 (unsigned long long)subject->n_prompt)
			       : 0;
	}
	subject->n_generate = subject->n_tokens - subject->n_prompt;
	size_t n_from_text = subject->n_prompt > n_bos ? subject->n_prompt - n_bos : 0;
	int err = streamkv_detokenize(kv, ids + n_bos, n_from_text, &prompt,
				      &subject->prompt.n_bytes, &error);
	if (err < 0)
		return said_by(err, &error);
	subject->prompt.bytes = prompt;
	return 0;
}

static int cut(struct streamkv *kv, const struct opts *opts, const struct sk_sweep *sweep,
	       struct sk_subject *subject, const int32_t *ids, size_t n_ids, size_t n_bos)
{
	if (n_ids < 2)
		return sk_said(EX_DATAERR, "%s is one token: a text of two or more is wanted",
			       sk_file_name(opts->file));
	bool is_short = opts->tokens > n_ids;
	subject->n_tokens = is_short || !opts->tokens ? n_ids : opts->tokens;
	int exit_code = sk_sweep_check(sweep, subject->model.context, subject->n_tokens);
	if (!exit_code)
		exit_code = cut_prompt(kv, opts, subject, ids, n_bos);
	if (!exit_code)
		cut_text(kv, subject, ids, n_ids, n_bos);
	if (!exit_code && is_short)
		sk_said(0, "%s has %zu tokens, fewer than --tokens %llu: all of them are used",
			sk_file_name(opts->file), n_ids, (unsigned long long)opts->tokens);
	return exit_code;
}

/* Fills in what depends on the model. */
static int prepare(struct streamkv *kv, const struct opts *opts, const struct sk_sweep *sweep,
		   struct sk_subject *subject)
{
	struct streamkv_error error;
	int32_t *ids, *bos;
	size_t n_ids, n_bos;

	int err = streamkv_model(kv, &subject->model, &error);
	if (err >= 0)
		err = streamkv_status(kv, &subject->status, &error);
	if (err >= 0) /* of nothing, only what the model wants before every text is left */
		err = streamkv_tokenize(kv, "", 0, subject->plain, true, &bos, &n_bos, &error);
	if (err < 0)
		return said_by(err, &error);
	free(bos);
	err = streamkv_tokenize(kv, subject->text.bytes, subject->text.n_bytes, subject->plain,
				true, &ids, &n_ids, &error);
	if (err < 0)
		return said_by(err, &error);
	int exit_code = cut(kv, opts, sweep, subject, ids, n_ids, n_bos);
	free(ids);
	return exit_code;
}

/* --- Runs --- */

/* Round by round, so that whatever slows the machine for a while slows all configurations: perplexity, warm-up,
 * speed as often as wanted, attention. */
static int run_rounds(struct streamkv *kv, struct sk_subject *subject, struct sk_measure *measures,
		      unsigned n_measures)
{
	unsigned n_rounds = subject->has_speed ? subject->repeat + 3 : 1;
	int exit_code = 0;

	subject->n_runs = n_rounds * n_measures;
	for (unsigned run = 0; run < subject->n_runs && !exit_code && !sk_interrupted(); run++) {
		struct sk_measure *measure = &measures[run % n_measures];
		unsigned round = run / n_measures;

		subject->run = run + 1;
		exit_code = round == 0             ? sk_measure_perplexity(kv, subject, measure)
			    : round == 1           ? sk_measure_warm_up(kv, subject, measure)
			    : round < n_rounds - 1 ? sk_measure_speed(kv, subject, measure)
						   : sk_measure_attention(kv, subject, measure);
	}
	return exit_code;
}

static enum sk_table_form form_of(const struct opts *opts)
{
	return opts->json       ? SK_TABLE_JSON
	       : opts->csv      ? SK_TABLE_CSV
	       : opts->markdown ? SK_TABLE_MARKDOWN
				: SK_TABLE_TEXT;
}

static int measure_all(struct streamkv *kv, const struct opts *opts, const struct sk_sweep *sweep,
		       struct sk_subject *subject, struct sk_measure *measures)
{
	struct sk_table table = {.subject = subject,
				 .measures = measures,
				 .n_measures = sweep->n_policies,
				 .is_grid = sweep->is_grid};
	int table_code = 0;

	for (unsigned i = 0; i < sweep->n_policies; i++)
		measures[i].policy = sweep->policies[i];
	sk_interrupt_catch();
	int exit_code = run_rounds(kv, subject, measures, sweep->n_policies);
	(void)streamkv_status(kv, &subject->status, NULL); /* else it is as it was before */
	table.is_whole = !exit_code && !sk_interrupted();
	bool has_any = sk_table_shows(&measures[0]);
	if (has_any)
		table_code = sk_table_print(&table, form_of(opts));
	if (!exit_code && sk_interrupted())
		exit_code = sk_said(128 + sk_interrupted(), "interrupted in run %u of %u%s",
				    subject->run, subject->n_runs,
				    has_any ? ": this is what is complete"
					    : ": nothing is complete yet");
	return exit_code ? exit_code : table_code;
}

static int compare(struct streamkv *kv, const struct opts *opts, const struct sk_sweep *sweep,
		   const struct sk_input *text)
{
	struct sk_subject subject = {
		.file = sk_file_name(opts->file),
		.text = *text,
		.repeat = (unsigned)opts->repeat,
		.has_speed = !opts->no_speed,
		.plain = opts->plain,
		.quiet = opts->quiet,
	};

	int exit_code = prepare(kv, opts, sweep, &subject);
	if (!exit_code) {
		struct sk_measure *measures = calloc(sweep->n_policies, sizeof *measures);
		exit_code = measures ? measure_all(kv, opts, sweep, &subject, measures)
				     : sk_said(EX_OSERR, "not enough memory");
		free(measures);
	}
	free(subject.prompt.bytes);
	return exit_code;
}

/* --- The command --- */

static int check(const struct opts *opts, int n_rest)
{
	if (!opts->file || n_rest)
		return sk_said(EX_USAGE, "one text is wanted: --file TEXT");
	if (opts->json + opts->csv + opts->markdown > 1)
		return sk_said(EX_USAGE, "--json, --csv and --markdown: one of them");
	if (opts->tokens == 1)
		return sk_said(EX_USAGE, "--tokens: 2 or more are wanted, or 0 for all");
	if (!opts->no_speed && opts->tokens && opts->prompt_tokens >= opts->tokens)
		return sk_said(EX_USAGE,
			       "--prompt-tokens: a prompt of %llu leaves none of --tokens %llu to "
			       "generate",
			       (unsigned long long)opts->prompt_tokens,
			       (unsigned long long)opts->tokens);
	return 0;
}

static int run(const void *from, int n_rest, char **rest)
{
	const struct opts *opts = from;
	struct sk_sweep sweep = {0};
	struct sk_input text = {0};

	(void)rest;
	int exit_code = check(opts, n_rest);
	if (!exit_code)
		exit_code = sk_sweep_init(&opts->sweep, &sweep);
	if (!exit_code)
		exit_code = sk_read_file(opts->file, &text);
	if (!exit_code && !text.n_bytes)
		exit_code =
			sk_said(EX_DATAERR, "%s is empty: a text of two tokens or more is wanted",
				sk_file_name(opts->file));
	if (!exit_code && !opts->bytes)
		exit_code = sk_check_utf8(sk_file_name(opts->file), &text);
	struct streamkv *kv = exit_code ? NULL : sk_connect(opts->socket, &exit_code);
	if (kv)
		exit_code = compare(kv, opts, &sweep, &text);
	streamkv_close(kv);
	free(text.bytes);
	sk_sweep_finish(&sweep);
	return exit_code;
}

const struct sk_command sk_command_compare = {
	.help = {.name = "streamkv-client compare",
		 .synopsis = "--file TEXT",
		 .summary = "what streaming costs and saves",
		 .text = "Runs the first N tokens of a text through the model twice, with a dense "
			 "cache and with sinks and a window, and prints side by side how well the "
			 "model predicts it, the memory it takes, and how fast it generates; or, "
			 "with --sweep and --sinks, a row for each way of cutting the cache.\n\n"
			 "Perplexity is that of the text. A speed run reads the text's first P "
			 "tokens and generates N - P more, the likeliest each time: after one "
			 "short "
			 "run of each to warm up come --repeat runs of each in turn, and medians "
			 "are told. The attention's time is of one further run, since taking it "
			 "slows a run; it is the mean of all steps, the prompt's among them. Peak "
			 "memory is the daemon's weights and scratch, which all sessions share, "
			 "and "
			 "the pages that the session took at most. Other requests that run on the "
			 "daemon slow the runs.\n\n"
			 "Ctrl-C ends it early and prints what is complete.",
		 .examples =
			 "  streamkv-client compare --file book.txt\n"
			 "  streamkv-client compare --file book.txt --tokens 4096 --sink 4 "
			 "--sweep 256,512,1024\n"
			 "  streamkv-client compare --file book.txt --sinks 0,1,2,4,8 --no-speed "
			 "--csv > sinks.csv\n",
		 .exits = sk_command_exits},
	.options = options,
	.opts_bytes = sizeof(struct opts),
	.run = run,
};
