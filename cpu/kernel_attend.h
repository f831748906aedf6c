/* Attention over pages. The queries of a few rows, and of the heads that share a key head, visit each
 * page together; a query's softmax is kept up to date page by page (greatest score, sum, weighted sum
 * of values), first over its sinks, then over its window. The window is cut into segments of pages, whose
 * parts are joined in order, whether one thread computed them all or several did. What a query does
 * depends on the pages that it sees alone, so that its result is the same in whatever company.
 */
#pragma once

#include "cpu/kernels.h"
#include "cpu/simd.h"

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

/* Those queries for which `page` begins another segment put away their part. */
static void next_segment(struct query *queries, int n, uint64_t page, uint32_t value_dim)
{
	for (int i = 0; i < n; i++) {
		struct query *query = &queries[i];
		if (page <= query->page0 || page > query->row->entry / SK_PAGE_TOKENS ||
		    (page - query->page0) % query->segment_pages)
			continue;
		join(&query->total, &query->part, value_dim);
		clear_part(&query->part, value_dim);
	}
}

/* Pages [from, to] of the window, after the sinks where `from` is its first. */
SK_INLINE void attend_queries(enum sk_kv_format format, const struct sk_cpu_attend *job,
			      const struct sk_span *span, struct query *queries, int n,
			      uint32_t kv_head, uint64_t first, uint64_t from, uint64_t to)
{
	struct look looks[SK_ATTEND_QUERIES];
	uint32_t n_sink = 0;
	for (int i = 0; i < n; i++)
		n_sink = queries[i].row->n_sink > n_sink ? queries[i].row->n_sink : n_sink;
	if (from == first)
		for (uint32_t p = 0; (uint64_t)p * SK_PAGE_TOKENS < n_sink; p++)
			visit_all(format, job, looks,
				  look(looks, queries, n, (uint64_t)p * SK_PAGE_TOKENS, true),
				  span->sink_pages[p], kv_head);
	for (uint64_t p = from; p <= to; p++) {
		if (p > from)
			next_segment(queries, n, p, job->pages->value_dim);
		if (p < to)
			prefetch_head(job, span->pages[p + 1 - span->page0], kv_head);
		visit_all(format, job, looks, look(looks, queries, n, p * SK_PAGE_TOKENS, false),
			  span->pages[p - span->page0], kv_head);
	}
}

/* `n` queries, from the `done`th of those rows on; their parts and totals lie in `sums`. */
static void set_queries(struct query *queries, const struct sk_cpu_attend *job,
			const struct sk_cpu_rows *rows, uint32_t kv_head, uint32_t done, uint32_t n,
			float *sums)
{
	const uint32_t d = job->shape->head_dim, value_dim = job->pages->value_dim;
	const uint32_t shared = job->shape->n_heads / job->shape->n_kv_heads;
	const size_t width = (size_t)job->shape->n_heads * d;

	for (uint32_t i = 0; i < n; i++, sums += 2 * value_dim) {
		const struct sk_row *row = &job->batch->rows[rows->row + (done + i) / shared];
		const float *text = job->q + (rows->row + (done + i) / shared) * 2 * width +
				    (kv_head * shared + (done + i) % shared) * d;
		queries[i] = (struct query){
			.text = text,
			.sink = text + width,
			.part.sum = sums,
			.total.sum = sums + value_dim,
			.row = row,
			.page0 = row->first / SK_PAGE_TOKENS,
			.segment_pages = sk_attend_segment_pages(row),
		};
		clear_part(&queries[i].part, value_dim);
	}
}

static void run_queries(const struct sk_cpu_attend *job, const struct sk_cpu_rows *rows,
			struct query *queries, uint32_t n, uint32_t kv_head, uint64_t first,
			uint64_t from, uint64_t to)
{
	if (job->shape->kv_format == SK_KV_F16)
		attend_queries(SK_KV_F16, job, rows->span, queries, (int)n, kv_head, first, from,
			       to);
	else
		attend_queries(SK_KV_F32, job, rows->span, queries, (int)n, kv_head, first, from,
			       to);
}

