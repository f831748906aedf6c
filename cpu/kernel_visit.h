/* What attention does at one page: queries look at its keys, and add its values to their softmax; and how
 * two parts of a softmax become one.
 */
#pragma once

#include "base/simd.h"
#include "cpu/kernels.h"

#include <math.h>
#include <string.h>

#if LANES == 16
#define GROUP 4 /* queries at once */
#else
#define GROUP 1
#endif

/* A softmax over some of the entries. */
struct part {
	float *sum;         /* (value_dim), of values by weight */
	float most, weight; /* greatest score, sum of weights relative to it */
};

struct query {
	const float *text, *sink; /* rotated for the window, for the sinks */
	struct part part, total;  /* of the segment at hand, of those before it */
	const struct sk_row *row;
	uint64_t page0, segment_pages; /* the window's first page; a power of two */
};

/* A page as a query sees it: tokens [from, to). */
struct look {
	struct query *query;
	const float *q;
	uint32_t from, to;
};

SK_INLINE vf load_kv(enum sk_kv_format format, const void *p, size_t i)
{
	return format == SK_KV_F16    ? v_load_half((const uint16_t *)p + i)
	       : format == SK_KV_BF16 ? v_load_bf16((const uint16_t *)p + i)
				      : v_load((const float *)p + i);
}

/* scores (n, SK_PAGE_TOKENS) = q k, in two sums over even and odd dims */
SK_INLINE void score(enum sk_kv_format format, const int n, const struct look *looks,
		     const void *keys, uint32_t head_dim, float scale,
		     float scores[][SK_PAGE_TOKENS])
{
	vf even[GROUP][PAGE_VECTORS], odd[GROUP][PAGE_VECTORS];
	SK_UNROLL
	for (int j = 0; j < n; j++)
		SK_UNROLL
	for (int v = 0; v < PAGE_VECTORS; v++)
		even[j][v] = odd[j][v] = v_set(0);

	uint32_t d = 0;
	for (; d + 2 <= head_dim; d += 2)
		SK_UNROLL
	for (int v = 0; v < PAGE_VECTORS; v++) {
		vf ke = load_kv(format, keys, (size_t)d * SK_PAGE_TOKENS + v * LANES);
		vf ko = load_kv(format, keys, (size_t)(d + 1) * SK_PAGE_TOKENS + v * LANES);
		SK_UNROLL
		for (int j = 0; j < n; j++) {
			even[j][v] = v_fma(ke, v_set(looks[j].q[d]), even[j][v]);
			odd[j][v] = v_fma(ko, v_set(looks[j].q[d + 1]), odd[j][v]);
		}
	}
	if (d < head_dim)
		SK_UNROLL
	for (int v = 0; v < PAGE_VECTORS; v++) {
		vf ke = load_kv(format, keys, (size_t)d * SK_PAGE_TOKENS + v * LANES);
		SK_UNROLL
		for (int j = 0; j < n; j++)
			even[j][v] = v_fma(ke, v_set(looks[j].q[d]), even[j][v]);
	}
	SK_UNROLL
	for (int j = 0; j < n; j++)
		SK_UNROLL
	for (int v = 0; v < PAGE_VECTORS; v++)
		v_store(scores[j] + v * LANES, (even[j][v] + odd[j][v]) * scale);
}

/* Scores to weights; what was summed so far is rescaled (by *ret_rescale) where they top it. */
SK_INLINE void weigh(const struct look *look, float *scores, float *ret_rescale)
{
	struct query *query = look->query;
	for (uint32_t t = 0; t < look->from; t++)
		scores[t] = -INFINITY;
	for (uint32_t t = look->to; t < SK_PAGE_TOKENS; t++)
		scores[t] = -INFINITY;

	vf most = v_load(scores);
	for (int v = 1; v < PAGE_VECTORS; v++)
		most = v_max(most, v_load(scores + v * LANES));
	float top = v_most(most);
	*ret_rescale = 1;
	if (top > query->part.most) {
		*ret_rescale = v_exp(v_set(query->part.most - top))[0];
		query->part.most = top;
	}
	vf sum = v_set(0);
	for (int v = 0; v < PAGE_VECTORS; v++) {
		vf weight = v_exp(v_load(scores + v * LANES) - query->part.most);
		v_store(scores + v * LANES, weight);
		sum += weight;
	}
	query->part.weight = query->part.weight * *ret_rescale + v_sum(sum);
}

