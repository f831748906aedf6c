/* Packed weights: one layout for a matrix times one row or many.
 *
 * Rows go in panels of 16, the last one filled up with zero rows; a panel lies in one piece and is read
 * front to back. Within a panel
 *   F32    column by column, 16 floats each
 *   F16    column by column, 16 halves each
 *   BF16   two columns at a time: 16 times (even, odd), so that one 32-bit lane holds a row's pair
 *   Q8(M)  blocks of 32 columns, in 8 groups of 4: 16 times 4 codes (one lane a row, as byte dot
 *          products want); after all blocks 16 half scales a block, then (M) 16 half minima a block
 *   Q4(M)  the same with two groups in one: the even group in the low nibbles, the odd in the high ones
 * The value of a code u is (u - 128) * scale in Q8, (u - 8) * scale in Q4, u * scale + minimum with (M).
 *
 * A thing of the engine thread once packed, read by the workers.
 */
#pragma once

#include "backend/backend.h"
#include "base/tensor.h"
#include "cpu/region.h"

#define SK_PANEL_ROWS     16
#define SK_BLOCK_COLS     32
#define SK_Q8_BLOCK_BYTES 512
#define SK_Q4_BLOCK_BYTES 256

enum sk_packing {
	SK_PACKING_F32,
	SK_PACKING_F16,
	SK_PACKING_BF16,
	SK_PACKING_Q8,
	SK_PACKING_Q8M,
	SK_PACKING_Q4,
	SK_PACKING_Q4M,
	SK_N_PACKINGS,
};

static inline bool sk_packing_is_blocks(enum sk_packing packing)
{
	return packing >= SK_PACKING_Q8;
}

static inline bool sk_packing_has_minima(enum sk_packing packing)
{
	return packing == SK_PACKING_Q8M || packing == SK_PACKING_Q4M;
}

static inline bool sk_packing_is_four_bits(enum sk_packing packing)
{
	return packing == SK_PACKING_Q4 || packing == SK_PACKING_Q4M;
}

struct sk_packed {
	enum sk_packing packing;
	uint32_t n_rows, n_cols;
	uint32_t n_panels, n_blocks; /* n_blocks: of columns; 0 for floats */
	size_t panel_bytes, scales_offset, minima_offset;
	struct sk_region region;
};

struct sk_cpu_pool;

/* -ENOMEM; -ENOTSUP for a format that is not known here. */
int sk_packed_init(struct sk_packed *packed, const struct sk_matrix *matrix,
		   enum sk_weight_format format, struct sk_cpu_pool *pool);
void sk_packed_finish(struct sk_packed *packed);
uint64_t sk_packed_bytes(const struct sk_packed *packed);

/* Row `row` as n_cols floats. */
void sk_packed_decode_row(const struct sk_packed *packed, uint32_t row, float *out);

static inline const uint8_t *sk_packed_panel(const struct sk_packed *packed, uint32_t panel)
{
	return (const uint8_t *)packed->region.data + panel * packed->panel_bytes;
}
