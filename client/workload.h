/* The requests of a load, one after the other: when each is due, how long its prompt and its answer are, whether it
 * will be cancelled, and after which token. Pure: the same seed makes the same requests; the clock is the caller's. A
 * value to embed; it points to what the caller keeps.
 */
#pragma once

#include "client/arrivals.h"
#include "client/distribution.h"

#include <stdbool.h>

struct sk_workload {
	struct sk_distribution prompt, output;
	const struct sk_arrivals *trace; /* instead of both, and of a rate; or NULL */
	double speedup;                  /* of the trace */
	bool is_open;                    /* requests come when they are due, whoever is answered */
	double rate,
		burstiness; /* open: requests a second, infinite for all at once; the shape of the gaps' gamma
				    distribution, 1 for Poisson's */
	uint64_t most; /* requests; 0: no bound */
	double most_s; /* none after so many seconds; infinite: no bound */
	double cancel_rate;
	struct sk_random random, gaps; /* seeded by the caller, each on its own */

	/* Its own, zero at first: */
	uint64_t n_made, n_arrived;
	double due_s;
};

struct sk_planned {
	double due_s; /* since the start */
	uint64_t n_prompt, n_output;
	int64_t cancel_at; /* after so many tokens, 0 before the first; -1: never */
	uint64_t seed;     /* for the rest, as where in a text its prompt begins */
};

/* The next to come by itself: false where none is left. In a closed loop it is due now. */
bool sk_workload_next(struct sk_workload *workload, double now_s, struct sk_planned *ret_planned);
/* One that follows an answer, in an open loop too: the next turn of a conversation. Due now. */
bool sk_workload_turn(struct sk_workload *workload, double now_s, struct sk_planned *ret_planned);
/* How many there will be in all, or 0 where only time ends them. */
uint64_t sk_workload_total(const struct sk_workload *workload);
