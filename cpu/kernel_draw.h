/* One id of a row of logits, drawn as struct sk_draw asks (backend/backend.h). Weights are integers, from a power
 * series that is rounded in the same way everywhere: their sums are exact, so that order does not matter, and every
 * instruction set, and gpu/kernels/draw.cu, draws the same id from the same logits.
 */
#pragma once

#include "base/simd.h"
#include "cpu/kernels.h"

#include <math.h>

#define DRAW_ONE   (1u << 30) /* the likeliest's weight */
#define DRAW_LEAST (-24.f)    /* e to this is a weight of nothing */

/* e^x of x <= 0, in units of 2^-30. Products and sums are not fused, so that they are rounded alike. */
SK_INLINE vi v_weigh(vf x)
{
	const vf magic = v_set(12582912.f); /* 1.5 * 2^23: what is added to it becomes an integer */
	x = v_max(x, v_set(DRAW_LEAST));
	vf shifted = x * 1.44269504f + magic;
	vf k = shifted - magic;
	vf r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
	vf p = v_set(1.f / 5040);
	p = p * r + 1.f / 720;
	p = p * r + 1.f / 120;
	p = p * r + 1.f / 24;
	p = p * r + 1.f / 6;
	p = p * r + .5f;
	p = p * r + 1.f;
	p = p * r + 1.f;
	vi n = (vi)shifted - (vi)magic;
	vf y = p * (vf)((n + (127 + 30)) << 23);
	return __builtin_convertvector(y, vi);
}

/* Weights of logits, (n) whole vectors and a rest; what is behind the row's end weighs nothing. */
SK_INLINE vi weigh_at(const float *logits, uint32_t i, uint32_t n, float most, float scale)
{
	float rest[LANES];
	if (i + LANES <= n)
		return v_weigh((v_load(logits + i) - most) * scale);
	for (uint32_t k = 0; k < LANES; k++)
		rest[k] = i + k < n ? logits[i + k] : -INFINITY;
	return v_weigh((v_load(rest) - most) * scale);
}

/* The sum of weights: halves of 16 bits apart, so that lanes of 32 bits hold those of 4096 vectors. */
static uint64_t weigh_all(const float *logits, uint32_t n, float most, float scale,
			  uint32_t *weights)
{
	uint64_t total = 0;
	for (uint32_t i = 0; i < n;) {
		const uint32_t end = n - i < 4096 * LANES ? n : i + 4096 * LANES;
		vu low = {0}, high = {0};
		for (; i < end; i += LANES) {
			const vu w = (vu)weigh_at(logits, i, n, most, scale);
			low += w & 0xffff;
			high += w >> 16;
			if (weights)
				memcpy(weights + i, &w, sizeof w);
		}
		for (int k = 0; k < LANES; k++)
			total += low[k] + ((uint64_t)high[k] << 16);
	}
	return total;
}

/* The greatest; false where one is no number, or none is finite. */
static bool greatest(const float *logits, uint32_t n, float *ret_most)
{
	vf most = v_set(-INFINITY), rest = most;
	vi odd = {0};
	uint32_t i = 0;
	for (; i + LANES <= n; i += LANES) {
		const vf x = v_load(logits + i);
		odd |= x != x;
		most = v_max(most, x);
	}
	memcpy(&rest, logits + i, (n - i) * sizeof *logits);
	odd |= rest != rest;
	*ret_most = v_most(v_max(most, rest));
	for (int k = 0; k < LANES; k++)
		if (odd[k])
			return false;
	return *ret_most > -INFINITY && *ret_most < INFINITY;
}

/* --- The cut ------------------------------------------------------------------------------------- */

/* What stays: weights above `weight`, and of those that are equal the ids below `end`. */
struct cut {
	uint32_t weight, end;
};

static uint64_t sum_from(const uint32_t *weights, uint32_t from, uint32_t to, uint32_t least)
{
	uint64_t sum = 0;
	for (uint32_t i = from; i < to; i++)
		sum += weights[i] >= least ? weights[i] : 0;
	return sum;
}

static uint64_t sum_kept(const uint32_t *weights, uint32_t n, struct cut cut)
{
	return sum_from(weights, 0, cut.end, cut.weight) +
	       sum_from(weights, cut.end, n, cut.weight + 1);
}

/* The shortest beginning of the order (the heavier first, then the lower id) that has so many members, or
 * weighs so much: whichever of the two is not 0. It is found ten bits of the weight at a time. */
