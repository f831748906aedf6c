/* Attention over pages. The queries of a few rows, and of the heads that share a key head, visit each
 * page together; a query's softmax is kept up to date page by page (greatest score, sum, weighted sum
 * of values), first over its sinks, then over its window. What a query does depends on the pages that
 * it sees alone, so that its result is the same in whatever company.
 */
#pragma once

#include "cpu/kernels.h"
#include "cpu/simd.h"

#include <math.h>

#if LANES == 16
#define GROUP 4 /* queries at once */
#else
#define GROUP 1
#endif

struct query {
	const float *text, *sink; /* rotated for the window, for the sinks */
	float *sum;               /* (value_dim), of values by weight */
	float most, weight;       /* greatest score, sum of weights relative to it */
	const struct sk_row *row;
};

/* A page as a query sees it: tokens [from, to). */
struct look {
	struct query *query;
	const float *q;
	uint32_t from, to;
};

SK_INLINE vf load_kv(enum sk_kv_format format, const void *p, size_t i)
{
	return format == SK_KV_F16 ? v_load_half((const uint16_t *)p + i)
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
	if (top > query->most) {
		*ret_rescale = v_exp(v_set(query->most - top))[0];
		query->most = top;
	}
	vf sum = v_set(0);
	for (int v = 0; v < PAGE_VECTORS; v++) {
		vf weight = v_exp(v_load(scores + v * LANES) - query->most);
		v_store(scores + v * LANES, weight);
		sum += weight;
	}
	query->weight = query->weight * *ret_rescale + v_sum(sum);
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
		float *sum = looks[j].query->sum + d + v * LANES;
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

/* Those queries that see tokens of the page whose first entry is `entry0`, in the sinks or the window. */
SK_INLINE int look(struct look *looks, struct query *queries, int n, uint64_t entry0, bool sinks)
{
	int n_looks = 0;
	for (int i = 0; i < n; i++) {
		const struct sk_row *row = queries[i].row;
		uint64_t from = sinks ? 0 : row->first, to = sinks ? row->n_sink : row->entry + 1;
		from = from > entry0 ? from - entry0 : 0;
		to = to > entry0 ? to - entry0 : 0;
		if (to > SK_PAGE_TOKENS)
			to = SK_PAGE_TOKENS;
		if (from < to)
			looks[n_looks++] = (struct look){&queries[i],
							 sinks ? queries[i].sink : queries[i].text,
							 (uint32_t)from, (uint32_t)to};
	}
	return n_looks;
}

SK_INLINE void attend_queries(enum sk_kv_format format, const struct sk_cpu_attend *job,
			      const struct sk_span *span, struct query *queries, int n,
			      uint32_t kv_head)
{
	struct look looks[SK_ATTEND_QUERIES];
	uint64_t first = UINT64_MAX, entry = 0;
	uint32_t n_sink = 0;
	for (int i = 0; i < n; i++) {
		const struct sk_row *row = queries[i].row;
		first = row->first < first ? row->first : first;
		entry = row->entry > entry ? row->entry : entry;
		n_sink = row->n_sink > n_sink ? row->n_sink : n_sink;
	}
	for (uint32_t p = 0; (uint64_t)p * SK_PAGE_TOKENS < n_sink; p++)
		visit_all(format, job, looks,
			  look(looks, queries, n, (uint64_t)p * SK_PAGE_TOKENS, true),
			  span->sink_pages[p], kv_head);
	for (uint64_t p = first / SK_PAGE_TOKENS; p <= entry / SK_PAGE_TOKENS; p++)
		visit_all(format, job, looks, look(looks, queries, n, p * SK_PAGE_TOKENS, false),
			  span->pages[p - span->page0], kv_head);
}

static void attend(const struct sk_cpu_attend *job, const struct sk_cpu_rows *rows,
		   uint32_t kv_head, uint32_t thread)
{
	const struct sk_backend_shape *shape = job->shape;
	const uint32_t d = shape->head_dim, value_dim = job->pages->value_dim;
	const uint32_t shared = shape->n_heads / shape->n_kv_heads, n = rows->n_rows * shared;
	const size_t width = (size_t)shape->n_heads * d;
	float *scratch = job->scratch + (size_t)thread * SK_ATTEND_QUERIES * value_dim;
	struct query queries[SK_ATTEND_QUERIES];

	for (uint32_t done = 0; done < n; done += SK_ATTEND_QUERIES) {
		uint32_t count = n - done < SK_ATTEND_QUERIES ? n - done : SK_ATTEND_QUERIES;
		memset(scratch, 0, (size_t)count * value_dim * sizeof *scratch);
		for (uint32_t i = 0; i < count; i++) {
			uint32_t row = rows->row + (done + i) / shared;
			uint32_t head = kv_head * shared + (done + i) % shared;
			const float *text = job->q + row * 2 * width + head * d;
			queries[i] = (struct query){
				text, text + width,          scratch + i * value_dim, -INFINITY,
				0,    &job->batch->rows[row]};
		}
		if (shape->kv_format == SK_KV_F16)
			attend_queries(SK_KV_F16, job, rows->span, queries, (int)count, kv_head);
		else
			attend_queries(SK_KV_F32, job, rows->span, queries, (int)count, kv_head);
		for (uint32_t i = 0; i < count; i++) {
			uint32_t row = rows->row + (done + i) / shared;
			float *out = job->out + row * width +
				     (kv_head * shared + (done + i) % shared) * d;
			for (uint32_t j = 0; j < d; j++)
				out[j] = queries[i].sum[j] / queries[i].weight;
		}
	}
}
