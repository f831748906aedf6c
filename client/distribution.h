/* How numbers of tokens are spread, as an option says it. A value; no state. */
#pragma once

#include "base/diag.h"
#include "client/random.h"

struct sk_distribution {
	enum {
		SK_FIXED,     /* "128" */
		SK_UNIFORM,   /* "uniform:32-512", both included */
		SK_NORMAL,    /* "normal:256,64": mean, standard deviation */
		SK_LOGNORMAL, /* "lognormal:200,0.8": median, standard deviation of the logarithm */
		SK_EXPONENTIAL, /* "exp:128": mean */
	} kind;
	double a, b;
};

#define SK_DISTRIBUTION_MOST (1u << 24) /* what is drawn is cut to 1 and this */

/* -EINVAL with a sentence. */
int sk_distribution_parse(const char *text, struct sk_distribution *ret_distribution,
			  struct sk_diag *diag);
uint64_t sk_distribution_draw(const struct sk_distribution *distribution, struct sk_random *random);
