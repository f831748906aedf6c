/* Which sessions run how many tokens in the next step. Pure policy: numbers in, numbers out.
 *
 * Every session with one token to run (decoding) takes part first, since its token is nearly free
 * once the weights are read; what is left of the step is filled with chunks of prompts, so that a
 * long prompt never stalls running streams.
 */
#pragma once

#include <stdint.h>

struct sk_want {
	uint64_t n_tokens;  /* to run, at least 1 */
	uint32_t n_granted; /* the answer: 0 where it does not take part */
};

struct sk_schedule_limits {
	uint32_t max_sessions; /* a step */
	uint32_t max_tokens;   /* a step; at least max_sessions */
	uint32_t chunk_tokens; /* a session's share of a step at most */
};

/* `turn` counts steps: whom it begins with goes round, so that nobody waits for ever. Returns the
 * tokens granted in all: more than 0 where anybody wants any. */
uint32_t sk_schedule(struct sk_want *wants, uint32_t n_wants, uint64_t turn,
		     const struct sk_schedule_limits *limits);
