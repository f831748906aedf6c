/* The ways of cutting the cache that a comparison goes through, made from its options: dense, and one or
 * a grid of capacities and sinks. Plain numbers; knows neither daemon nor text.
 */
#pragma once

#include "client/command.h"

struct sk_sweep_opts {
	uint64_t sink, window, slack;
	const char *capacities, *sinks; /* "256,512", or NULL: sink + window, sink */
	bool no_dense;
};

struct sk_sweep {
	struct streamkv_policy *policies; /* heap; dense first, where it is wanted */
	unsigned n_policies;
	bool is_grid; /* there were lists */
};

/* 0, or the exit code after naming what is wrong with a list. */
int sk_sweep_init(const struct sk_sweep_opts *opts, struct sk_sweep *ret_sweep);
void sk_sweep_finish(struct sk_sweep *sweep);

/* Whether a model trained on `context` tokens can run all of it on a text of n_tokens: 0, or the exit code
 * after saying what cannot. */
int sk_sweep_check(const struct sk_sweep *sweep, uint64_t context, uint64_t n_tokens);

/* Tokens that the cache is cut back to; 0 of dense ones, which are never cut. */
int64_t sk_sweep_capacity(const struct streamkv_policy *policy);
