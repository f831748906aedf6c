/* Weights in blocks of 8 or 4 bits times activations as integers (kernel_quantise.h). The sum of a block
 * is exact in 32 bits, so it is the same for every instruction set: at most 255 * 32639 * 32. Blocks are
 * then scaled and added up in order in 32-bit floats, unfused for the same reason.
 */
#pragma once

#include "cpu/kernel_tile.h"

#define BLOCK_RUN                                                                                  \
	32 /* blocks of a panel (16 KB of 8 bits) that rows pass over while they are cached */

#if defined(__AVX512VNNI__)
#define BLOCK_ROWS 8 /* rows at once: their sums fill the registers */
#elif LANES == 16
#define BLOCK_ROWS 4
#else
#define BLOCK_ROWS 2
#endif

struct block_sums {
#if defined(__AVX512VNNI__)
	vi high, low;
#else
	vi all;
#endif
};

/* sums += one group of four columns: 4 codes a lane times the group's two words */
SK_INLINE void add_group(struct block_sums *sums, vi codes, const int32_t *words)
{
#if defined(__AVX512VNNI__)
	sums->high = (vi)_mm512_dpbusd_epi32((__m512i)sums->high, (__m512i)codes,
					     (__m512i)vi_set(words[0]));
	sums->low = (vi)_mm512_dpbusd_epi32((__m512i)sums->low, (__m512i)codes,
					    (__m512i)vi_set(words[1]));
#else
	sums->all = v_madd16(sums->all, codes & 0x00ff00ff, vi_set(words[0]));
	sums->all = v_madd16(sums->all, (vi)((vu)codes >> 8) & 0x00ff00ff, vi_set(words[1]));
#endif
}

SK_INLINE vi total(const struct block_sums *sums)
{
#if defined(__AVX512VNNI__)
	return (sums->high << 8) + sums->low;
#else
	return sums->all;
#endif
}

/* tile (n, SK_PANEL_ROWS) += n_blocks blocks of one panel times n rows; s, m: scales and minima */
SK_INLINE void block_run(enum sk_packing packing, const int n, const uint8_t *w, const uint16_t *s,
			 const uint16_t *m, const struct sk_cpu_block *in, size_t stride,
			 uint32_t n_blocks, float *tile)
{
	const bool four = sk_packing_is_four_bits(packing);
	const bool minima = sk_packing_has_minima(packing);
	const int zero = minima ? 0 : four ? 8 : 128;
	vf out[BLOCK_ROWS][PANEL_VECTORS];

	SK_UNROLL
	for (int r = 0; r < n; r++)
		SK_UNROLL
	for (int v = 0; v < PANEL_VECTORS; v++)
		out[r][v] = v_load(tile + r * SK_PANEL_ROWS + v * LANES);

	for (uint32_t b = 0; b < n_blocks; b++, s += SK_PANEL_ROWS, m += SK_PANEL_ROWS) {
		struct block_sums sums[BLOCK_ROWS][PANEL_VECTORS];
		SK_UNROLL
		for (int r = 0; r < n; r++)
			SK_UNROLL
		for (int v = 0; v < PANEL_VECTORS; v++)
			sums[r][v] = (struct block_sums){0};

		SK_UNROLL
		for (int g = 0; g < 8; g += 1 + four, w += 64) {
			__builtin_prefetch(w + PREFETCH_BYTES);
			SK_UNROLL
			for (int v = 0; v < PANEL_VECTORS; v++) {
				vi codes = vi_load(w + v * LANES * 4);
				vi even = four ? codes & 0x0f0f0f0f : codes;
				vi odd = (vi)((vu)codes >> 4) & 0x0f0f0f0f;
				SK_UNROLL
				for (int r = 0; r < n; r++) {
					add_group(&sums[r][v], even,
						  in[r * stride + b].words + 2 * g);
					if (four)
						add_group(&sums[r][v], odd,
							  in[r * stride + b].words + 2 * g + 2);
				}
			}
		}
		SK_UNROLL
		for (int v = 0; v < PANEL_VECTORS; v++) {
			vf scale = v_load_half(s + v * LANES);
			SK_UNROLL
			for (int r = 0; r < n; r++) {
				const struct sk_cpu_block *x = &in[r * stride + b];
				vf y = v_from_int(total(&sums[r][v]) - zero * x->sum) * scale;
				if (minima)
					y += (float)x->sum * v_load_half(m + v * LANES);
				out[r][v] += y * x->scale;
			}
		}
	}
	SK_UNROLL
	for (int r = 0; r < n; r++)
		SK_UNROLL
	for (int v = 0; v < PANEL_VECTORS; v++)
		v_store(tile + r * SK_PANEL_ROWS + v * LANES, out[r][v]);
}

