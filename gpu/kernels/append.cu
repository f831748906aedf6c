/* Rotary positions, and the way of keys and values into their page: a block a row.
 *
 * An angle is position times step, both counted in turns: 64-bit integers in units of 2^-64, whose product
 * drops whole turns by itself, so that it is as exact at a position of a million millions as at one.
 */
#include "gpu/kernels/port.h"

#include "gpu/kernels/launch.h"

#define BLOCK 128

SK_DEVICE void rotation(uint64_t place, uint64_t step, float *ret_sin, float *ret_cos)
{
	/* (-1, 1) half turns */
	sincospif((float)(int64_t)(place * step) * 0x1p-63f, ret_sin, ret_cos);
}

/* Dim d of a head, rotated to `place`. */
SK_DEVICE float rotated(const sk_gpu_cache &c, const float *head, uint32_t d, uint64_t place)
{
	const uint32_t half = c.n_rot / 2;
	if (d >= c.n_rot)
		return head[d];
	float sine, cosine;
	rotation(place, c.steps[d < half ? d : d - half], &sine, &cosine);
	return head[d] * cosine + (d < half ? -head[d + half] : head[d - half]) * sine;
}

SK_DEVICE void put_kv(float *to, float x)
{
	*to = x;
}

SK_DEVICE void put_kv(__half *to, float x)
{
	*to = __float2half_rn(x);
}

SK_DEVICE void put_kv(__nv_bfloat16 *to, float x)
{
	*to = __float2bfloat16_rn(x);
}

/* A block a head and row: queries first, then keys with their values. */
template <class T>
__global__ void __launch_bounds__(BLOCK)
	append(const sk_gpu_cache c, float *q, uint32_t q_stride, const float *qkv, uint32_t qkv_stride,
	       const sk_gpu_row *rows, const uint32_t *table, uint32_t layer)
{
	sk_begin();
	constexpr uint32_t N = 16 / sizeof(T);
	const sk_gpu_row &row = rows[blockIdx.y];
	const uint32_t width = c.n_heads * c.head_dim, first = blockIdx.x * c.head_dim;
	const float *head = qkv + (size_t)blockIdx.y * qkv_stride + first;

	if (blockIdx.x < c.n_heads) {
		float *out = q + (size_t)blockIdx.y * q_stride + first;
		for (uint32_t d = threadIdx.x; d < c.head_dim; d += BLOCK) {
			const float text = rotated(c, head, d, row.place), sink = rotated(c, head, d, row.sink_place);
			out[d] = text;
			out[width + d] = sink;
		}
		return;
	}
	const uint32_t slot = row.last_slot;
	T *k = (T *)(c.pages + table[row.pages + row.n_pages - 1] * c.page_bytes + layer * c.layer_bytes +
		     (blockIdx.x - c.n_heads) * c.head_bytes);
	T *v = k + SK_GPU_PAGE_TOKENS * c.padded_dim;
	for (uint32_t d = threadIdx.x; d < c.head_dim; d += BLOCK) {
		const float key = rotated(c, head, d, row.place), value = head[c.n_kv_heads * c.head_dim + d];
		put_kv(&k[(d / N * SK_GPU_PAGE_TOKENS + slot) * N + d % N], key);
		put_kv(&v[slot * c.padded_dim + d], value);
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
