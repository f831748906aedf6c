/* streamkv-client bench: many tenants from one process, and how they are served. */
#include "client/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_REQUESTS 8   /* a client, where neither their number nor a time is given */
#define SLOW_MS          100 /* between a slow reader's tokens */

struct opts {
	const char *socket, *rate, *prompt_tokens, *output_tokens, *file, *trace, *slow_readers,
		*goodput, *label, *per_request;
	struct sk_cache_opts cache;
	uint64_t clients, per_connection, requests, warmup, turns, seed, ring_slots;
	double burstiness, seconds, speedup, cancel_rate;
	int mode;
	bool bytes, json, csv, markdown, quiet;
};

static const char *const modes[] = {"default", "streaming", "window", "dense", NULL};

#define AT(member) offsetof(struct opts, member)
static const struct sk_option options[] = {
	{"clients", 'c', SK_OPTION_UINT, AT(clients), "N", "8", .min = 1, .max = 10000,
	 .help = "Connections, each with a stream of its own."},
	{"per-connection", 0, SK_OPTION_UINT, AT(per_connection), "K", .max = SK_TENANT_MOST_PLACES,
	 .help = "Requests that a connection runs at once, at most. 0 is 1 in a closed loop and "
		 "16, "
		 "which is the most, in an open one."},
	{"requests", 'n', SK_OPTION_UINT, AT(requests), "N",
	 .help = "Requests in all. 0 is all of a trace, else as many as come in --seconds, else 8 "
		 "a client."},
	{"seconds", 0, SK_OPTION_FLOAT, AT(seconds), "S", "0", .fmax = 1e7,
	 .help = "Send none after so many seconds; 0 is no bound. Those that run are waited for."},
	{"rate", 'r', SK_OPTION_STRING, AT(rate), "R",
	 .help = "An open loop: R requests a second come, whoever is answered; inf is all at once. "
		 "Without it the loop is closed: a client sends its next request when the last one "
		 "is "
		 "answered."},
	{"burstiness", 0, SK_OPTION_FLOAT, AT(burstiness), "B", "1", .fmin = 0.01, .fmax = 1e6,
	 .help = "Of an open loop: the shape of the gamma distribution of the time between two "
		 "requests. 1 is Poisson's, less is burstier, more is steadier."},
	{"trace", 0, SK_OPTION_STRING, AT(trace), "FILE",
	 .help = "An open loop: times and lengths from a CSV file with Azure's columns TIMESTAMP, "
		 "ContextTokens and GeneratedTokens."},
	{"speedup", 0, SK_OPTION_FLOAT, AT(speedup), "X", "1", .fmin = 1e-6, .fmax = 1e9,
	 .help = "Play the trace so many times as fast."},
	{"prompt-tokens", 'p', SK_OPTION_STRING, AT(prompt_tokens), "D", "128",
	 .help = "Tokens of each prompt: a number, or how they are spread: uniform:32-512, "
		 "normal:MEAN,DEVIATION, lognormal:MEDIAN,SIGMA or exp:MEAN."},
	{"output-tokens", 'o', SK_OPTION_STRING, AT(output_tokens), "D", "64",
	 .help = "Tokens of each answer, likewise. Answers are greedy and do not end before."},
	{"file", 'f', SK_OPTION_STRING, AT(file), "TEXT",
	 .help = "Cut the prompts from this text, in UTF-8; - is standard input. Without it they "
		 "are common words at random."},
	{"bytes", 0, SK_OPTION_FLAG, AT(bytes), .help = "Take a text that is not UTF-8 as it is."},
	{"multi-turn", 0, SK_OPTION_UINT, AT(turns), "N", "1", .min = 1, .max = 1000000,
	 .help = "Conversations of N turns, each in a named session of its own, whose turns follow "
		 "each other at once. In an open loop it is conversations that come. The sessions "
		 "are "
		 "LABEL.PROCESS-CLIENT-PLACE, and are deleted."},
	{"cancel-rate", 0, SK_OPTION_FLOAT, AT(cancel_rate), "P", "0", .fmax = 1,
	 .help = "Cancel this part of the requests, each at a random token."},
	{"slow-readers", 0, SK_OPTION_STRING, AT(slow_readers), "P[:MS]",
	 .help = "This part of the clients sleeps so many milliseconds after each token, 100 where "
		 "it "
		 "is not said. Their own times are not counted. How far a stream runs ahead of "
		 "them "
		 "is --ring-slots."},
	{"ring-slots", 0, SK_OPTION_UINT, AT(ring_slots), "N", .max = 1 << 20,
	 .help = "Slots of each client's ring, a power of two from 256; 0 is the daemon's "
		 "default."},
	{"mode", 0, SK_OPTION_CHOICE, AT(mode), NULL, "default", .choices = modes,
	 .help = "How the sessions' caches are cut: sinks and a window, a window alone, or not at "
		 "all."},
	SK_CACHE_OPTIONS(AT(cache)),
	{"warmup", 0, SK_OPTION_UINT, AT(warmup), "N",
	 .help = "First run N requests that are not counted."},
	{"goodput", 0, SK_OPTION_STRING, AT(goodput), "BOUNDS",
	 .help = "Also tell how many requests a second kept these bounds, in milliseconds, as "
		 "ttft:500,tpot:40,e2e:9000."},
	{"seed", 0, SK_OPTION_UINT, AT(seed), "N", "1",
	 .help = "The same seed makes the same requests."},
	{"label", 0, SK_OPTION_STRING, AT(label), "NAME", "bench",
	 .help = "Name of this process in what it prints, where several run; and of its sessions."},
	{"per-request", 0, SK_OPTION_STRING, AT(per_request), "FILE",
	 .help = "Write a CSV row for every request, with all its times, so that what several "
		 "processes saw can be put together."},
	{"json", 0, SK_OPTION_FLAG, AT(json), .help = "Print one JSON object."},
	{"csv", 0, SK_OPTION_FLAG, AT(csv), .help = "Print CSV: a heading and one row."},
	{"markdown", 0, SK_OPTION_FLAG, AT(markdown), .help = "Print Markdown tables."},
	{"quiet", 'q', SK_OPTION_FLAG, AT(quiet),
	 .help = "No progress, no remarks; errors are still told."},
	{"socket", 's', SK_OPTION_STRING, AT(socket), "PATH", .help = "Where the daemon listens."},
	{0},
};

