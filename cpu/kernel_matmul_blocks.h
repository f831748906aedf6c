/* Weights in blocks of 8 or 4 bits times activations as integers (kernel_quantise.h). The sum of a block
 * is exact in 32 bits, so it is the same for every instruction set: at most 255 * 32639 * 32. Blocks (or
 * halves of blocks) are then scaled and added up in order in 32-bit floats, unfused for the same reason.
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

/* What lies behind the codes of a panel, from a block on. */
struct block_scales {
	const uint16_t *scales, *minima;
	const int8_t *factors;
};

/* out += one part of a block times n rows: all of it, or its half `part` where halves have scales */
SK_INLINE void block_part(enum sk_packing packing, const int n, const int part, const uint8_t *w,
			  const struct block_scales *s, const struct sk_cpu_block *in,
			  size_t stride, vf (*out)[PANEL_VECTORS])
{
	const bool four = sk_packing_is_four_bits(packing);
	const bool minima = sk_packing_has_minima(packing);
	const bool halves = sk_packing_has_halves(packing);
	const int zero = sk_packing_zero(packing), n_groups = halves ? 4 : 8;
	struct block_sums sums[BLOCK_ROWS][PANEL_VECTORS];

	SK_UNROLL
	for (int r = 0; r < n; r++)
		SK_UNROLL
	for (int v = 0; v < PANEL_VECTORS; v++)
		sums[r][v] = (struct block_sums){0};

	SK_UNROLL
	for (int g = 0; g < n_groups; g += 1 + four, w += 64) {
		__builtin_prefetch(w + PREFETCH_BYTES);
		SK_UNROLL
		for (int v = 0; v < PANEL_VECTORS; v++) {
			vi codes = vi_load(w + v * LANES * 4);
			vi even = four ? codes & 0x0f0f0f0f : codes;
			vi odd = (vi)((vu)codes >> 4) & 0x0f0f0f0f;
			SK_UNROLL
			for (int r = 0; r < n; r++) {
				const int32_t *words = in[r * stride].words + 8 * part + 2 * g;
				add_group(&sums[r][v], even, words);
				if (four)
					add_group(&sums[r][v], odd, words + 2);
			}
		}
	}
	SK_UNROLL
	for (int v = 0; v < PANEL_VECTORS; v++) {
		vf scale = v_load_half(s->scales + v * LANES);
		if (halves)
			scale *= v_load_int8(s->factors + part * SK_PANEL_ROWS + v * LANES);
		SK_UNROLL
		for (int r = 0; r < n; r++) {
			const struct sk_cpu_block *x = &in[r * stride];
			int32_t sum = !halves ? x->sum
				      : part  ? x->sum - x->first_sum
					      : x->first_sum;
			vf y = v_from_int(total(&sums[r][v]) - zero * sum) * scale;
			if (minima)
				y += (float)sum * v_load_half(s->minima + v * LANES);
			out[r][v] += y * x->scale;
		}
	}
}

/* tile (n, SK_PANEL_ROWS) += n_blocks blocks of one panel times n rows */
SK_INLINE void block_run(enum sk_packing packing, const int n, const uint8_t *w,
			 struct block_scales s, const struct sk_cpu_block *in, size_t stride,
			 uint32_t n_blocks, float *tile)
{
	const size_t block_bytes =
		sk_packing_is_four_bits(packing) ? SK_Q4_BLOCK_BYTES : SK_Q8_BLOCK_BYTES;
	vf out[BLOCK_ROWS][PANEL_VECTORS];

	SK_UNROLL
	for (int r = 0; r < n; r++)
		SK_UNROLL
	for (int v = 0; v < PANEL_VECTORS; v++)
		out[r][v] = v_load(tile + r * SK_PANEL_ROWS + v * LANES);

	for (uint32_t b = 0; b < n_blocks; b++, w += block_bytes) {
		block_part(packing, n, 0, w, &s, in + b, stride, out);
		if (sk_packing_has_halves(packing))
			block_part(packing, n, 1, w + block_bytes / 2, &s, in + b, stride, out);
		s.scales += SK_PANEL_ROWS;
		s.minima += SK_PANEL_ROWS;
		s.factors += 2 * SK_PANEL_ROWS;
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
	const size_t block_bytes =
		sk_packing_is_four_bits(packing) ? SK_Q4_BLOCK_BYTES : SK_Q8_BLOCK_BYTES;
	float tile[TILE_ROWS * SK_PANEL_ROWS];

	for (uint32_t row = 0; row < job->n_rows; row += most) {
		uint32_t rows = job->n_rows - row < most ? job->n_rows - row : most;
		for (uint32_t p = panel; p < panel + n_panels; p++) {
			const uint8_t *data = sk_packed_panel(weights, p);
			memset(tile, 0, rows * SK_PANEL_ROWS * sizeof *tile);
			for (uint32_t b = 0; b < n_blocks; b += BLOCK_RUN) {
				const uint8_t *w = data + b * block_bytes;
				const struct block_scales s = {
					(const uint16_t *)(data + weights->scales_offset) +
						b * SK_PANEL_ROWS,
					(const uint16_t *)(data + weights->minima_offset) +
						b * SK_PANEL_ROWS,
					(const int8_t *)(data + weights->factors_offset) +
						b * SK_PANEL_ROWS * 2,
				};
				const struct sk_cpu_block *in =
					job->blocks + (size_t)row * n_blocks + b;
				uint32_t n = n_blocks - b < BLOCK_RUN ? n_blocks - b : BLOCK_RUN,
					 r = 0;
				float *t = tile;
#if BLOCK_ROWS >= 8
				for (; r + 8 <= rows; r += 8, t += 8 * SK_PANEL_ROWS)
					block_run(packing, 8, w, s, in + (size_t)r * n_blocks,
						  n_blocks, n, t);
#endif
#if BLOCK_ROWS >= 4
				for (; r + 4 <= rows; r += 4, t += 4 * SK_PANEL_ROWS)
					block_run(packing, 4, w, s, in + (size_t)r * n_blocks,
						  n_blocks, n, t);
#endif
				for (; r + 2 <= rows; r += 2, t += 2 * SK_PANEL_ROWS)
					block_run(packing, 2, w, s, in + (size_t)r * n_blocks,
						  n_blocks, n, t);
				for (; r < rows; r++, t += SK_PANEL_ROWS)
					block_run(packing, 1, w, s, in + (size_t)r * n_blocks,
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

static void matmul_q8h(const struct sk_cpu_matmul *job, uint32_t panel, uint32_t n_panels)
{
	matmul_blocks(SK_PACKING_Q8H, job, panel, n_panels);
}

static void matmul_q8hm(const struct sk_cpu_matmul *job, uint32_t panel, uint32_t n_panels)
{
	matmul_blocks(SK_PACKING_Q8HM, job, panel, n_panels);
}

static void matmul_q4(const struct sk_cpu_matmul *job, uint32_t panel, uint32_t n_panels)
{
	matmul_blocks(SK_PACKING_Q4, job, panel, n_panels);
}

static void matmul_q4m(const struct sk_cpu_matmul *job, uint32_t panel, uint32_t n_panels)
{
	matmul_blocks(SK_PACKING_Q4M, job, panel, n_panels);
}
