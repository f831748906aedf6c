/* One run of streamkv-client bench, as its options ask for it. A value; it points to what the options do. */
#pragma once

#include "client/goodput.h"
#include "client/load.h"
#include "client/table.h"

struct sk_bench {
	struct sk_tenants_options tenants;
	struct sk_workload workload; /* points to the arrivals, where it plays a trace */
	struct sk_arrivals arrivals;
	struct streamkv_policy policy;
	unsigned n_turns;
	uint64_t n_warmup, seed;
	const char *file; /* of the prompts' text; NULL: it is made up */
	bool takes_any_bytes;
	bool has_goodput;
	struct sk_goodput goodput;
	struct sk_csv per_request;
	enum sk_table_form form;
	bool quiet;
};

/* Runs and prints it, through connections of its own beside `kv`: the exit code. */
int sk_bench_run(struct streamkv *kv, struct sk_bench *bench);
