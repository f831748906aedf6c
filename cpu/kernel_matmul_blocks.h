/* Weights in blocks of 8 or 4 bits times activations as integers (kernel_quantise.h). The sum of a block
 * is exact in 32 bits: at most 255 * 32639 * 32. Blocks (or halves of blocks) are then scaled and added
 * up in order in 32-bit floats: run by run, in each all blocks' first plane, then what second planes the
 * row has.
 */
#pragma once

#include "cpu/kernel_quantise.h"
#include "cpu/kernel_tile.h"

#if defined(__AVX512VNNI__)
#define BLOCK_ROWS 8 /* rows at once: their sums fill the registers */
#elif LANES > 4
#define BLOCK_ROWS 4
#else
#define BLOCK_ROWS 2
#endif

/* Whether products of bytes are added up in 16 bits: over a block, where codes have four. Of a row and its columns 4g, 4g + 1 (or
 * + 2, + 3) these are 16 products of at most 15 * 128: 30720. */
#if defined(__AVX512VNNI__) || LANES == 4
#define ADDS_BYTES       0
#define v_madd8(a, x, y) (a) /* not used */
#else
#define ADDS_BYTES 1
#endif

/* sum + one group of four columns: 4 codes a lane times the group's words */
SK_INLINE vi add_group(vi sum, vi codes, const int32_t *words)
{
#if defined(__AVX512VNNI__)
	return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, (__m512i)vi_set(words[0]));
#else
	sum = v_madd16(sum, codes & 0x00ff00ff, vi_set(words[0]));
	return v_madd16(sum, (vi)((vu)codes >> 8) & 0x00ff00ff, vi_set(words[1]));
#endif
}

/* out += one part of block b, all of it or its half `part` where halves have factors, times n rows */
SK_INLINE void block_part(enum sk_packing packing, const int n, const int part, const int plane,
			  const struct sk_packed_block *w, const struct sk_cpu_run *in,
			  size_t stride, uint32_t b, vf (*out)[PANEL_VECTORS])
{
	const bool four = sk_packing_is_four_bits(packing), halves = sk_packing_has_halves(packing);
	const int n_groups = halves ? 4 : 8;
	const uint8_t *codes = w->codes + (size_t)part * SK_Q8_BLOCK_BYTES / 2;
	const uint32_t group_words = are_bytes(packing) ? 1 : 2;
	const uint32_t at = plane * PLANE_WORDS + (8 * b + 4 * part) * group_words;
	/* The odd groups of four bits stay where they are, in the high nibbles, and have a sum of their own: 16
	 * times what it stands for. Sums in 16 bits have no room for that: there `high` is the only one. */
	vi sums[BLOCK_ROWS][PANEL_VECTORS], high[BLOCK_ROWS][PANEL_VECTORS];

	if (plane == 0 && part == 0 && b % 2) /* what lies behind the codes */
		for (size_t i = sk_packing_block_bytes(packing);
		     i < sk_packing_pair_bytes(packing) - sk_packing_block_bytes(packing); i += 64)
			prefetch(codes + i, n);
	SK_UNROLL
	for (int r = 0; r < n; r++)
		SK_UNROLL
	for (int v = 0; v < PANEL_VECTORS; v++) {
		sums[r][v] = vi_set(in[r * stride].start[plane][part][b]);
		high[r][v] = vi_set(0);
	}

	SK_UNROLL
	for (int g = 0; g < n_groups; g += 1 + four, codes += 64) {
		if (plane == 0)
			prefetch(codes, n);
		SK_UNROLL
		for (int v = 0; v < PANEL_VECTORS; v++) {
			vi both = vi_load(codes + v * LANES * 4);
			vi even = four ? both & 0x0f0f0f0f : both;
			vi odd = ADDS_BYTES ? (vi)((vu)both >> 4) & 0x0f0f0f0f
					    : both & (int32_t)0xf0f0f0f0;
			SK_UNROLL
			for (int r = 0; r < n; r++) {
				const int32_t *words = in[r * stride].words + at + g * group_words;
				if (four && ADDS_BYTES) {
					high[r][v] = v_madd8(high[r][v], even, vi_set(words[0]));
					high[r][v] = v_madd8(high[r][v], odd, vi_set(words[1]));
					continue;
				}
				sums[r][v] = add_group(sums[r][v], even, words);
				if (four)
					high[r][v] =
						add_group(high[r][v], odd, words + group_words);
			}
		}
	}
	SK_UNROLL
	for (int v = 0; v < PANEL_VECTORS; v++) {
		vf scale = v_load_half(w->scales + v * LANES);
		if (halves)
			scale *= v_load_int8(w->factors + part * SK_PANEL_ROWS + v * LANES);
		if (plane)
			scale *= 1.f / 256;
		SK_UNROLL
		for (int r = 0; r < n; r++) {
			vi sum = !four        ? sums[r][v]
				 : ADDS_BYTES ? v_madd16(sums[r][v], high[r][v], vi_set(0x00010001))
					      : sums[r][v] + (high[r][v] >> 4);
			out[r][v] =
				v_fma(v_from_int(sum), scale * in[r * stride].scale[b], out[r][v]);
		}
	}
}

