/* Half and bfloat16 against the compiler's own conversions, and against rounding worked out here.
 */
#include "base/half.h"

#include "sk_test.h"

#include <math.h>
#include <stdbool.h>

static float float_of(uint32_t bits)
{
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

static uint32_t bits_of(float f)
{
	uint32_t bits;
	memcpy(&bits, &f, sizeof bits);
	return bits;
}

static bool half_is_nan(uint16_t h)
{
	return (h & 0x7fff) > 0x7c00;
}

static void every_half_survives_the_round_trip(void **state)
{
	(void)state;
	for (uint32_t h = 0; h <= 0xffff; h++) {
		float f = sk_half_to_float((uint16_t)h);
		if (half_is_nan((uint16_t)h)) {
			assert_true(isnan(f));
			assert_true(half_is_nan(sk_half_from_float(f)));
			continue;
		}
		assert_int_equal(sk_half_from_float(f), h);
	}
}

static void halves_have_the_values_of_the_standard(void **state)
{
	(void)state;
	for (uint32_t h = 0; h < 0x7c00; h++) {
		double wanted =
			h >> 10 ? ldexp(1024 + (h & 0x3ff), (int)(h >> 10) - 25) : ldexp(h, -24);
		assert_true((double)sk_half_to_float((uint16_t)h) == wanted);
		assert_true((double)sk_half_to_float((uint16_t)(h | 0x8000)) == -wanted);
	}
	assert_int_equal(bits_of(sk_half_to_float(0x8000)), 0x80000000);
	assert_true(isinf(sk_half_to_float(0x7c00)));
	assert_true(isinf(sk_half_to_float(0xfc00)) && sk_half_to_float(0xfc00) < 0);
}

/* Between each two neighbours: the middle goes to the even one, a hair to either side to the
 * nearer. */
static void floats_round_to_the_nearest_half(void **state)
{
	(void)state;
	for (uint32_t h = 0; h < 0x7bff; h++) {
		float low = sk_half_to_float((uint16_t)h),
		      high = sk_half_to_float((uint16_t)(h + 1));
		float middle = (float)(((double)low + (double)high) / 2);
		uint16_t even = (uint16_t)(h & 1 ? h + 1 : h);
		assert_int_equal(sk_half_from_float(middle), even);
		assert_int_equal(sk_half_from_float(-middle), even | 0x8000);
		assert_int_equal(sk_half_from_float(nextafterf(middle, 0)), h);
		assert_int_equal(sk_half_from_float(nextafterf(middle, INFINITY)), h + 1);
	}
}

static void the_ends_of_the_range_are_right(void **state)
{
	(void)state;
	static const struct {
		float from;
		uint16_t to;
	} cases[] = {
		{65504, 0x7bff},        {65519.996f, 0x7bff},
		{65520, 0x7c00}, /* the middle between 65504 and 65536, whose even neighbour is
				    infinity */
		{1e30f, 0x7c00},        {INFINITY, 0x7c00},
		{0x1p-24f, 1},          {0x1p-25f, 0}, /* a tie */
		{0x1.000002p-25f, 1},                  /* a hair above it */
		{0x1p-26f, 0},          {0x1p-149f, 0},
		{0x1.ff8p-15f, 0x03ff}, /* the largest subnormal, rounded in its last place */
		{0x1p-14f, 0x0400},     {0, 0},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(sk_half_from_float(cases[i].from), cases[i].to);
		assert_int_equal(sk_half_from_float(-cases[i].from), cases[i].to | 0x8000);
	}
	assert_true(half_is_nan(sk_half_from_float(NAN)));
	assert_true(half_is_nan(
		sk_half_from_float(float_of(0x7f800001)))); /* payload in low bits only */
	assert_true(half_is_nan(sk_half_from_float(float_of(0xffffffff))));
}

#ifdef __FLT16_MAX__
/* A walk over all floats in steps that hit every exponent and many mantissas. */
static void agrees_with_the_compiler(void **state)
{
	(void)state;
	for (uint64_t bits = 0; bits <= 0xffffffff; bits += 4099) {
		float f = float_of((uint32_t)bits);
		if (isnan(f))
			continue;
		_Float16 h = (_Float16)f;
		uint16_t wanted;
		memcpy(&wanted, &h, sizeof wanted);
		assert_int_equal(sk_half_from_float(f), wanted);
	}
	for (uint32_t bits = 0; bits <= 0xffff; bits++) {
		uint16_t short_bits = (uint16_t)bits;
		_Float16 h;
		memcpy(&h, &short_bits, sizeof h);
		if (!half_is_nan(short_bits))
			assert_int_equal(bits_of(sk_half_to_float(short_bits)), bits_of((float)h));
	}
}
#endif

static void every_bf16_survives_the_round_trip(void **state)
{
	(void)state;
	for (uint32_t b = 0; b <= 0xffff; b++) {
		float f = sk_bf16_to_float((uint16_t)b);
		assert_int_equal(bits_of(f), b << 16);
		if (isnan(f))
			assert_true(isnan(sk_bf16_to_float(sk_bf16_from_float(f))));
		else
			assert_int_equal(sk_bf16_from_float(f), b);
	}
}

static void floats_round_to_the_nearest_bf16(void **state)
{
	(void)state;
	for (uint32_t b = 0; b < 0x7f80; b++) {
		uint32_t middle = b << 16 | 0x8000;
		uint16_t even = (uint16_t)(b & 1 ? b + 1 : b);
		assert_int_equal(sk_bf16_from_float(float_of(middle)), even);
		assert_int_equal(sk_bf16_from_float(float_of(middle | 0x80000000)), even | 0x8000);
		assert_int_equal(sk_bf16_from_float(float_of(middle - 1)), b);
		assert_int_equal(sk_bf16_from_float(float_of(middle + 1)), b + 1);
	}
	assert_int_equal(sk_bf16_from_float(float_of(0x7f7fffff)), 0x7f80); /* overflow: infinity */
	/* NaN whose payload would be cut off, or would carry into the sign. */
	assert_true(isnan(sk_bf16_to_float(sk_bf16_from_float(float_of(0x7f800001)))));
	assert_true(isnan(sk_bf16_to_float(sk_bf16_from_float(float_of(0x7fffffff)))));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_half_survives_the_round_trip),
		cmocka_unit_test(halves_have_the_values_of_the_standard),
		cmocka_unit_test(floats_round_to_the_nearest_half),
		cmocka_unit_test(the_ends_of_the_range_are_right),
#ifdef __FLT16_MAX__
		cmocka_unit_test(agrees_with_the_compiler),
#endif
		cmocka_unit_test(every_bf16_survives_the_round_trip),
		cmocka_unit_test(floats_round_to_the_nearest_bf16),
	};
	return sk_test_run(tests, NULL, NULL);
}
