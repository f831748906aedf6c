/* Queries are rotated, keys too on their way into their page, and values go there: a block a head and row. */
#include "gpu/kernels/rotary.h"

#define BLOCK 128

/* Queries first, then keys with their values. */
template <class T>
__global__ void __launch_bounds__(BLOCK)
	append(const sk_gpu_cache c, float *q, uint32_t q_stride, const float *qkv, uint32_t qkv_stride,
	       const sk_gpu_row *rows, const uint32_t *table, uint32_t layer)
{
	sk_begin();
	const sk_gpu_row &row = rows[blockIdx.y];
	const uint32_t width = c.n_heads * c.head_dim, first = blockIdx.x * c.head_dim;
	qkv += (size_t)blockIdx.y * qkv_stride;

	if (blockIdx.x >= c.n_heads) {
		sk_put_entry<T>(c, qkv, row, table, layer, blockIdx.x - c.n_heads, BLOCK);
		return;
	}
	float *out = q + (size_t)blockIdx.y * q_stride + first;
	for (uint32_t d = threadIdx.x; d < c.head_dim; d += BLOCK) {
		const float text = sk_rotated(c, qkv + first, d, row.place),
			    sink = sk_rotated(c, qkv + first, d, row.sink_place);
		out[d] = text;
		out[width + d] = sink;
	}
}

cudaError_t sk_gpu_append(cudaStream_t stream, const struct sk_gpu_cache *cache, float *q, uint32_t q_stride,
			  const float *qkv, uint32_t qkv_stride, const struct sk_gpu_row *rows,
			  const uint32_t *table, uint32_t layer, uint32_t n)
{
	const dim3 grid(cache->n_heads + cache->n_kv_heads, n);
	const auto kernel = cache->format == SK_GPU_F16    ? append<__half>
			    : cache->format == SK_GPU_BF16 ? append<__nv_bfloat16>
							   : append<float>;
	return sk_launch(stream, kernel, grid, BLOCK, 0, *cache, q, q_stride, qkv, qkv_stride, rows, table,
			 layer);
}
