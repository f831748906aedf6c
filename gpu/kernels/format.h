/* Elements as kernels read them: words of 16 bytes to floats. */
#pragma once

#include "gpu/kernels/port.h"

#include "gpu/kernels/launch.h"

SK_DEVICE float sk_low_half(unsigned u)
{
	return __half2float(__ushort_as_half((unsigned short)u));
}

SK_DEVICE float sk_high_half(unsigned u)
{
	return __half2float(__ushort_as_half((unsigned short)(u >> 16)));
}

SK_DEVICE float sk_low_bf16(unsigned u)
{
	return __uint_as_float(u << 16);
}

SK_DEVICE float sk_high_bf16(unsigned u)
{
	return __uint_as_float(u & 0xffff0000u);
}

/* A word of a row of F columns that begin at `col`: N of them at once. decode() gives value i. */
template <int F> struct sk_word;

template <> struct sk_word<SK_GPU_F32> {
	using type = float;
	static constexpr int N = 4;
	float v[N];
	SK_MEMBER void set(uint4 w, const void *, uint32_t, float)
	{
		v[0] = __uint_as_float(w.x), v[1] = __uint_as_float(w.y);
		v[2] = __uint_as_float(w.z), v[3] = __uint_as_float(w.w);
	}
};

template <> struct sk_word<SK_GPU_F16> {
	using type = __half;
	static constexpr int N = 8;
	float v[N];
	SK_MEMBER void set(uint4 w, const void *, uint32_t, float)
	{
		v[0] = sk_low_half(w.x), v[1] = sk_high_half(w.x);
		v[2] = sk_low_half(w.y), v[3] = sk_high_half(w.y);
		v[4] = sk_low_half(w.z), v[5] = sk_high_half(w.z);
		v[6] = sk_low_half(w.w), v[7] = sk_high_half(w.w);
	}
};

template <> struct sk_word<SK_GPU_BF16> {
	using type = __nv_bfloat16;
	static constexpr int N = 8;
	float v[N];
	SK_MEMBER void set(uint4 w, const void *, uint32_t, float)
	{
		v[0] = sk_low_bf16(w.x), v[1] = sk_high_bf16(w.x);
		v[2] = sk_low_bf16(w.y), v[3] = sk_high_bf16(w.y);
		v[4] = sk_low_bf16(w.z), v[5] = sk_high_bf16(w.z);
		v[6] = sk_low_bf16(w.w), v[7] = sk_high_bf16(w.w);
	}
};

SK_DEVICE float sk_byte(unsigned u, int i)
{
	return (float)(int)(u >> (8 * i) & 0xff);
}

template <> struct sk_word<SK_GPU_Q8> {
	static constexpr int N = 16;
	float v[N];
	SK_MEMBER void set(uint4 w, const void *scales, uint32_t word, float)
	{
		const float scale = __half2float(((const __half *)scales)[word / 2]);
		const unsigned u[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
		for (int i = 0; i < N; i++)
			v[i] = (sk_byte(u[i / 4], i % 4) - 128) * scale;
	}
};

template <> struct sk_word<SK_GPU_Q8X> {
	static constexpr int N = 16;
	float v[N];
	SK_MEMBER void set(uint4 w, const void *scales, uint32_t word, float zero)
	{
		const float2 s = ((const float2 *)scales)[word];
		const unsigned u[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
		for (int i = 0; i < N; i++)
			v[i] = (sk_byte(u[i / 4], i % 4) - zero) * s.x + s.y;
	}
};

SK_DEVICE float sk_nibble(unsigned u, int i)
{
	return (float)(int)(u >> (8 * (i % 4) + 4 * (i / 16)) & 0xf);
}

template <> struct sk_word<SK_GPU_Q4> {
	static constexpr int N = 32;
	float v[N];
	SK_MEMBER void set(uint4 w, const void *scales, uint32_t word, float)
	{
		const float scale = __half2float(((const __half *)scales)[word]);
		const unsigned u[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
		for (int i = 0; i < N; i++)
			v[i] = (sk_nibble(u[i % 16 / 4], i) - 8) * scale;
	}
};

template <> struct sk_word<SK_GPU_Q4M> {
	static constexpr int N = 32;
	float v[N];
	SK_MEMBER void set(uint4 w, const void *scales, uint32_t word, float)
	{
		const unsigned s = ((const unsigned *)scales)[word];
		const unsigned u[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
		for (int i = 0; i < N; i++)
			v[i] = fmaf(sk_nibble(u[i % 16 / 4], i), sk_low_half(s), sk_high_half(s));
	}
};

/* Bytes of scales a row of n_cols columns. */
SK_DEVICE size_t sk_scale_bytes(int format, uint32_t n_cols)
{
	switch (format) {
	case SK_GPU_Q8:
	case SK_GPU_Q4:
		return (size_t)(n_cols / 32) * 2;
	case SK_GPU_Q8X:
		return (size_t)(n_cols / 16) * 8;
	case SK_GPU_Q4M:
		return (size_t)(n_cols / 32) * 4;
	default:
		return 0;
	}
}

/* f(format as a constant) for the format of a matrix */
template <class Function> static cudaError_t sk_by_format(int format, Function f)
{
	switch (format) {
	case SK_GPU_F32:
		return f(std::integral_constant<int, SK_GPU_F32>());
	case SK_GPU_F16:
		return f(std::integral_constant<int, SK_GPU_F16>());
	case SK_GPU_BF16:
		return f(std::integral_constant<int, SK_GPU_BF16>());
	case SK_GPU_Q8:
		return f(std::integral_constant<int, SK_GPU_Q8>());
	case SK_GPU_Q8X:
		return f(std::integral_constant<int, SK_GPU_Q8X>());
	case SK_GPU_Q4:
		return f(std::integral_constant<int, SK_GPU_Q4>());
	case SK_GPU_Q4M:
		return f(std::integral_constant<int, SK_GPU_Q4M>());
	default:
		return cudaErrorInvalidValue;
	}
}
