/* How likely a model finds a text: runs one evaluation through the daemon and adds up what comes.
 * Perplexity is e^(nll / n_scored).
 */
#pragma once

#include "client/command.h"
#include "client/trace.h"

struct sk_scores {
	uint64_t n_tokens; /* that came, scored or not */
	uint64_t n_scored;
	double nll; /* sum of -log p, nats */
	double seconds;
	bool is_whole;                 /* not interrupted */
	struct streamkv_result result; /* its strings are empty */
};

struct sk_scores_output {
	const char *label;        /* of the progress bar */
	bool quiet;               /* none */
	struct sk_csv *per_token; /* a row for each scored token; or NULL */
	struct sk_trace *trace;   /* or NULL */
};

/* 0, also where a signal or a file that failed ended it early (is_whole, sk_interrupted(), sk_csv_failed()), or the
 * exit code of what has been said. *ret_scores holds what came either way. */
int sk_scores_run(struct streamkv *kv, const struct streamkv_evaluate *ask,
		  const struct sk_scores_output *output, struct sk_scores *ret_scores);

double sk_scores_perplexity(const struct sk_scores *scores); /* NaN where nothing was scored */
double sk_scores_per_second(const struct sk_scores *scores); /* tokens */

/* The header of per_token: the columns of the oracle. */
extern const char sk_scores_csv_header[];
