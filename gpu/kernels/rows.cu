/* What is done to a row of activations alone: a block a row. */
#include "gpu/kernels/port.h"

#include "gpu/kernels/launch.h"

#define BLOCK     256
#define MAX_WARPS 32

/* The sum, or the greatest, of every thread's x: to all threads. `shared` holds a float a warp. */
template <bool GREATEST> SK_DEVICE float over_block(float x, float *shared)
{
	x = GREATEST ? sk_warp_max(x) : sk_warp_sum(x);
	__syncthreads(); /* the last result has been read */
	if (threadIdx.x % SK_WARP == 0)
		shared[threadIdx.x / SK_WARP] = x;
	__syncthreads();
	x = shared[0];
	for (uint32_t i = 1; i < blockDim.x / SK_WARP; i++)
		x = GREATEST ? fmaxf(x, shared[i]) : x + shared[i];
	return x;
}

struct norms {
	struct sk_gpu_norm norm[2];
};

__global__ void __launch_bounds__(MAX_WARPS *SK_WARP)
	norm(const norms both, uint32_t out_stride, const float *in, uint32_t in_stride, uint32_t width, float eps,
	     bool subtract_mean)
{
	sk_begin();
	__shared__ float shared[MAX_WARPS];
	in += (size_t)blockIdx.x * in_stride;

	float mean = 0, square = 0, rest = 0;
	if (subtract_mean) {
		for (uint32_t i = threadIdx.x; i < width; i += blockDim.x)
			mean += in[i];
		mean = over_block<false>(mean, shared) / (float)width;
	}
	for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) {
		const float x = in[i] - mean;
		square = fmaf(x, x, square);
		rest += x;
	}
	square = over_block<false>(square, shared) / (float)width;
	if (subtract_mean) { /* what rounding left of it, where much is alike, or one is far from all others */
		rest = over_block<false>(rest, shared) / (float)width;
		mean += rest;
		square = fmaxf(square - rest * rest, 0);
	}
	const float scale = 1 / sqrtf(square + eps);
	for (int k = 0; k < 2; k++) {
		const struct sk_gpu_norm &n = both.norm[k];
		if (!n.out)
			continue;
		float *out = n.out + (size_t)blockIdx.x * out_stride;
		for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) {
			const float y = (in[i] - mean) * scale * n.weight[i];
			out[i] = n.bias ? y + n.bias[i] : y;
		}
	}
}

cudaError_t sk_gpu_norm(cudaStream_t stream, const struct sk_gpu_norm all[2], uint32_t out_stride,
			const float *in, uint32_t in_stride, uint32_t width, uint32_t n, float eps,
			bool subtract_mean)
{
	const norms both = {{all[0], all[1]}};
	/* few rows: the sooner one is done the better */
	return sk_launch(stream, norm, dim3(n), n <= 32 ? MAX_WARPS * SK_WARP : BLOCK, 0, both, out_stride, in, in_stride,
			 width, eps, subtract_mean);
}

#define SWIGLU 2 /* SK_ACT_SWIGLU */

__global__ void __launch_bounds__(BLOCK)
	activate(float *out, uint32_t out_stride, const float *in, uint32_t in_stride, uint32_t width, int kind)
{
	sk_begin();
	const uint32_t i = blockIdx.x * BLOCK + threadIdx.x;
	if (i >= width)
		return;
	const float *from = in + (size_t)blockIdx.y * in_stride;
	const float x = from[i];
	float y;
	if (kind == SWIGLU)
		y = x / (1 + expf(-x)) * from[width + i];
	else
		y = sk_gelu(x, kind);
	out[(size_t)blockIdx.y * out_stride + i] = y;
}

cudaError_t sk_gpu_activate(cudaStream_t stream, float *out, uint32_t out_stride, const float *in,
			    uint32_t in_stride, uint32_t width, uint32_t n, int kind)
{
	return sk_launch(stream, activate, dim3((width + BLOCK - 1) / BLOCK, n), BLOCK, 0, out, out_stride, in,
			 in_stride, width, kind);
}

__global__ void __launch_bounds__(BLOCK) score(float *out, uint32_t out_stride, const float *logits,
					       uint32_t stride, const uint32_t *ids, uint32_t n_vocab)
{
	sk_begin();
	__shared__ float shared[MAX_WARPS];
	logits += (size_t)blockIdx.x * stride;

	float most = -INFINITY;
	for (uint32_t i = threadIdx.x; i < n_vocab; i += BLOCK)
		most = fmaxf(most, logits[i]);
	most = over_block<true>(most, shared);
	float sum = 0; /* a logit that is NaN makes it NaN, and so do only infinite ones */
	for (uint32_t i = threadIdx.x; i < n_vocab; i += BLOCK)
		sum += expf(logits[i] - most);
	sum = over_block<false>(sum, shared);
	if (threadIdx.x == 0)
		out[(size_t)blockIdx.x * out_stride] = logits[ids[blockIdx.x]] - most - logf(sum);
}

cudaError_t sk_gpu_score(cudaStream_t stream, float *out, uint32_t out_stride, const float *logits,
			 uint32_t stride, const uint32_t *ids, uint32_t n_vocab, uint32_t n)
{
	return sk_launch(stream, score, dim3(n), BLOCK, 0, out, out_stride, logits, stride, ids, n_vocab);
}