/* out += block b times n rows, of one plane; minima go with the first */
SK_INLINE void block(enum sk_packing packing, const int n, const int plane,
		     const struct sk_packed_block *w, const struct sk_cpu_run *in, size_t stride,
		     uint32_t b, vf (*out)[PANEL_VECTORS])
{
	block_part(packing, n, 0, plane, w, in, stride, b, out);
	if (sk_packing_has_halves(packing))
		block_part(packing, n, 1, plane, w, in, stride, b, out);
	if (!sk_packing_has_minima(packing) || plane)
		return;
	SK_UNROLL
	for (int v = 0; v < PANEL_VECTORS; v++) {
		vf minima = v_load_half(w->minima + v * LANES);
		SK_UNROLL
		for (int r = 0; r < n; r++)
			out[r][v] = v_fma(minima, v_set(in[r * stride].total[b]), out[r][v]);
	}
}

SK_INLINE void load_tile(const float *tile, const int n, vf (*out)[PANEL_VECTORS])
{
	SK_UNROLL
	for (int i = 0; i < n * PANEL_VECTORS; i++)
		out[i / PANEL_VECTORS][i % PANEL_VECTORS] = v_load(tile + i * LANES);
}

SK_INLINE void store_tile(float *tile, const int n, vf (*out)[PANEL_VECTORS])
{
	SK_UNROLL
	for (int i = 0; i < n * PANEL_VECTORS; i++)
		v_store(tile + i * LANES, out[i / PANEL_VECTORS][i % PANEL_VECTORS]);
}

/* tile (n, SK_PANEL_ROWS) += n_blocks blocks of a panel times n rows, first planes */
SK_INLINE void first_planes(enum sk_packing packing, const int n, uint8_t *w,
			    const struct sk_cpu_run *in, size_t stride, uint32_t n_blocks,
			    float *tile)
{
	vf out[BLOCK_ROWS][PANEL_VECTORS];
	load_tile(tile, n, out);
	for (uint32_t b = 0; b < n_blocks; b += 2, w += sk_packing_pair_bytes(packing)) {
		const struct sk_packed_block even = sk_packed_block(packing, w, 0),
					     odd = sk_packed_block(packing, w, 1);
		block(packing, n, 0, &even, in, stride, b, out);
		block(packing, n, 0, &odd, in, stride, b + 1, out);
	}
	store_tile(tile, n, out);
}

/* The same of one row's second planes, for those blocks that have them. */
SK_INLINE void second_planes(enum sk_packing packing, uint8_t *w, const struct sk_cpu_run *in,
			     float *tile)
{
	vf out[1][PANEL_VECTORS];
	load_tile(tile, 1, out);
	for (uint32_t left = in->fine; left; left &= left - 1) {
		uint32_t b = (uint32_t)__builtin_ctz(left);
		const struct sk_packed_block at =
			sk_packed_block(packing, w + b / 2 * sk_packing_pair_bytes(packing), b % 2);
		block(packing, 1, 1, &at, in, 1, b, out);
	}
	store_tile(tile, 1, out);
}

/* tile (n_rows, SK_PANEL_ROWS) += a run of a panel times rows */
SK_INLINE void block_run(enum sk_packing packing, uint8_t *w, const struct sk_cpu_run *in,
			 size_t stride, uint32_t n_rows, uint32_t n_blocks, float *tile)
{
	uint32_t r = 0;
#if BLOCK_ROWS >= 8
	for (; r + 8 <= n_rows; r += 8)
		first_planes(packing, 8, w, in + r * stride, stride, n_blocks,
			     tile + r * SK_PANEL_ROWS);
#endif
#if BLOCK_ROWS >= 4
	/* On 16 registers codes of eight bits gain nothing from four rows: rather lose. */
	const uint32_t n_by_four = LANES > 8 || sk_packing_is_four_bits(packing) ? n_rows : 0;
	for (; r + 4 <= n_by_four; r += 4)
		first_planes(packing, 4, w, in + r * stride, stride, n_blocks,
			     tile + r * SK_PANEL_ROWS);
#endif
	for (; r + 2 <= n_rows; r += 2)
		first_planes(packing, 2, w, in + r * stride, stride, n_blocks,
			     tile + r * SK_PANEL_ROWS);
	for (; r < n_rows; r++)
		first_planes(packing, 1, w, in + r * stride, stride, n_blocks,
			     tile + r * SK_PANEL_ROWS);
	for (r = 0; are_bytes(packing) && r < n_rows; r++)
		if (in[r * stride].fine)
			second_planes(packing, w, in + r * stride, tile + r * SK_PANEL_ROWS);
}

SK_INLINE void matmul_blocks(enum sk_packing packing, const struct sk_cpu_matmul *job,
			     uint32_t panel, uint32_t n_panels)
{
	const struct sk_packed *weights = job->weights;
	const uint32_t n_blocks = weights->n_blocks, n_runs = sk_cpu_n_runs(n_blocks);
	const uint32_t most = tile_rows(n_runs * sizeof(struct sk_cpu_run));
	float tile[TILE_ROWS * SK_PANEL_ROWS];

	for (uint32_t row = 0; row < job->n_rows; row += most) {
		uint32_t rows = job->n_rows - row < most ? job->n_rows - row : most;
		for (uint32_t p = panel; p < panel + n_panels; p++) {
			memset(tile, 0, rows * SK_PANEL_ROWS * sizeof *tile);
			for (uint32_t i = 0; i < n_runs; i++) {
				uint32_t b = i * SK_RUN_BLOCKS, n = n_blocks - b < SK_RUN_BLOCKS
									    ? n_blocks - b
									    : SK_RUN_BLOCKS;
				uint8_t *w = sk_packed_panel(weights, p) +
					     b / 2 * sk_packing_pair_bytes(packing);
				block_run(packing, w, job->runs + (size_t)row * n_runs + i, n_runs,
					  rows, n, tile);
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
