/* A chunk: 64 bytes of each of 16 rows of a matrix, times 8 vectors, on the tensor cores. A warp takes one at a time.
 *
 * In mma.m16n8k16 the order of the 16 products is free as long as both sides have the same, so that what lies together
 * in memory goes into it as it lies. Of its two rows a lane has a word of 16 bytes each; of a run of 32 columns it multiplies
 * eight: four from first() on, and four SECOND behind those. A word of 16-bit numbers is just these. A word of bytes is half a
 * run, one of nibbles a whole run, of which the other lanes of the row want their columns: the four hand one another what each
 * lacks (share()), since a run, which has a scale of its own, is multiplied by all of them at once. Its codes become BF16, which
 * hold them exactly; they are 2^-14 of themselves until the end, since products are summed before they are scaled, and no
 * sum of a run may be infinite where the scaled one is not.
 *
 * Activations are split in two 16-bit numbers, whose products are both summed. Two halves hold what a float does, where they
 * are neither too large nor too small: 32 numbers of a vector at a time are scaled by a power of two, which is undone in their
 * sum. Two BF16 have 16 bits of a float's 24, and its range but for its ends: above 3.396e38 the first is infinite, below 2^-117 the
 * second runs out of bits.
 */
#pragma once

#include "gpu/kernels/format.h"

/* Exponents of floats as they lie in memory: the greatest of a run's numbers gets the one, to which the other is the least
 * that a power of two can bring. */
#define FULL_EXPONENT  (127u + 14)
#define LEAST_EXPONENT (FULL_EXPONENT - 126)

template <int F> SK_DEVICE unsigned pack2(float a, float b)
{
	if (F != SK_GPU_F16) {
		const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
		return *(const unsigned *)&v;
	}
	const __half2 v = __floats2half2_rn(a, b);
	return *(const unsigned *)&v;
}

/* Two values as 16-bit numbers, and as such what they lose by it. */
template <int F> SK_DEVICE void split(float a, float b, unsigned *ret_high, unsigned *ret_low)
{
	const unsigned high = pack2<F>(a, b);
	*ret_high = high;
	*ret_low = F != SK_GPU_F16 ? pack2<F>(a - sk_low_bf16(high), b - sk_high_bf16(high))
				   : pack2<F>(a - sk_low_half(high), b - sk_high_half(high));
}

