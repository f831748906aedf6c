/* A matrix of 16-bit numbers times up to 64 vectors, on the tensor cores, straight from memory: every weight is read
 * once, in words of 16 bytes, and meets all the vectors in registers.
 *
 * A block takes 16 * MT rows of the matrix; its warps share out the columns, 32 at a time, and add up at the end.
 * In mma.m16n8k16 the order of the 16 products is free as long as both sides have the same. So a lane's word of a
 * row (8 columns) serves two of them as it lies: elements 0 to 3 in the first, 4 to 7 in the second.
 *
 * Up to 8 vectors are read as floats and split in two 16-bit numbers, whose products are both summed: nothing of
 * the activations is lost that a product of floats would keep. More come rounded.
 */
#include "format.h"

#define BLOCK 256
#define WARPS (BLOCK / SK_WARP)
#define CHUNK 32 /* columns */

template <int F> SK_DEVICE unsigned pack2(float a, float b);

template <> __device__ __forceinline__ unsigned pack2<SK_GPU_BF16>(float a, float b)
{
	const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
	return *(const unsigned *)&v;
}

template <> __device__ __forceinline__ unsigned pack2<SK_GPU_F16>(float a, float b)
{
	const __half2 v = __floats2half2_rn(a, b);
	return *(const unsigned *)&v;
}

/* Two values as 16-bit numbers, and as such what they lose by it. */
template <int F> SK_DEVICE void split(float a, float b, unsigned *ret_high, unsigned *ret_low)
{
	const unsigned high = pack2<F>(a, b);
	*ret_high = high;
	*ret_low = F == SK_GPU_BF16 ? pack2<F>(a - sk_low_bf16(high), b - sk_high_bf16(high))
				    : pack2<F>(a - sk_low_half(high), b - sk_high_half(high));
}

