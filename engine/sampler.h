/* From logits to a token. Greedy at temperature 0; else, in this order: repetition penalty,
 * temperature, top-k, top-p (on what top-k left, renormalised), min-p (against the likeliest), and
 * one draw. The same seed and logits give the same tokens on every machine with IEEE arithmetic.
 *
 * One sampler a generation, engine thread.
 */
#pragma once

#include "engine/request.h"

#include <stdint.h>

struct sk_candidate {
	int32_t id;
	float logit;
};

struct sk_sampler {
	struct sk_sampling sampling;
	uint64_t random[4]; /* xoshiro256** */
	int32_t *recent;    /* a ring of the last n_recent ids, for the penalty */
	uint32_t n_recent, recent_next;
	struct sk_candidate *candidates; /* scratch, n_ids */
	uint32_t n_ids, n_vocab;
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

/* n_ids: ids that may be drawn, at most n_vocab: rows of the model, some of them padding that no
 * token has, though its probabilities count them. 0 or -ENOMEM. */
int sk_sampler_init(struct sk_sampler *sampler, const struct sk_sampling *sampling, uint32_t n_ids,
		    uint32_t n_vocab);
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

/* logits (n_vocab), untouched. *ret_logprob is of the token under the model itself (temperature 1,
 * no penalty), natural log. -EDOM where the logits are not numbers. */
int sk_sampler_pick(struct sk_sampler *sampler, const float *logits, int32_t *ret_id,
		    float *ret_logprob);
