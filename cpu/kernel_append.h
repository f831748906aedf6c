/* Rotation of queries and keys, and the writing of keys and values to their page. */
#pragma once

#include "base/simd.h"
#include "cpu/kernels.h"

/* One head: pairs (i, i + n_rot / 2) turn by the angles, the rest is copied. */
SK_INLINE void rotate(float *out, const float *in, const float *angles, uint32_t n_rot,
		      uint32_t head_dim)
{
	const uint32_t half = n_rot / 2;
	const float *cosines = angles, *sines = angles + half;
	for (uint32_t i = 0; i < half; i++) {
		float a = in[i], b = in[i + half];
		out[i] = a * cosines[i] - b * sines[i];
		out[i + half] = b * cosines[i] + a * sines[i];
	}
	memcpy(out + n_rot, in + n_rot, (head_dim - n_rot) * sizeof *out);
}

SK_INLINE void store_kv(enum sk_kv_format format, uint16_t *p, vf x)
{
	if (format == SK_KV_F16)
		v_store_half(p, x);
	else
		v_store_bf16(p, x);
}

/* The key of one head to its lane of the page, its value to its line. `key` is rotated. */
SK_INLINE void put_halves(enum sk_kv_format format, uint16_t *keys, uint16_t *values,
			  const float *key, const float *value, uint32_t head_dim)
{
	for (uint32_t i = 0; i < head_dim; i += LANES) {
		uint32_t n = head_dim - i < LANES ? head_dim - i : LANES;
		float k[LANES] = {0}, v[LANES] = {0};
		uint16_t halves[LANES], more[LANES];
		memcpy(k, key + i, n * sizeof *k);
		memcpy(v, value + i, n * sizeof *v);
		store_kv(format, halves, v_load(k));
		store_kv(format, more, v_load(v));
		for (uint32_t j = 0; j < n; j++)
			keys[(size_t)(i + j) * SK_PAGE_TOKENS] = halves[j];
		memcpy(values + i, more, n * sizeof *more);
	}
}

static void append(const struct sk_cpu_append *job, uint32_t row)
{
	const struct sk_backend_shape *shape = job->shape;
	const uint32_t d = shape->head_dim, n_heads = shape->n_heads, n_kv = shape->n_kv_heads;
	const float *text = job->angles + (size_t)row * 2 * shape->n_rot,
		    *cache = text + shape->n_rot;
	const float *query = job->qkv + (size_t)row * (n_heads + 2 * n_kv) * d;
	const float *key = query + (size_t)n_heads * d, *value = key + (size_t)n_kv * d;
	float *q = job->q + (size_t)row * 2 * n_heads * d;
	uint32_t slot = (uint32_t)(job->batch->rows[row].entry % SK_PAGE_TOKENS);

	for (uint32_t h = 0; h < n_kv; h++, key += d, value += d) {
		char *head = sk_cpu_pages_head(job->pages, job->row_pages[row], job->layer, h);
		rotate(q, key, text, shape->n_rot, d); /* q serves as scratch until its own turn */
		if (shape->kv_format != SK_KV_F32) {
			put_halves(shape->kv_format, (uint16_t *)head + slot,
				   (uint16_t *)(head + job->pages->key_bytes) +
					   slot * job->pages->value_dim,
				   q, value, d);
			continue;
		}
		for (uint32_t i = 0; i < d; i++)
			((float *)head)[i * SK_PAGE_TOKENS + slot] = q[i];
		memcpy((float *)(head + job->pages->key_bytes) + slot * job->pages->value_dim,
		       value, d * sizeof *value);
	}
	for (uint32_t h = 0; h < n_heads; h++, query += d, q += d) {
		rotate(q, query, text, shape->n_rot, d);
		rotate(q + (size_t)n_heads * d, query, cache, shape->n_rot, d);
	}
}
