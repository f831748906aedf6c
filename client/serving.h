/* What a load's records come to: how well the daemon served it. Counts are of all requests; latencies, of those that
 * were answered whole to a reader that did not dawdle. A value to embed.
 */
#pragma once

#include "client/goodput.h"
#include "client/record.h"
#include "client/sample.h"

enum sk_latency {
	SK_TTFT,     /* ms, from when it was due to its first token */
	SK_TPOT,     /* ms: from the first token to the last, over those between */
	SK_ITL,      /* ms between two tokens */
	SK_E2E,      /* ms, from when it was due to its last token */
	SK_QUEUE,    /* ms until its first step, by the daemon's clock */
	SK_HANDOVER, /* us, from the daemon's put to the client's read */
	SK_N_LATENCIES,
};

struct sk_serving {
	uint64_t n_outcomes[SK_OUTCOME_FAILED + 1];
	uint64_t n_slow; /* of those done, which no latency counts */
	uint64_t n_good; /* of the others, that kept the goodput's bounds */
	uint64_t n_short,
		n_off; /* done with fewer tokens than asked; with a prompt of another length, ... */
	uint64_t most_off;                                    /* ... by so many tokens at most */
	uint64_t prompt_tokens, reused_tokens, output_tokens; /* evaluated, reused, read; of all */
	uint64_t generated_tokens;                            /* by the daemon's word */
	double duration_s;
	struct sk_sample latencies[SK_N_LATENCIES];
	double jain; /* of the tokens that the clients read, without slow ones; NaN of none */
	double *client_tokens; /* that each read; slow ones first */
	unsigned n_clients, n_slow_clients;
};

/* The first n_slow of the clients are slow. 0, or -ENOMEM. */
int sk_serving_init(const struct sk_records *records, unsigned n_clients, unsigned n_slow,
		    double duration_s, const struct sk_goodput *goodput,
		    struct sk_serving *ret_serving);
void sk_serving_finish(struct sk_serving *serving);
