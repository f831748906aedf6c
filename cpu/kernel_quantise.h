/* Activations as integers (struct sk_cpu_run). The words of a block, for columns in groups of four (0 1 2 3)
 * as the weights lie:
 *   bytes   two planes, each a word a group: the four high bytes, and the four low ones, all signed. For all weights
 *           with VNNI, else for those of four bits: products of eight bits and eight do not fit into 16
 *   others  two words a group: the 16-bit integers (0, 2), then (1, 3); one plane, every block fine
 */
#pragma once

#include "base/simd.h"
#include "cpu/kernels.h"

#include <math.h>

#define QUANT_MAX 32639 /* 127 * 256 + 127: the most that two signed bytes hold, high * 256 + low */

/* A block is fine if its greatest value is above this many times the row's root mean square. Such blocks
 * make most of the error of 8 bits: 1 in 5 of SmolLM2's, without them its perplexity moves by 0.5 %
 * (doc/SPEED.md). */
#define FINE_ABOVE 4

#define PLANE_WORDS (SK_RUN_BLOCKS * 8)

SK_INLINE bool are_bytes(enum sk_packing packing)
{
#if defined(__AVX512VNNI__)
	(void)packing;
	return true;
#else
	return LANES > 4 && sk_packing_is_four_bits(packing);
#endif
}

/* Integers to bytes; *sums of each plane grow by them. */
SK_INLINE void put_bytes(vi q, bool fine, int8_t *high, int8_t *low, int32_t *sums)
{
	vi h = (q + 128) >> 8, l = fine ? q - (h << 8) : vi_set(0);
#if LANES == 16
	_mm_storeu_si128((__m128i *)high, _mm512_cvtepi32_epi8((__m512i)h));
	_mm_storeu_si128((__m128i *)low, _mm512_cvtepi32_epi8((__m512i)l));
	sums[0] += _mm512_reduce_add_epi32((__m512i)h);
	sums[1] += _mm512_reduce_add_epi32((__m512i)l);
#else
	for (int i = 0; i < LANES; i++) {
		high[i] = (int8_t)h[i];
		low[i] = (int8_t)l[i];
		sums[0] += h[i];
		sums[1] += l[i];
	}
#endif
}

SK_INLINE void put_planes(const float *in, float inverse, float unit, bool fine,
			  enum sk_packing packing, struct sk_cpu_run *out, uint32_t b)
{
	const int zero = sk_packing_zero(packing);
	int8_t *high = (int8_t *)(out->words + 8 * b), *low = high + PLANE_WORDS * 4;
	int32_t sums[2][2] = {{0}};
	for (int i = 0; i < SK_BLOCK_COLS; i += LANES)
		put_bytes(v_round(v_load(in + i) * inverse), fine, high + i, low + i,
			  sums[i >= SK_HALF_COLS]);
	out->scale[b] = unit * 256;
	out->total[b] = (float)((sums[0][0] + sums[1][0]) * 256 + sums[0][1] + sums[1][1]) * unit;
	out->fine |= (uint32_t)fine << b;
	for (int plane = 0; plane < 2; plane++) {
		int32_t first = sums[0][plane], second = sums[1][plane];
		if (!sk_packing_has_halves(packing))
			first += second;
		out->start[plane][0][b] = -zero * first;
		out->start[plane][1][b] = -zero * second;
	}
}

SK_INLINE void put_words(const float *in, float inverse, float unit, enum sk_packing packing,
			 struct sk_cpu_run *out, uint32_t b)
{
	const int zero = sk_packing_zero(packing);
	int32_t q[SK_BLOCK_COLS], sums[2] = {0}, *words = out->words + 16 * b;
	for (int i = 0; i < SK_BLOCK_COLS; i += LANES) {
		vi x = v_round(v_load(in + i) * inverse);
		memcpy(q + i, &x, sizeof x);
	}
	for (int g = 0; g < SK_BLOCK_COLS / 4; g++) {
		const int32_t *x = q + 4 * g;
		sums[g >= SK_HALF_COLS / 4] += x[0] + x[1] + x[2] + x[3];
		words[2 * g] = (int32_t)((uint32_t)(uint16_t)x[0] | (uint32_t)x[2] << 16);
		words[2 * g + 1] = (int32_t)((uint32_t)(uint16_t)x[1] | (uint32_t)x[3] << 16);
	}
	out->scale[b] = unit;
	out->total[b] = (float)(sums[0] + sums[1]) * unit;
	if (!sk_packing_has_halves(packing))
		sums[0] += sums[1];
	out->start[0][0][b] = -zero * sums[0];
	out->start[0][1][b] = -zero * sums[1];
}

SK_INLINE void put_block(const float *in, float inverse, float unit, bool fine,
			 enum sk_packing packing, struct sk_cpu_run *out, uint32_t b)
{
	if (are_bytes(packing))
		put_planes(in, inverse, unit, fine, packing, out, b);
	else
		put_words(in, inverse, unit, packing, out, b);
}

SK_INLINE void quantise_block(const float *in, float limit, enum sk_packing packing,
			      struct sk_cpu_run *out, uint32_t b)
{
	vf most = v_set(0), odd = v_set(0);
	for (int i = 0; i < SK_BLOCK_COLS; i += LANES) {
		vf x = v_load(in + i);
		most = v_max(most, v_abs(x));
		odd += x * 0.f; /* not a number if any is infinite or none */
	}
	float top = v_most(most), bad = v_sum(odd);
	if (bad != 0 || top < 1e-30f)
		put_block((const float[SK_BLOCK_COLS]){0}, 0, bad, false, packing, out, b);
	else
		put_block(in, QUANT_MAX / top, top / QUANT_MAX, top > limit, packing, out, b);
}

static void quantise(const float *in, uint32_t n_cols, enum sk_packing packing, bool exact,
		     struct sk_cpu_run *out)
{
	const uint32_t n_blocks = sk_packed_n_blocks(n_cols), n_whole = n_cols / SK_BLOCK_COLS;
	const float none[SK_BLOCK_COLS] = {0};
	float rest[SK_BLOCK_COLS] = {0};
	memcpy(rest, in + n_whole * SK_BLOCK_COLS, n_cols % SK_BLOCK_COLS * sizeof *rest);

	vf squares = v_set(0);
	for (uint32_t c = 0; c < n_whole * SK_BLOCK_COLS; c += LANES)
		squares = v_fma(v_load(in + c), v_load(in + c), squares);
	for (uint32_t c = 0; c < SK_BLOCK_COLS; c += LANES)
		squares = v_fma(v_load(rest + c), v_load(rest + c), squares);
	float limit = exact ? 0 : FINE_ABOVE * sqrtf(v_sum(squares) / (float)n_cols);

	for (uint32_t b = 0; b < n_blocks; b++) {
		const float *x = b < n_whole                  ? in + b * SK_BLOCK_COLS
				 : b * SK_BLOCK_COLS < n_cols ? rest
							      : none;
		struct sk_cpu_run *run = &out[b / SK_RUN_BLOCKS];
		if (b % SK_RUN_BLOCKS == 0)
			run->fine = 0;
		quantise_block(x, limit, packing, run, b % SK_RUN_BLOCKS);
	}
}
