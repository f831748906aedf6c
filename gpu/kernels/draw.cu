/* One id of a row of logits: the arithmetic of cpu/kernel_draw.h, and so the same id. A block a row; weights are made
 * again from the logits whenever they are looked at, which costs less than to keep them.
 */
#include "gpu/kernels/port.h"

#include "gpu/kernels/launch.h"

#define BLOCK      512
#define WARPS      (BLOCK / SK_WARP)
#define ONE        (1u << 30) /* the likeliest's weight */
#define MOST_BIN   1024
#define BIN_GROUPS 32 /* of 32 bins, below the greatest */
#define PLACE(bin) ((bin) + (bin) / 32) /* so that 32 groups are read from 32 banks */
#define N_PLACES   (PLACE(MOST_BIN) + 1)

typedef unsigned long long wide_t;

/* e^x of x <= 0, in units of 2^-30. */
SK_DEVICE uint32_t weigh(float x)
{
	const float magic = 12582912.f; /* 1.5 * 2^23: what is added to it becomes an integer */
	x = fmaxf(x, -24.f);
	const float shifted = sk_add(sk_mul(x, 1.44269504f), magic), k = sk_add(shifted, -magic);
	const float r = sk_add(sk_add(x, -sk_mul(k, 0.693359375f)), sk_mul(k, 2.12194440e-4f));
	float p = 1.f / 5040;
	p = sk_add(sk_mul(p, r), 1.f / 720);
	p = sk_add(sk_mul(p, r), 1.f / 120);
	p = sk_add(sk_mul(p, r), 1.f / 24);
	p = sk_add(sk_mul(p, r), 1.f / 6);
	p = sk_add(sk_mul(p, r), .5f);
	p = sk_add(sk_mul(p, r), 1.f);
	p = sk_add(sk_mul(p, r), 1.f);
	const uint32_t n = __float_as_uint(shifted) - __float_as_uint(magic);
	return (uint32_t)(int)sk_mul(p, __uint_as_float((n + (127 + 30)) << 23));
}

/* --- Over a block ---------------------------------------------------------------------------------- */

/* Shared memory. */
struct room {
	wide_t *bins, *sums, *found; /* (N_PLACES), (WARPS), (1) */
	float *most;                 /* (WARPS) */
	uint32_t *at;                /* (1) */
};

/* The sum over all threads, and in *before over those before this one. */
SK_DEVICE wide_t add_up(wide_t x, wide_t *before, const room *r)
{
	const uint32_t lane = threadIdx.x % SK_WARP, warp = threadIdx.x / SK_WARP;
	const wide_t sum = sk_warp_sum_to(x);
	__syncthreads(); /* the last result has been read */
	if (lane == SK_WARP - 1)
		r->sums[warp] = sum;
	__syncthreads();
	wide_t all = 0;
	*before = sum - x;
	for (uint32_t w = 0; w < WARPS; w++) {
		*before += w < warp ? r->sums[w] : 0;
		all += r->sums[w];
	}
	return all;
}

/* The greatest of all; NaN where one is no number. */
SK_DEVICE float greatest(const float *logits, uint32_t n, const room *r)
{
	float most = -INFINITY;
	bool odd = false;
	for (uint32_t i = threadIdx.x; i < n; i += BLOCK) {
		odd |= logits[i] != logits[i];
		most = fmaxf(most, logits[i]);
	}
	most = sk_warp_max(most);
	if (threadIdx.x % SK_WARP == 0)
		r->most[threadIdx.x / SK_WARP] = most;
	odd = __syncthreads_or(odd);
	for (int w = 0; w < WARPS; w++)
		most = fmaxf(most, r->most[w]);
	__syncthreads();
	return odd ? NAN : most;
}

/* --- The row --------------------------------------------------------------------------------------- */

struct row {
	const float *logits;
	uint32_t n; /* ids */
	float most, scale;

	SK_MEMBER uint32_t weight(uint32_t i) const
	{
		return weigh(sk_mul(sk_add(logits[i], -most), scale));
	}
};

/* What stays: weights above `weight`, and of those that are equal the ids below `end`. */
struct cut {
	uint32_t weight, end;

	SK_MEMBER bool keeps(uint32_t w, uint32_t i) const
	{
		return w > weight || (w == weight && i < end);
	}
};

/* Ids in order, a run of them to each thread. */
struct run {
	uint32_t from, to;

