/* Attention over pages. What a row sees is a run of pages, those of its sinks and then those of its window. A warp
 * takes a page at a time: a lane a token for the scores, a lane 16 bytes of a value for their weighted sum. Sixteen
 * pages, a segment, are joined to one part of the softmax, and parts to the whole, in order: in one block, or in as
 * many as there are segments, the last of which joins what the others left. Order within the ring of pages does not
 * matter to a softmax, so nothing is copied together; and the same joins in the same order give the same bits, however
 * many warps and blocks there are.
 *
 * Of rows that do not see one another's tokens (a row a session) it takes queries, keys and values as they come from their
 * product, where one block has all queries of a key head: it rotates them, and the block whose segment ends with the row's newest page writes the entry there first.
 */
#include "gpu/kernels/format.h"
#include "gpu/kernels/rotary.h"

#define PAGES   SK_GPU_SEGMENT_PAGES
#define MAX_DIM 256
#define DIMS    4 /* a thread, at most: of MAX_DIM, two warps */
#define BATCH   4 /* loads in flight */

/* The heads that block y works for. */
struct heads {
	uint32_t kv, first, n;
};

template <int G> SK_DEVICE heads heads_of(const sk_gpu_cache &c, uint32_t y)
{
	const uint32_t shared = c.n_heads / c.n_kv_heads, chunks = (shared + G - 1) / G;
	const uint32_t kv = y / chunks, done = y % chunks * G;
	return {kv, kv * shared + done, shared - done < G ? shared - done : G};
}

/* Shared memory of a block: what its pages of a segment come to. */
template <int G> struct room {
	float *text, *sink;   /* (G, padded_dim) the queries */
	float *sums;          /* (PAGES, G, padded_dim) */
	float *weights;       /* (warps, G, SK_WARP) of a page's tokens */
	float *most, *weight; /* (PAGES, G) */
	float *kept;          /* (G, padded_dim) and (2, G, 2): what the segments before came to */
};

template <int G> SK_DEVICE room<G> room_of(float *shared, uint32_t padded_dim)
{
	room<G> r;
	r.text = shared;
	r.sink = r.text + G * padded_dim;
	r.sums = r.sink + G * padded_dim;
	r.most = r.sums + PAGES * G * padded_dim;
	r.weight = r.most + PAGES * G;
	r.kept = r.weight + PAGES * G;
	r.weights = r.kept + G * (padded_dim + 4);
	return r;
}

template <int G> static size_t room_bytes(uint32_t padded_dim, uint32_t n_warps)
{
	return sizeof(float) * G * ((3 + PAGES) * padded_dim + 2 * PAGES + 4 + n_warps * SK_WARP);
}

