/* A load: sends what a workload plans to where tenants have places, reads what comes, and notes it. Speaks on standard
 * error only, and only for a progress bar. One thread.
 */
#pragma once

#include "client/prompts.h"
#include "client/record.h"
#include "client/tenants.h"
#include "client/workload.h"

struct sk_load {
	/* The caller's, who keeps what they point to: */
	struct sk_tenants *tenants;
	struct sk_workload workload;
	struct sk_prompts *prompts;
	struct streamkv_policy policy;
	unsigned n_turns; /* more than 1: of each conversation, which is a named session */
	const char *what; /* for the progress bar; NULL: none */

	/* What became of it: */
	struct sk_records records;
	double duration_s; /* from the start to the last end */
	unsigned most_at_once;
	bool is_cut_short;              /* by a signal, or for want of connections or memory */
	char failed[512], refused[512]; /* why the first one was, or "" */
	uint64_t n_kept;                /* sessions that could not be deleted, ... */
	char kept[512];                 /* ... the first one since */

	/* Its own: */
	uint64_t start_ns;
	struct sk_planned planned; /* the next to come by itself */
	bool has_planned, is_over; /* over: nothing more comes by itself */
	bool is_stopping;          /* nothing more is sent at all */
	unsigned n_running, n_dropping;
	uint64_t n_ended, n_tokens, n_tokens_shown;
	double shown_s;
};

/* Runs to the workload's end, or until a signal. Once. */
void sk_load_run(struct sk_load *load);
void sk_load_finish(struct sk_load *load);
