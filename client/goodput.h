/* What a request must keep to count as good, as --goodput says it: "ttft:500,tpot:40,e2e:9000", in milliseconds. A
 * value. */
#pragma once

#include "base/diag.h"

#include <stdbool.h>

struct sk_goodput {
	double ttft_ms, tpot_ms, e2e_ms; /* infinite: any will do */
};

#define SK_GOODPUT_ANY                                                                             \
	{                                                                                          \
		INFINITY, INFINITY, INFINITY                                                       \
	}

/* -EINVAL with a sentence. */
int sk_goodput_parse(const char *text, struct sk_goodput *ret_goodput, struct sk_diag *diag);
/* tpot_ms is NaN, and keeps any bound, of an answer of one token. */
bool sk_goodput_is_met(const struct sk_goodput *goodput, double ttft_ms, double tpot_ms,
		       double e2e_ms);
