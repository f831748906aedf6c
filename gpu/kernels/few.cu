/* Matrices of 16-bit numbers times up to 8 vectors, on the tensor cores, straight from memory: every weight is read once,
 * in words of 16 bytes, and meets all the vectors in registers.
 *
 * The work is cut into units of 16 rows by up to 1536 columns, a block each. Its eight warps share out the columns,
 * 32 at a time, and add up at the end. The first weights are asked for before anything else: they are there from the
 * start, while the vectors are still being made by the kernels before, so that memory need not wait for those. Where a row
 * takes several units, or two products go to the same rows, the last block to finish adds up what the others left, always
 * in the same order.
 *
 * A layer's norm is done on the way: whoever finishes a tile of a layer's outputs leaves its mean and squares, the last of
 * all makes the whole rows' of them, and the next layer's products normalise what they load.
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
#define STRIDE (WARPS * CHUNK)

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

/* Four numbers from column `col` on, normalised. */
SK_DEVICE float4 normalised(const sk_gpu_product &product, const sk_gpu_moments &of, float4 x, uint32_t col)
{
	const float4 w = sk_load_floats(&product.norm_weight[col]);
	x = {(x.x - of.mean) * of.scale * w.x, (x.y - of.mean) * of.scale * w.y, (x.z - of.mean) * of.scale * w.z,
	     (x.w - of.mean) * of.scale * w.w};
	if (!product.norm_bias)
		return x;
	const float4 b = sk_load_floats(&product.norm_bias[col]);
	return {x.x + b.x, x.y + b.y, x.z + b.z, x.w + b.w};
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

/* One output of a tile, in full; what it is then, or 0 where there is none. */
SK_DEVICE float put_output(const sk_gpu_products &p, const sk_gpu_product &product, uint32_t row, uint32_t v, float y)
{
	if (row >= product.matrix.n_rows || v >= p.n)
		return 0;
	if (product.matrix.bias)
		y += product.matrix.bias[row];
	if (p.together && p.product[1].matrix.bias)
		y += p.product[1].matrix.bias[row];
	float *to = product.out + (size_t)v * product.out_stride + row;
	y = product.add ? *to + y : activated(y, product.activation);
	*to = y;
	return y;
}

/* Whether this block, of which 128 threads are left, is the last of n to come here; what the others wrote before is seen then. */
SK_DEVICE bool is_last(uint32_t *counter, uint32_t n)
{
	__shared__ bool last;
	__threadfence();
	sk_sync_some(128);
	if (threadIdx.x == 0) {
		last = atomicAdd(counter, 1u) == n - 1;
		__threadfence();
		if (last)
			*counter = 0;
	}
	sk_sync_some(128);
	return last;
}

/* The sum over a tile's rows, of which a thread has one, for a vector. `shared`: for this sum alone. */
SK_DEVICE float over_tile(float y, float (*shared)[8], uint32_t v)
{
	y += __shfl_xor_sync(SK_ALL, y, 2);
	y += __shfl_xor_sync(SK_ALL, y, 16);
	if ((threadIdx.x & 18) == 0)
		shared[threadIdx.x / SK_WARP][v] = y;
	sk_sync_some(128);
	return (shared[0][v] + shared[1][v]) + (shared[2][v] + shared[3][v]);
}

/* A warp: the moments of a whole vector, from those of its tiles, which all have 16 rows. */
SK_DEVICE sk_gpu_moments moments_of(const sk_gpu_products &p, uint32_t v)
{
	const uint32_t n_tiles = p.product[0].n_tiles, lane = threadIdx.x % SK_WARP;
	const sk_gpu_tile_moments *of = p.tile_moments + v;
	float mean = 0, rest = 0, squares = 0;
#pragma unroll 1
	for (uint32_t tile = lane; p.subtract_mean && tile < n_tiles; tile += SK_WARP)
		mean += __ldcg(&of[(size_t)tile * 8].mean);
	mean = sk_warp_sum(mean) / (float)n_tiles;
#pragma unroll 1
	for (uint32_t tile = lane; tile < n_tiles; tile += SK_WARP) {
		const float away = __ldcg(&of[(size_t)tile * 8].mean) - mean;
		rest += away;
		squares += fmaf(16 * away, away, __ldcg(&of[(size_t)tile * 8].squares));
	}
	squares = sk_warp_sum(squares) / (float)(16 * n_tiles);
	if (p.subtract_mean) { /* as in rows.cu: what rounding left of the mean */
		rest = sk_warp_sum(rest) / (float)n_tiles;
		mean += rest;
		squares = fmaxf(squares - rest * rest, 0);
	}
	return {mean, 1 / sqrtf(squares + p.eps)};
}

/* Of a finished tile, of which a thread has the output y for vector v. The last leaves the moments of all vectors. */
SK_DEVICE void leave_moments(const sk_gpu_products &p, uint32_t tile, uint32_t v, float y)
{
	__shared__ float sums[2][4][8];
	const float mean = over_tile(y, sums[0], v) / 16;
	const float squares = over_tile((y - mean) * (y - mean), sums[1], v);
	if (threadIdx.x < SK_WARP && (threadIdx.x & 18) == 0)
		p.tile_moments[tile * 8 + v] = {mean, squares};
	if (!is_last(p.counters, p.product[0].n_tiles))
		return;
#pragma unroll 1
	for (uint32_t of = threadIdx.x / SK_WARP; of < p.n; of += 4) {
		const sk_gpu_moments moments = moments_of(p, of);
		if (threadIdx.x % SK_WARP == 0)
			p.ret_moments[of] = moments;
	}
}

/* The end of a unit, for 128 threads: what its warps have summed up is added, and where it is the last of its rows, what
 * the other units have.
 */
SK_DEVICE void finish(const sk_gpu_products &p, const unit &u, const float (*shared)[SK_WARP][4])
{
	const sk_gpu_product &product = p.product[u.product];
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
	if (!is_last(&p.counters[1 + tile], n_slots))
		return;
	y = 0;
	for (uint32_t s = 0; s < n_slots; s++)
		y += __ldcg(parts + (size_t)s * 128 + threadIdx.x);
	y = put_output(p, p.product[p.together ? 0 : u.product], row, v, y);
	if (p.ret_moments)
		leave_moments(p, u.tile, v, y);
}

/* NORMS: what is multiplied is still to be normalised. */
template <int F, bool NORMS> __global__ void __launch_bounds__(BLOCK, 4) few(const sk_gpu_products p)
{
	__shared__ float shared[WARPS][SK_WARP][4];
	const uint32_t lane = threadIdx.x % SK_WARP, warp = threadIdx.x / SK_WARP;
	const uint32_t group = lane / 4, part = lane % 4, part_col = part * 8;
	const unit u = unit_of(p, blockIdx.x);
	const sk_gpu_product &product = p.product[u.product];
	const sk_gpu_matrix &m = product.matrix;
	const uint32_t n_chunks = m.n_cols / CHUNK, a_part = (n_chunks + product.n_parts - 1) / product.n_parts;
	const uint32_t from = (u.part * a_part + warp) * CHUNK, to = min(n_chunks, (u.part + 1) * a_part) * CHUNK;

	sk_let_next_begin();
	/* A lane's two rows; past the last row: the last again. The second as a distance, which is a register less. */
	const uint32_t row0 = min(u.tile * 16 + group, m.n_rows - 1), row8 = min(u.tile * 16 + group + 8, m.n_rows - 1);
	const char *codes = (const char *)m.codes + (size_t)row0 * m.n_cols * 2 + part_col * sizeof(uint16_t);
	const uint32_t halves[2] = {0, (row8 - row0) * m.n_cols * 2};
	float sums[4] = {};
	const float *in = product.in + (size_t)group * product.in_stride + part_col;
	bool begun = false;
	constexpr int deep = NORMS ? 3 : 4; /* chunks in flight: as many as there are registers for */
	for (uint32_t col0 = from; col0 < to; col0 += deep * STRIDE) {
		uint4 words[deep][2];
#pragma unroll
		for (int i = 0; i < deep; i++)
#pragma unroll
			for (int half = 0; half < 2; half++) {
				const uint32_t at = (col0 + i * STRIDE) * 2;
				if (col0 + i * STRIDE < to)
					words[i][half] = sk_load16_once(codes + halves[half] + at);
			}
		if (!begun)
			sk_wait_for_previous();
		begun = true;
#pragma unroll
		for (int i = 0; i < deep; i++) {
			const uint32_t col = col0 + i * STRIDE;
			if (col >= to)
				break;
			float4 a = {}, b = {};
			if (group < p.n) {
				a = sk_load_floats(in + col), b = sk_load_floats(in + col + 4);
				if (NORMS) {
					const sk_gpu_moments moments = p.moments[group];
					a = normalised(product, moments, a, col + part_col);
					b = normalised(product, moments, b, col + part_col + 4);
				}
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
	finish(p, u, shared);
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
	const bool norms = products->moments;
	if (products->n > SK_GPU_MATVEC_ROWS || (n_second && products->product[1].matrix.format != format) ||
	    (products->ret_moments && (!products->together || products->product[0].matrix.n_rows % 16)))
		return cudaErrorInvalidValue;
	if (format == SK_GPU_BF16)
		return sk_launch(stream, norms ? few<SK_GPU_BF16, true> : few<SK_GPU_BF16, false>, grid, BLOCK, 0, *products);
	if (format == SK_GPU_F16)
		return sk_launch(stream, norms ? few<SK_GPU_F16, true> : few<SK_GPU_F16, false>, grid, BLOCK, 0, *products);
	return cudaErrorInvalidValue;
}
