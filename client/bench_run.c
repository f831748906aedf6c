/* From a text to prompts, a load, and what it comes to. */
#include "client/bench.h"
#include "client/serving_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static int cut_prompts(struct streamkv *kv, const struct sk_bench *bench,
		       struct sk_prompts *ret_prompts)
{
	struct sk_input text = {0};
	int exit_code = 0;

	if (bench->file)
		exit_code = sk_read_file(bench->file, &text);
	if (!exit_code && bench->file && !bench->takes_any_bytes)
		exit_code = sk_check_utf8(sk_file_name(bench->file), &text);
	if (!exit_code)
		exit_code =
			sk_prompts_init(kv, bench->file ? &text : NULL, bench->seed, ret_prompts);
	free(text.bytes);
	return exit_code;
}

static struct sk_load load_of(const struct sk_bench *bench, struct sk_tenants *tenants,
			      struct sk_prompts *prompts)
{
	return (struct sk_load){
		.tenants = tenants,
		.workload = bench->workload,
		.prompts = prompts,
		.policy = bench->policy,
		.n_turns = bench->n_turns,
		.what = bench->quiet ? NULL : "bench",
	};
}

/* A closed loop of requests like those that will be measured, of which nothing is kept. */
static int warm_up(const struct sk_bench *bench, struct sk_tenants *tenants,
		   struct sk_prompts *prompts)
{
	struct sk_load load = load_of(bench, tenants, prompts);
	int exit_code = 0;

	if (!bench->n_warmup)
		return 0;
	load.workload.is_open = false;
	load.workload.trace = NULL;
	load.workload.cancel_rate = 0;
	load.workload.most = bench->n_warmup;
	load.workload.most_s = INFINITY;
	load.workload.random.state ^= UINT64_C(0x5eed5eed5eed5eed);
	load.what = bench->quiet ? NULL : "warming up";
	sk_load_run(&load);
	if (load.failed[0] && !sk_interrupted())
		exit_code = sk_said(EX_TEMPFAIL, "warming up: %s", load.failed);
	sk_load_finish(&load);
	return exit_code;
}

/* --- What it comes to --- */

static double cpu_s(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

static double wall_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Says what went wrong, and returns the exit code. */
static int conclude(const struct sk_bench *bench, const struct sk_load *load,
		    const struct sk_serving_table *table)
{
	const struct sk_serving *serving = table->serving;
	uint64_t n_failed = serving->n_outcomes[SK_OUTCOME_FAILED],
		 n_refused = serving->n_outcomes[SK_OUTCOME_REFUSED];
	const bool is_any =
		serving->n_outcomes[SK_OUTCOME_DONE] || serving->n_outcomes[SK_OUTCOME_CANCELLED];

	if (!bench->quiet && table->daemon.generated_tokens > serving->generated_tokens)
		sk_said(0, "the daemon generated %llu tokens for others meanwhile",
			(unsigned long long)(table->daemon.generated_tokens -
					     serving->generated_tokens));
	if (n_refused && (!bench->quiet || !is_any))
		sk_said(0, "%llu requests were refused, the first one since: %s",
			(unsigned long long)n_refused, load->refused);
	if (sk_interrupted())
		return sk_said(128 + sk_interrupted(), "interrupted: this is what was measured");
	if (n_failed || load->is_cut_short)
		return sk_said(EX_TEMPFAIL, "%llu requests failed, the first one since: %s",
			       (unsigned long long)n_failed, load->failed);
	if (load->n_kept) /* what came after went on with them */
		return sk_said(EX_TEMPFAIL,
			       "%llu conversations' sessions could not be deleted, the first one "
			       "since: %s",
			       (unsigned long long)load->n_kept, load->kept);
	return n_refused && !is_any ? EX_TEMPFAIL : 0;
}

static int report(struct sk_bench *bench, const struct sk_load *load,
		  struct sk_serving_table *table)
{
	struct sk_serving serving;

	if (sk_serving_init(&load->records, bench->tenants.n_tenants, bench->tenants.n_slow,
			    load->duration_s, &bench->goodput, &serving) < 0)
		return sk_said(EX_OSERR, "not enough memory");
	table->serving = &serving;
	int exit_code = sk_serving_print(table, bench->form);
	int end_code = conclude(bench, load, table);
	sk_serving_finish(&serving);
	sk_records_write(&load->records, &bench->per_request, bench->tenants.label);
	return exit_code ? exit_code : end_code;
}

/* --- The run --- */

static int measure(struct streamkv *kv, struct sk_bench *bench, struct sk_load *load)
{
	struct streamkv_status before, after;
	struct streamkv_error error;

	int err = streamkv_status(kv, &before, &error);
	if (err < 0)
		return sk_said(sk_exit_code_of(err), "%s", error.text);
	char *model = strdup(before.model), *backend = strdup(before.backend);
	struct sk_serving_table table = {
		.label = bench->tenants.label,
		.model = model ? model : "",
		.backend = backend ? backend : "",
		.started_s = wall_s(),
		.n_places = bench->tenants.n_places,
		.rate = bench->workload.rate,
		.burstiness = bench->workload.burstiness,
		.has_goodput = bench->has_goodput,
		.load = load,
	};
	double cpu_before_s = cpu_s();
	sk_load_run(load);
	table.client_cpu_s = cpu_s() - cpu_before_s;
	after = before;
	(void)streamkv_status(kv, &after, NULL); /* a daemon that is gone has counted nothing */
	table.daemon.requests = after.requests - before.requests;
	table.daemon.prompt_tokens = after.prompt_tokens - before.prompt_tokens;
	table.daemon.generated_tokens = after.generated_tokens - before.generated_tokens;
	table.daemon.steps = after.steps - before.steps;
	int exit_code = report(bench, load, &table);
	free(model);
	free(backend);
	return exit_code;
}

int sk_bench_run(struct streamkv *kv, struct sk_bench *bench)
{
	struct sk_prompts prompts = {0};
	struct sk_tenants tenants;

	int exit_code = cut_prompts(kv, bench, &prompts);
	if (exit_code)
		return exit_code;
	sk_interrupt_catch();
	exit_code = sk_tenants_open(&bench->tenants, &tenants);
	if (!exit_code) {
		exit_code = warm_up(bench, &tenants, &prompts);
		struct sk_load load = load_of(bench, &tenants, &prompts);
		if (!exit_code)
			exit_code = measure(kv, bench, &load);
		sk_load_finish(&load);
		sk_tenants_close(&tenants);
	}
	sk_prompts_finish(&prompts);
	return exit_code;
}