/* n_vectors vectors of each query's sum, from dim `d` on */
SK_INLINE void gather_values(enum sk_kv_format format, const int n, const int n_vectors,
			     const struct look *looks, const void *values, uint32_t value_dim,
			     uint32_t d, uint32_t from, uint32_t to, const float *rescale,
			     float weights[][SK_PAGE_TOKENS])
{
	vf sums[GROUP][4];
	SK_UNROLL
	for (int j = 0; j < n; j++)
		SK_UNROLL
	for (int v = 0; v < n_vectors; v++)
		sums[j][v] = v_set(0);
	for (uint32_t t = from; t < to; t++)
		SK_UNROLL
	for (int v = 0; v < n_vectors; v++) {
		vf value = load_kv(format, values, (size_t)t * value_dim + d + v * LANES);
		SK_UNROLL
		for (int j = 0; j < n; j++)
			sums[j][v] = v_fma(value, v_set(weights[j][t]), sums[j][v]);
	}
	SK_UNROLL
	for (int j = 0; j < n; j++)
		SK_UNROLL
	for (int v = 0; v < n_vectors; v++) {
		float *sum = looks[j].query->part.sum + d + v * LANES;
		v_store(sum, v_fma(v_load(sum), v_set(rescale[j]), sums[j][v]));
	}
}

SK_INLINE void visit(enum sk_kv_format format, const int n, const struct look *looks,
		     const void *keys, const void *values, uint32_t head_dim, uint32_t value_dim)
{
	float weights[GROUP][SK_PAGE_TOKENS], rescale[GROUP];
	uint32_t from = SK_PAGE_TOKENS, to = 0, d = 0;

	score(format, n, looks, keys, head_dim, 1 / sqrtf((float)head_dim), weights);
	for (int j = 0; j < n; j++) {
		weigh(&looks[j], weights[j], &rescale[j]);
		from = looks[j].from < from ? looks[j].from : from;
		to = looks[j].to > to ? looks[j].to : to;
	}
	for (; d + 4 * LANES <= value_dim; d += 4 * LANES)
		gather_values(format, n, 4, looks, values, value_dim, d, from, to, rescale,
			      weights);
	for (; d < value_dim; d += LANES)
		gather_values(format, n, 1, looks, values, value_dim, d, from, to, rescale,
			      weights);
}

SK_INLINE void visit_all(enum sk_kv_format format, const struct sk_cpu_attend *job,
			 const struct look *looks, int n, uint32_t page, uint32_t kv_head)
{
	const char *keys = sk_cpu_pages_head(job->pages, page, job->layer, kv_head);
	const char *values = keys + job->pages->key_bytes;
	const uint32_t head_dim = job->shape->head_dim, value_dim = job->pages->value_dim;
	int i = 0;
#if GROUP > 1
	for (; i + GROUP <= n; i += GROUP)
		visit(format, GROUP, looks + i, keys, values, head_dim, value_dim);
	if (n - i == 3) {
		visit(format, 3, looks + i, keys, values, head_dim, value_dim);
		return;
	}
	if (n - i == 2) {
		visit(format, 2, looks + i, keys, values, head_dim, value_dim);
		return;
	}
#endif
	for (; i < n; i++)
		visit(format, 1, looks + i, keys, values, head_dim, value_dim);
}

/* Asks for a head of a page that is visited next: it is too short for the machine to foresee. */
SK_INLINE void prefetch_head(const struct sk_cpu_attend *job, uint32_t page, uint32_t kv_head)
{
	const char *bytes = sk_cpu_pages_head(job->pages, page, job->layer, kv_head);
	for (size_t i = 0; i < job->pages->head_bytes; i += 64)
		__builtin_prefetch(bytes + i, 0, 2);
}

static void clear_part(struct part *part, uint32_t value_dim)
{
	part->most = -INFINITY;
	part->weight = 0;
	memset(part->sum, 0, value_dim * sizeof *part->sum);
}

/* total += part; a total of weight 0 is still empty */
static void join(struct part *total, const struct part *part, uint32_t value_dim)
{
	if (total->weight == 0) {
		total->most = part->most;
		total->weight = part->weight;
		memcpy(total->sum, part->sum, value_dim * sizeof *total->sum);
		return;
	}
	float most = part->most > total->most ? part->most : total->most;
	vf before = v_set(v_exp(v_set(total->most - most))[0]);
	vf now = v_set(v_exp(v_set(part->most - most))[0]);
	total->weight = total->weight * before[0] + part->weight * now[0];
	total->most = most;
	for (uint32_t d = 0; d < value_dim; d += LANES)
		v_store(total->sum + d,
			v_load(total->sum + d) * before + v_load(part->sum + d) * now);
}