	SK_MEMBER run(uint32_t n)
	{
		const uint32_t each = (n + BLOCK - 1) / BLOCK;
		from = threadIdx.x * each < n ? threadIdx.x * each : n;
		to = from + each < n ? from + each : n;
	}
};

/* The bin, from the greatest down, with which `left` is reached; what is left of that then. Bin 0 is the rest. All warps do
 * the same, so that none diverges. */
SK_DEVICE void find_bin(uint32_t last, wide_t left, const room *r)
{
	const uint32_t lane = threadIdx.x % SK_WARP;
	const wide_t greatest = last == MOST_BIN ? r->bins[PLACE(MOST_BIN)] : 0;
	const bool is_greatest = greatest >= left;
	const wide_t below = is_greatest ? 1 : left - greatest;
	const uint32_t top = MOST_BIN - 1 - lane * (MOST_BIN / BIN_GROUPS);
	wide_t own = 0;
	for (uint32_t i = 0; i < MOST_BIN / BIN_GROUPS; i++)
		own += top - i ? r->bins[PLACE(top - i)] : 0;
	const wide_t sum = sk_warp_sum_to(own);
	const unsigned reached = __ballot_sync(SK_ALL, sum >= below);
	const uint32_t first = reached ? (uint32_t)__ffs((int)reached) - 1 : SK_WARP - 1;
	if (threadIdx.x != first)
		return;
	uint32_t at = top;
	wide_t rest = below - (sum - own);
	while (at % (MOST_BIN / BIN_GROUPS) && r->bins[PLACE(at)] < rest)
		rest -= r->bins[PLACE(at)], at--;
	*r->at = is_greatest ? MOST_BIN : at;
	*r->found = is_greatest ? left : rest;
}

/* The shortest beginning of the order (the heavier first, then the lower id) that has so many members, or weighs so
 * much: whichever of the two is not 0. */
SK_DEVICE cut cut_at(const row &row, wide_t n_members, wide_t mass, const room *r)
{
	wide_t left = n_members ? n_members : mass, before;
	uint32_t prefix = 0;
	for (int shift = 20; shift >= 0; shift -= 10) {
		const uint32_t last = shift == 20 ? MOST_BIN : MOST_BIN - 1;
		for (uint32_t i = threadIdx.x; i <= MOST_BIN; i += BLOCK)
			r->bins[PLACE(i)] = 0;
		__syncthreads();
		for (uint32_t i = threadIdx.x; i < row.n; i += BLOCK) {
			const uint32_t w = row.weight(i), at = (w >> shift) - prefix;
			if (at - 1 < last)
				atomicAdd(&r->bins[PLACE(at)], n_members ? 1 : (wide_t)w);
		}
		__syncthreads();
		find_bin(last, left, r);
		__syncthreads();
		left = *r->found;
		prefix = (prefix + *r->at) << (shift ? 10 : 0);
		__syncthreads();
	}
	if (prefix == 0) /* what weighs nothing is never drawn */
		return {0, row.n};
	wide_t n_equal = n_members ? left : 0;
	if (!n_members) { /* left / prefix, up: a division would be a call */
		for (wide_t bit = 1u << 30; bit; bit /= 2)
			if ((n_equal + bit) * prefix < left)
				n_equal += bit;
		n_equal++;
	}
	const run ids(row.n);
	wide_t own = 0;
	for (uint32_t i = ids.from; i < ids.to; i++)
		own += row.weight(i) == prefix;
	add_up(own, &before, r);
	if (before < n_equal && n_equal <= before + own) {
		uint32_t i = ids.from;
		for (; before < n_equal; i++)
			before += row.weight(i) == prefix;
		*r->at = i;
	}
	__syncthreads();
	return {prefix, *r->at};
}

