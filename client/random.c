#include "client/random.h"

#include <math.h>

uint64_t sk_random_next(struct sk_random *random)
{
	uint64_t x = random->state += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

uint64_t sk_random_below(struct sk_random *random, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)sk_random_next(random) * n) >> 64);
}

double sk_random_uniform(struct sk_random *random)
{
	return (double)(sk_random_next(random) >> 11) * 0x1p-53;
}

double sk_random_normal(struct sk_random *random)
{
	double radius = sqrt(2 * sk_random_exponential(random));
	return radius * cos(2 * M_PI * sk_random_uniform(random));
}

double sk_random_exponential(struct sk_random *random)
{
	return -log1p(-sk_random_uniform(random));
}

/* Marsaglia and Tsang (2000): a cube of a normal number, rejected now and then. Below shape 1 it is the one of
 * shape + 1, times a power of a uniform number. */
double sk_random_gamma(struct sk_random *random, double shape)
{
	if (shape < 1) {
		double gamma = sk_random_gamma(random, shape + 1);
		return gamma * pow(1 - sk_random_uniform(random), 1 / shape);
	}
	double d = shape - 1. / 3, c = 1 / sqrt(9 * d);
	for (;;) {
		double x = sk_random_normal(random), v = 1 + c * x;
		if (v <= 0)
			continue;
		v = v * v * v;
		if (log1p(-sk_random_uniform(random)) < x * x / 2 + d * (1 - v + log(v)))
			return d * v;
	}
}
