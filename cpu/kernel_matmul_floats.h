/* Weights kept as floats times activations as they are, in 32-bit arithmetic.
 *
 * Columns are cut into runs of RUN_COLS; in a run each output has two sums, of the even and of the odd
 * columns, and its runs are added up in order. A run of a panel stays in the first-level cache while all
 * rows of a tile pass over it. Where BF16 is multiplied in pairs, kernel_matmul_pairs.h does that.
 */
#pragma once

#include "cpu/kernel_tile.h"

#define RUN_COLS 512

#if LANES == 16
#define FLOAT_ROWS 8 /* rows at once: their sums fill the registers */
#else
#define FLOAT_ROWS 2
#endif

/* Two columns of a panel from `w`, or one (the last) with `odd` zero. */
SK_INLINE void load_columns(enum sk_packing packing, const uint8_t *w, bool pair, vf *even, vf *odd)
{
	SK_UNROLL
	for (int v = 0; v < PANEL_VECTORS; v++) {
		if (packing == SK_PACKING_F32) {
			even[v] = v_load((const float *)w + v * LANES);
			odd[v] = pair ? v_load((const float *)w + SK_PANEL_ROWS + v * LANES)
				      : v_set(0);
		} else if (packing == SK_PACKING_F16) {
			even[v] = v_load_half((const uint16_t *)w + v * LANES);
			odd[v] = v_load_half((const uint16_t *)w + SK_PANEL_ROWS + v * LANES);
		} else {
			vi both = vi_load(w + v * LANES * 4);
			even[v] = (vf)(both << 16);
			odd[v] = (vf)(both & (int32_t)0xffff0000);
		}
	}
}

/* tile (n, SK_PANEL_ROWS) += a run of n_cols columns of one panel times n rows */
SK_INLINE void float_run(enum sk_packing packing, const int n, const uint8_t *w, const float *in,
			 size_t stride, uint32_t n_cols, float *tile)
{
	const size_t pair_bytes = packing == SK_PACKING_F32 ? 128 : 64;
	vf even[FLOAT_ROWS][PANEL_VECTORS], odd[FLOAT_ROWS][PANEL_VECTORS];
	vf we[PANEL_VECTORS], wo[PANEL_VECTORS];

	SK_UNROLL
	for (int r = 0; r < n; r++)
		SK_UNROLL
	for (int v = 0; v < PANEL_VECTORS; v++)
		even[r][v] = odd[r][v] = v_set(0);

	uint32_t c = 0;
	for (; c + 2 <= n_cols; c += 2, w += pair_bytes) {
		prefetch(w, n);
		if (packing == SK_PACKING_F32)
			prefetch(w + 64, n);
		load_columns(packing, w, true, we, wo);
		SK_UNROLL
		for (int r = 0; r < n; r++) {
			vf xe = v_set(in[r * stride + c]), xo = v_set(in[r * stride + c + 1]);
			SK_UNROLL
			for (int v = 0; v < PANEL_VECTORS; v++) {
				even[r][v] = v_fma(we[v], xe, even[r][v]);
				odd[r][v] = v_fma(wo[v], xo, odd[r][v]);
			}
		}
	}
	if (c < n_cols) {
		load_columns(packing, w, false, we, wo);
		SK_UNROLL
		for (int r = 0; r < n; r++)
			SK_UNROLL
		for (int v = 0; v < PANEL_VECTORS; v++)
			even[r][v] = v_fma(we[v], v_set(in[r * stride + c]), even[r][v]);
	}
	SK_UNROLL
	for (int r = 0; r < n; r++)
		SK_UNROLL
	for (int v = 0; v < PANEL_VECTORS; v++) {
		float *sum = tile + r * SK_PANEL_ROWS + v * LANES;
		v_store(sum, v_load(sum) + (even[r][v] + odd[r][v]));
	}
}

SK_INLINE void matmul_floats(enum sk_packing packing, const struct sk_cpu_matmul *job,
			     uint32_t panel, uint32_t n_panels)
{
	const uint32_t n_cols = job->weights->n_cols, most = tile_rows((size_t)n_cols * 4);
	const size_t col_bytes = packing == SK_PACKING_F32 ? 64 : 32, stride = job->in_stride;
	float tile[TILE_ROWS * SK_PANEL_ROWS];

	for (uint32_t row = 0; row < job->n_rows; row += most) {
		uint32_t rows = job->n_rows - row < most ? job->n_rows - row : most;
		for (uint32_t p = panel; p < panel + n_panels; p++) {
			memset(tile, 0, rows * SK_PANEL_ROWS * sizeof *tile);
			for (uint32_t c = 0; c < n_cols; c += RUN_COLS) {
				const uint8_t *w = sk_packed_panel(job->weights, p) + c * col_bytes;
				const float *in = job->in + row * stride + c;
				uint32_t n = n_cols - c < RUN_COLS ? n_cols - c : RUN_COLS, r = 0;
#if FLOAT_ROWS >= 8
				for (; r + 8 <= rows; r += 8)
					float_run(packing, 8, w, in + r * stride, stride, n,
						  tile + r * SK_PANEL_ROWS);
				for (; r + 4 <= rows; r += 4)
					float_run(packing, 4, w, in + r * stride, stride, n,
						  tile + r * SK_PANEL_ROWS);
#endif
				for (; r + 2 <= rows; r += 2)
					float_run(packing, 2, w, in + r * stride, stride, n,
						  tile + r * SK_PANEL_ROWS);
				for (; r < rows; r++)
					float_run(packing, 1, w, in + r * stride, stride, n,
						  tile + r * SK_PANEL_ROWS);
			}
			put_tile(job, tile, p, row, rows);
		}
	}
}

static void matmul_f32(const struct sk_cpu_matmul *job, uint32_t panel, uint32_t n_panels)
{
	matmul_floats(SK_PACKING_F32, job, panel, n_panels);
}

static void matmul_f16(const struct sk_cpu_matmul *job, uint32_t panel, uint32_t n_panels)
{
	matmul_floats(SK_PACKING_F16, job, panel, n_panels);
}

static void matmul_bf16(const struct sk_cpu_matmul *job, uint32_t panel, uint32_t n_panels)
{
	matmul_floats(SK_PACKING_BF16, job, panel, n_panels);
}
