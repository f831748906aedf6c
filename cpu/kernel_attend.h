/* Attention over pages. The queries of a few rows, and of the heads that share a key head, visit each
 * page together; a query's softmax is kept up to date page by page (greatest score, sum, weighted sum
 * of values), first over its sinks, then over its window. The window is cut into segments of pages, whose
 * parts are joined in order, whether one thread computed them all or several did. What a query does
 * depends on the pages that it sees alone, so that its result is the same in whatever company.
 */
#pragma once

#include "cpu/kernel_visit.h"

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
	else if (job->shape->kv_format == SK_KV_BF16)
		attend_queries(SK_KV_BF16, job, rows->span, queries, (int)n, kv_head, first, from,
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
