/* Attention over pages. What a row sees is a run of pages, those of its sinks and then those of its window. A warp
 * takes a page: a lane a token for the scores, a lane 16 bytes of a value for their weighted sum. Pages are joined
 * in order to one part of the softmax for 16 of them, and parts in order to the whole: in one block, or in as many
 * as there are parts, the last of which joins what the others left. Order within the ring of pages does not matter
 * to a softmax, so nothing is copied together; and the same joins in the same order give the same bits, however many
 * warps and blocks there are.
 */
#include "format.h"

#define MIN_WARPS 4 /* so that two dims a thread are enough */
#define MAX_DIM   256
#define DIMS      (MAX_DIM / (MIN_WARPS * SK_WARP)) /* a thread, at most */
#define BATCH     4 /* loads in flight */

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

/* Shared memory of a block of W warps. */
template <int G> struct room {
	float *text, *sink; /* (G, padded_dim) the queries */
	float *sums;        /* (W, G, padded_dim) */
	float *weights;     /* (W, G, SK_WARP) of a page's tokens */
	float *most, *weight; /* (W, G) */
};

template <int G> SK_DEVICE room<G> room_of(float *shared, uint32_t padded_dim, uint32_t n_warps)
{
	room<G> r;
	r.text = shared;
	r.sink = r.text + G * padded_dim;
	r.sums = r.sink + G * padded_dim;
	r.weights = r.sums + n_warps * G * padded_dim;
	r.most = r.weights + n_warps * G * SK_WARP;
	r.weight = r.most + n_warps * G;
	return r;
}

template <int G> static size_t room_bytes(uint32_t padded_dim, uint32_t n_warps)
{
	return (2 * G * padded_dim + n_warps * G * (padded_dim + SK_WARP + 2)) * sizeof(float);
}

/* A warp looks at tokens [from, to) of a page, with the queries of `q`. */
template <int F, int G>
SK_DEVICE void visit(const sk_gpu_cache &c, const room<G> &r, const char *head, const float *q, uint32_t from,
		     uint32_t to, float scale)
{
	constexpr int N = sk_word<F>::N;
	const uint32_t lane = threadIdx.x % SK_WARP, warp = threadIdx.x / SK_WARP;
	const uint32_t n_words = c.padded_dim / N;
	float *sums = r.sums + (size_t)warp * G * c.padded_dim, *weights = r.weights + warp * G * SK_WARP;

	sk_word<F> w;
	float scores[G] = {};
	for (uint32_t word0 = 0; word0 < n_words; word0 += BATCH) {
		uint4 keys[BATCH];
#pragma unroll
		for (int k = 0; k < BATCH; k++)
			if (word0 + k < n_words)
				keys[k] = *(const uint4 *)(head + ((size_t)(word0 + k) * SK_WARP + lane) * 16);
#pragma unroll
		for (int k = 0; k < BATCH; k++) {
			if (word0 + k >= n_words)
				break;
			w.set(keys[k], nullptr, 0, 0);
#pragma unroll
			for (int g = 0; g < G; g++)
#pragma unroll
				for (int i = 0; i < N / 4; i++) {
					const float4 x = *(const float4 *)&q[g * c.padded_dim + (word0 + k) * N + 4 * i];
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
			r.most[warp * G + g] = most;
			r.weight[warp * G + g] = sum;
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
					v[k] = *(const uint4 *)(values + ((size_t)(t0 + k * tokens) * n_words + word) * 16);
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
						float *to_sum = sums + (size_t)g * c.padded_dim + word * N + i;
						*to_sum = turn ? *to_sum + sum[g][i] : sum[g][i];
					}
			__syncwarp();
		}
	}
}

/* (most, weight, sum) += another part; a weight of 0 is an empty one's. */
SK_DEVICE void join(float *most, float *weight, float *sum, float most2, float weight2, float sum2)
{
	if (*weight == 0) {
		*most = most2, *weight = weight2, *sum = sum2;
		return;
	}
	const float top = fmaxf(*most, most2), before = expf(*most - top), now = expf(most2 - top);
	*most = top;
	*weight = *weight * before + weight2 * now;
	*sum = *sum * before + sum2 * now;
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
	visit<F, G>(c, r, c.pages + page * c.page_bytes + layer * c.layer_bytes + kv_head * c.head_bytes,
		    sinks ? r.sink : r.text, from, to, scale);
}

