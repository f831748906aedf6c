/* What matrix kernels share: a tile of results, panel rows for some batch rows, and how it is written. */
#pragma once

#include "base/simd.h"
#include "cpu/kernels.h"

#define TILE_ROWS 64
/* Asks for what lies ahead of `p`, where n rows are multiplied at once (past a panel's end lies the next): into the
 * second-level cache, as the first has too few outstanding misses for a memory's speed. Several rows take
 * longer over each line, and gain from asking earlier; one row loses (doc/SPEED.md). */
SK_INLINE void prefetch(const void *p, const int n)
{
	__builtin_prefetch((const char *)p + (n == 1 ? 2048 : 8192), 0, 2);
}

/* How many rows may pass over a panel before the next: their activations stay in the second-level cache. */
SK_INLINE uint32_t tile_rows(size_t row_bytes)
{
	size_t rows = ((size_t)1 << 20) / row_bytes / 8 * 8;
	return rows < 8 ? 8 : rows > TILE_ROWS ? TILE_ROWS : (uint32_t)rows;
}

/* Writes the tile of one panel, n_rows rows from `row` on, to where the job wants it. */
SK_INLINE void put_tile(const struct sk_cpu_matmul *job, const float *tile, uint32_t panel,
			uint32_t row, uint32_t n_rows)
{
	uint32_t n = job->weights->n_rows - panel * SK_PANEL_ROWS;
	const float *bias = job->bias ? job->bias + panel * SK_PANEL_ROWS : NULL;
	if (n > SK_PANEL_ROWS)
		n = SK_PANEL_ROWS;
	for (uint32_t r = 0; r < n_rows; r++, tile += SK_PANEL_ROWS) {
		float *out = job->out + (row + r) * job->out_stride + panel * SK_PANEL_ROWS;
		for (uint32_t i = 0; i < n; i++) {
			float y = bias ? tile[i] + bias[i] : tile[i];
			out[i] = job->add ? out[i] + y : y;
		}
	}
}
