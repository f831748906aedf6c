/* Attention over pages. What a row sees is a run of pages, those of its sinks and then those of its window, cut
 * into segments. A warp takes a page: a lane a token for the scores, a lane 16 bytes of a value for their weighted
 * sum. A segment's pages become one part of the softmax, and parts are joined in order: in one block, or in as
 * many as there are segments, the last of which joins what the others left. Order within the ring of pages does
 * not matter to a softmax, so nothing is copied together; the same parts in the same order give the same bits.
 */
#include "format.h"

#define WARPS SK_GPU_SEGMENT_PAGES
#define BLOCK (WARPS * SK_WARP)
#define MAX_DIM 256

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

/* Shared memory of a block, all of `padded_dim` floats but the last two. */
template <int G> struct room {
	float *text, *sink, *sums; /* (G), (G), (WARPS, G) */
	float *weights;            /* (WARPS, G, SK_WARP) of a page's tokens */
	float *most, *weight;      /* (WARPS, G) */
};

template <int G> SK_DEVICE room<G> room_of(float *shared, uint32_t padded_dim)
{
	room<G> r;
	r.text = shared;
	r.sink = r.text + G * padded_dim;
	r.sums = r.sink + G * padded_dim;
	r.weights = r.sums + WARPS * G * padded_dim;
	r.most = r.weights + WARPS * G * SK_WARP;
	r.weight = r.most + WARPS * G;
	return r;
}

