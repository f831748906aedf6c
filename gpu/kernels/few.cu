/* Matrices times up to 8 vectors, on the tensor cores, straight from memory: every weight is read once, in words of
 * 16 bytes, as it lies there, and meets all the vectors in registers (chunk.h).
 *
 * The work is cut into units of 16 rows (32 of codes) by up to 3 KB of each, a block each. Its eight warps share out the columns,
 * 64 bytes at a time, and add up at the end. The first weights are asked for before anything else: they are there from the
 * start, while the vectors are still being made by the kernels before, so that memory need not wait for those. Where a row
 * takes several units, or two products go to the same rows, the last block to finish adds up what the others left, always
 * in the same order.
 *
 * A layer's norm is done on the way: whoever finishes a tile of a layer's outputs leaves its mean and squares, the last of
 * all makes the whole rows' of them, and the next layer's products normalise what they load.
 */
#include "gpu/kernels/chunk.h"

#define BLOCK SK_GPU_UNIT_THREADS
#define WARPS (BLOCK / SK_WARP)

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
	uint32_t product, tile, part, slot; /* tile: the first of several; slot: of the parts that are added up */
};

SK_DEVICE unit unit_of(const sk_gpu_products &p, uint32_t n_tiles, uint32_t block)
{
	const uint32_t first = (p.product[0].n_tiles + n_tiles - 1) / n_tiles * p.product[0].n_parts;
	const uint32_t product = block < first ? 0 : 1, at = product ? block - first : block;
	const uint32_t n_parts = p.product[product].n_parts, part = at % n_parts;
	return {product, at / n_parts * n_tiles, part, product && p.together ? p.product[0].n_parts + part : part};
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

/* The end of a unit's tile, for 128 threads: what its warps have summed up is added, and where it is the last of its rows,
 * what the other units have.
 */
SK_DEVICE void finish(const sk_gpu_products &p, const unit &u, uint32_t its_tile, const float (*shared)[SK_WARP][4])
{
	const sk_gpu_product &product = p.product[u.product];
	/* Thread: sum i of lane l, as mma leaves them. */
	const uint32_t l = threadIdx.x / 4, i = threadIdx.x % 4;
	const uint32_t row = its_tile * 16 + i / 2 * 8 + l / 4, v = l % 4 * 2 + i % 2;
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
	const uint32_t tile = its_tile + (second ? p.product[0].n_tiles : 0);
	float *parts = p.parts + (second ? (size_t)p.product[0].n_tiles * p.product[0].n_parts * 128 : 0) +
		       (size_t)its_tile * n_slots * 128;
	parts[u.slot * 128 + threadIdx.x] = y;
	if (!is_last(&p.counters[1 + tile], n_slots))
		return;
	y = 0;
	for (uint32_t s = 0; s < n_slots; s++)
		y += __ldcg(parts + (size_t)s * 128 + threadIdx.x);
	y = put_output(p, p.product[p.together ? 0 : u.product], row, v, y);
	if (p.ret_moments)
		leave_moments(p, its_tile, v, y);
}

/* A lane's two rows of a tile; past the last row: the last again. */
template <int F> SK_DEVICE sk_tile_rows rows_of(const sk_gpu_matrix &m, uint32_t row, uint32_t part)
{
	const uint32_t row0 = min(row, m.n_rows - 1), row8 = min(row + 8, m.n_rows - 1);
	const uint32_t n_runs = m.n_cols / SK_GPU_COLS, row_bytes = n_runs * (64 / sk_chunk<F>::RUNS), word = part * 16;
	return {(const char *)m.codes + (size_t)row0 * row_bytes + word,
		(const uint16_t *)m.scales + (size_t)row0 * n_runs + part % sk_chunk<F>::RUNS, (row8 - row0) * row_bytes,
		(row8 - row0) * n_runs, n_runs};
}

/* NORMS: what is multiplied is still to be normalised. */
template <int F, bool NORMS> __global__ void __launch_bounds__(BLOCK, 4) few(const sk_gpu_products p)
{
	using chunk = sk_chunk<F>;
	constexpr int T = chunk::TILES, R = chunk::RUNS;
	__shared__ __align__(16) float shared[T][WARPS][SK_WARP][4];
	const uint32_t lane = threadIdx.x % SK_WARP, warp = threadIdx.x / SK_WARP;
	const uint32_t group = lane / 4, part = lane % 4;
	const unit u = unit_of(p, T, blockIdx.x);
	const sk_gpu_product &product = p.product[u.product];
	const sk_gpu_matrix &m = product.matrix;
	const uint32_t n_chunks = (m.n_cols / SK_GPU_COLS + R - 1) / R, a_part = (n_chunks + product.n_parts - 1) / product.n_parts;
	const uint32_t from = u.part * a_part + warp, to = min(n_chunks, (u.part + 1) * a_part);

	sk_let_next_begin();
	sk_tile_rows rows[T];
#pragma unroll
	for (int t = 0; t < T; t++)
		rows[t] = rows_of<F>(m, (u.tile + t) * 16 + group, part);
	float sums[T][4] = {};
	const uint32_t lane_col = chunk::first(part);
	const float *in = product.in + (size_t)group * product.in_stride;
	bool begun = false;
	constexpr int deep = T > 1 ? 1 : NORMS ? 3 : 4; /* chunks in flight: as many as there are registers for */
	for (uint32_t at0 = from; at0 < to; at0 += deep * WARPS) {
		chunk chunks[deep][T];
#pragma unroll
		for (int i = 0; i < deep; i++)
#pragma unroll
			for (int t = 0; t < T; t++)
				if (at0 + i * WARPS < to)
					chunks[i][t].load(rows[t], at0 + i * WARPS);
		if (!begun)
			sk_wait_for_previous();
		begun = true;
#pragma unroll
		for (int i = 0; i < deep; i++) {
			const uint32_t at = at0 + i * WARPS, col = at * (R * SK_GPU_COLS);
			if (at >= to)
				break;
#pragma unroll
			for (int t = 0; t < T; t++)
				chunks[i][t].share();
#pragma unroll
			for (int k = 0; k < R; k++) {
				if (k && at * R + k >= rows[0].n_runs)
					break;
				const uint32_t run = k * SK_GPU_COLS;
				float4 a = {}, b = {};
				if (group < p.n) {
					const float *x = in + (col + lane_col);
					a = sk_load_floats(&x[run]), b = sk_load_floats(&x[run + chunk::SECOND]);
					if (NORMS) {
						const sk_gpu_moments moments = p.moments[group];
						a = normalised(product, moments, a, lane_col + col + run);
						b = normalised(product, moments, b, lane_col + col + run + chunk::SECOND);
					}
				}
				const sk_vector_run<F> x(a, b);
#pragma unroll
				for (int t = 0; t < T; t++)
					add_run<F>(sums[t], chunks[i][t], k, x);
			}
		}
	}
	if (!begun)
		sk_wait_for_previous();
#pragma unroll
	for (int t = 0; t < T; t++)
		sk_store_floats(shared[t][warp][lane],
				times({sums[t][0], sums[t][1], sums[t][2], sums[t][3]}, 1 / chunk::UNIT));
	__syncthreads();
	if (threadIdx.x >= 128)
		return; /* a thread for each of 16 rows by 8 vectors is left */
	for (int t = 0; t < T && (t == 0 || u.tile + t < product.n_tiles); t++)
		finish(p, u, u.tile + t, shared[t]);
}

template <int F> static uint32_t n_units(const struct sk_gpu_product &product)
{
	constexpr uint32_t T = sk_chunk<F>::TILES;
	return (product.n_tiles + T - 1) / T * product.n_parts;
}

template <int F> static cudaError_t run(cudaStream_t stream, const struct sk_gpu_products *products)
{
	const dim3 grid(n_units<F>(products->product[0]) + n_units<F>(products->product[1]));
	if (!products->moments)
		return sk_launch(stream, few<F, false>, grid, BLOCK, 0, *products);
	if constexpr (sk_chunk<F>::HAS_SCALES)
		return cudaErrorInvalidValue;
	else
		return sk_launch(stream, few<F, true>, grid, BLOCK, 0, *products);
}

cudaError_t sk_gpu_few(cudaStream_t stream, const struct sk_gpu_products *products)
{
	const enum sk_gpu_format format = products->product[0].matrix.format;
	const bool has_second = products->product[1].n_parts;
	if (products->n > SK_GPU_MATVEC_ROWS || (has_second && products->product[1].matrix.format != format) ||
	    (products->ret_moments && (!products->together || products->product[0].matrix.n_rows % 16)))
		return cudaErrorInvalidValue;
	switch (format) {
	case SK_GPU_F16:
		return run<SK_GPU_F16>(stream, products);
	case SK_GPU_BF16:
		return run<SK_GPU_BF16>(stream, products);
	case SK_GPU_Q8:
		return run<SK_GPU_Q8>(stream, products);
	case SK_GPU_Q4:
		return run<SK_GPU_Q4>(stream, products);
	default:
		return cudaErrorInvalidValue;
	}
}