/* --- Options --- */

static int parse_rate(const char *text, double *ret_rate)
{
	size_t n_digits = strspn(text, "0123456789.");
	char *end;

	*ret_rate = strcmp(text, "inf") == 0 ? INFINITY : strtod(text, &end);
	if (isinf(*ret_rate) || (n_digits && end == text + n_digits && !*end && *ret_rate > 0))
		return 0;
	return sk_said(EX_USAGE,
		       "--rate: '%s' is not allowed; wanted is a number of requests a second, "
		       "or inf",
		       text);
}

static int parse_slow(const char *text, struct sk_tenants_options *tenants)
{
	size_t n_digits = strspn(text, "0123456789.");
	char *end, *ms_end;
	double part = strtod(text, &end), ms = SLOW_MS;
	bool is_good = n_digits && end == text + n_digits && part <= 1;

	if (is_good && *end == ':') {
		n_digits = strspn(end + 1, "0123456789.");
		ms = strtod(end + 1, &ms_end);
		is_good = n_digits && ms_end == end + 1 + n_digits && !*ms_end && ms <= 1e6;
	} else if (*end) {
		is_good = false;
	}
	if (!is_good)
		return sk_said(EX_USAGE,
			       "--slow-readers: '%s' is not allowed; wanted is a part of the "
			       "clients from 0 to 1, and milliseconds, as 0.1:50",
			       text);
	tenants->n_slow = (unsigned)ceil(part * tenants->n_tenants - 1e-9);
	tenants->slow_s = ms / 1e3;
	return 0;
}

