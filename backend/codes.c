/* The block formats are those of base/tensor.h; this file takes their codes where sk_dtype_decode_row()
 * takes their values. */
#include "backend/codes.h"

#include "base/half.h"
#include "base/simd.h"

#include <errno.h>
#include <string.h>

enum sk_packing sk_codes_packing(enum sk_dtype dtype)
{
	switch (dtype) {
	case SK_DTYPE_F32:
		return SK_PACKING_F32;
	case SK_DTYPE_F16:
		return SK_PACKING_F16;
	case SK_DTYPE_BF16:
		return SK_PACKING_BF16;
	case SK_DTYPE_Q4_0:
		return SK_PACKING_Q4;
	case SK_DTYPE_Q4_1:
	case SK_DTYPE_Q4_K:
		return SK_PACKING_Q4M;
	case SK_DTYPE_Q5_1:
	case SK_DTYPE_Q5_K:
		return SK_PACKING_Q8M;
	case SK_DTYPE_Q8_0:
	case SK_DTYPE_Q5_0:
		return SK_PACKING_Q8;
	case SK_DTYPE_Q6_K:
		return SK_PACKING_Q8H;
	case SK_N_DTYPES:
		break;
	}
	return SK_N_PACKINGS;
}

/* The least that holds both: floats over eight bits over four, halves and minima if either has them. */
static enum sk_packing join(enum sk_packing a, enum sk_packing b)
{
	if (a == b)
		return a;
	if (!sk_packing_is_blocks(a) && !sk_packing_is_blocks(b))
		return SK_PACKING_F32;
	if (!sk_packing_is_blocks(a))
		return a;
	if (!sk_packing_is_blocks(b))
		return b;
	bool minima = sk_packing_has_minima(a) || sk_packing_has_minima(b);
	if (sk_packing_is_four_bits(a) && sk_packing_is_four_bits(b))
		return SK_PACKING_Q4M;
	if (sk_packing_has_halves(a) || sk_packing_has_halves(b))
		return minima ? SK_PACKING_Q8HM : SK_PACKING_Q8H;
	return minima ? SK_PACKING_Q8M : SK_PACKING_Q8;
}

int sk_codes_choose(const struct sk_matrix *matrix, enum sk_weight_format format,
		    enum sk_packing *ret_packing)
{
	enum sk_packing own = sk_codes_packing(matrix->parts[0].tensor->dtype);
	for (uint32_t i = 1; i < matrix->n_parts; i++)
		own = join(own, sk_codes_packing(matrix->parts[i].tensor->dtype));

	switch (format) {
	case SK_WEIGHTS_AUTO:
		*ret_packing = own;
		break;
	case SK_WEIGHTS_F32:
		*ret_packing = SK_PACKING_F32;
		break;
	case SK_WEIGHTS_BF16:
		*ret_packing = SK_PACKING_BF16;
		break;
	case SK_WEIGHTS_Q8: /* what has eight bits or four keeps its codes */
		*ret_packing = sk_packing_is_blocks(own) ? join(own, SK_PACKING_Q8) : SK_PACKING_Q8;
		break;
	case SK_WEIGHTS_Q4:
		*ret_packing = own == SK_PACKING_Q4M ? own : SK_PACKING_Q4;
		break;
	default:
		return -ENOTSUP;
	}
	return *ret_packing < SK_N_PACKINGS ? 0 : -ENOTSUP;
}

