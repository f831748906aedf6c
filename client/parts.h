/* What is known of an answer that comes in parts, from a daemon each: how much of it there is, when it came, and what all
 * parts together took. A daemon that dies tells nothing of its part; what its client has seen of that counts, by the
 * clock of the machine, which both read. A value to embed; zeroed, nothing has been asked.
 */
#pragma once

#include "client/streamkv.h"

/* Figures of a result that nobody knows. */
enum {
	SK_UNTOLD_RUN = 1 << 0, /* what steps did, and how long the prompt took */
	SK_UNTOLD_PROMPT = 1 << 1,
	SK_UNTOLD_POSITION = 1 << 2,
	SK_UNTOLD_SEED = 1 << 3,
};

struct sk_parts {
	uint64_t n_tokens, n_steps; /* that have come */
	/* parts.c's: */
	bool has_seed;
	uint64_t seed;     /* that was asked for */
	uint64_t n_before; /* tokens of parts that are over */
	unsigned n_asked;
	double asked_s;             /* by sk_now_s(): first */
	uint64_t first_ns, last_ns; /* handed_ns of the first and the last token */
	struct streamkv_result sum; /* of parts that are over */
	bool is_untold;             /* one of those died */
};

/* Before each streamkv_generate(). */
void sk_parts_ask(struct sk_parts *parts, const struct streamkv_generate *ask);
/* Takes what streamkv_next() gave into account, and makes its seconds count from the answer's first token. */
void sk_parts_token(struct sk_parts *parts, struct streamkv_token *token);
/* Its daemon went away, and what it gave is not all. */
void sk_parts_break(struct sk_parts *parts, const struct streamkv_stream *stream);
/* Of the whole answer, whose last part has ended: *ret_result, and which of its figures are SK_UNTOLD_. */
unsigned sk_parts_end(const struct sk_parts *parts, const struct streamkv_stream *stream,
		      struct streamkv_result *ret_result);
