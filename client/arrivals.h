/* Requests that once came to a service, as a trace in CSV tells of them: when, and how long their prompts and answers
 * were. The columns are Azure's, found by their names (TIMESTAMP, ContextTokens, GeneratedTokens; others are passed
 * over). A time is "2023-11-16 18:15:46.6805900", with a zone or without, or a number of seconds.
 */
#pragma once

#include "base/diag.h"

#include <stddef.h>
#include <stdint.h>

struct sk_arrival {
	double at_s; /* since the first one */
	uint64_t prompt_tokens, output_tokens;
};

struct sk_arrivals {
	struct sk_arrival *items; /* by time */
	size_t n_items;
};

/* `name` opens the sentence about what is wrong: -EINVAL, also where there is no request at all. */
int sk_arrivals_parse(const char *name, const char *text, size_t n_bytes,
		      struct sk_arrivals *ret_arrivals, struct sk_diag *diag);
void sk_arrivals_finish(struct sk_arrivals *arrivals);
