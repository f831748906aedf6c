/* Rows of weights as integer codes: taken as they are from the block formats of files, or made from
 * floats. The meaning of a code is that of the packing (cpu/packed.h).
 */
#pragma once

#include "base/tensor.h"
#include "cpu/packed.h"

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
