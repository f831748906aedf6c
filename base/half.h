/* 16-bit floats as stored in files and caches: IEEE binary16 ("half", F16) and bfloat16. */
#pragma once

#include <stdint.h>
#include <string.h>

float sk_half_to_float(uint16_t h);
uint16_t sk_half_from_float(float f); /* to nearest, ties to even; overflow becomes infinity */

static inline float sk_bf16_to_float(uint16_t b)
{
	uint32_t bits = (uint32_t)b << 16;
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

static inline uint16_t sk_bf16_from_float(float f) /* to nearest, ties to even; NaN stays NaN */
{
	uint32_t bits;
	memcpy(&bits, &f, sizeof bits);
	if ((bits & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(bits >> 16 | 0x40);
	return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