SK_INLINE void matmul_blocks(enum sk_packing packing, const struct sk_cpu_matmul *job,
			     uint32_t panel, uint32_t n_panels)
{
	const struct sk_packed *weights = job->weights;
	const uint32_t n_blocks = weights->n_blocks;
	const uint32_t most = tile_rows((size_t)n_blocks * sizeof(struct sk_cpu_block));
	const size_t block_bytes = packing == SK_PACKING_Q4 || packing == SK_PACKING_Q4M
					   ? SK_Q4_BLOCK_BYTES
					   : SK_Q8_BLOCK_BYTES;
	float tile[TILE_ROWS * SK_PANEL_ROWS];

	for (uint32_t row = 0; row < job->n_rows; row += most) {
		uint32_t rows = job->n_rows - row < most ? job->n_rows - row : most;
		for (uint32_t p = panel; p < panel + n_panels; p++) {
			const uint8_t *data = sk_packed_panel(weights, p);
			memset(tile, 0, rows * SK_PANEL_ROWS * sizeof *tile);
			for (uint32_t b = 0; b < n_blocks; b += BLOCK_RUN) {
				const uint8_t *w = data + b * block_bytes;
				const uint16_t *s =
					(const uint16_t *)(data + weights->scales_offset) +
					b * SK_PANEL_ROWS;
				const uint16_t *m =
					(const uint16_t *)(data + weights->minima_offset) +
					b * SK_PANEL_ROWS;
				const struct sk_cpu_block *in =
					job->blocks + (size_t)row * n_blocks + b;
				uint32_t n = n_blocks - b < BLOCK_RUN ? n_blocks - b : BLOCK_RUN,
					 r = 0;
				float *t = tile;
#if BLOCK_ROWS >= 8
				for (; r + 8 <= rows; r += 8, t += 8 * SK_PANEL_ROWS)
					block_run(packing, 8, w, s, m, in + (size_t)r * n_blocks,
						  n_blocks, n, t);
#endif
#if BLOCK_ROWS >= 4
				for (; r + 4 <= rows; r += 4, t += 4 * SK_PANEL_ROWS)
					block_run(packing, 4, w, s, m, in + (size_t)r * n_blocks,
						  n_blocks, n, t);
#endif
				for (; r + 2 <= rows; r += 2, t += 2 * SK_PANEL_ROWS)
					block_run(packing, 2, w, s, m, in + (size_t)r * n_blocks,
						  n_blocks, n, t);
				for (; r < rows; r++, t += SK_PANEL_ROWS)
					block_run(packing, 1, w, s, m, in + (size_t)r * n_blocks,
						  n_blocks, n, t);
			}
			put_tile(job, tile, p, row, rows);
		}
	}
}

static void matmul_q8(const struct sk_cpu_matmul *job, uint32_t panel, uint32_t n_panels)
{
	matmul_blocks(SK_PACKING_Q8, job, panel, n_panels);
}

static void matmul_q8m(const struct sk_cpu_matmul *job, uint32_t panel, uint32_t n_panels)
{
	matmul_blocks(SK_PACKING_Q8M, job, panel, n_panels);
}

static void matmul_q4(const struct sk_cpu_matmul *job, uint32_t panel, uint32_t n_panels)
{
	matmul_blocks(SK_PACKING_Q4, job, panel, n_panels);
}

static void matmul_q4m(const struct sk_cpu_matmul *job, uint32_t panel, uint32_t n_panels)
{
	matmul_blocks(SK_PACKING_Q4M, job, panel, n_panels);
}