SK_DEVICE float most_of(const float4 &v)
{
	return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

SK_DEVICE float4 times(const float4 &v, float by)
{
	return {v.x * by, v.y * by, v.z * by, v.w * by};
}

template <int F>
SK_DEVICE void mma(float (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
		   unsigned b1)
{
	const unsigned a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
	if (F != SK_GPU_F16)
		sk_mma_bfloats(d, a, b);
	else
		sk_mma_halves(d, a, b);
}

/* A lane's eight columns of two rows times those of a vector. */
template <int F> SK_DEVICE void mma_run(float (&d)[4], const uint4 (&rows)[2], const uint4 &x)
{
	mma<F>(d, rows[0].x, rows[1].x, rows[0].y, rows[1].y, x.x, x.y);
	mma<F>(d, rows[0].z, rows[1].z, rows[0].w, rows[1].w, x.z, x.w);
}

/* Codes as two BF16, less their zero, exactly: seven bits of one are put behind the exponent of 128, the eighth says whether
 * 128 are then taken off or 256; all by CODE_UNIT. */
#define CODE_UNIT 0x1p-14f

template <int I> SK_DEVICE unsigned bfloats_of_bytes(unsigned u) /* I and I + 1 */
{
	const unsigned v = sk_pick_bytes(u, 0x3c3c3c3c, I | 4 << 4 | (I + 1) << 8 | 4 << 12);
	return sk_add_bfloats(v & 0xff7fff7f, sk_and_or(~v, 0x00800080, 0xbc00bc00));
}

SK_DEVICE unsigned bfloats_of_nibbles(unsigned u) /* the lowest of bytes 0 and 2 */
{
	return sk_add_bfloats(sk_and_or(u, 0x000f000f, 0x3c003c00), 0xbc08bc08);
}

/* Where a lane's two rows lie: the second by its distance, which is a register less. */
struct sk_tile_rows {
	const char *codes;      /* of the lane's word in the first chunk */
	const uint16_t *scales; /* halves */
	uint32_t next_codes, next_scales;
	uint32_t n_runs; /* of a row; its last chunk may have fewer than others */
};

/* What a lane has of a chunk of 16-bit numbers. */
template <int F> struct sk_chunk {
	static constexpr int RUNS = 1; /* of 32 columns */
	static constexpr int SECOND = 4;
	static constexpr int TILES = 1; /* that a block takes at once */
	static constexpr bool HAS_SCALES = false;
	static constexpr float UNIT = 1; /* of the weights */
	uint4 words[2];

	static SK_MEMBER uint32_t first(uint32_t part)
	{
		return part * 8;
	}
	SK_MEMBER void load(const sk_tile_rows &rows, uint32_t at)
	{
		const uint32_t byte = at * 64;
		words[0] = sk_load16_once(&rows.codes[byte]);
		words[1] = sk_load16_once(&rows.codes[rows.next_codes + byte]);
	}
	SK_MEMBER void share()
	{
	}
	/* Eight numbers of a row's run k, in the order in which in_order() brings a vector's. */
	SK_MEMBER uint4 weights(int row, int) const
	{
		return words[row];
	}
	static SK_MEMBER float4 in_order(const float4 &x)
	{
		return x;
	}
};

/* Codes: a lane has the scales of one run. */
template <int N> struct sk_chunk_of_codes {
	static constexpr int RUNS = N;
	static constexpr int TILES = 2; /* so that splitting vectors costs each half */
	static constexpr bool HAS_SCALES = true;
	static constexpr float UNIT = CODE_UNIT;
	uint4 words[2];
	unsigned scales[2];

	SK_MEMBER void load(const sk_tile_rows &rows, uint32_t at)
	{
		const uint32_t part = threadIdx.x % 4;
#pragma unroll
		for (int row = 0; row < 2; row++) {
			words[row] = {};
			scales[row] = 0;
			if (at * N + part * N / 4 < rows.n_runs)
				words[row] = sk_load16_once(
					&rows.codes[row * rows.next_codes + at * 64]);
			if (at * N + part % N < rows.n_runs)
				scales[row] = rows.scales[row * rows.next_scales + at * N];
		}
	}
	SK_MEMBER float scale(int row, int k) const
	{
		return sk_low_half(
			__shfl_sync(SK_ALL, scales[row], (int)(threadIdx.x % SK_WARP & ~3u) + k));
	}
};

/* Lane a or a + by gives b what it has for it, the other a. */
SK_DEVICE void swap_lanes(unsigned &a, unsigned &b, uint32_t by)
{
	const bool upper = threadIdx.x & by;
	const unsigned other = __shfl_xor_sync(SK_ALL, upper ? a : b, (int)by);
	(upper ? a : b) = other;
}

/* A word is half a run: lanes 0 and 1 take the first eight columns of theirs and of those of 2 and 3, which take the others. */
template <> struct sk_chunk<SK_GPU_Q8> : sk_chunk_of_codes<2> {
	static constexpr int SECOND = 4;
	static SK_MEMBER uint32_t first(uint32_t part)
	{
		return part % 2 * 16 + part / 2 * 8;
	}
	SK_MEMBER void share()
	{
#pragma unroll
		for (int row = 0; row < 2; row++) {
			swap_lanes(words[row].x, words[row].z, 2);
			swap_lanes(words[row].y, words[row].w, 2);
		}
	}
	SK_MEMBER uint4 weights(int row, int k) const
	{
		const uint4 &w = words[row];
		const unsigned a = k ? w.z : w.x, b = k ? w.w : w.y;
		return {bfloats_of_bytes<0>(a), bfloats_of_bytes<2>(a), bfloats_of_bytes<0>(b),
			bfloats_of_bytes<2>(b)};
	}
	static SK_MEMBER float4 in_order(const float4 &x)
	{
		return x;
	}
};

/* A word is a run, whose column j is the lower half of byte j, j + 16 the upper. Lane p takes bytes 4p to 4p + 3 of all four. */
template <> struct sk_chunk<SK_GPU_Q4> : sk_chunk_of_codes<4> {
	static constexpr int SECOND = 16;
	static SK_MEMBER uint32_t first(uint32_t part)
	{
		return part * 4;
	}
	SK_MEMBER void share()
	{
#pragma unroll
		for (int row = 0; row < 2; row++) {
			uint4 &w = words[row];
			swap_lanes(w.x, w.y, 1), swap_lanes(w.z, w.w, 1);
			swap_lanes(w.x, w.z, 2), swap_lanes(w.y, w.w, 2);
		}
	}
	SK_MEMBER uint4 weights(int row, int k) const
	{
		const uint4 &w = words[row];
		const unsigned u = k == 0 ? w.x : k == 1 ? w.y : k == 2 ? w.z : w.w;
		return {bfloats_of_nibbles(u), bfloats_of_nibbles(u >> 8),
			bfloats_of_nibbles(u >> 4), bfloats_of_nibbles(u >> 12)};
	}
	static SK_MEMBER float4
	in_order(const float4 &x) /* of four bytes every other comes first */
	{
		return {x.x, x.z, x.y, x.w};
	}
};

/* A lane's eight numbers of a vector's run. */
template <int F> struct sk_vector_run {
	uint4 high, low;
	uint32_t exponent; /* of halves: of the whole run's greatest */

	SK_MEMBER sk_vector_run(float4 a, float4 b) : exponent(0)
	{
		float most = fmaxf(most_of(a), most_of(b));
		if (F == SK_GPU_F16) {
			for (int by = 1; by < 4; by *= 2) /* the four lanes of a vector */
				most = fmaxf(most, __shfl_xor_sync(SK_ALL, most, by));
			exponent = max(__float_as_uint(most) >> 23, LEAST_EXPONENT);
			const float scale = __uint_as_float((FULL_EXPONENT + 127 - exponent) << 23);
			a = times(a, scale), b = times(b, scale);
		}
		a = sk_chunk<F>::in_order(a), b = sk_chunk<F>::in_order(b);
		split<F>(a.x, a.y, &high.x, &low.x);
		split<F>(a.z, a.w, &high.y, &low.y);
		split<F>(b.x, b.y, &high.z, &low.z);
		split<F>(b.z, b.w, &high.w, &low.w);
		if (most == INFINITY) /* the rest of it would be none */
			low = {};
	}
	/* What the products with vector v (0 or 1) of a lane are to be multiplied by. */
	SK_MEMBER float scale(int v) const
	{
		const int lane = (int)(threadIdx.x % 4) * 8 + 4 * v; /* one of the vector's */
		return __uint_as_float((__shfl_sync(SK_ALL, exponent, lane) + 127 - FULL_EXPONENT)
				       << 23);
	}
};

/* sums += run k of a chunk times that. */
template <int F>
SK_DEVICE void add_run(float (&sums)[4], const sk_chunk<F> &chunk, int k, const sk_vector_run<F> &x)
{
	const uint4 rows[2] = {chunk.weights(0, k), chunk.weights(1, k)};
	constexpr bool scaled = F != SK_GPU_BF16;
	float products[4] = {}, scales[2];
	float(&d)[4] = scaled ? products : sums; /* what nothing scales is added at once */
	mma_run<F>(d, rows, x.high);
	mma_run<F>(d, rows, x.low);
	if constexpr (scaled) {
#pragma unroll
		for (int i = 0; i < 2; i++)
			if constexpr (F == SK_GPU_F16)
				scales[i] = x.scale(i); /* of a vector */
			else
				scales[i] = chunk.scale(i, k); /* of a row */
#pragma unroll
		for (int i = 0; i < 4; i++)
			sums[i] =
				fmaf(products[i], scales[F == SK_GPU_F16 ? i % 2 : i / 2], sums[i]);
	}
}
