/* Matrices of 16-bit numbers times up to 8 vectors, on the tensor cores, straight from memory: every weight is read once,
 * in words of 16 bytes, and meets all the vectors in registers.
 *
 * The work is cut into units of 16 rows by up to 1536 columns, a block each. Its eight warps share out the columns,
 * 32 at a time, and add up at the end. The first weights are asked for before anything else: they are there from the
 * start, while the vectors are still being made by the kernels before, so that memory need not wait for those. Where a row takes several units, or two products go to the same rows, the last block to
 * finish adds up what the others left, always in the same order.
 *
 * In mma.m16n8k16 the order of the 16 products is free as long as both sides have the same. So a lane's word of a
 * row (8 columns) serves two of them as it lies: elements 0 to 3 in the first, 4 to 7 in the second. Activations are
 * split in two 16-bit numbers, whose products are both summed. Two halves hold what a float does, where they are neither
 * too large nor too small: 32 numbers of a vector at a time are scaled by a power of two, which is undone in their sum. Two
 * BF16 have 16 bits of a float's 24, and its range.
 */
#include "gpu/kernels/format.h"

#define BLOCK SK_GPU_UNIT_THREADS
#define WARPS (BLOCK / SK_WARP)
#define CHUNK 32 /* columns */
#define DEEP  4  /* chunks in flight */

/* Exponents of floats as they lie in memory: the greatest of a chunk's numbers gets the one, to which the other is the least
 * that a power of two can bring. */
#define FULL_EXPONENT  (127u + 14)
#define LEAST_EXPONENT (FULL_EXPONENT - 126)

template <int F> SK_DEVICE unsigned pack2(float a, float b);

template <> __device__ __forceinline__ unsigned pack2<SK_GPU_BF16>(float a, float b)
{
	const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
	return *(const unsigned *)&v;
}

template <> __device__ __forceinline__ unsigned pack2<SK_GPU_F16>(float a, float b)
{
	const __half2 v = __floats2half2_rn(a, b);
	return *(const unsigned *)&v;
}

/* Two values as 16-bit numbers, and as such what they lose by it. */
template <int F> SK_DEVICE void split(float a, float b, unsigned *ret_high, unsigned *ret_low)
{
	const unsigned high = pack2<F>(a, b);
	*ret_high = high;
	*ret_low = F == SK_GPU_BF16 ? pack2<F>(a - sk_low_bf16(high), b - sk_high_bf16(high))
				    : pack2<F>(a - sk_low_half(high), b - sk_high_half(high));
}

/* A lane's eight numbers of a vector, so split. */
template <int F> SK_DEVICE void split8(const float4 &a, const float4 &b, uint4 *ret_high, uint4 *ret_low)
{
	split<F>(a.x, a.y, &ret_high->x, &ret_low->x);
	split<F>(a.z, a.w, &ret_high->y, &ret_low->y);
	split<F>(b.x, b.y, &ret_high->z, &ret_low->z);
	split<F>(b.z, b.w, &ret_high->w, &ret_low->w);
}

