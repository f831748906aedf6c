/* Rotary positions, and the way of keys and values into their page: a block a row.
 *
 * An angle is position times step, both counted in turns: 64-bit integers in units of 2^-64, whose product
 * drops whole turns by itself, so that it is as exact at a position of a million millions as at one.
 */
#include "port.h"

#include "launch.h"

#define BLOCK     256
#define MAX_PAIRS 128

SK_DEVICE void rotation(uint64_t place, uint64_t step, float *ret_sin, float *ret_cos)
{
	/* (-1, 1) half turns */
	sincospif((float)(int64_t)(place * step) * 0x1p-63f, ret_sin, ret_cos);
}

SK_DEVICE void put_kv(float *to, float x)
{
	*to = x;
}

SK_DEVICE void put_kv(__half *to, float x)
{
	*to = __float2half_rn(x);
}

template <class T>
__global__ void __launch_bounds__(BLOCK)
	append(const sk_gpu_cache c, float *q, uint32_t q_stride, const float *qkv, uint32_t qkv_stride,
	       const sk_gpu_row *rows, const uint32_t *table, uint32_t layer)
{
	sk_begin();
	constexpr uint32_t N = 16 / sizeof(T);
	__shared__ float sines[2][MAX_PAIRS], cosines[2][MAX_PAIRS];
	const sk_gpu_row row = rows[blockIdx.x];
	const uint32_t half = c.n_rot / 2, width = c.n_heads * c.head_dim;
	qkv += (size_t)blockIdx.x * qkv_stride;
	q += (size_t)blockIdx.x * q_stride;

	for (uint32_t i = threadIdx.x; i < 2 * half; i += BLOCK)
		rotation(i < half ? row.place : row.sink_place, c.steps[i % half], &sines[i / half][i % half],
			 &cosines[i / half][i % half]);
	__syncthreads();

	for (uint32_t i = threadIdx.x; i < width; i += BLOCK) {
		const uint32_t d = i % c.head_dim, pair = d < half ? d : d - half;
		if (d >= c.n_rot) {
			q[i] = q[width + i] = qkv[i];
			continue;
		}
		const float x = qkv[i], y = d < half ? -qkv[i + half] : qkv[i - half];
		for (int w = 0; w < 2; w++)
			q[w * width + i] = x * cosines[w][pair] + y * sines[w][pair];
	}

	char *page = c.pages + table[row.pages + row.n_pages - 1] * c.page_bytes + layer * c.layer_bytes;
	const float *keys = qkv + width, *values = keys + c.n_kv_heads * c.head_dim;
	for (uint32_t i = threadIdx.x; i < c.n_kv_heads * c.head_dim; i += BLOCK) {
		const uint32_t d = i % c.head_dim, pair = d < half ? d : d - half;
		T *k = (T *)(page + i / c.head_dim * c.head_bytes);
		T *v = k + SK_GPU_PAGE_TOKENS * c.padded_dim;
		float x = keys[i];
		if (d < c.n_rot)
			x = x * cosines[0][pair] + (d < half ? -keys[i + half] : keys[i - half]) * sines[0][pair];
		put_kv(&k[(d / N * SK_GPU_PAGE_TOKENS + row.last_slot) * N + d % N], x);
		put_kv(&v[row.last_slot * c.padded_dim + d], values[i]);
	}
}

cudaError_t sk_gpu_append(cudaStream_t stream, const struct sk_gpu_cache *cache, float *q, uint32_t q_stride,
			  const float *qkv, uint32_t qkv_stride, const struct sk_gpu_row *rows,
			  const uint32_t *table, uint32_t layer, uint32_t n)
{
	if (cache->n_rot / 2 > MAX_PAIRS)
		return cudaErrorInvalidValue;
	if (cache->halves)
		return sk_launch(stream, append<__half>, dim3(n), BLOCK, 0, *cache, q, q_stride, qkv, qkv_stride,
				 rows, table, layer);
	return sk_launch(stream, append<float>, dim3(n), BLOCK, 0, *cache, q, q_stride, qkv, qkv_stride, rows,
			 table, layer);
}
