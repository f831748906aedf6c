/* Vectors of LANES floats for the instruction set that this is compiled for. + - * / and bit operations
 * are those of the compiler's vector types; what they lack is below. The kernels are compiled without
 * contraction: a product and a sum are fused where they say v_fma(), and nowhere else. (The portable
 * v_fma() rounds twice.)
 */
#pragma once

#include <stdint.h>
#include <string.h>

#include "base/half.h"

#if defined(__clang__)
#define SK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SK_UNROLL _Pragma("GCC unroll 16")
#endif
#define SK_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#include <immintrin.h>

#define LANES 16
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));

SK_INLINE vf v_fma(vf a, vf b, vf c)
{
	return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

SK_INLINE vf v_max(vf a, vf b)
{
	return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}

SK_INLINE vf v_min(vf a, vf b)
{
	return (vf)_mm512_min_ps((__m512)a, (__m512)b);
}

SK_INLINE vf v_load_half(const uint16_t *p)
{
	return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

SK_INLINE vf v_load_int8(const int8_t *p)
{
	return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

SK_INLINE void v_store_half(uint16_t *p, vf x)
{
	_mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT));
}

/* a + the sums of pairs of 16-bit products */
SK_INLINE vi v_madd16(vi a, vi x, vi y)
{
	return a + (vi)_mm512_madd_epi16((__m512i)x, (__m512i)y);
}

/* a + the sums of pairs of products of x's unsigned and y's signed bytes, in 16 bits, which must hold them */
SK_INLINE vi v_madd8(vi a, vi x, vi y)
{
	return (vi)_mm512_add_epi16((__m512i)a, _mm512_maddubs_epi16((__m512i)x, (__m512i)y));
}

#elif defined(__AVX2__)
#include <immintrin.h>

#define LANES 8
typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef uint32_t vu __attribute__((vector_size(32)));

SK_INLINE vf v_fma(vf a, vf b, vf c)
{
	return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

SK_INLINE vf v_max(vf a, vf b)
{
	return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}

SK_INLINE vf v_min(vf a, vf b)
{
	return (vf)_mm256_min_ps((__m256)a, (__m256)b);
}

SK_INLINE vf v_load_half(const uint16_t *p)
{
	return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

SK_INLINE vf v_load_int8(const int8_t *p)
{
	return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

SK_INLINE void v_store_half(uint16_t *p, vf x)
{
	_mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT));
}

SK_INLINE vi v_madd16(vi a, vi x, vi y)
{
	return a + (vi)_mm256_madd_epi16((__m256i)x, (__m256i)y);
}

SK_INLINE vi v_madd8(vi a, vi x, vi y)
{
	return (vi)_mm256_add_epi16((__m256i)a, _mm256_maddubs_epi16((__m256i)x, (__m256i)y));
}

#else

#define LANES 4
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));

SK_INLINE vf v_fma(vf a, vf b, vf c)
{
	return a * b + c;
}

SK_INLINE vf v_max(vf a, vf b) /* b where either is not a number, as on x86 */
{
	vi m = a > b;
	return (vf)(((vi)a & m) | ((vi)b & ~m));
}

SK_INLINE vf v_min(vf a, vf b)
{
	vi m = a < b;
	return (vf)(((vi)a & m) | ((vi)b & ~m));
}

/* The exponent is moved to a float's place and set right by a product, subnormals included. */
SK_INLINE vf v_load_half(const uint16_t *p)
{
	vu h = {p[0], p[1], p[2], p[3]};
	vf f = (vf)((h & 0x7fff) << 13) * 0x1p112f;
	vu special = (vu)((h & 0x7c00) == 0x7c00) & 0x7f800000;
	return (vf)((vu)f | special | (h & 0x8000) << 16);
}

SK_INLINE vf v_load_int8(const int8_t *p)
{
	return (vf){p[0], p[1], p[2], p[3]};
}

SK_INLINE void v_store_half(uint16_t *p, vf x)
{
	for (int i = 0; i < LANES; i++)
		p[i] = sk_half_from_float(x[i]);
}

SK_INLINE vi v_madd16(vi a, vi x, vi y)
{
	return a + (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16);
}
#endif

