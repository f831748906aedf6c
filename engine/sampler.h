/* How a generation draws its tokens: what was asked for, the random numbers, and the ids that the penalty looks back
 * at. The device draws (struct sk_draw); the same seed and logits give the same tokens on every one.
 *
 * One sampler a generation, engine thread.
 */
#pragma once

#include "backend/backend.h"
#include "engine/request.h"

#include <stdint.h>

struct sk_sampler {
	struct sk_sampling sampling;
	uint64_t random[4]; /* xoshiro256** */
	int32_t *recent;    /* a ring of the last n_recent ids, for the penalty */
	uint32_t n_recent, recent_next;
	int32_t *listed; /* (n_recent) the same for a draw, without ids that cannot be drawn */
	uint32_t n_ids;
};

/* What a session remembers of its last generation's sampler. Zeroed at first. */
struct sk_sampler_memory {
	bool has_random;
	uint64_t random[4], seed; /* as it began */
	uint32_t n_recent;
	int32_t *recent; /* oldest first */
};

/* 0, or -ENOMEM: it remembers what it did. */
int sk_sampler_memory_set(struct sk_sampler_memory *memory, const int32_t *recent,
			  uint32_t n_recent);
void sk_sampler_memory_finish(struct sk_sampler_memory *memory);

/* n_ids: ids that may be drawn. 0 or -ENOMEM. */
int sk_sampler_init(struct sk_sampler *sampler, const struct sk_sampling *sampling, uint32_t n_ids);
void sk_sampler_finish(struct sk_sampler *sampler); /* accepts zeroed ones */

/* A token that came into the timeline, from the prompt or drawn: the penalty looks back at these.
 */
void sk_sampler_saw(struct sk_sampler *sampler, int32_t id);

/* The last n that it saw were not to be. */
void sk_sampler_unsee(struct sk_sampler *sampler, uint64_t n);

/* Goes on where the session's last one ended: its recent ids; and its random numbers, where this one was not given a
 * seed. */
void sk_sampler_resume(struct sk_sampler *sampler, const struct sk_sampler_memory *memory);
/* Without memory, what was remembered stays. */
void sk_sampler_remember(const struct sk_sampler *sampler, struct sk_sampler_memory *memory);

/* What the next token is to be drawn by; takes a random number, except at temperature 0. It points into the sampler,
 * which stays untouched until the token is there. */
void sk_sampler_next(struct sk_sampler *sampler, struct sk_draw *ret_draw);
