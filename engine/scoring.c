#include "engine/scoring.h"

uint64_t sk_scoring_n_rows(const struct sk_scoring *s)
{
	uint64_t n_scored = s->n_ids - 1;
	if (!s->block || n_scored <= s->block)
		return n_scored;
	return (n_scored - s->block + 1) * s->block;
}

uint64_t sk_scoring_token(const struct sk_scoring *s, uint64_t row)
{
	return s->block ? row / s->block + row % s->block : row;
}

uint64_t sk_scoring_target(const struct sk_scoring *s, uint64_t row)
{
	if (s->block && row >= s->block && row % s->block != s->block - 1)
		return 0;
	return sk_scoring_token(s, row) + 1;
}
