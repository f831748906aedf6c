/* Random numbers that a seed repeats on every machine, for made-up load (SplitMix64). A value to embed; one thread. */
#pragma once

#include <stdint.h>

struct sk_random {
	uint64_t state; /* the seed, at first */
};

uint64_t sk_random_next(struct sk_random *random);
uint64_t sk_random_below(struct sk_random *random, uint64_t n); /* 0 to n - 1; n is not 0 */
double sk_random_uniform(struct sk_random *random);             /* from 0, below 1 */
double sk_random_normal(struct sk_random *random);              /* mean 0, deviation 1 */
double sk_random_exponential(struct sk_random *random);         /* mean 1 */
double sk_random_gamma(struct sk_random *random, double shape); /* mean `shape`, scale 1 */