#define PANEL_VECTORS                                                                              \
	(SK_PANEL_ROWS / LANES) /* vectors that hold one value for each row of a panel */
#define PAGE_VECTORS (SK_PAGE_TOKENS / LANES)

SK_INLINE vf v_set(float x)
{
	return x - (vf){0};
}

SK_INLINE vi vi_set(int32_t x)
{
	return x - (vi){0};
}

SK_INLINE vf v_load(const float *p)
{
	vf x;
	memcpy(&x, p, sizeof x);
	return x;
}

/* The upper half of a float each. */
SK_INLINE vf v_load_bf16(const uint16_t *p)
{
	uint16_t b __attribute__((vector_size(2 * LANES)));
	memcpy(&b, p, sizeof b);
	return (vf)(__builtin_convertvector(b, vu) << 16);
}

SK_INLINE void v_store_bf16(uint16_t *p, vf x)
{
	for (int i = 0; i < LANES; i++)
		p[i] = sk_bf16_from_float(x[i]);
}

SK_INLINE vi vi_load(const void *p)
{
	vi x;
	memcpy(&x, p, sizeof x);
	return x;
}

SK_INLINE void v_store(float *p, vf x)
{
	memcpy(p, &x, sizeof x);
}

SK_INLINE vf v_from_int(vi x)
{
	return __builtin_convertvector(x, vf);
}

/* Towards zero; what fits into 32 bits. */
SK_INLINE vi v_to_int(vf x)
{
	return __builtin_convertvector(x, vi);
}

SK_INLINE vf v_abs(vf x)
{
	return (vf)((vi)x & 0x7fffffff);
}

/* To the nearest integer, ties to even, for |x| < 2^22: the sum's last bit is worth one. */
SK_INLINE vi v_round(vf x)
{
	const vf magic = v_set(12582912.f);
	return (vi)(x + magic) - (vi)magic;
}

/* b where m is set, else a */
SK_INLINE vf v_select(vi m, vf a, vf b)
{
	return (vf)(((vi)b & m) | ((vi)a & ~m));
}

#if LANES == 16
/* in halves: i + 8, + 4, + 2, + 1 */
SK_INLINE float v_sum(vf x)
{
	return _mm512_reduce_add_ps((__m512)x);
}

SK_INLINE float v_most(vf x)
{
	return _mm512_reduce_max_ps((__m512)x);
}
#else
SK_INLINE float v_sum(vf x)
{
	float f[LANES];
	v_store(f, x);
	for (int n = LANES / 2; n; n /= 2)
		for (int i = 0; i < n; i++)
			f[i] += f[i + n];
	return f[0];
}

SK_INLINE float v_most(vf x)
{
	float f[LANES];
	v_store(f, x);
	for (int n = LANES / 2; n; n /= 2)
		for (int i = 0; i < n; i++)
			f[i] = f[i] > f[i + n] ? f[i] : f[i + n];
	return f[0];
}
#endif

/* e^x within 2e-7 of itself; 0 below -87, 2^127 or so above 88. The rest of x after whole powers of two
 * is within ln(2) / 2, where the series needs seven terms. */
SK_INLINE vf v_exp(vf x)
{
	vf in = v_min(v_max(x, v_set(-87.3f)), v_set(88.f));
	vi n = v_round(in * 1.44269504f);
	vf k = v_from_int(n);
	vf r = v_fma(k, v_set(-0.693359375f),
		     in); /* ln 2 in two parts, the first exact in few bits */
	r = v_fma(k, v_set(2.12194440e-4f), r);
	vf p = v_set(1.f / 5040);
	p = v_fma(p, r, v_set(1.f / 720));
	p = v_fma(p, r, v_set(1.f / 120));
	p = v_fma(p, r, v_set(1.f / 24));
	p = v_fma(p, r, v_set(1.f / 6));
	p = v_fma(p, r, v_set(.5f));
	p = v_fma(p, r, v_set(1.f));
	p = v_fma(p, r, v_set(1.f));
	vf y = p * (vf)((n + 127) << 23);
	y = v_select(x < -87.3f, y, v_set(0.f));
	return v_select(x != x, y, x);
}