/* A warp looks at tokens [from, to) of a page, with the queries of `q`. */
template <int F, int G>
SK_DEVICE void visit(const sk_gpu_cache &c, const room<G> &r, uint32_t slot, const char *head, const float *q,
		     uint32_t from, uint32_t to, float scale)
{
	constexpr int N = sk_word<F>::N;
	const uint32_t lane = threadIdx.x % SK_WARP, warp = threadIdx.x / SK_WARP;
	const uint32_t n_words = c.padded_dim / N;
	float *sums = r.sums + (size_t)slot * G * c.padded_dim, *weights = r.weights + warp * G * SK_WARP;

	sk_word<F> w;
	float scores[G] = {};
	const uint32_t mine = min(lane, to - 1); /* a sink page may be the newest, to which another block appends */
	for (uint32_t word0 = 0; word0 < n_words; word0 += BATCH) {
		uint4 keys[BATCH];
#pragma unroll
		for (int k = 0; k < BATCH; k++)
			if (word0 + k < n_words) {
				const uint32_t at = ((word0 + k) * SK_WARP + mine) * 16;
				keys[k] = sk_load16(head + at);
			}
#pragma unroll
		for (int k = 0; k < BATCH; k++) {
			if (word0 + k >= n_words)
				break;
			w.set(keys[k], nullptr, 0, 0);
#pragma unroll
			for (int g = 0; g < G; g++)
#pragma unroll
				for (int i = 0; i < N / 4; i++) {
					const float4 x = sk_load_floats(&q[g * c.padded_dim + (word0 + k) * N + 4 * i]);
					scores[g] = fmaf(w.v[4 * i], x.x, scores[g]);
					scores[g] = fmaf(w.v[4 * i + 1], x.y, scores[g]);
					scores[g] = fmaf(w.v[4 * i + 2], x.z, scores[g]);
					scores[g] = fmaf(w.v[4 * i + 3], x.w, scores[g]);
				}
		}
	}
	const bool seen = lane >= from && lane < to;
#pragma unroll
	for (int g = 0; g < G; g++) {
		const float score = seen ? scores[g] * scale : -INFINITY, most = sk_warp_max(score);
		const float weight = seen ? expf(score - most) : 0, sum = sk_warp_sum(weight);
		weights[g * SK_WARP + lane] = weight;
		if (lane == 0) {
			r.most[slot * G + g] = most;
			r.weight[slot * G + g] = sum;
		}
	}
	__syncwarp();

	const char *values = head + (size_t)n_words * SK_WARP * 16;
	for (uint32_t word0 = 0; word0 < n_words; word0 += SK_WARP) {
		const uint32_t n = n_words - word0 < SK_WARP ? n_words - word0 : SK_WARP; /* words of a token */
		const uint32_t tokens = SK_WARP / n, token = lane / n, word = word0 + lane % n; /* at once */
		float sum[G][N] = {};
		for (uint32_t t0 = from + token; token < tokens && t0 < to; t0 += BATCH * tokens) {
			uint4 v[BATCH];
#pragma unroll
			for (int k = 0; k < BATCH; k++)
				if (t0 + k * tokens < to)
					v[k] = sk_load16(values + ((size_t)(t0 + k * tokens) * n_words + word) * 16);
#pragma unroll
			for (int k = 0; k < BATCH; k++) {
				if (t0 + k * tokens >= to)
					break;
				w.set(v[k], nullptr, 0, 0);
#pragma unroll
				for (int g = 0; g < G; g++)
#pragma unroll
					for (int i = 0; i < N; i++)
						sum[g][i] = fmaf(w.v[i], weights[g * SK_WARP + t0 + k * tokens],
								 sum[g][i]);
			}
		}
		for (uint32_t turn = 0; turn < tokens; turn++) {
			if (token == turn)
#pragma unroll
				for (int g = 0; g < G; g++)
#pragma unroll
					for (int i = 0; i < N; i++) {
						const uint32_t dim = word * N + i;
						float *to_sum = sums + (size_t)g * c.padded_dim + dim;
						*to_sum = turn ? *to_sum + sum[g][i] : sum[g][i];
					}
			__syncwarp();
		}
	}
}

/* A warp's page, number i of what the row sees. */
template <int F, int G>
SK_DEVICE void visit_page(const sk_gpu_cache &c, const room<G> &r, const sk_gpu_row &row, const uint32_t *table,
			  uint32_t layer, uint32_t kv_head, uint32_t i, float scale)
{
	const bool sinks = i < row.n_sink_pages;
	const uint32_t w = i - row.n_sink_pages; /* of the window */
	const uint32_t page = table[sinks ? row.sinks + i : row.pages + w];
	uint32_t from = 0, to = SK_WARP;
	if (sinks)
		to = row.n_sink - i * SK_WARP < SK_WARP ? row.n_sink - i * SK_WARP : SK_WARP;
	else {
		from = w == 0 ? row.first_slot : 0;
		to = w + 1 == row.n_pages ? row.last_slot + 1 : SK_WARP;
	}
	visit<F, G>(c, r, i % PAGES, c.pages + page * c.page_bytes + layer * c.layer_bytes + kv_head * c.head_bytes,
		    sinks ? r.sink : r.text, from, to, scale);
}

/* A softmax of which a thread has some dims: (most, weight) are every thread's. */
template <int G> struct part {
	float most[G], weight[G], sum[G][DIMS];
};

