/* Decoders of the GGUF block formats. The layouts are the ggml specification's; scales are halves,
 * and a block may lie at any address. Compiled without fused multiply-add (CMakeLists.txt): a
 * contracted product would round differently from the reference.
 */
#include "base/blocks.h"

#include "base/half.h"

static float half_at(const uint8_t *p)
{
	return sk_half_to_float((uint16_t)(p[0] | p[1] << 8));
}

static uint32_t u32_at(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void decode_q8_0(const uint8_t *block, float *out)
{
	float d = half_at(block);
	for (unsigned i = 0; i < 32; i++)
		out[i] = (float)(int8_t)block[2 + i] * d;
}

/* In all four nibble formats byte i holds elements i (low) and 16 + i (high). */
static void decode_q4_0(const uint8_t *block, float *out)
{
	float d = half_at(block);
	const uint8_t *q = block + 2;
	for (unsigned i = 0; i < 16; i++) {
		out[i] = d * (float)((q[i] & 15) - 8);
		out[16 + i] = d * (float)((q[i] >> 4) - 8);
	}
}

static void decode_q4_1(const uint8_t *block, float *out)
{
	float d = half_at(block), m = half_at(block + 2);
	const uint8_t *q = block + 4;
	for (unsigned i = 0; i < 16; i++) {
		out[i] = d * (float)(q[i] & 15) + m;
		out[16 + i] = d * (float)(q[i] >> 4) + m;
	}
}

/* The fifth bit of element i is bit i of the 32-bit word before the nibbles. */
static void decode_q5_0(const uint8_t *block, float *out)
{
	float d = half_at(block);
	uint32_t high = u32_at(block + 2);
	const uint8_t *q = block + 6;
	for (unsigned i = 0; i < 16; i++) {
		int low = (int)((q[i] & 15u) | (high >> i & 1) << 4);
		int top = (int)((q[i] >> 4) | (high >> (16 + i) & 1) << 4);
		out[i] = d * (float)(low - 16);
		out[16 + i] = d * (float)(top - 16);
	}
}

static void decode_q5_1(const uint8_t *block, float *out)
{
	float d = half_at(block), m = half_at(block + 2);
	uint32_t high = u32_at(block + 4);
	const uint8_t *q = block + 8;
	for (unsigned i = 0; i < 16; i++) {
		uint32_t low = (q[i] & 15u) | (high >> i & 1) << 4;
		uint32_t top = (uint32_t)(q[i] >> 4) | (high >> (16 + i) & 1) << 4;
		out[i] = d * (float)low + m;
		out[16 + i] = d * (float)top + m;
	}
}

/* Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit minima into 12 bytes: the first four of
 * each whole in bytes 0-3 and 4-7, the last four in nibbles of bytes 8-11 with their top two bits
 * in the spare bits of bytes 0-7. */
static void k_scale_min(const uint8_t *packed, unsigned i, float *ret_scale, float *ret_min)
{
	unsigned scale, min;
	if (i < 4) {
		scale = packed[i] & 63;
		min = packed[4 + i] & 63;
	} else {
		scale = (packed[4 + i] & 15u) | (packed[i - 4] >> 6) << 4;
		min = (unsigned)(packed[4 + i] >> 4) | (packed[i] >> 6) << 4;
	}
	*ret_scale = (float)scale;
	*ret_min = (float)min;
}

/* d, dmin, 12 bytes of scales, then 128 bytes: each 32 bytes hold two sub-blocks, low nibbles
 * first. */
static void decode_q4_k(const uint8_t *block, float *out)
{
	float d = half_at(block), dmin = half_at(block + 2);
	const uint8_t *scales = block + 4, *q = block + 16;
	for (unsigned sub = 0; sub < 8; sub++) {
		float scale, min;
		k_scale_min(scales, sub, &scale, &min);
		scale *= d;
		min *= dmin;
		const uint8_t *bytes = q + sub / 2 * 32;
		unsigned shift = sub % 2 * 4;
		for (unsigned i = 0; i < 32; i++)
			*out++ = scale * (float)(bytes[i] >> shift & 15) - min;
	}
}

/* As Q4_K with 32 bytes before the nibbles: bit `sub` of byte i is the fifth bit of element i. */
static void decode_q5_k(const uint8_t *block, float *out)
{
	float d = half_at(block), dmin = half_at(block + 2);
	const uint8_t *scales = block + 4, *high = block + 16, *q = block + 48;
	for (unsigned sub = 0; sub < 8; sub++) {
		float scale, min;
		k_scale_min(scales, sub, &scale, &min);
		scale *= d;
		min *= dmin;
		const uint8_t *bytes = q + sub / 2 * 32;
		unsigned shift = sub % 2 * 4;
		for (unsigned i = 0; i < 32; i++) {
			unsigned code = (bytes[i] >> shift & 15u) | (high[i] >> sub & 1u) << 4;
			*out++ = scale * (float)code - min;
		}
	}
}

/* 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, d. Each half of 128
 * elements is four runs of 32: run r takes nibbles from 32 bytes (low ones in runs 0 and 1) and
 * bits 2r of the 32 bytes of pairs. */
static void decode_q6_k(const uint8_t *block, float *out)
{
	float d = half_at(block + 208);
	for (unsigned half = 0; half < 2; half++) {
		const uint8_t *low = block + half * 64, *high = block + 128 + half * 32;
		const uint8_t *scales = block + 192 + half * 8;
		for (unsigned run = 0; run < 4; run++) {
			const uint8_t *nibbles = low + run % 2 * 32;
			unsigned shift = run / 2 * 4;
			for (unsigned i = 0; i < 32; i++) {
				unsigned code = (nibbles[i] >> shift & 15u) |
						(high[i] >> run * 2 & 3u) << 4;
				float scale = d * (float)(int8_t)scales[run * 2 + i / 16];
				*out++ = scale * (float)((int)code - 32);
			}
		}
	}
}

sk_block_decode_fn *sk_block_decoder(enum sk_dtype dtype)
{
	static sk_block_decode_fn *const decoders[SK_N_DTYPES] = {
		[SK_DTYPE_Q8_0] = decode_q8_0, [SK_DTYPE_Q4_0] = decode_q4_0,
		[SK_DTYPE_Q4_1] = decode_q4_1, [SK_DTYPE_Q5_0] = decode_q5_0,
		[SK_DTYPE_Q5_1] = decode_q5_1, [SK_DTYPE_Q4_K] = decode_q4_k,
		[SK_DTYPE_Q5_K] = decode_q5_k, [SK_DTYPE_Q6_K] = decode_q6_k,
	};
	return decoders[dtype];
}