/* To r->at */
SK_DEVICE void draw_weighed(const row &row, const sk_gpu_draw &wanted, const room *r)
{
	const run ids(row.n);
	wide_t own = 0, before;
	cut cut = {0, row.n};
	if (wanted.top_k && wanted.top_k < row.n)
		cut = cut_at(row, wanted.top_k, 0, r);
	if (wanted.top_p < 1) {
		for (uint32_t i = threadIdx.x; i < row.n; i += BLOCK) {
			const uint32_t w = row.weight(i);
			own += cut.keeps(w, i) ? w : 0;
		}
		const double mass = ceil((double)wanted.top_p * (double)add_up(own, &before, r));
		cut = cut_at(row, 0, mass < 1 ? 1 : (wide_t)mass, r);
	}
	if (cut.weight < wanted.least)
		cut = {wanted.least < ONE ? wanted.least : ONE, row.n};
	own = 0;
	for (uint32_t i = ids.from; i < ids.to; i++) {
		const uint32_t w = row.weight(i);
		own += cut.keeps(w, i) ? w : 0;
	}
	const wide_t total = add_up(own, &before, r);
	wide_t target = (wide_t)(wanted.random * (double)total);
	target = target < total ? target : total - 1;
	if (before <= target && target < before + own)
		for (uint32_t i = ids.from;; i++) {
			const uint32_t w = row.weight(i);
			before += cut.keeps(w, i) ? w : 0;
			if (before > target) {
				*r->at = i;
				break;
			}
		}
}

/* recent: ids, then as many places for what their logits were. */
SK_DEVICE void penalise(float *logits, const sk_gpu_draw &wanted, uint32_t *recent)
{
	for (uint32_t i = threadIdx.x; i < wanted.n_recent; i += BLOCK)
		recent[wanted.n_recent + i] = __float_as_uint(logits[recent[i]]);
	__syncthreads();
	for (uint32_t i = threadIdx.x; i < wanted.n_recent; i += BLOCK) {
		const float x = __uint_as_float(recent[wanted.n_recent + i]);
		const float y = x > 0 ? sk_div(x, wanted.penalty) : sk_mul(x, wanted.penalty);
		atomicExch((unsigned *)&logits[recent[i]], __float_as_uint(y)); /* an id may be there twice */
	}
	__syncthreads();
}

SK_DEVICE void restore(float *logits, const sk_gpu_draw &wanted, const uint32_t *recent)
{
	__syncthreads();
	for (uint32_t i = threadIdx.x; i < wanted.n_recent; i += BLOCK)
		atomicExch((unsigned *)&logits[recent[i]], recent[wanted.n_recent + i]);
	__syncthreads();
}

SK_DEVICE bool is_finite(float x) /* no NaN either */
{
	return x > -INFINITY && x < INFINITY;
}

__global__ void __launch_bounds__(BLOCK, 1) draw(float *out, uint32_t out_stride, float *logits, uint32_t stride,
					      uint32_t n_vocab, const sk_gpu_draw *draws, uint32_t *list)
{
	sk_begin();
	__shared__ wide_t bins[N_PLACES], sums[WARPS], found;
	__shared__ float mosts[WARPS];
	__shared__ uint32_t at;
	const room r = {bins, sums, &found, mosts, &at};
	const sk_gpu_draw wanted = draws[blockIdx.x];
	logits += (size_t)blockIdx.x * stride;
	out += (size_t)blockIdx.x * out_stride;
	wide_t own = 0, before;
	if (threadIdx.x == 0)
		at = ~0u;
	const float most = greatest(logits, n_vocab, &r);
	if (!is_finite(most)) {
		if (threadIdx.x == 0)
			out[0] = __uint_as_float(~0u), out[1] = 0;
		return;
	}
	const row plain = {logits, n_vocab, most, 1};
	for (uint32_t i = threadIdx.x; i < n_vocab; i += BLOCK)
		own += plain.weight(i);
	const wide_t whole = add_up(own, &before, &r);
	penalise(logits, wanted, list + wanted.recent);
	const float top = greatest(logits, wanted.n_ids, &r);
	if (is_finite(top)) {
		if (wanted.scale == 0) {
			for (uint32_t i = threadIdx.x; i < wanted.n_ids; i += BLOCK)
				if (logits[i] == top)
					atomicMin(&at, i);
		} else {
			draw_weighed({logits, wanted.n_ids, top, wanted.scale}, wanted, &r);
		}
	}
	restore(logits, wanted, list + wanted.recent);
	if (threadIdx.x == 0) {
		const uint32_t id = at;
		out[0] = __uint_as_float(id);
		out[1] = id == ~0u ? 0 : (float)((double)sk_add(logits[id], -most) - log((double)whole / ONE));
	}
}

cudaError_t sk_gpu_draw_rows(cudaStream_t stream, float *out, uint32_t out_stride, float *logits, uint32_t stride,
			     uint32_t n_vocab, const struct sk_gpu_draw *draws, uint32_t *list, uint32_t n)
{
	return sk_launch(stream, draw, dim3(n), BLOCK, 0, out, out_stride, logits, stride, n_vocab, draws, list);
}