template <int F> SK_DEVICE void mma(float (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1)
{
	const unsigned a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
	if (F == SK_GPU_BF16)
		sk_mma_bfloats(d, a, b);
	else
		sk_mma_halves(d, a, b);
}

/* One chunk: rows' words times a group of 8 vectors. */
template <int F> SK_DEVICE void mma_chunk(float (&d)[4], const uint4 (&w)[2], uint4 x)
{
	mma<F>(d, w[0].x, w[1].x, w[0].y, w[1].y, x.x, x.y);
	mma<F>(d, w[0].z, w[1].z, w[0].w, w[1].w, x.z, x.w);
}

/* X: float, or the 16 bits of the matrix. NT groups of 8 vectors. */
template <int F, class X, int NT, int MT, int UNROLL>
__global__ void __launch_bounds__(BLOCK)
	few(const sk_gpu_matrix m, float *out, uint32_t out_stride, const X *in, uint32_t in_stride, uint32_t n,
	    bool add)
{
	constexpr bool FLOATS = sizeof(X) == 4;
	__shared__ float shared[WARPS / 2][SK_WARP][MT * NT * 4 + 1];
	const uint32_t lane = threadIdx.x % SK_WARP, warp = threadIdx.x / SK_WARP;
	const uint32_t group = lane / 4, part = lane % 4;
	const uint32_t row0 = blockIdx.x * 16 * MT, n_chunks = m.n_cols / CHUNK;

	const char *rows[MT][2];
#pragma unroll
	for (int t = 0; t < MT; t++)
#pragma unroll
		for (int half = 0; half < 2; half++) { /* past the last row: the last again */
			const uint32_t row = row0 + 16 * t + 8 * half + group;
			rows[t][half] = (const char *)m.codes +
					(size_t)(row < m.n_rows ? row : m.n_rows - 1) * m.n_cols * 2 + part * 16;
		}

	float sums[MT][NT][4] = {};
	sk_let_next_begin();
	bool begun = false;
	for (uint32_t chunk0 = warp; chunk0 < n_chunks; chunk0 += WARPS * UNROLL) {
		uint4 words[UNROLL][MT][2];
#pragma unroll
		for (int u = 0; u < UNROLL; u++)
#pragma unroll
			for (int t = 0; t < MT; t++)
#pragma unroll
				for (int half = 0; half < 2; half++)
					if (chunk0 + u * WARPS < n_chunks)
						words[u][t][half] = sk_load16_once(
							rows[t][half] + (size_t)(chunk0 + u * WARPS) * CHUNK * 2);
		if (!begun) { /* weights are there from the start, and asked for while others still work */
			sk_wait_for_previous();
			begun = true;
		}
#pragma unroll
		for (int u = 0; u < UNROLL; u++) {
			const uint32_t col = (chunk0 + u * WARPS) * CHUNK + part * 8;
			if (chunk0 + u * WARPS >= n_chunks)
				break;
#pragma unroll
			for (int v = 0; v < NT; v++) {
				const bool real = v * 8 + group < n;
				const X *from = in + (size_t)(v * 8 + group) * in_stride + col;
				uint4 high = {}, low = {};
				if (FLOATS && real) {
					const float4 a = ((const float4 *)from)[0], b = ((const float4 *)from)[1];
					split<F>(a.x, a.y, &high.x, &low.x);
					split<F>(a.z, a.w, &high.y, &low.y);
					split<F>(b.x, b.y, &high.z, &low.z);
					split<F>(b.z, b.w, &high.w, &low.w);
				} else if (real) {
					high = *(const uint4 *)from;
				}
#pragma unroll
				for (int t = 0; t < MT; t++) {
					mma_chunk<F>(sums[t][v], words[u][t], high);
					if (FLOATS)
						mma_chunk<F>(sums[t][v], words[u][t], low);
				}
			}
		}
	}
	if (!begun)
		sk_wait_for_previous();

	/* The upper half of the warps gives its sums to the lower, until one has them all. */
#pragma unroll
	for (uint32_t left = WARPS / 2; left; left /= 2) {
		if (warp >= left && warp < 2 * left)
#pragma unroll
			for (int i = 0; i < MT * NT * 4; i++)
				shared[warp - left][lane][i] = sums[i / (NT * 4)][i / 4 % NT][i % 4];
		__syncthreads();
		if (warp < left)
#pragma unroll
			for (int i = 0; i < MT * NT * 4; i++)
				sums[i / (NT * 4)][i / 4 % NT][i % 4] += shared[warp][lane][i];
		__syncthreads();
	}
	if (warp)
		return;
#pragma unroll
	for (int i = 0; i < MT * NT * 4; i++) {
		const uint32_t row = row0 + i / (NT * 4) * 16 + i % 4 / 2 * 8 + group;
		const uint32_t v = i / 4 % NT * 8 + part * 2 + i % 2;
		if (row >= m.n_rows || v >= n)
			continue;
		float *to = out + (size_t)v * out_stride + row;
		const float y = sums[i / (NT * 4)][i / 4 % NT][i % 4] + (m.bias ? m.bias[row] : 0);
		*to = add ? *to + y : y;
	}
}

template <int F, class X, int NT, int MT, int UNROLL>
static cudaError_t run(cudaStream_t stream, const struct sk_gpu_matrix *m, float *out, uint32_t out_stride,
		       const void *in, uint32_t in_stride, uint32_t n, bool add)
{
	return sk_launch(stream, few<F, X, NT, MT, UNROLL>, dim3((m->n_rows + 16 * MT - 1) / (16 * MT)), BLOCK, 0,
			 *m, out, out_stride, (const X *)in, in_stride, n, add);
}

template <int F>
static cudaError_t run_format(cudaStream_t stream, const struct sk_gpu_matrix *m, float *out,
			      uint32_t out_stride, const void *in, uint32_t in_stride, uint32_t n, bool add)
{
	if (n <= SK_GPU_MATVEC_ROWS)
		return run<F, float, 1, 1, 4>(stream, m, out, out_stride, in, in_stride, n, add);
	if (n <= 16)
		return run<F, uint16_t, 2, 1, 4>(stream, m, out, out_stride, in, in_stride, n, add);
	if (n <= 32)
		return run<F, uint16_t, 4, 2, 2>(stream, m, out, out_stride, in, in_stride, n, add);
	return run<F, uint16_t, 8, 2, 2>(stream, m, out, out_stride, in, in_stride, n, add);
}

cudaError_t sk_gpu_few(cudaStream_t stream, const struct sk_gpu_matrix *m, float *out, uint32_t out_stride,
		       const void *in, uint32_t in_stride, uint32_t n, bool add)
{
	if (n > SK_GPU_FEW_ROWS)
		return cudaErrorInvalidValue;
	if (m->format == SK_GPU_BF16)
		return run_format<SK_GPU_BF16>(stream, m, out, out_stride, in, in_stride, n, add);
	if (m->format == SK_GPU_F16)
		return run_format<SK_GPU_F16>(stream, m, out, out_stride, in, in_stride, n, add);
	return cudaErrorInvalidValue;
}