extern __shared__ __align__(16) unsigned char cu_smem[];

template <int F, int G>
__global__ void __launch_bounds__(SK_GPU_SEGMENT_PAGES *SK_WARP)
	attend(const sk_gpu_cache c, float *out, uint32_t out_stride, const float *q, uint32_t q_stride,
	       const sk_gpu_row *rows, const uint32_t *table, uint32_t layer, float *parts, uint32_t *counters)
{
	sk_begin();
	__shared__ bool last;
	const uint32_t n_warps = blockDim.x / SK_WARP, warp = threadIdx.x / SK_WARP;
	const room<G> r = room_of<G>((float *)cu_smem, c.padded_dim, n_warps);
	const heads h = heads_of<G>(c, blockIdx.y);
	const sk_gpu_row row = rows[blockIdx.z];
	const uint32_t n_pages = row.n_sink_pages + row.n_pages;
	const uint32_t n_segments = (n_pages + SK_GPU_SEGMENT_PAGES - 1) / SK_GPU_SEGMENT_PAGES;
	const bool alone = gridDim.x == 1;
	const float scale = 1 / sqrtf((float)c.head_dim);
	if (!alone && blockIdx.x >= n_segments)
		return;

	for (uint32_t i = threadIdx.x; i < G * c.padded_dim; i += blockDim.x) {
		const uint32_t g = i / c.padded_dim, d = i % c.padded_dim;
		const float *from = q + (size_t)blockIdx.z * q_stride + (h.first + g) * c.head_dim + d;
		const bool real = g < h.n && d < c.head_dim;
		r.text[i] = real ? from[0] : 0;
		r.sink[i] = real ? from[c.n_heads * c.head_dim] : 0;
	}
	__syncthreads();

	/* A thread keeps dims threadIdx.x and so on of every head. */
	float most[G][DIMS], weight[G][DIMS] = {}, sum[G][DIMS];                /* of what is whole */
	float part_most[G][DIMS], part_weight[G][DIMS] = {}, part_sum[G][DIMS]; /* of up to 16 pages */
	const uint32_t begin = alone ? 0 : blockIdx.x * SK_GPU_SEGMENT_PAGES;
	const uint32_t end = alone ? n_pages : min(n_pages, begin + SK_GPU_SEGMENT_PAGES);
	for (uint32_t page0 = begin; page0 < end; page0 += n_warps) {
		if (page0 + warp < end)
			visit_page<F, G>(c, r, row, table, layer, h.kv, page0 + warp, scale);
		__syncthreads();
#pragma unroll
		for (int g = 0; g < G; g++)
#pragma unroll
			for (int k = 0; k < DIMS; k++) {
				const uint32_t d = threadIdx.x + k * blockDim.x;
				for (uint32_t w = 0; w < n_warps && page0 + w < end && d < c.padded_dim; w++) {
					if ((page0 + w) % SK_GPU_SEGMENT_PAGES == 0 && page0 + w > begin) {
						join(&most[g][k], &weight[g][k], &sum[g][k], part_most[g][k],
						     part_weight[g][k], part_sum[g][k]);
						part_weight[g][k] = 0;
					}
					join(&part_most[g][k], &part_weight[g][k], &part_sum[g][k], r.most[w * G + g],
					     r.weight[w * G + g], r.sums[((size_t)w * G + g) * c.padded_dim + d]);
				}
			}
		__syncthreads();
	}
#pragma unroll
	for (int g = 0; g < G; g++)
#pragma unroll
		for (int k = 0; k < DIMS; k++)
			if (threadIdx.x + k * blockDim.x < c.padded_dim)
				join(&most[g][k], &weight[g][k], &sum[g][k], part_most[g][k], part_weight[g][k],
				     part_sum[g][k]);

	if (!alone) {
		const uint32_t stride = c.padded_dim + 2;
		float *all = parts + ((size_t)blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x * G * stride;
#pragma unroll
		for (int g = 0; g < G; g++)
#pragma unroll
			for (int k = 0; k < DIMS; k++) {
				const uint32_t d = threadIdx.x + k * blockDim.x;
				float *part = all + ((size_t)blockIdx.x * G + g) * stride;
				if (d < c.padded_dim)
					part[2 + d] = sum[g][k];
				if (d == 0)
					part[0] = most[g][k], part[1] = weight[g][k];
			}
		__threadfence();
		__syncthreads();
		if (threadIdx.x == 0) {
			uint32_t *counter = &counters[blockIdx.z * gridDim.y + blockIdx.y];
			last = atomicAdd(counter, 1u) == n_segments - 1;
			__threadfence();
			if (last)
				*counter = 0;
		}
		__syncthreads();
		if (!last)
			return;
#pragma unroll
		for (int g = 0; g < G; g++)
#pragma unroll
			for (int k = 0; k < DIMS; k++) {
				const uint32_t d = threadIdx.x + k * blockDim.x;
				weight[g][k] = 0;
				for (uint32_t s = 0; s < n_segments && d < c.padded_dim; s++) {
					const float *part = all + ((size_t)s * G + g) * stride;
					join(&most[g][k], &weight[g][k], &sum[g][k], part[0], part[1], part[2 + d]);
				}
			}
	}
#pragma unroll
	for (int g = 0; g < G; g++)
#pragma unroll
		for (int k = 0; k < DIMS; k++) {
			const uint32_t d = threadIdx.x + k * blockDim.x;
			if (g < (int)h.n && d < c.head_dim)
				out[(size_t)blockIdx.z * out_stride + (h.first + g) * c.head_dim + d] =
					sum[g][k] / weight[g][k];
		}
}

template <int F, int G>
static cudaError_t run(cudaStream_t stream, const struct sk_gpu_cache *c, float *out, uint32_t out_stride,
		       const float *q, uint32_t q_stride, const struct sk_gpu_row *rows, const uint32_t *table,
		       uint32_t layer, uint32_t n, const struct sk_gpu_sharing *sharing)
{
	const uint32_t shared = c->n_heads / c->n_kv_heads;
	const dim3 grid(sharing->n_segments, c->n_kv_heads * ((shared + G - 1) / G), n);
	uint32_t n_warps = sharing->n_warps < MIN_WARPS ? MIN_WARPS : sharing->n_warps;
	while (room_bytes<G>(c->padded_dim, n_warps) > 48 << 10) /* what every device gives */
		n_warps--;
	return sk_launch(stream, attend<F, G>, grid, n_warps * SK_WARP, room_bytes<G>(c->padded_dim, n_warps), *c, out,
			 out_stride, q, q_stride, rows, table, layer, sharing->parts, sharing->counters);
}

template <int F>
static cudaError_t run_heads(cudaStream_t stream, const struct sk_gpu_cache *c, float *out, uint32_t out_stride,
			     const float *q, uint32_t q_stride, const struct sk_gpu_row *rows,
			     const uint32_t *table, uint32_t layer, uint32_t n, const struct sk_gpu_sharing *sharing)
{
	switch (c->n_heads / c->n_kv_heads) {
	case 1:
		return run<F, 1>(stream, c, out, out_stride, q, q_stride, rows, table, layer, n, sharing);
	case 2:
		return run<F, 2>(stream, c, out, out_stride, q, q_stride, rows, table, layer, n, sharing);
	case 3:
		return run<F, 3>(stream, c, out, out_stride, q, q_stride, rows, table, layer, n, sharing);
	default:
		return run<F, SK_GPU_ATTEND_HEADS>(stream, c, out, out_stride, q, q_stride, rows, table, layer, n,
						   sharing);
	}
}

cudaError_t sk_gpu_attend(cudaStream_t stream, const struct sk_gpu_cache *cache, float *out,
			  uint32_t out_stride, const float *q, uint32_t q_stride,
			  const struct sk_gpu_row *rows, const uint32_t *table, uint32_t layer, uint32_t n,
			  const struct sk_gpu_sharing *sharing)
{
	if (cache->padded_dim > MAX_DIM)
		return cudaErrorInvalidValue;
	if (cache->halves)
		return run_heads<SK_GPU_F16>(stream, cache, out, out_stride, q, q_stride, rows, table, layer, n,
					     sharing);
	return run_heads<SK_GPU_F32>(stream, cache, out, out_stride, q, q_stride, rows, table, layer, n, sharing);
}