static struct cut cut_at(const uint32_t *weights, uint32_t n, uint64_t n_members, uint64_t mass)
{
	uint64_t left = n_members ? n_members : mass;
	uint32_t prefix = 0; /* the bits that are settled, where they belong at this shift */
	for (int shift = 20; shift >= 0; shift -= 10) {
		const uint32_t last = shift == 20 ? 1024 : 1023;
		uint64_t bins[1025] = {
			0}; /* members, or what they weigh; the lowest is what is left */
		for (uint32_t i = 0; i < n; i++) {
			const uint32_t at = (weights[i] >> shift) - prefix;
			if (at - 1 < last)
				bins[at] += n_members ? 1 : weights[i];
		}
		uint32_t at = last;
		while (at && bins[at] < left)
			left -= bins[at--];
		prefix = (prefix + at) << (shift ? 10 : 0);
	}
	if (prefix == 0) /* what weighs nothing is never drawn */
		return (struct cut){0, n};
	uint64_t n_equal = n_members ? left : (left + prefix - 1) / prefix;
	uint32_t end = 0;
	while (end < n && n_equal)
		n_equal -= weights[end++] == prefix;
	return (struct cut){prefix, end};
}

/* Where a walk over what is kept has passed `target`. */
static int32_t walk(const uint32_t *weights, uint32_t n, struct cut cut, uint64_t target)
{
	for (uint32_t i = 0; i < n;) { /* blocks are passed at once */
		uint32_t to = n - i < 1024 ? n : i + 1024;
		if (i < cut.end && cut.end < to)
			to = cut.end;
		const uint32_t least = i < cut.end ? cut.weight : cut.weight + 1;
		const uint64_t sum = sum_from(weights, i, to, least);
		if (target >= sum) {
			target -= sum;
			i = to;
			continue;
		}
		for (;; i++) {
			const uint64_t weight = weights[i] >= least ? weights[i] : 0;
			if (target < weight)
				return (int32_t)i;
			target -= weight;
		}
	}
	return -1;
}

static int32_t draw_weighed(const struct sk_draw *draw, const uint32_t *weights, uint64_t total)
{
	const uint32_t n = draw->n_ids;
	struct cut cut = {0, n};
	if (draw->top_k && draw->top_k < n) {
		cut = cut_at(weights, n, draw->top_k, 0);
		total = sum_kept(weights, n, cut);
	}
	if (draw->top_p < 1) {
		const double mass = ceil((double)draw->top_p * (double)total);
		cut = cut_at(weights, n, 0, mass < 1 ? 1 : (uint64_t)mass);
	}
	const uint32_t least = (uint32_t)ceilf(draw->min_p * (float)DRAW_ONE);
	if (cut.weight < least)
		cut = (struct cut){least < DRAW_ONE ? least : DRAW_ONE, n};
	total = sum_kept(weights, n, cut);
	const uint64_t target = (uint64_t)(draw->random * (double)total);
	return walk(weights, n, cut, target < total ? target : total - 1);
}

/* --- The row ------------------------------------------------------------------------------------- */

static int32_t likeliest(const float *logits, uint32_t n, float most)
{
	for (uint32_t i = 0; i < n;) {
		const uint32_t end = n - i < 256 ? n : i + 256;
		bool is_there = false;
		for (uint32_t j = i; j < end; j++)
			is_there |= logits[j] == most;
		for (; is_there && i < end; i++)
			if (logits[i] == most)
				return (int32_t)i;
		i = end;
	}
	return -1;
}

/* The penalty changes logits in place; what they were, from the first change on, is in `before`. */
static void penalise(float *logits, const struct sk_draw *draw, float *before)
{
	for (uint32_t i = 0; i < draw->n_recent; i++)
		before[i] = logits[draw->recent[i]];
	for (uint32_t i = 0; i < draw->n_recent; i++) /* of what was: however often it came */
		logits[draw->recent[i]] = before[i] > 0 ? before[i] / draw->repeat_penalty
							: before[i] * draw->repeat_penalty;
}

static void restore(float *logits, const struct sk_draw *draw, const float *before)
{
	for (uint32_t i = 0; i < draw->n_recent; i++)
		logits[draw->recent[i]] = before[i];
}

static void draw_id(float *logits, uint32_t n_vocab, const struct sk_draw *draw,
		    const struct sk_cpu_draw *scratch, struct sk_drawn *ret_drawn)
{
	float most, top;
	*ret_drawn = (struct sk_drawn){.id = -1};
	if (!greatest(logits, n_vocab, &most))
		return;
	const uint64_t whole = weigh_all(logits, n_vocab, most, 1, NULL);
	const bool is_penalised = draw->repeat_penalty != 1 && draw->n_recent;
	if (is_penalised)
		penalise(logits, draw, scratch->before);
	int32_t id = -1;
	if (greatest(logits, draw->n_ids, &top)) {
		if (draw->temperature == 0) {
			id = likeliest(logits, draw->n_ids, top);
		} else {
			const float scale = fminf(1 / draw->temperature, 1e30f);
			const uint64_t total =
				weigh_all(logits, draw->n_ids, top, scale, scratch->weights);
			id = draw_weighed(draw, scratch->weights, total);
		}
	}
	if (is_penalised)
		restore(logits, draw, scratch->before);
	if (id < 0)
		return;
	ret_drawn->id = id;
	ret_drawn->logprob = (float)((double)(logits[id] - most) - log((double)whole / DRAW_ONE));
}
