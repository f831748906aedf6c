/* A matrix times a few vectors: as fast as memory gives the weights. A warp takes ROWS rows of the matrix
 * at a time, its lanes words of 16 bytes, UNROLL of them in flight for each row.
 */
#include "gpu/kernels/format.h"

#define BLOCK 256

template <int F, int VECTORS, int ROWS, int UNROLL>
__global__ void __launch_bounds__(BLOCK)
	matvec(const sk_gpu_matrix m, float *out, uint32_t out_stride, const float *in, uint32_t in_stride,
	       uint32_t n, bool add)
{
	sk_begin();
	constexpr int N = sk_word<F>::N;
	const uint32_t lane = threadIdx.x % SK_WARP;
	const uint32_t row0 = (blockIdx.x * (BLOCK / SK_WARP) + threadIdx.x / SK_WARP) * ROWS;
	const uint32_t n_words = m.n_cols / N;
	const size_t row_bytes = (size_t)n_words * 16, scale_bytes = sk_scale_bytes(F, m.n_cols);
	if (row0 >= m.n_rows)
		return;

	const char *codes[ROWS], *scales[ROWS];
#pragma unroll
	for (int r = 0; r < ROWS; r++) { /* past the last row: the last again */
		const uint32_t row = row0 + r < m.n_rows ? row0 + r : m.n_rows - 1;
		codes[r] = (const char *)m.codes + row * row_bytes;
		scales[r] = (const char *)m.scales + row * scale_bytes;
	}

	float sums[ROWS][VECTORS] = {};
	for (uint32_t word0 = lane; word0 < n_words; word0 += UNROLL * SK_WARP) {
		uint4 words[ROWS][UNROLL];
#pragma unroll
		for (int u = 0; u < UNROLL; u++)
#pragma unroll
			for (int r = 0; r < ROWS; r++)
				if (word0 + u * SK_WARP < n_words)
					words[r][u] = sk_load16_once(codes[r] + (size_t)(word0 + u * SK_WARP) * 16);
#pragma unroll
		for (int u = 0; u < UNROLL; u++) {
			const uint32_t word = word0 + u * SK_WARP;
			if (word >= n_words)
				break;
#pragma unroll
			for (int r = 0; r < ROWS; r++) {
				sk_word<F> w;
				w.set(words[r][u], scales[r], word, m.zero);
#pragma unroll
				for (int v = 0; v < VECTORS; v++) {
					const float *x = in + (size_t)(v < (int)n ? v : 0) * in_stride + (size_t)word * N;
					float sum = 0;
#pragma unroll
					for (int i = 0; i < N / 4; i++) {
						const float4 x4 = sk_load_floats(x + (size_t)i * 4);
						sum = fmaf(w.v[4 * i], x4.x, sum);
						sum = fmaf(w.v[4 * i + 1], x4.y, sum);
						sum = fmaf(w.v[4 * i + 2], x4.z, sum);
						sum = fmaf(w.v[4 * i + 3], x4.w, sum);
					}
					sums[r][v] += sum;
				}
			}
		}
	}

#pragma unroll
	for (int r = 0; r < ROWS; r++)
#pragma unroll
		for (int v = 0; v < VECTORS; v++) {
			const float sum = sk_warp_sum(sums[r][v]);
			if (lane == 0 && row0 + r < m.n_rows && v < (int)n) {
				float *to = out + (size_t)v * out_stride + row0 + r;
				const float y = m.bias ? sum + m.bias[row0 + r] : sum;
				*to = add ? *to + y : y;
			}
		}
}

template <int F, int VECTORS, int ROWS, int UNROLL>
static cudaError_t run(cudaStream_t stream, const struct sk_gpu_matrix *m, float *out, uint32_t out_stride,
		       const float *in, uint32_t in_stride, uint32_t n, bool add)
{
	const uint32_t a_block = BLOCK / SK_WARP * ROWS;
	return sk_launch(stream, matvec<F, VECTORS, ROWS, UNROLL>, dim3((m->n_rows + a_block - 1) / a_block),
			 BLOCK, 0, *m, out, out_stride, in, in_stride, n, add);
}

cudaError_t sk_gpu_matvec(cudaStream_t stream, const struct sk_gpu_matrix *m, float *out,
			  uint32_t out_stride, const float *in, uint32_t in_stride, uint32_t n, bool add)
{
	return sk_by_format(m->format, [&](auto format) {
		constexpr int F = decltype(format)::value;
		constexpr int U = sk_word<F>::N > 8 ? 2 : 4;
		if (n == 1)
			return run<F, 1, 1, U>(stream, m, out, out_stride, in, in_stride, n, add);
		if (n == 2)
			return run<F, 2, 2, U / 2>(stream, m, out, out_stride, in, in_stride, n, add);
		if (n <= 4)
			return run<F, 4, 2, U / 2>(stream, m, out, out_stride, in, in_stride, n, add);
		return run<F, 8, 2, U / 2>(stream, m, out, out_stride, in, in_stride, n, add);
	});
}