/* The first n pages of a segment, in order. */
template <int G> SK_DEVICE void join_pages(const room<G> &r, uint32_t padded_dim, uint32_t n, part<G> *p)
{
#pragma unroll
	for (int g = 0; g < G; g++) {
		p->most[g] = r.most[g];
		for (uint32_t i = 1; i < n; i++)
			p->most[g] = fmaxf(p->most[g], r.most[i * G + g]);
		p->weight[g] = 0;
#pragma unroll
		for (int k = 0; k < DIMS; k++)
			p->sum[g][k] = 0;
		for (uint32_t i = 0; i < n; i++) {
			const float scale = expf(r.most[i * G + g] - p->most[g]);
			p->weight[g] = fmaf(scale, r.weight[i * G + g], p->weight[g]);
#pragma unroll
			for (int k = 0; k < DIMS; k++)
				if (threadIdx.x + k * blockDim.x < padded_dim)
					p->sum[g][k] = fmaf(scale,
							    r.sums[(i * G + g) * padded_dim + threadIdx.x + k * blockDim.x],
							    p->sum[g][k]);
		}
	}
}

/* whole += part, as the whole is not empty */
template <int G> SK_DEVICE void join(part<G> *whole, const part<G> &p)
{
#pragma unroll
	for (int g = 0; g < G; g++) {
		const float most = fmaxf(whole->most[g], p.most[g]);
		const float before = expf(whole->most[g] - most), now = expf(p.most[g] - most);
		whole->most[g] = most;
		whole->weight[g] = whole->weight[g] * before + p.weight[g] * now;
#pragma unroll
		for (int k = 0; k < DIMS; k++)
			whole->sum[g][k] = whole->sum[g][k] * before + p.sum[g][k] * now;
	}
}

/* What the segments before came to lies in shared memory: beside a page's words there are no registers for it. Sums are a
 * thread's own; the two that all read have two places in turn, as some read one while the first thread writes the other. */
template <int G> SK_DEVICE void keep(const room<G> &r, uint32_t padded_dim, uint32_t turn, const part<G> &p)
{
	float *all = r.kept + G * padded_dim + turn % 2 * G * 2;
#pragma unroll
	for (int g = 0; g < G; g++) {
		if (threadIdx.x == 0)
			all[(size_t)2 * g] = p.most[g], all[2 * g + 1] = p.weight[g];
#pragma unroll
		for (int k = 0; k < DIMS; k++)
			if (threadIdx.x + k * blockDim.x < padded_dim)
				r.kept[g * padded_dim + threadIdx.x + k * blockDim.x] = p.sum[g][k];
	}
}

template <int G> SK_DEVICE void get_kept(const room<G> &r, uint32_t padded_dim, uint32_t turn, part<G> *p)
{
	const float *all = r.kept + G * padded_dim + turn % 2 * G * 2;
#pragma unroll
	for (int g = 0; g < G; g++) {
		p->most[g] = all[(size_t)2 * g];
		p->weight[g] = all[2 * g + 1];
#pragma unroll
		for (int k = 0; k < DIMS; k++)
			p->sum[g][k] = threadIdx.x + k * blockDim.x < padded_dim
					       ? r.kept[g * padded_dim + threadIdx.x + k * blockDim.x]
					       : 0;
	}
}

/* Parts as they lie in memory: (segments, G, 2 + padded_dim). */
template <int G> SK_DEVICE void put_part(float *parts, uint32_t padded_dim, uint32_t segment, const part<G> &p)
{
#pragma unroll
	for (int g = 0; g < G; g++) {
		float *to = parts + (size_t)(segment * G + g) * (padded_dim + 2);
		if (threadIdx.x == 0)
			to[0] = p.most[g], to[1] = p.weight[g];
#pragma unroll
		for (int k = 0; k < DIMS; k++)
			if (threadIdx.x + k * blockDim.x < padded_dim)
				to[2 + threadIdx.x + k * blockDim.x] = p.sum[g][k];
	}
}

