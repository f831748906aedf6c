/* Which sessions run how many tokens in the next step. Pure policy: numbers in, numbers out.
 *
 * Every session with one token to run (decoding) takes part first, since its token is nearly free once the
 * weights are read; what is left of the step is filled with chunks of prompts, so that a long prompt never
 * stalls running streams.
 *
 * What is scarce is shared fairly, between users by weight, then between a user's sessions: the tokens that prompts may
 * have, and the places of a step. (Of pages: queue.h.) Each account counts what its holder has had, by weight; whoever has had least comes next (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996).
 * Who wanted nothing for a while begins where the others are, or two steps' worth before: so one who sends prompts as fast
 * as they are answered does not pay for the steps that its next one is on the way, and more credit is not saved up.
 *
 * Places and tokens can both be short. Tokens are given out first, which says whose prompts could run. Where these and
 * those that decode are more than the places, each costs its user one, a short prompt as much as a stream; those without
 * give their tokens to the others. But one place is for the longest, so that the step is full. Neither streams nor
 * prompts shut the others out: each of them waits for a step now and then.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum sk_scarce {
	SK_SCARCE_TOKENS,
	SK_SCARCE_PLACES,
	SK_SCARCE_ALLOWANCE, /* a user's own (allowance.h): between its sessions alone */
	SK_N_SCARCE
};

/* What a user or a session has had, in SK_ONE_HAD for a token or a place, by weight. Zeroed at first. */
#define SK_ONE_HAD (1u << 20)

struct sk_share {
	uint64_t had[SK_N_SCARCE];
};

struct sk_tenant {       /* a user. Zeroed at first, but for the weight */
	uint32_t weight; /* 1 to 1000 */
	struct sk_share share;
	uint64_t least[SK_N_SCARCE]; /* that any of its sessions in want has had */
	/* inside a step: */
	uint64_t low, high; /* that its sessions in want have had */
	uint32_t n_charged; /* tokens that its sessions decode */
	uint32_t n_wanting; /* of its sessions */
};

struct sk_want {
	struct sk_tenant *tenant;
	struct sk_share *share; /* the session's */
	uint64_t n_tokens;      /* to run */
	uint32_t n_granted;     /* the answer: 0 where it does not take part */
	/* inside a step: */
	bool wants_place, has_place;
};

struct sk_schedule_limits {
	uint32_t max_sessions; /* a step */
	uint32_t max_tokens;   /* a step; at least max_sessions */
	uint32_t chunk_tokens; /* a session's share of a step at most */
	uint32_t free_tokens;  /* with more, a step takes longer: then decoding counts as well */
};

struct sk_scheduler {                /* zeroed at first */
	uint64_t least[SK_N_SCARCE]; /* that any user in want has had */
};

/* Of those that want to run, how large a part has prompts: each user's, by the users' weights (0 to 1; 0 where nobody wants). */
double sk_schedule_part_of_prompts(const struct sk_want *wants, uint32_t n_wants);
/* Returns the tokens granted in all: more than 0 where anybody wants any. */
uint32_t sk_schedule(struct sk_scheduler *scheduler, struct sk_want *wants, uint32_t n_wants,
		     const struct sk_schedule_limits *limits);