static void put_out(const struct sk_cpu_attend *job, const struct sk_cpu_rows *rows,
		    uint32_t kv_head, uint32_t query, const struct part *total)
{
	const uint32_t d = job->shape->head_dim,
		       shared = job->shape->n_heads / job->shape->n_kv_heads;
	float *out = job->out + (rows->row + query / shared) * (size_t)job->shape->n_heads * d +
		     (kv_head * shared + query % shared) * d;
	for (uint32_t i = 0; i < d; i++)
		out[i] = total->sum[i] / total->weight;
}

static void attend(const struct sk_cpu_attend *job, const struct sk_cpu_rows *rows,
		   uint32_t kv_head, uint32_t thread)
{
	const uint32_t value_dim = job->pages->value_dim;
	const uint32_t n = rows->n_rows * (job->shape->n_heads / job->shape->n_kv_heads);
	float *sums = job->scratch + (size_t)thread * SK_ATTEND_QUERIES * 2 * value_dim;
	struct query queries[SK_ATTEND_QUERIES];

	for (uint32_t done = 0, count; done < n; done += count) {
		count = n - done < SK_ATTEND_QUERIES ? n - done : SK_ATTEND_QUERIES;
		set_queries(queries, job, rows, kv_head, done, count, sums);
		uint64_t from = UINT64_MAX, to = 0;
		for (uint32_t i = 0; i < count; i++) {
			uint64_t last = queries[i].row->entry / SK_PAGE_TOKENS;
			from = queries[i].page0 < from ? queries[i].page0 : from;
			to = last > to ? last : to;
		}
		run_queries(job, rows, queries, count, kv_head, from, from, to);
		for (uint32_t i = 0; i < count; i++) {
			join(&queries[i].total, &queries[i].part, value_dim);
			put_out(job, rows, kv_head, done + i, &queries[i].total);
		}
	}
}

/* A part as it lies in sk_cpu_attend.parts: its sum, then most and weight. */
static float *part_of(const struct sk_cpu_attend *job, uint32_t group, uint32_t kv_head,
		      uint32_t segment, uint32_t query)
{
	const uint32_t shared = job->shape->n_heads / job->shape->n_kv_heads;
	size_t i =
		((size_t)group * job->shape->n_kv_heads + kv_head) * SK_ATTEND_SEGMENTS + segment;
	return job->parts + (i * shared + query) * (job->pages->value_dim + SK_ATTEND_PART);
}

static void attend_segment(const struct sk_cpu_attend *job, const struct sk_cpu_rows *row,
			   uint32_t group, uint32_t kv_head, uint32_t segment, uint32_t thread)
{
	const uint32_t value_dim = job->pages->value_dim;
	const uint32_t n = job->shape->n_heads / job->shape->n_kv_heads;
	float *sums = job->scratch + (size_t)thread * SK_ATTEND_QUERIES * 2 * value_dim;
	struct query queries[SK_ATTEND_QUERIES];

	for (uint32_t done = 0, count; done < n; done += count) {
		count = n - done < SK_ATTEND_QUERIES ? n - done : SK_ATTEND_QUERIES;
		set_queries(queries, job, row, kv_head, done, count, sums);
		uint64_t first = queries[0].page0, last = queries[0].row->entry / SK_PAGE_TOKENS;
		uint64_t from = first + segment * queries[0].segment_pages;
		uint64_t to = from + queries[0].segment_pages - 1;
		run_queries(job, row, queries, count, kv_head, first, from, to < last ? to : last);
		for (uint32_t i = 0; i < count; i++) {
			float *part = part_of(job, group, kv_head, segment, done + i);
			memcpy(part, queries[i].part.sum, value_dim * sizeof *part);
			part[value_dim] = queries[i].part.most;
			part[value_dim + 1] = queries[i].part.weight;
		}
	}
}

static void attend_join(const struct sk_cpu_attend *job, const struct sk_cpu_rows *row,
			uint32_t group, uint32_t kv_head)
{
	const uint32_t value_dim = job->pages->value_dim;
	const uint32_t n_segments = sk_attend_n_segments(&job->batch->rows[row->row]);

	for (uint32_t i = 0; i < job->shape->n_heads / job->shape->n_kv_heads; i++) {
		struct part total = {.sum = job->scratch};
		for (uint32_t s = 0; s < n_segments; s++) {
			float *sum = part_of(job, group, kv_head, s, i);
			struct part part = {sum, sum[value_dim], sum[value_dim + 1]};
			join(&total, &part, value_dim);
		}
		put_out(job, row, kv_head, i, &total);
	}
}