template <int G> SK_DEVICE void get_part(const float *parts, uint32_t padded_dim, uint32_t segment, part<G> *p)
{
#pragma unroll
	for (int g = 0; g < G; g++) {
		const float *from = parts + (size_t)(segment * G + g) * (padded_dim + 2);
		p->most[g] = __ldcg(from);
		p->weight[g] = __ldcg(from + 1);
#pragma unroll
		for (int k = 0; k < DIMS; k++)
			p->sum[g][k] = threadIdx.x + k * blockDim.x < padded_dim
					       ? __ldcg(&from[2 + threadIdx.x + k * blockDim.x])
					       : 0;
	}
}

/* Whether this block is the last of n to come here, with what the others have written before to be seen. */
SK_DEVICE bool is_last(uint32_t *counter, uint32_t n)
{
	__shared__ bool last;
	__threadfence();
	__syncthreads();
	if (threadIdx.x == 0) {
		last = atomicAdd(counter, 1u) == n - 1;
		__threadfence();
		if (last)
			*counter = 0;
	}
	__syncthreads();
	return last;
}

/* The queries, as the row's tokens and as its sinks meet them. */
template <int G>
SK_DEVICE void get_queries(const sk_gpu_cache &c, const room<G> &r, const heads &h, const float *q, const sk_gpu_row &row,
			   bool appends)
{
	for (uint32_t i = threadIdx.x; i < G * c.padded_dim; i += blockDim.x) {
		const uint32_t g = i / c.padded_dim, d = i % c.padded_dim;
		const float *head = q + (size_t)(h.first + g) * c.head_dim;
		float text = 0, sink = 0;
		if (g < h.n && d < c.head_dim) {
			text = appends ? sk_rotated(c, head, d, row.place) : head[d];
			sink = appends ? sk_rotated(c, head, d, row.sink_place) : head[c.n_heads * c.head_dim + d];
		}
		r.text[i] = text;
		r.sink[i] = sink;
	}
}

extern __shared__ __align__(16) unsigned char cu_smem[];

template <int F, int G>
__global__ void __launch_bounds__(PAGES *SK_WARP, G == 1 ? 2 : 1)
	attend(const sk_gpu_cache c, float *out, uint32_t out_stride, const float *q, uint32_t q_stride, bool appends,
	       const sk_gpu_row *rows, const uint32_t *table, uint32_t layer, float *parts, uint32_t *counters)
{
	sk_begin();
	const uint32_t n_warps = blockDim.x / SK_WARP, warp = threadIdx.x / SK_WARP;
	const room<G> r = room_of<G>((float *)cu_smem, c.padded_dim);
	const heads h = heads_of<G>(c, blockIdx.y);
	const sk_gpu_row &row = rows[blockIdx.z];
	const uint32_t n_pages = row.n_sink_pages + row.n_pages, n_segments = (n_pages + PAGES - 1) / PAGES;
	const bool alone = gridDim.x == 1;
	if (!alone && blockIdx.x >= n_segments)
		return;

	q += (size_t)blockIdx.z * q_stride;
	get_queries(c, r, h, q, row, appends);
	if (appends && (alone || n_segments - 1 == blockIdx.x)) /* a block a key head: y is that */
		sk_put_entry<typename sk_word<F>::type>(c, q, row, table, layer, blockIdx.y, blockDim.x);
	__syncthreads();

	const float scale = 1 / sqrtf((float)c.head_dim);
	part<G> whole = {}, segment;
	for (uint32_t s = alone ? 0 : blockIdx.x; s < (alone ? n_segments : blockIdx.x + 1); s++) {
		const uint32_t begin = s * PAGES, end = min(n_pages, begin + PAGES);
		for (uint32_t i = begin + warp; i < end; i += n_warps)
			visit_page<F, G>(c, r, row, table, layer, h.kv, i, scale);
		__syncthreads();
		join_pages<G>(r, c.padded_dim, end - begin, &segment);
		if (alone && s) {
			get_kept(r, c.padded_dim, s - 1, &whole);
			join(&whole, segment);
		} else
			whole = segment;
		keep(r, c.padded_dim, s, whole);
		__syncthreads();
	}
	if (!alone) {
		const uint32_t block = blockIdx.z * gridDim.y + blockIdx.y;
		float *all = parts + (size_t)block * gridDim.x * G * (c.padded_dim + 2);
		put_part<G>(all, c.padded_dim, blockIdx.x, whole);
		if (!is_last(&counters[block], n_segments))
			return;
		get_part<G>(all, c.padded_dim, 0, &whole);
		for (uint32_t s = 1; s < n_segments; s++) {
			get_part<G>(all, c.padded_dim, s, &segment);
			join(&whole, segment);
		}
	}
#pragma unroll
	for (int g = 0; g < G; g++)
#pragma unroll
		for (int k = 0; k < DIMS; k++) {
			const uint32_t d = threadIdx.x + k * blockDim.x;
			if (g < (int)h.n && d < c.head_dim)
				out[(size_t)blockIdx.z * out_stride + ((h.first + g) * c.head_dim + d)] =
					whole.sum[g][k] / whole.weight[g];
		}
}

