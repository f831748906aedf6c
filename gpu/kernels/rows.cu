/* What is done to a row of activations alone: a block a row. */
#include "port.h"

#include "launch.h"

#define BLOCK 256
#define WARPS (BLOCK / SK_WARP)

/* The sum, or the greatest, of every thread's x: to all threads. `shared` holds WARPS floats. */
template <bool GREATEST> SK_DEVICE float over_block(float x, float *shared)
{
	x = GREATEST ? sk_warp_max(x) : sk_warp_sum(x);
	__syncthreads(); /* the last result has been read */
	if (threadIdx.x % SK_WARP == 0)
		shared[threadIdx.x / SK_WARP] = x;
	__syncthreads();
	x = shared[0];
	for (int i = 1; i < WARPS; i++)
		x = GREATEST ? fmaxf(x, shared[i]) : x + shared[i];
	return x;
}

__global__ void __launch_bounds__(BLOCK)
	norm(float *out, uint32_t out_stride, const float *in, uint32_t in_stride, const float *weight,
	     const float *bias, uint32_t width, float eps, bool subtract_mean)
{
	sk_begin();
	__shared__ float shared[WARPS];
	in += (size_t)blockIdx.x * in_stride;
	out += (size_t)blockIdx.x * out_stride;

	float mean = 0;
	if (subtract_mean) {
		for (uint32_t i = threadIdx.x; i < width; i += BLOCK)
			mean += in[i];
		mean = over_block<false>(mean, shared) / width;
	}
	float square = 0;
	for (uint32_t i = threadIdx.x; i < width; i += BLOCK)
		square = fmaf(in[i] - mean, in[i] - mean, square);
	const float scale = 1 / sqrtf(over_block<false>(square, shared) / width + eps);
	for (uint32_t i = threadIdx.x; i < width; i += BLOCK) {
		const float y = (in[i] - mean) * scale * weight[i];
		out[i] = bias ? y + bias[i] : y;
	}
}

cudaError_t sk_gpu_norm(cudaStream_t stream, float *out, uint32_t out_stride, const float *in,
			uint32_t in_stride, const float *weight, const float *bias, uint32_t width,
			uint32_t n, float eps, bool subtract_mean)
{
	return sk_launch(stream, norm, dim3(n), BLOCK, 0, out, out_stride, in, in_stride, weight, bias, width, eps,
			 subtract_mean);
}

enum { GELU, GELU_TANH, SWIGLU }; /* as enum sk_act */

SK_DEVICE float gelu_tanh(float x)
{
	return 0.5f * x * (1 + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

__global__ void activate(float *out, uint32_t out_stride, const float *in, uint32_t in_stride,
			 uint32_t width, int kind)
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
	else if (kind == GELU_TANH)
		y = gelu_tanh(x);
	else
		y = 0.5f * x * (1 + erff(x * 0.7071067811865476f));
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
	__shared__ float shared[WARPS];
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
