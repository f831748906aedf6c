/* Which numbers a device keeps a matrix in, and rows of weights as integer codes: taken as they are from the
 * block formats of files, or made from floats. How they lie in its memory is the device's business.
 *
 * The value of a code u is (u - zero) * scale, where zero is 128 in Q8, 8 in Q4; u * scale + minimum in
 * Q8M and Q4M; (u - 128) * (scale * factor) in Q8H, + minimum in Q8HM. So Q8H holds Q6_K as it is, Q8 too
 * (factors of one), and Q8HM holds them beside rows that have minima.
 */
#pragma once

#include "backend/backend.h"
#include "base/tensor.h"

#define SK_BLOCK_COLS 32
#define SK_HALF_COLS  16 /* half a block */

enum sk_packing {
	SK_PACKING_F32,
	SK_PACKING_F16,
	SK_PACKING_BF16,
	SK_PACKING_Q8,
	SK_PACKING_Q8M,
	SK_PACKING_Q8H,
	SK_PACKING_Q8HM,
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
	return packing == SK_PACKING_Q8M || packing == SK_PACKING_Q8HM || packing == SK_PACKING_Q4M;
}

static inline bool sk_packing_has_halves(enum sk_packing packing)
{
	return packing == SK_PACKING_Q8H || packing == SK_PACKING_Q8HM;
}

static inline bool sk_packing_is_four_bits(enum sk_packing packing)
{
	return packing == SK_PACKING_Q4 || packing == SK_PACKING_Q4M;
}

/* The code that stands for zero, or for the minimum. */
static inline int sk_packing_zero(enum sk_packing packing)
{
	if (packing == SK_PACKING_Q8M || packing == SK_PACKING_Q4M)
		return 0;
	return packing == SK_PACKING_Q4 ? 8 : 128;
}

/* One row: a code a column (a multiple of SK_BLOCK_COLS), a half scale and minimum a block, and two
 * factors of the scale where the packing has them. */
struct sk_codes {
	uint8_t *codes;
	uint16_t *scales, *minima;
	int8_t *factors;
};

/* Of a row. */
static inline uint32_t sk_codes_n_blocks(uint32_t n_cols)
{
	return n_cols / SK_BLOCK_COLS + (n_cols % SK_BLOCK_COLS != 0);
}

/* The packing that keeps `dtype` with its own codes, or as it is. */
enum sk_packing sk_codes_packing(enum sk_dtype dtype);
/* The packing for a matrix, whose parts may differ, in the format wanted. -ENOTSUP. */
int sk_codes_choose(const struct sk_matrix *matrix, enum sk_weight_format format,
		    enum sk_packing *ret_packing);

/* Takes over a row of a block format whose packing is `packing`, or one that holds it exactly.
 * False: it has to go through floats. */
bool sk_codes_from_file(const struct sk_codes *out, enum sk_packing packing, enum sk_dtype dtype,
			const void *row, uint32_t n_cols);

/* Q8 or Q4, as GGML makes Q8_0 and Q4_0: scale max / 127, nearest codes, ties away from zero; or the value of largest
 * magnitude, the first of them, becomes -8, ties upward. A block with a value that is no number, or infinite, has no
 * numbers at all. `in` is zero from n_cols to the end of its block. Other packings are never made from floats. */
void sk_codes_from_floats(const struct sk_codes *out, enum sk_packing packing, const float *in,
			  uint32_t n_cols);

/* Codes of four bits, a byte each, become words of two groups: the even group's in the low nibbles, the odd
 * one's in the high. In place, half as long. */
void sk_codes_join_nibbles(const struct sk_codes *codes, uint32_t n_cols);
