/* From one format to another: weights for the library that multiplies matrices, activations for it, rows of
 * an embedding.
 */
#include "gpu/kernels/format.h"

#define BLOCK 256

SK_DEVICE void put(float *out, float x)
{
	*out = x;
}

SK_DEVICE void put(__half *out, float x) /* what is too large for a half becomes the largest */
{
	const bool finite = fabsf(x) < INFINITY;
	*out = __float2half_rn(finite ? fminf(fmaxf(x, -65504.f), 65504.f) : x);
}

SK_DEVICE void put(__nv_bfloat16 *out, float x)
{
	*out = __float2bfloat16_rn(x);
}

/* A word a thread; blockIdx.y is the row. */
template <int F, class T> __global__ void __launch_bounds__(BLOCK) decode(const sk_gpu_matrix m, T *out)
{
	sk_begin();
	constexpr int N = sk_word<F>::N;
	const uint32_t word = blockIdx.x * BLOCK + threadIdx.x, n_words = m.n_cols / N;
	for (uint32_t row = blockIdx.y; row < m.n_rows && word < n_words; row += gridDim.y) {
		sk_word<F> w;
		w.set(sk_load16_once((const char *)m.codes + ((size_t)row * n_words + word) * 16),
		      (const char *)m.scales + row * sk_scale_bytes(F, m.n_cols), word, m.zero);
		for (int i = 0; i < N; i++)
			put(out + (size_t)row * m.n_cols + word * N + i, w.v[i]);
	}
}

template <int F, class T>
static cudaError_t run_decode(cudaStream_t stream, const struct sk_gpu_matrix *m, void *out)
{
	const uint32_t n_words = m->n_cols / sk_word<F>::N;
	const uint32_t rows = m->n_rows < 16384 ? m->n_rows : 16384;
	return sk_launch(stream, decode<F, T>, dim3((n_words + BLOCK - 1) / BLOCK, rows), BLOCK, 0, *m, (T *)out);
}

cudaError_t sk_gpu_decode(cudaStream_t stream, const struct sk_gpu_matrix *m, void *out,
			  enum sk_gpu_format to)
{
	return sk_by_format(m->format, [&](auto format) {
		constexpr int F = decltype(format)::value;
		return to == SK_GPU_F32   ? run_decode<F, float>(stream, m, out)
		       : to == SK_GPU_F16 ? run_decode<F, __half>(stream, m, out)
					  : run_decode<F, __nv_bfloat16>(stream, m, out);
	});
}

__global__ void __launch_bounds__(BLOCK) round_rows(__nv_bfloat16 *out, const float *in, uint32_t width)
{
	sk_begin();
	const uint32_t i = blockIdx.x * BLOCK + threadIdx.x;
	if (i < width)
		put(out + (size_t)blockIdx.y * width + i, in[(size_t)blockIdx.y * width + i]);
}

cudaError_t sk_gpu_round(cudaStream_t stream, void *out, const float *in, uint32_t width, uint32_t n)
{
	return sk_launch(stream, round_rows, dim3((width + BLOCK - 1) / BLOCK, n), BLOCK, 0, (__nv_bfloat16 *)out, in,
			 width);
}

/* --- Halves ---
 *
 * They end at 65504, and below 2^-14 have fewer and fewer bits. So a row whose greatest number is far from their middle is
 * scaled by a power of two, which loses nothing; most are not.
 */
#define WIDE 1024

/* Exponents of floats as they lie in memory. A row whose greatest number has one of these is as it should be. */
#define LEAST_EXPONENT (127u - 3)
#define MOST_EXPONENT  (127u + 14)
#define MOST_SHIFT     80u /* so much larger at most: there must be room for what the products are added to */

SK_DEVICE float scale_for(float most)
{
	const uint32_t exponent = __float_as_uint(most) >> 23;
	if (most == 0 || (exponent >= LEAST_EXPONENT && exponent <= MOST_EXPONENT))
		return 1;
	return __uint_as_float((127 + MOST_EXPONENT - max(exponent, MOST_EXPONENT - MOST_SHIFT)) << 23);
}

/* A block a row, also of what its products are added to. */
__global__ void __launch_bounds__(WIDE)
	halve_rows(__half *halves, float *scales, const float *in, uint32_t width, float *out, uint32_t out_stride,
		   const float *bias, uint32_t out_width, bool add)
{
	sk_begin();
	__shared__ float shared[WIDE / SK_WARP];
	const size_t row = blockIdx.x;
	in += row * width;
	halves += row * width;
	float most = 0;
	for (uint32_t i = threadIdx.x * 4; i < width; i += WIDE * 4) {
		const float4 x = sk_load_floats(in + i);
		most = fmaxf(most, fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w))));
	}
	most = sk_warp_max(most);
	if (threadIdx.x % SK_WARP == 0)
		shared[threadIdx.x / SK_WARP] = most;
	__syncthreads();
	for (int i = 0; i < WIDE / SK_WARP; i++)
		most = fmaxf(most, shared[i]);
	const float scale = scale_for(most);
	if (threadIdx.x == 0)
		scales[row] = scale;
	for (uint32_t i = threadIdx.x * 4; i < width; i += WIDE * 4) {
		const float4 x = sk_load_floats(in + i);
		const __half2 a = __floats2half2_rn(x.x * scale, x.y * scale),
			      b = __floats2half2_rn(x.z * scale, x.w * scale);
		*(uint2 *)(halves + i) = {*(const unsigned *)&a, *(const unsigned *)&b};
	}
	if (!bias && (!add || scale == 1))
		return;
	out += row * out_stride;
	for (uint32_t i = threadIdx.x; i < out_width; i += WIDE) {
		const float before = (add ? out[i] : 0) + (bias ? bias[i] : 0);
		out[i] = before * scale;
	}
}

