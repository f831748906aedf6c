/* Rotary positions, and the way of keys and values into their page.
 *
 * An angle is position times step, both counted in turns: 64-bit integers in units of 2^-64, whose product
 * drops whole turns by itself, so that it is as exact at a position of a million millions as at one.
 */
#pragma once

#include "gpu/kernels/port.h"

#include "gpu/kernels/launch.h"

SK_DEVICE void sk_rotation(uint64_t place, uint64_t step, float *ret_sin, float *ret_cos)
{
	/* (-1, 1) half turns */
	sincospif((float)(int64_t)(place * step) * 0x1p-63f, ret_sin, ret_cos);
}

/* Dim d of a head, rotated to `place`: the same bits wherever it is done. */
SK_DEVICE float sk_rotated(const sk_gpu_cache &c, const float *head, uint32_t d, uint64_t place)
{
	const uint32_t half = c.n_rot / 2;
	if (d >= c.n_rot)
		return head[d];
	float sine, cosine;
	sk_rotation(place, c.steps[d < half ? d : d - half], &sine, &cosine);
	return fmaf(d < half ? -head[d + half] : head[d - half], sine, sk_mul(head[d], cosine));
}

SK_DEVICE void sk_put_kv(float *to, float x)
{
	*to = x;
}

SK_DEVICE void sk_put_kv(__half *to, float x)
{
	*to = __float2half_rn(x);
}

SK_DEVICE void sk_put_kv(__nv_bfloat16 *to, float x)
{
	*to = __float2bfloat16_rn(x);
}

/* A block's n threads put a row's key of one head (in `qkv`, its value behind all keys) into the row's newest page. */
template <class T>
SK_DEVICE void sk_put_entry(const sk_gpu_cache &c, const float *qkv, const sk_gpu_row &row,
			    const uint32_t *table, uint32_t layer, uint32_t kv_head,
			    uint32_t n_threads)
{
	constexpr uint32_t N = 16 / sizeof(T);
	const uint32_t slot = row.last_slot;
	const float *head = qkv + (size_t)(c.n_heads + kv_head) * c.head_dim;
	T *k = (T *)(c.pages + table[row.pages + row.n_pages - 1] * c.page_bytes +
		     layer * c.layer_bytes + kv_head * c.head_bytes);
	T *v = k + SK_GPU_PAGE_TOKENS * c.padded_dim;
	for (uint32_t d = threadIdx.x; d < c.head_dim; d += n_threads) {
		const float key = sk_rotated(c, head, d, row.place),
			    value = head[c.n_kv_heads * c.head_dim + d];
		sk_put_kv(&k[(d / N * SK_GPU_PAGE_TOKENS + slot) * N + d % N], key);
		sk_put_kv(&v[slot * c.padded_dim + d], value);
	}
}
