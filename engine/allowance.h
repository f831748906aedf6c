/* How many tokens a second a user may have run: a bucket that fills at that rate and holds what comes in a second, and
 * whose turn it is among the user's sessions where it does not hold enough for all. Pure policy: numbers and times in,
 * numbers out.
 *
 *     cut --> sk_schedule() --> take
 */
#pragma once

#include "engine/scheduler.h"

struct sk_allowance {
	uint64_t per_second; /* tokens, at most 2^30; 0: no limit, and the others do not count */
	uint64_t full_ns;    /* when the bucket is full again; 0 at first */
};

/* Tokens in the bucket. */
uint64_t sk_allowance_left(const struct sk_allowance *allowance, uint64_t now_ns);
/* From when on so many will be in it (at most a second's worth), where none are taken meanwhile. */
uint64_t sk_allowance_when(const struct sk_allowance *allowance, uint64_t n_tokens);

/* Cuts what the tenant's sessions want to what is in the bucket, of which each can have `most` in a step. They share it by
 * what each has had. A prompt gets a piece at once or waits until there is one, and the others with it: so a low limit does
 * not cost a step for each of its tokens. Where all have to wait: returns until when; else 0. */
uint64_t sk_allowance_cut(const struct sk_allowance *allowance, struct sk_tenant *tenant,
			  struct sk_want *wants, uint32_t n_wants, uint32_t most, uint64_t now_ns);
/* What was granted is taken out. */
void sk_allowance_take(struct sk_allowance *allowance, const struct sk_tenant *tenant,
		       struct sk_want *wants, uint32_t n_wants, uint64_t now_ns);