static inline uint16_t u16_at(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

/* A block as files have it: codes from 0, and what the code of zero is (or a minimum). */
struct block {
	uint8_t codes[SK_BLOCK_COLS];
	uint16_t scale, minimum;
	int8_t factors[2]; /* of the scale, for each half of the block */
	int zero;          /* value (code - zero) * scale * factor */
	bool has_minimum;
};

static void nibbles(uint8_t *codes, const uint8_t *bytes)
{
	for (int i = 0; i < 16; i++) {
		codes[i] = bytes[i] & 15;
		codes[i + 16] = bytes[i] >> 4;
	}
}

static void fifth_bits(uint8_t *codes, const uint8_t *bytes)
{
	for (int i = 0; i < 32; i++)
		codes[i] |= (uint8_t)((bytes[i / 8] >> (i % 8) & 1) << 4);
}

/* Scale and minimum j of the twelve bytes that hold eight of each in six bits. */
static void six_bits(const uint8_t *s, int j, int *ret_scale, int *ret_minimum)
{
	if (j < 4) {
		*ret_scale = s[j] & 63;
		*ret_minimum = s[j + 4] & 63;
	} else {
		*ret_scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
		*ret_minimum = s[j + 4] >> 4 | (s[j] >> 6) << 4;
	}
}

/* Block `b` (of 32 columns) of a row. */
static void block_read(struct block *out, enum sk_dtype dtype, const uint8_t *row, uint32_t b)
{
	uint32_t elements = sk_dtype_info(dtype)->block_elements,
		 bytes = sk_dtype_info(dtype)->block_bytes;
	const uint8_t *p = row + (size_t)(b * SK_BLOCK_COLS / elements) * bytes;

	*out = (struct block){.scale = u16_at(p), .factors = {1, 1}};
	switch (dtype) {
	case SK_DTYPE_Q8_0:
		out->zero = 128;
		for (int i = 0; i < 32; i++)
			out->codes[i] = p[2 + i] ^ 0x80;
		break;
	case SK_DTYPE_Q4_0:
		out->zero = 8;
		nibbles(out->codes, p + 2);
		break;
	case SK_DTYPE_Q4_1:
		out->has_minimum = true;
		out->minimum = u16_at(p + 2);
		nibbles(out->codes, p + 4);
		break;
	case SK_DTYPE_Q5_0:
		out->zero = 16;
		nibbles(out->codes, p + 6);
		fifth_bits(out->codes, p + 2);
		break;
	case SK_DTYPE_Q5_1:
		out->has_minimum = true;
		out->minimum = u16_at(p + 2);
		nibbles(out->codes, p + 8);
		fifth_bits(out->codes, p + 4);
		break;
	case SK_DTYPE_Q4_K:
	case SK_DTYPE_Q5_K: {
		int j = (int)(b % 8), scale, minimum;
		six_bits(p + 4, j, &scale, &minimum);
		out->has_minimum = true;
		out->factors[0] = out->factors[1] = (int8_t)scale;
		out->minimum =
			sk_half_from_float(-sk_half_to_float(u16_at(p + 2)) * (float)minimum);
		const uint8_t *high = p + 16,
			      *low = p + (dtype == SK_DTYPE_Q5_K ? 48 : 16) + j / 2 * 32;
		for (int i = 0; i < 32; i++) {
			out->codes[i] = (uint8_t)(low[i] >> j % 2 * 4 & 15);
			if (dtype == SK_DTYPE_Q5_K)
				out->codes[i] |= (uint8_t)((high[i] >> j & 1) << 4);
		}
		break;
	}
	case SK_DTYPE_Q6_K: { /* half j of the eight of the block, in 128 columns that lie together */
		uint32_t j = b % 8, run = j % 4;
		const uint8_t *low = p + j / 4 * 64 + run % 2 * 32, *high = p + 128 + j / 4 * 32;
		memcpy(out->factors, p + 192 + j * 2, 2);
		out->scale = u16_at(p + 208);
		out->zero = 32;
		for (int i = 0; i < 32; i++)
			out->codes[i] = (uint8_t)((low[i] >> run / 2 * 4 & 15) |
						  (high[i] >> run * 2 & 3) << 4);
		break;
	}
	default:
		break;
	}
}

bool sk_codes_from_file(const struct sk_codes *out, enum sk_packing packing, enum sk_dtype dtype,
			const void *row, uint32_t n_cols)
{
	enum sk_packing own = sk_codes_packing(dtype);
	if (!sk_packing_is_blocks(own))
		return false;
	if (sk_packing_has_minima(own) && !sk_packing_has_minima(packing))
		return false;
	if (sk_packing_has_halves(own) && !sk_packing_has_halves(packing))
		return false;
	if (!sk_packing_is_four_bits(own) && sk_packing_is_four_bits(packing))
		return false;

	const int zero = sk_packing_zero(packing);
	for (uint32_t b = 0; b < n_cols / SK_BLOCK_COLS; b++) {
		struct block block;
		block_read(&block, dtype, row, b);
		uint8_t *codes = out->codes + b * SK_BLOCK_COLS;
		for (int i = 0; i < SK_BLOCK_COLS; i++)
			codes[i] = (uint8_t)(block.codes[i] + (zero ? zero - block.zero : 0));
		if (sk_packing_has_halves(packing))
			memcpy(out->factors + 2 * b, block.factors, 2);
		else if (block.factors[0] != 1) /* of a K format: one for all of the block */
			block.scale = sk_half_from_float(sk_half_to_float(block.scale) *
							 (float)block.factors[0]);
		out->scales[b] = block.scale;
		out->minima[b] = block.minimum;
		if (!zero && !block.has_minimum) /* a power of two times a half */
			out->minima[b] = sk_half_from_float(-(float)block.zero *
							    sk_half_to_float(block.scale));
	}
	return true;
}

/* Of a block: its least and its greatest value; not a number in *ret_bad if any is none or infinite. */
static void bounds(const float *x, float *ret_least, float *ret_most, float *ret_bad)
{
	vf least = v_load(x), most = least, odd = least * 0.f;
	for (int i = LANES; i < SK_BLOCK_COLS; i += LANES) {
		vf v = v_load(x + i);
		least = v_min(v, least);
		most = v_max(v, most);
		odd += v * 0.f;
	}
	*ret_least = -v_most(-least);
	*ret_most = v_most(most);
	*ret_bad = v_sum(odd);
}

/* The value of largest magnitude, the first of them. */
static float extreme(const float *x, float least, float most)
{
	if (-least != most)
		return -least > most ? least : most;
	for (int i = 0; i < SK_BLOCK_COLS; i++)
		if (x[i] == least || x[i] == most)
			return x[i];
	return most;
}

/* Away from zero where two are as near, as roundf() does. */
static vi round_half_away(vf x)
{
	vi whole = v_to_int(x);
	vf rest = x - v_from_int(whole);
	return whole - (vi)(rest >= .5f) + (vi)(rest <= -.5f); /* true is -1 */
}

static void quantise(const struct sk_codes *out, enum sk_packing packing, const float *in,
		     uint32_t b)
{
	const float *x = in + (size_t)b * SK_BLOCK_COLS;
	const bool four = packing == SK_PACKING_Q4;
	float least, most, bad, scale;

	bounds(x, &least, &most, &bad);
	if (four)
		scale = extreme(x, least, most) / -8;
	else
		scale = (-least > most ? -least : most) / 127;
	if (bad != 0)
		scale = bad; /* and so is what is multiplied by it */
	out->scales[b] = sk_half_from_float(scale);

	const float inverse = scale != 0 ? 1 / scale : 0; /* of the scale before its rounding */
	int32_t codes[SK_BLOCK_COLS];
	for (int i = 0; i < SK_BLOCK_COLS; i += LANES) {
		vf at = v_load(x + i) * inverse;
		vi code = four ? v_to_int(v_min(v_max(at + 8.5f, v_set(0)), v_set(15)))
			       : round_half_away(v_min(v_max(at, v_set(-127)), v_set(127))) + 128;
		memcpy(codes + i, &code, sizeof code);
	}
	for (int i = 0; i < SK_BLOCK_COLS; i++)
		out->codes[b * SK_BLOCK_COLS + i] = (uint8_t)codes[i];
}

void sk_codes_from_floats(const struct sk_codes *out, enum sk_packing packing, const float *in,
			  uint32_t n_cols)
{
	for (uint32_t b = 0; b < sk_codes_n_blocks(n_cols); b++)
		quantise(out, packing, in, b);
}

void sk_codes_join_nibbles(const struct sk_codes *codes, uint32_t n_cols)
{
	const uint32_t n = sk_codes_n_blocks(n_cols) * SK_BLOCK_COLS / 8;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t words[2];
		memcpy(words, codes->codes + (size_t)i * 8, sizeof words);
		words[0] |= words[1] << 4;
		memcpy(codes->codes + (size_t)i * 4, words, 4);
	}
}