/* Those that contradict each other. */
static int check(const struct opts *opts, int n_rest, char **rest)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	const char *label = opts->label;

	if (n_rest)
		return sk_said(EX_USAGE, "'%s': bench takes options only", rest[0]);
	if (opts->json + opts->csv + opts->markdown > 1)
		return sk_said(EX_USAGE, "--json, --csv and --markdown: one of them");
	if (opts->trace && opts->rate)
		return sk_said(EX_USAGE, "--trace and --rate: a trace has its own times; to change "
					 "them, give --speedup");
	if (opts->trace && opts->turns > 1)
		return sk_said(EX_USAGE,
			       "--trace and --multi-turn: a trace's requests stand alone");
	if (opts->ring_slots &&
	    (opts->ring_slots < 256 || opts->ring_slots & (opts->ring_slots - 1)))
		return sk_said(EX_USAGE, "--ring-slots: %llu is no power of two from 256 on",
			       (unsigned long long)opts->ring_slots);
	if (!label[0] || strlen(label) > 40 || label[strspn(label, allowed)])
		return sk_said(EX_USAGE, "--label: a name is 1 to 40 letters (without accents), "
					 "digits, '.', '_' and '-'");
	return sk_check_cache(opts->mode, &opts->cache);
}

static int said_of(const char *option, const struct sk_diag *diag)
{
	return sk_said(EX_USAGE, "--%s: %s", option, diag->text);
}

static int read_trace(const char *path, struct sk_arrivals *ret_arrivals)
{
	struct sk_input input;
	struct sk_diag diag;

	int exit_code = sk_read_file(path, &input);
	if (exit_code)
		return exit_code;
	int err = sk_arrivals_parse(sk_file_name(path), input.bytes, input.n_bytes, ret_arrivals,
				    &diag);
	free(input.bytes);
	return err < 0 ? sk_said(EX_DATAERR, "%s", diag.text) : 0;
}

static int fill_workload(const struct opts *opts, struct sk_bench *bench)
{
	struct sk_workload *w = &bench->workload;
	struct sk_diag diag;

	w->is_open = opts->rate || opts->trace;
	w->speedup = opts->speedup;
	w->burstiness = opts->burstiness;
	w->cancel_rate = opts->cancel_rate;
	w->most_s = opts->seconds > 0 ? opts->seconds : INFINITY;
	w->random.state = opts->seed;
	w->gaps.state = ~opts->seed;
	if (sk_distribution_parse(opts->prompt_tokens, &w->prompt, &diag) < 0)
		return said_of("prompt-tokens", &diag);
	if (sk_distribution_parse(opts->output_tokens, &w->output, &diag) < 0)
		return said_of("output-tokens", &diag);
	int exit_code = opts->rate ? parse_rate(opts->rate, &w->rate) : 0;
	if (!exit_code && opts->trace) {
		exit_code = read_trace(opts->trace, &bench->arrivals);
		w->trace = &bench->arrivals;
	}
	w->most = opts->requests || opts->trace || opts->seconds > 0
			  ? opts->requests
			  : (uint64_t)DEFAULT_REQUESTS * bench->tenants.n_tenants;
	return exit_code;
}

static enum sk_table_form form_of(const struct opts *opts)
{
	return opts->json       ? SK_TABLE_JSON
	       : opts->csv      ? SK_TABLE_CSV
	       : opts->markdown ? SK_TABLE_MARKDOWN
				: SK_TABLE_TEXT;
}

