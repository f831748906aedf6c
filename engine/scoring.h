/* Evaluate: which tokens of a text run through the model as which rows, and which token each row
 * scores. Pure arithmetic.
 *
 * Where a cache is kept (streaming, window, dense) the text runs once: row r is token r, and scores
 * token r + 1. The last token is scored and not run.
 *
 * Recompute, the paper's bound (arXiv 2309.17453, table 1: "sliding window with re-computation"), predicts every
 * token from the `block` tokens before it, computed afresh. The first `block` tokens see all before them: one
 * block of rows. Each further token costs a block of its own, of which the last row alone scores:
 *
 *     block 0: tokens 0 1 2 3      scores 1 2 3 4
 *     block 1: tokens 1 2 3 4      scores         5
 *     block 2: tokens 2 3 4 5      scores           6
 *
 * The cache is emptied behind each block (SK_MODE_RECOMPUTE in kv/window.h), so blocks fill steps of any size.
 */
#pragma once

#include <stdint.h>

struct sk_scoring {
	const int32_t *ids; /* the text; the caller's */
	uint64_t n_ids;     /* at least 1 */
	uint64_t block;     /* 0: not recomputed */
};

/* Rows that the whole text takes. */
uint64_t sk_scoring_n_rows(const struct sk_scoring *scoring);
/* The token that is row `row`. */
uint64_t sk_scoring_token(const struct sk_scoring *scoring, uint64_t row);
/* The token that row `row` scores; 0: none. */
uint64_t sk_scoring_target(const struct sk_scoring *scoring, uint64_t row);