template <int F, int G>
static cudaError_t run(cudaStream_t stream, const struct sk_gpu_cache *c, float *out, uint32_t out_stride,
		       const float *q, uint32_t q_stride, bool appends, const struct sk_gpu_row *rows,
		       const uint32_t *table, uint32_t layer, uint32_t n, const struct sk_gpu_sharing *sharing)
{
	const uint32_t shared = c->n_heads / c->n_kv_heads;
	const dim3 grid(sharing->n_segments, c->n_kv_heads * ((shared + G - 1) / G), n);
	const uint32_t n_warps = sharing->n_warps < 2 ? 2 : sharing->n_warps;
	return sk_launch(stream, attend<F, G>, grid, n_warps * SK_WARP, room_bytes<G>(c->padded_dim, n_warps), *c, out,
			 out_stride, q, q_stride, appends, rows, table, layer, sharing->parts, sharing->counters);
}

template <int F>
static cudaError_t run_heads(cudaStream_t stream, const struct sk_gpu_cache *c, float *out, uint32_t out_stride,
			     const float *q, uint32_t q_stride, bool appends, const struct sk_gpu_row *rows,
			     const uint32_t *table, uint32_t layer, uint32_t n, const struct sk_gpu_sharing *sharing)
{
	switch (sk_gpu_attend_heads(c->n_heads / c->n_kv_heads, c->padded_dim)) {
	case 1:
		return run<F, 1>(stream, c, out, out_stride, q, q_stride, appends, rows, table, layer, n, sharing);
	case 2:
		return run<F, 2>(stream, c, out, out_stride, q, q_stride, appends, rows, table, layer, n, sharing);
	case 3:
		return run<F, 3>(stream, c, out, out_stride, q, q_stride, appends, rows, table, layer, n, sharing);
	default:
		return run<F, SK_GPU_ATTEND_HEADS>(stream, c, out, out_stride, q, q_stride, appends, rows, table,
						   layer, n, sharing);
	}
}

cudaError_t sk_gpu_attend(cudaStream_t stream, const struct sk_gpu_cache *cache, float *out,
			  uint32_t out_stride, const float *q, uint32_t q_stride, bool appends,
			  const struct sk_gpu_row *rows, const uint32_t *table, uint32_t layer, uint32_t n,
			  const struct sk_gpu_sharing *sharing)
{
	const uint32_t shared = cache->n_heads / cache->n_kv_heads;
	if (cache->padded_dim > MAX_DIM || (appends && sk_gpu_attend_heads(shared, cache->padded_dim) < shared))
		return cudaErrorInvalidValue;
	const auto run_format = cache->format == SK_GPU_F16    ? run_heads<SK_GPU_F16>
				: cache->format == SK_GPU_BF16 ? run_heads<SK_GPU_BF16>
							       : run_heads<SK_GPU_F32>;
	return run_format(stream, cache, out, out_stride, q, q_stride, appends, rows, table, layer, n, sharing);
}