static int fill(const struct opts *opts, struct sk_bench *bench)
{
	struct sk_diag diag;
	bool is_open = opts->rate || opts->trace;

	*bench = (struct sk_bench){
		.tenants = {.socket = opts->socket,
			    .n_tenants = (unsigned)opts->clients,
			    .n_places = opts->per_connection ? (unsigned)opts->per_connection
					: is_open            ? SK_TENANT_MOST_PLACES
							     : 1,
			    .ring_slots = (uint32_t)opts->ring_slots,
			    .label = opts->label},
		.policy = sk_policy_of(opts->mode, &opts->cache),
		.n_turns = (unsigned)opts->turns,
		.n_warmup = opts->warmup,
		.seed = opts->seed,
		.file = opts->file,
		.takes_any_bytes = opts->bytes,
		.has_goodput = opts->goodput != NULL,
		.goodput = SK_GOODPUT_ANY,
		.form = form_of(opts),
		.quiet = opts->quiet,
	};
	int exit_code = opts->slow_readers ? parse_slow(opts->slow_readers, &bench->tenants) : 0;
	if (!exit_code && opts->goodput &&
	    sk_goodput_parse(opts->goodput, &bench->goodput, &diag) < 0)
		exit_code = said_of("goodput", &diag);
	return exit_code ? exit_code : fill_workload(opts, bench);
}

static int run(const void *from, int n_rest, char **rest)
{
	const struct opts *opts = from;
	struct sk_bench bench = {.quiet = false};
	struct streamkv *kv = NULL;

	int exit_code = check(opts, n_rest, rest);
	if (!exit_code)
		exit_code = fill(opts, &bench);
	if (!exit_code)
		kv = sk_connect(opts->socket, &exit_code);
	if (!exit_code)
		exit_code = sk_csv_open(&bench.per_request, opts->per_request, sk_records_heading);
	if (!exit_code)
		exit_code = sk_bench_run(kv, &bench);
	int csv_code = sk_csv_close(&bench.per_request);
	streamkv_close(kv);
	sk_arrivals_finish(&bench.arrivals);
	return exit_code ? exit_code : csv_code;
}

const struct sk_command sk_command_bench = {
	.help = {.name = "streamkv-client bench",
		 .synopsis = "",
		 .summary = "how well many clients at once are served",
		 .text = "Plays many clients from one process, each with a connection of its own, "
			 "and "
			 "tells how they were served: throughput, time to first token (TTFT), time "
			 "per "
			 "output token (TPOT), time between tokens (ITL), time to the last token "
			 "(E2E), "
			 "time in the daemon's queue, and the time from a token's being handed "
			 "over to "
			 "its being read. Latencies are of requests that were answered whole.\n\n"
			 "Times are those of this process' clock; the queue's is the daemon's. In "
			 "an "
			 "open loop a request's times begin when it was due, not when it could be "
			 "sent: "
			 "a client that is behind does not hide it.\n\n"
			 "Fairness is Jain's index over the tokens that the clients read: 1 where "
			 "all "
			 "had the same, 1/N where one had all. It means most where all want more "
			 "than "
			 "they get: in a closed loop, with --seconds.\n\n"
			 "Ctrl-C ends it early and prints what was measured. The exit code is 75 "
			 "where a "
			 "request failed, where a conversation's session could not be deleted, or "
			 "where all "
			 "requests were refused; those that are refused beside others are only "
			 "counted.",
		 .examples = "  streamkv-client bench --clients 16 --prompt-tokens uniform:32-512\n"
			     "  streamkv-client bench --clients 64 --rate 4 --seconds 60 --goodput "
			     "ttft:500,tpot:40\n"
			     "  streamkv-client bench --trace AzureLLMInferenceTrace_conv.csv "
			     "--speedup 2 "
			     "--requests 500 --json\n"
			     "  streamkv-client bench --clients 8 --multi-turn 4 --cancel-rate 0.1 "
			     "--slow-readers 0.25:50\n",
		 .exits = sk_command_exits},
	.options = options,
	.opts_bytes = sizeof(struct opts),
	.run = run,
};