cudaError_t sk_gpu_halve(cudaStream_t stream, void *halves, float *scales, const float *in, uint32_t width,
			 float *out, uint32_t out_stride, const float *bias, uint32_t out_width, uint32_t n, bool add)
{
	return sk_launch(stream, halve_rows, dim3(n), WIDE, 0, (__half *)halves, scales, in, width, out, out_stride,
			 bias, out_width, add);
}

__global__ void __launch_bounds__(BLOCK)
	unscale_rows(float *out, uint32_t stride, const float *scales, uint32_t width)
{
	sk_begin();
	const float scale = scales[blockIdx.y];
	if (scale == 1)
		return;
	const float back = 1 / scale; /* a power of two as well */
	for (uint32_t i = blockIdx.x * BLOCK + threadIdx.x; i < width; i += gridDim.x * BLOCK)
		out[(size_t)blockIdx.y * stride + i] *= back;
}

cudaError_t sk_gpu_unscale(cudaStream_t stream, float *out, uint32_t stride, const float *scales, uint32_t width,
			   uint32_t n)
{
	const uint32_t blocks = (width + BLOCK - 1) / BLOCK; /* few: seldom is there something to do */
	return sk_launch(stream, unscale_rows, dim3(blocks < 8 ? blocks : 8, n), BLOCK, 0, out, stride, scales, width);
}

__global__ void __launch_bounds__(BLOCK)
	bias_rows(float *out, uint32_t stride, const float *bias, uint32_t width, bool add)
{
	sk_begin();
	const uint32_t i = blockIdx.x * BLOCK + threadIdx.x;
	if (i < width) {
		float *to = out + (size_t)blockIdx.y * stride + i;
		*to = add ? *to + bias[i] : bias[i];
	}
}

cudaError_t sk_gpu_bias(cudaStream_t stream, float *out, uint32_t stride, const float *bias,
			uint32_t width, uint32_t n, bool add)
{
	return sk_launch(stream, bias_rows, dim3((width + BLOCK - 1) / BLOCK, n), BLOCK, 0, out, stride, bias,
			 width, add);
}

template <int F>
__global__ void __launch_bounds__(BLOCK)
	embed(float *out, uint32_t stride, const sk_gpu_matrix m, const sk_gpu_row *rows, uint32_t width)
{
	sk_begin();
	constexpr int N = sk_word<F>::N;
	const uint32_t n_words = m.n_cols / N;
	const size_t row = (uint32_t)rows[blockIdx.y].id;
	for (uint32_t word = blockIdx.x * BLOCK + threadIdx.x; word < n_words; word += gridDim.x * BLOCK) {
		float *to = out + (size_t)blockIdx.y * stride + (size_t)word * N;
		sk_word<F> w;
		w.set(sk_load16_once((const char *)m.codes + (row * n_words + word) * 16),
		      (const char *)m.scales + row * sk_scale_bytes(F, m.n_cols), word, m.zero);
		for (int i = 0; i < N && word * N + i < width; i++)
			to[i] = w.v[i];
	}
}

cudaError_t sk_gpu_embed(cudaStream_t stream, float *out, uint32_t stride, const struct sk_gpu_matrix *m,
			 const struct sk_gpu_row *rows, uint32_t width, uint32_t n)
{
	return sk_by_format(m->format, [&](auto format) {
		constexpr int F = decltype(format)::value;
		const uint32_t n_words = m->n_cols / sk_word<F>::N;
		return sk_launch(stream, embed<F>, dim3((n_words + BLOCK - 1) / BLOCK, n), BLOCK, 0, out, stride,
				 *m, rows, width);
	});
}

__global__ void __launch_bounds__(BLOCK)
	gather(float *out, uint32_t out_stride, const float *in, uint32_t in_stride, const uint32_t *rows, uint32_t width)
{
	sk_begin();
	const uint32_t i = blockIdx.x * BLOCK + threadIdx.x;
	if (i < width)
		out[(size_t)blockIdx.y * out_stride + i] = in[(size_t)rows[blockIdx.y] * in_stride + i];
}

cudaError_t sk_gpu_gather(cudaStream_t stream, float *out, uint32_t out_stride, const float *in,
			  uint32_t in_stride, const uint32_t *rows, uint32_t width, uint32_t n)
{
	return sk_launch(stream, gather, dim3((width + BLOCK - 1) / BLOCK, n), BLOCK, 0, out, out_stride, in,
			 in_stride, rows, width);
}
