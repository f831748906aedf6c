/* BF16 weights times activations rounded to BF16, by dot products of pairs; sums are 32-bit floats, with
 * subnormal numbers taken as zero. In a run each output has two sums, of its even and its odd pairs of
 * columns, and runs are added up in order.
 */
#pragma once

#include "cpu/kernel_tile.h"

#if defined(__AVX512BF16__)
#define RUN_PAIRS 256 /* 16 KB of a panel, which rows pass over while it is cached */
#define PAIR_ROWS 8   /* rows at once */

SK_INLINE __m512 dot_pairs(__m512 sum, __m512i weights, uint32_t pair)
{
	return _mm512_dpbf16_ps(sum, (__m512bh)weights, (__m512bh)_mm512_set1_epi32((int)pair));
}

/* tile (n, SK_PANEL_ROWS) += a run of n_pairs pairs of one panel times n rows */
SK_INLINE void pair_run(const int n, const uint8_t *w, const uint32_t *in, size_t stride,
			uint32_t n_pairs, float *tile)
{
	__m512 even[PAIR_ROWS], odd[PAIR_ROWS];
	SK_UNROLL
	for (int r = 0; r < n; r++)
		even[r] = odd[r] = _mm512_setzero_ps();
	uint32_t i = 0;
	for (; i + 2 <= n_pairs; i += 2, w += 128) {
		prefetch(w, n);
		prefetch(w + 64, n);
		__m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 64);
		SK_UNROLL
		for (int r = 0; r < n; r++) {
			even[r] = dot_pairs(even[r], w0, in[r * stride + i]);
			odd[r] = dot_pairs(odd[r], w1, in[r * stride + i + 1]);
		}
	}
	if (i < n_pairs)
		SK_UNROLL
	for (int r = 0; r < n; r++)
		even[r] = dot_pairs(even[r], _mm512_load_si512(w), in[r * stride + i]);
	SK_UNROLL
	for (int r = 0; r < n; r++) {
		float *sum = tile + r * SK_PANEL_ROWS;
		_mm512_storeu_ps(
			sum, _mm512_add_ps(_mm512_loadu_ps(sum), _mm512_add_ps(even[r], odd[r])));
	}
}

static void matmul_pairs(const struct sk_cpu_matmul *job, uint32_t panel, uint32_t n_panels)
{
	const size_t stride = job->pair_stride;
	const uint32_t most = tile_rows(stride * sizeof(uint32_t));
	float tile[TILE_ROWS * SK_PANEL_ROWS];

	for (uint32_t row = 0; row < job->n_rows; row += most) {
		uint32_t rows = job->n_rows - row < most ? job->n_rows - row : most;
		for (uint32_t p = panel; p < panel + n_panels; p++) {
			memset(tile, 0, rows * SK_PANEL_ROWS * sizeof *tile);
			for (uint32_t i = 0; i < stride; i += RUN_PAIRS) {
				const uint8_t *w =
					sk_packed_panel(job->weights, p) + (size_t)i * 64;
				const uint32_t *in = job->pairs + row * stride + i;
				uint32_t n = (uint32_t)stride - i, r = 0;
				if (n > RUN_PAIRS)
					n = RUN_PAIRS;
				for (; r + 8 <= rows; r += 8)
					pair_run(8, w, in + r * stride, stride, n,
						 tile + r * SK_PANEL_ROWS);
				for (; r + 4 <= rows; r += 4)
					pair_run(4, w, in + r * stride, stride, n,
						 tile + r * SK_PANEL_ROWS);
				for (; r + 2 <= rows; r += 2)
					pair_run(2, w, in + r * stride, stride, n,
						 tile + r * SK_PANEL_ROWS);
				for (; r < rows; r++)
					pair_run(1, w, in + r * stride, stride, n,
						 tile + r * SK_PANEL_ROWS);
			}
			put_tile(job, tile, p, row, rows);
		}
	}
}

/* To the nearest, ties to even. */
static void round_pairs(const float *in, uint32_t n_cols, uint32_t *out)
{
	uint16_t *halves = (uint16_t *)out;
	uint32_t c = 0;
	for (; c + LANES <= n_cols; c += LANES)
		_mm256_storeu_si256((__m256i *)(halves + c),
				    (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(in + c)));
	if (n_cols % 2)
		out[n_cols / 2] = 0;
	for (; c < n_cols; c++)
		halves[c] = sk_bf16_from_float(in[c]);
}
#endif