SK_DEVICE float most_of(const float4 &v)
{
	return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

SK_DEVICE float4 times(const float4 &v, float by)
{
	return {v.x * by, v.y * by, v.z * by, v.w * by};
}

template <int F> SK_DEVICE void mma(float (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1)
{
	const unsigned a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
	if (F == SK_GPU_BF16)
		sk_mma_bfloats(d, a, b);
	else
		sk_mma_halves(d, a, b);
}

/* One chunk: rows' words times a group of 8 vectors. */
template <int F> SK_DEVICE void mma_chunk(float (&d)[4], const uint4 (&w)[2], uint4 x)
{
	mma<F>(d, w[0].x, w[1].x, w[0].y, w[1].y, x.x, x.y);
	mma<F>(d, w[0].z, w[1].z, w[0].w, w[1].w, x.z, x.w);
}

/* The same times a lane's eight numbers of a vector, of which nothing is lost. */
template <int F> SK_DEVICE void add_chunk(float (&sums)[4], const uint4 (&w)[2], float4 a, float4 b)
{
	float most = fmaxf(most_of(a), most_of(b));
	uint32_t exponent = 0;
	if (F == SK_GPU_F16) {
		for (int by = 1; by < 4; by *= 2) /* the four lanes of a vector */
			most = fmaxf(most, __shfl_xor_sync(SK_ALL, most, by));
		exponent = max(__float_as_uint(most) >> 23, LEAST_EXPONENT);
		const float scale = __uint_as_float((FULL_EXPONENT + 127 - exponent) << 23);
		a = times(a, scale), b = times(b, scale);
	}
	uint4 high, low;
	split8<F>(a, b, &high, &low);
	if (most == INFINITY) /* the rest of it would be none */
		low = {};
	if (F == SK_GPU_BF16) {
		mma_chunk<F>(sums, w, high);
		mma_chunk<F>(sums, w, low);
		return;
	}
	float products[4] = {};
	mma_chunk<F>(products, w, high);
	mma_chunk<F>(products, w, low);
	const uint32_t first = threadIdx.x % 4 * 8; /* lanes of the two vectors whose products are here */
#pragma unroll
	for (int v = 0; v < 2; v++) {
		const uint32_t its = __shfl_sync(SK_ALL, exponent, (int)first + 4 * v);
		const float scale = __uint_as_float((its + 127 - FULL_EXPONENT) << 23);
		sums[v] = fmaf(products[v], scale, sums[v]);
		sums[2 + v] = fmaf(products[2 + v], scale, sums[2 + v]);
	}
}

/* What a block works at. */
struct unit {
	uint32_t product, tile, part, slot; /* slot: of the parts that are added up */
};

SK_DEVICE unit unit_of(const sk_gpu_products &p, uint32_t block)
{
	const uint32_t first = p.product[0].n_tiles * p.product[0].n_parts;
	const uint32_t product = block < first ? 0 : 1, at = product ? block - first : block;
	const uint32_t n_parts = p.product[product].n_parts, part = at % n_parts;
	return {product, at / n_parts, part, product && p.together ? p.product[0].n_parts + part : part};
}

SK_DEVICE float activated(float x, int kind)
{
	return kind == SK_GPU_NO_ACTIVATION ? x : sk_gelu(x, kind);
}

/* One output of a tile, in full. */
SK_DEVICE void put_output(const sk_gpu_products &p, const sk_gpu_product &product, uint32_t row, uint32_t v, float y)
{
	if (row >= product.matrix.n_rows || v >= p.n)
		return;
	if (product.matrix.bias)
		y += product.matrix.bias[row];
	if (p.together && p.product[1].matrix.bias)
		y += p.product[1].matrix.bias[row];
	float *to = product.out + (size_t)v * product.out_stride + row;
	*to = product.add ? *to + y : activated(y, product.activation);
}

template <int F> __global__ void __launch_bounds__(BLOCK, 4) few(const sk_gpu_products p)
{
	__shared__ float shared[WARPS][SK_WARP][4];
	__shared__ bool last;
	const uint32_t lane = threadIdx.x % SK_WARP, warp = threadIdx.x / SK_WARP;
	const uint32_t group = lane / 4, part = lane % 4, part_col = part * 8;
	const unit u = unit_of(p, blockIdx.x);
	const sk_gpu_product &product = p.product[u.product];
	const sk_gpu_matrix &m = product.matrix;
	const uint32_t n_chunks = m.n_cols / CHUNK, a_part = (n_chunks + product.n_parts - 1) / product.n_parts;
	const uint32_t from = u.part * a_part + warp, to = min(n_chunks, (u.part + 1) * a_part);

	sk_let_next_begin();
	/* A lane's two rows; past the last row: the last again. The second as a distance, which is a register less. */
	const uint32_t row0 = min(u.tile * 16 + group, m.n_rows - 1), row8 = min(u.tile * 16 + group + 8, m.n_rows - 1);
	const char *codes = (const char *)m.codes + (size_t)row0 * m.n_cols * 2 + part_col * sizeof(uint16_t);
	const uint32_t halves[2] = {0, (row8 - row0) * m.n_cols * 2};
	float sums[4] = {};
	const float *in = product.in + (size_t)group * product.in_stride + part_col;
	bool begun = false;
	for (uint32_t chunk0 = from; chunk0 < to; chunk0 += DEEP * WARPS) {
		uint4 words[DEEP][2];
#pragma unroll
		for (int i = 0; i < DEEP; i++)
#pragma unroll
			for (int half = 0; half < 2; half++) {
				const uint32_t at = (chunk0 + i * WARPS) * CHUNK * 2;
				if (chunk0 + i * WARPS < to)
					words[i][half] = sk_load16_once(codes + halves[half] + at);
			}
		if (!begun)
			sk_wait_for_previous();
		begun = true;
#pragma unroll
		for (int i = 0; i < DEEP; i++) {
			if (chunk0 + i * WARPS >= to)
				break;
			float4 a = {}, b = {};
			if (group < p.n) {
				const uint32_t col = (chunk0 + i * WARPS) * CHUNK;
				const float *x = in + col;
				a = sk_load_floats(x), b = sk_load_floats(x + 4);
			}
			add_chunk<F>(sums, words[i], a, b);
		}
	}
	if (!begun)
		sk_wait_for_previous();
#pragma unroll
	for (int i = 0; i < 4; i++)
		shared[warp][lane][i] = sums[i];
	__syncthreads();
	if (threadIdx.x >= 128)
		return; /* a thread for each of 16 rows by 8 vectors is left */

	/* Thread: sum i of lane l, as mma leaves them. */
	const uint32_t l = threadIdx.x / 4, i = threadIdx.x % 4;
	const uint32_t row = u.tile * 16 + i / 2 * 8 + l / 4, v = l % 4 * 2 + i % 2;
	float y = 0;
#pragma unroll
	for (int w = 0; w < WARPS; w++)
		y += shared[w][l][i];
	const uint32_t n_slots = product.n_parts + (p.together ? p.product[1 - u.product].n_parts : 0);
	if (n_slots == 1) {
		put_output(p, product, row, v, y);
		return;
	}
	const bool second = u.product && !p.together;
	const uint32_t tile = u.tile + (second ? p.product[0].n_tiles : 0);
	float *parts = p.parts + (second ? (size_t)p.product[0].n_tiles * p.product[0].n_parts * 128 : 0) +
		       (size_t)u.tile * n_slots * 128;
	parts[u.slot * 128 + threadIdx.x] = y;
	__threadfence();
	sk_sync_some(128);
	if (threadIdx.x == 0) {
		last = atomicAdd(&p.counters[tile], 1u) == n_slots - 1;
		__threadfence();
		if (last)
			p.counters[tile] = 0;
	}
	sk_sync_some(128);
	if (!last)
		return;
	y = 0;
	for (uint32_t s = 0; s < n_slots; s++)
		y += __ldcg(parts + (size_t)s * 128 + threadIdx.x);
	put_output(p, p.product[p.together ? 0 : u.product], row, v, y);
}

static uint32_t n_units(const struct sk_gpu_product *product)
{
	return product->n_tiles * product->n_parts;
}

cudaError_t sk_gpu_few(cudaStream_t stream, const struct sk_gpu_products *products)
{
	const uint32_t n_second = n_units(&products->product[1]);
	const dim3 grid(n_units(&products->product[0]) + n_second);
	const enum sk_gpu_format format = products->product[0].matrix.format;
	if (products->n > 8 || (n_second && products->product[1].matrix.format != format))
		return cudaErrorInvalidValue;
	if (format == SK_GPU_BF16)
		return sk_launch(stream, few<SK_GPU_BF16>, grid, BLOCK, 0, *products);
	if (format == SK_GPU_F16)
		return sk_launch(stream, few<SK_GPU_F16>, grid, BLOCK, 0, *products);
	return cudaErrorInvalidValue;
}
