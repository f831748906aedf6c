/* Activations as 16-bit integers, 32 columns a block. The words of a block, for columns in groups of
 * four (0 1 2 3) as the weights lie:
 *   VNNI    two words a group: the four high bytes, then the four low ones, both signed
 *   others  two words a group: the 16-bit integers (0, 2), then (1, 3)
 */
#pragma once

#include "cpu/kernels.h"
#include "cpu/simd.h"

#define QUANT_MAX 32639 /* 127 * 256 + 127: the most that two signed bytes hold, high * 256 + low */

SK_INLINE void quantise_block(const float *in, struct sk_cpu_block *out)
{
	vf most = v_set(0), odd = v_set(0);
	for (int i = 0; i < SK_BLOCK_COLS; i += LANES) {
		vf x = v_load(in + i);
		most = v_max(most, v_abs(x));
		odd += x * 0.f; /* not a number if any is infinite or none */
	}
	float top = v_most(most), bad = v_sum(odd);

	*out = (struct sk_cpu_block){.scale = bad};
	if (bad != 0 || top < 1e-30f)
		return;
	out->scale = top / QUANT_MAX;
	vf inverse = v_set(QUANT_MAX / top);
	int32_t q[SK_BLOCK_COLS];
	for (int i = 0; i < SK_BLOCK_COLS; i += LANES) {
		vi x = v_round(v_load(in + i) * inverse);
		memcpy(q + i, &x, sizeof x);
	}
	for (int g = 0; g < SK_BLOCK_COLS / 4; g++) {
		const int32_t *x = q + 4 * g;
		if (g == SK_HALF_COLS / 4)
			out->first_sum = out->sum;
		out->sum += x[0] + x[1] + x[2] + x[3];
#if defined(__AVX512VNNI__)
		uint32_t high = 0, low = 0;
		for (int i = 0; i < 4; i++) {
			int32_t h = (x[i] + 128) >> 8;
			high |= (uint32_t)(uint8_t)h << 8 * i;
			low |= (uint32_t)(uint8_t)(x[i] - h * 256) << 8 * i;
		}
		out->words[2 * g] = (int32_t)high;
		out->words[2 * g + 1] = (int32_t)low;
#else
		out->words[2 * g] = (int32_t)((uint32_t)(uint16_t)x[0] | (uint32_t)x[2] << 16);
		out->words[2 * g + 1] = (int32_t)((uint32_t)(uint16_t)x[1] | (uint32_t)x[3] << 16);
#endif
	}
}

static void quantise(const float *in, uint32_t n_cols, struct sk_cpu_block *out)
{
	uint32_t c = 0;
	for (; c + SK_BLOCK_COLS <= n_cols; c += SK_BLOCK_COLS)
		quantise_block(in + c, out++);
	if (c < n_cols) {
		float rest[SK_BLOCK_COLS] = {0};
		memcpy(rest, in + c, (n_cols - c) * sizeof *rest);
		quantise_block(rest, out);
	}
}