template <int G> static size_t room_bytes(uint32_t padded_dim)
{
	return ((2 + WARPS) * G * padded_dim + WARPS * G * (SK_WARP + 2)) * sizeof(float);
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
	for (uint32_t word = 0; word < n_words; word++) {
		w.set(*(const uint4 *)(head + ((size_t)word * SK_WARP + lane) * 16), nullptr, 0, 0);
#pragma unroll
		for (int g = 0; g < G; g++)
#pragma unroll
			for (int i = 0; i < N; i++)
				scores[g] = fmaf(w.v[i], q[g * c.padded_dim + word * N + i], scores[g]);
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
		if (token < tokens)
			for (uint32_t t = from + token; t < to; t += tokens) {
				w.set(*(const uint4 *)(values + ((size_t)t * n_words + word) * 16), nullptr, 0, 0);
#pragma unroll
				for (int g = 0; g < G; g++)
#pragma unroll
					for (int i = 0; i < N; i++)
						sum[g][i] = fmaf(w.v[i], weights[g * SK_WARP + t], sum[g][i]);
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

/* Dim d of head g, of what the block's warps found, in order. */
template <int G>
SK_DEVICE void join_warps(const room<G> &r, uint32_t padded_dim, int g, uint32_t d, float *most, float *weight,
			  float *sum)
{
	*weight = 0;
	for (int warp = 0; warp < WARPS; warp++)
		if (r.weight[warp * G + g] != 0) /* else it had no page */
			join(most, weight, sum, r.most[warp * G + g], r.weight[warp * G + g],
			     r.sums[((size_t)warp * G + g) * padded_dim + d]);
}

/* One segment: every warp its page, or none. */
template <int F, int G>
SK_DEVICE void segment_of(const sk_gpu_cache &c, const room<G> &r, const sk_gpu_row &row, const uint32_t *table,
			  uint32_t layer, uint32_t kv_head, uint32_t segment, float scale)
{
	const uint32_t warp = threadIdx.x / SK_WARP, lane = threadIdx.x % SK_WARP;
	const uint32_t i = segment * WARPS + warp;
	if (i >= row.n_sink_pages + row.n_pages) {
		if (lane == 0)
			for (int g = 0; g < G; g++)
				r.weight[warp * G + g] = 0;
		return;
	}
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
__global__ void __launch_bounds__(BLOCK)
	attend(const sk_gpu_cache c, float *out, uint32_t out_stride, const float *q, uint32_t q_stride,
	       const sk_gpu_row *rows, const uint32_t *table, uint32_t layer, float *parts, uint32_t *counters)
{
	sk_begin();
	__shared__ bool last;
	const room<G> r = room_of<G>((float *)cu_smem, c.padded_dim);
	const heads h = heads_of<G>(c, blockIdx.y);
	const sk_gpu_row row = rows[blockIdx.z];
	const uint32_t n_segments = (row.n_sink_pages + row.n_pages + WARPS - 1) / WARPS;
	const bool alone = gridDim.x == 1;
	const float scale = 1 / sqrtf((float)c.head_dim);
	if (!alone && blockIdx.x >= n_segments)
		return;

	for (uint32_t i = threadIdx.x; i < G * c.padded_dim; i += BLOCK) {
		const uint32_t g = i / c.padded_dim, d = i % c.padded_dim;
		const float *from = q + (size_t)blockIdx.z * q_stride + (h.first + g) * c.head_dim + d;
		const bool real = g < h.n && d < c.head_dim;
		r.text[i] = real ? from[0] : 0;
		r.sink[i] = real ? from[c.n_heads * c.head_dim] : 0;
	}
	__syncthreads();

	/* A thread keeps dims threadIdx.x and threadIdx.x + BLOCK of every head. */
	constexpr int DIMS = MAX_DIM / BLOCK;
	float most[G][DIMS], weight[G][DIMS] = {}, sum[G][DIMS];
	for (uint32_t s = alone ? 0 : blockIdx.x; s < (alone ? n_segments : blockIdx.x + 1); s++) {
		segment_of<F, G>(c, r, row, table, layer, h.kv, s, scale);
		__syncthreads();
#pragma unroll
		for (int g = 0; g < G; g++)
#pragma unroll
			for (int k = 0; k < DIMS; k++)
				if (threadIdx.x + k * BLOCK < c.padded_dim) {
					float most2, weight2, sum2;
					join_warps<G>(r, c.padded_dim, g, threadIdx.x + k * BLOCK, &most2, &weight2,
						      &sum2);
					join(&most[g][k], &weight[g][k], &sum[g][k], most2, weight2, sum2);
				}
		__syncthreads();
	}

	if (!alone) {
		const uint32_t stride = c.padded_dim + 2;
		float *all = parts + ((size_t)blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x * G * stride;
#pragma unroll
		for (int g = 0; g < G; g++)
#pragma unroll
			for (int k = 0; k < DIMS; k++) {
				const uint32_t d = threadIdx.x + k * BLOCK;
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
			if (last)
				*counter = 0;
			__threadfence();
		}
		__syncthreads();
		if (!last)
			return;
#pragma unroll
		for (int g = 0; g < G; g++)
#pragma unroll
			for (int k = 0; k < DIMS; k++) {
				const uint32_t d = threadIdx.x + k * BLOCK;
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
			const uint32_t d = threadIdx.x + k * BLOCK;
			if (g < (int)h.n && d < c.head_dim)
				out[(size_t)blockIdx.z * out_stride + (h.first + g) * c.head_dim + d] =
					sum[g][k] / weight[g][k];
		}
}

template <int F, int G>
static cudaError_t run(cudaStream_t stream, const struct sk_gpu_cache *c, float *out, uint32_t out_stride,
		       const float *q, uint32_t q_stride, const struct sk_gpu_row *rows, const uint32_t *table,
		       uint32_t layer, uint32_t n, uint32_t n_segments, float *parts, uint32_t *counters)
{
	const uint32_t shared = c->n_heads / c->n_kv_heads;
	const dim3 grid(n_segments, c->n_kv_heads * ((shared + G - 1) / G), n);
	return sk_launch(stream, attend<F, G>, grid, BLOCK, room_bytes<G>(c->padded_dim), *c, out, out_stride, q,
			 q_stride, rows, table, layer, parts, counters);
}

cudaError_t sk_gpu_attend(cudaStream_t stream, const struct sk_gpu_cache *cache, float *out,
			  uint32_t out_stride, const float *q, uint32_t q_stride,
			  const struct sk_gpu_row *rows, const uint32_t *table, uint32_t layer, uint32_t n,
			  uint32_t n_segments, float *parts, uint32_t *counters)
{
	const uint32_t shared = cache->n_heads / cache->n_kv_heads;
	if (cache->padded_dim > MAX_DIM)
		return cudaErrorInvalidValue;
#define RUN(F, G)                                                                                          \
	run<F, G>(stream, cache, out, out_stride, q, q_stride, rows, table, layer, n, n_segments, parts,   \
		  counters)
	if (cache->halves)
		return shared == 1 ? RUN(SK_GPU_F16, 1) : shared == 2 ? RUN(SK_GPU_F16, 2) : shared == 3 ? RUN(SK_GPU_F16, 3) : RUN(SK_GPU_F16, 4);
	return shared == 1 ? RUN(SK_GPU_F32, 1) : shared == 2 ? RUN(SK_GPU_F32, 2) : shared == 3 ? RUN(SK_GPU_F32, 3) : RUN(SK_GPU_F32, 4);
#undef RUN
}
