/* Packed weights: one layout for a matrix times one row or many.
 *
 * Rows go in panels of 16, the last one filled up with zero rows; a panel lies in one piece and is read
 * front to back. Within a panel
 *   F32    column by column, 16 floats each
 *   F16    column by column, 16 halves each
 *   BF16   two columns at a time: 16 times (even, odd), so that one 32-bit lane holds a row's pair
 *   Q8(M)  blocks of 32 columns, in 8 groups of 4: 16 times 4 codes (one lane a row, as byte dot
 *          products want). Two blocks, then their scales, 16 halves each, then (M) their minima, 16
 *          halves each: whole cache lines, all in the order in which they are read
 *   Q8H(M) as Q8(M), with two factors a block, one for each half of its columns: 8-bit integers, behind
 *          the scales, for each block 16 of the first half and 16 of the second
 *   Q4(M)  as Q8(M) with two groups in one: the even group in the low nibbles, the odd in the high ones
 * A last single block has a second one of zeros beside it.
 * What a code is worth: backend/codes.h.
 *
 * A thing of the engine thread once packed, read by the workers.
 */
#pragma once

#include "backend/codes.h"
#include "cpu/region.h"

#define SK_PANEL_ROWS     16
#define SK_Q8_BLOCK_BYTES 512
#define SK_Q4_BLOCK_BYTES 256

struct sk_packed {
	enum sk_packing packing;
	uint32_t n_rows, n_cols;
	uint32_t n_panels, n_blocks; /* n_blocks: of columns, even; 0 for floats */
	size_t panel_bytes;
	struct sk_region region;
};

/* Where a block of a panel lies, and what belongs to it. */
struct sk_packed_block {
	uint8_t *codes;
	uint16_t *scales, *minima; /* (SK_PANEL_ROWS) */
	int8_t *factors;           /* (2, SK_PANEL_ROWS) */
};

/* Of a row, even. */
static inline uint32_t sk_packed_n_blocks(uint32_t n_cols)
{
	return (n_cols / SK_BLOCK_COLS + (n_cols % SK_BLOCK_COLS != 0) + 1) / 2 * 2;
}

static inline size_t sk_packing_block_bytes(enum sk_packing packing)
{
	return sk_packing_is_four_bits(packing) ? SK_Q4_BLOCK_BYTES : SK_Q8_BLOCK_BYTES;
}

/* Of two blocks and all that belongs to them. */
static inline size_t sk_packing_pair_bytes(enum sk_packing packing)
{
	return 2 * sk_packing_block_bytes(packing) + 64 +
	       (sk_packing_has_halves(packing) ? 64 : 0) +
	       (sk_packing_has_minima(packing) ? 64 : 0);
}

/* Block `which` (0, 1) of a pair. */
static inline struct sk_packed_block sk_packed_block(enum sk_packing packing, uint8_t *pair,
						     uint32_t which)
{
	uint8_t *scales = pair + 2 * sk_packing_block_bytes(packing) + which * 32,
		*minima = scales + (sk_packing_has_halves(packing) ? 128 : 64);
	return (struct sk_packed_block){
		.codes = pair + which * sk_packing_block_bytes(packing),
		.scales = (uint16_t *)scales,
		.minima = (uint16_t *)minima,
		.factors = (int8_t *)scales + 64,
	};
}

struct sk_cpu_pool;

/* Chooses the packing and its sizes: the caller then makes the region, of sk_packed_bytes(). -ENOMEM where it would be
 * too large for any, -ENOTSUP for a format that is not known here. */
int sk_packed_plan(struct sk_packed *packed, const struct sk_matrix *matrix,
		   enum sk_weight_format format);
int sk_packed_fill(struct sk_packed *packed, const struct sk_matrix *matrix,
		   struct sk_cpu_pool *pool); /* -ENOMEM */
void sk_packed_finish(struct sk_packed *packed);
uint64_t sk_packed_bytes(const struct sk_packed *packed);

/* Row `row` as n_cols floats. */
void sk_packed_decode_row(const struct sk_packed *packed, uint32_t row, float *out);

static inline uint8_t *sk_packed_panel(const struct sk_packed *packed, uint32_t panel)
{
	return (uint8_t *)packed->region.data + panel * packed->panel_bytes;
}
