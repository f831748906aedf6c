#include "base/half.h"

float sk_half_to_float(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 0x1f,
		 mantissa = h & 0x3ff;
	uint32_t bits;

	if (exponent == 31) {
		bits = sign | 0x7f800000u | mantissa << 13;
	} else if (exponent) {
		bits = sign | (exponent + 112) << 23 | mantissa << 13;
	} else {
		/* Subnormal: mantissa * 2^-24, exact in a float. */
		float f = (float)mantissa * 0x1p-24f;
		memcpy(&bits, &f, sizeof bits);
		bits |= sign;
	}
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

uint16_t sk_half_from_float(float f)
{
	uint32_t bits;
	memcpy(&bits, &f, sizeof bits);
	uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
	bits &= 0x7fffffffu;

	if (bits > 0x7f800000u)
		return sign | 0x7e00;
	if (bits >= 0x477ff000u) /* rounds past 65504 */
		return sign | 0x7c00;
	if (bits < 0x38800000u) {
		/* Below the smallest normal half: let the FPU round in units of 2^-24. */
		float magnitude;
		memcpy(&magnitude, &bits, sizeof magnitude);
		magnitude += 0.5f; /* 0.5 = 2^23 * 2^-24: one unit in its last place is 2^-24 */
		memcpy(&bits, &magnitude, sizeof bits);
		return sign | (uint16_t)(bits - 0x3f000000u);
	}
	bits += 0xfffu + (bits >> 13 & 1);
	return sign | (uint16_t)((bits - 0x38000000u) >> 13);
}
