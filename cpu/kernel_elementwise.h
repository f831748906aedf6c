/* Norms, activation functions and log-probabilities, one row (or part of one) at a time. */
#pragma once

#include "base/simd.h"
#include "cpu/kernels.h"

#include <math.h>

/* Sum of (x - mean) or its squares in doubles, eight at a time in a fixed order. */
SK_INLINE double row_sum(const float *in, uint32_t n, double mean, bool squares)
{
	double sums[8] = {0}, rest = 0;
	uint32_t i = 0;
	for (; i + 8 <= n; i += 8)
		for (int j = 0; j < 8; j++) {
			double x = (double)in[i + j] - mean;
			sums[j] += squares ? x * x : x;
		}
	for (; i < n; i++) {
		double x = (double)in[i] - mean;
		rest += squares ? x * x : x;
	}
	for (int k = 4; k; k /= 2)
		for (int j = 0; j < k; j++)
			sums[j] += sums[j + k];
	return sums[0] + rest;
}

static void norm(float *out, const float *in, uint32_t n, const float *weight, const float *bias,
		 float eps, bool subtract_mean)
{
	double mean = subtract_mean ? row_sum(in, n, 0, false) / n : 0;
	double square = row_sum(in, n, mean, true) / n;
	float scale = (float)(1 / sqrt(square + (double)eps)), centre = (float)mean;

	for (uint32_t i = 0; i < n; i++) {
		float y = (in[i] - centre) * scale * weight[i];
		out[i] = bias ? y + bias[i] : y;
	}
}

/* Polynomials fitted at Chebyshev nodes: erf(x) = x P(x^2) up to 1, 1 - e^(-x Q(x)) from there to 4,
 * within 2e-7; past 4 it is 1 in floats. */
SK_INLINE vf v_erf(vf x)
{
	static const float p[] = {1.1283791065216064f,   -0.3761262595653534f,
				  0.11283597350120544f,  -0.02685432881116867f,
				  0.005189312156289816f, -0.0008018855005502701f,
				  7.882497448008507e-05f};
	static const float q[] = {
		1.1287782192230225f,      0.634675145149231f,      0.10692556202411652f,
		-0.024242741987109184f,   0.0037855366244912148f,  -0.00031440469319932163f,
		-5.2085060815443285e-06f, 3.6591368370864075e-06f, -2.37608659858779e-07f};
	vf size = v_abs(x), square = x * x;
	vf small = v_set(p[6]), far = v_min(size, v_set(4)), large = v_set(q[8]);
	for (int i = 5; i >= 0; i--)
		small = v_fma(small, square, v_set(p[i]));
	for (int i = 7; i >= 0; i--)
		large = v_fma(large, far, v_set(q[i]));
	large = v_set(1) - v_exp(-far * large);
	large = (vf)((vi)large | ((vi)x & INT32_MIN));
	return v_select(size > 1.f, small * x, large);
}

SK_INLINE vf v_activate(vf x, vf up, enum sk_act act)
{
	if (act == SK_ACT_GELU)
		return .5f * x * (1.f + v_erf(x * (float)M_SQRT1_2));
	if (act == SK_ACT_GELU_TANH) { /* (1 + tanh u) / 2 = 1 / (1 + e^(-2u)) */
		vf u = 0.797884561f * v_fma(0.044715f * x, x * x, x);
		return x / (1.f + v_exp(-2.f * u));
	}
	return x / (1.f + v_exp(-x)) * up;
}

SK_INLINE void activate_all(float *out, const float *in, const float *up, uint32_t n,
			    enum sk_act act)
{
	uint32_t i = 0;
	for (; i + LANES <= n; i += LANES)
		v_store(out + i, v_activate(v_load(in + i),
					    act == SK_ACT_SWIGLU ? v_load(up + i) : v_set(0), act));
	if (i < n) {
		float a[LANES] = {0}, b[LANES] = {0};
		memcpy(a, in + i, (n - i) * sizeof *a);
		if (act == SK_ACT_SWIGLU)
			memcpy(b, up + i, (n - i) * sizeof *b);
		v_store(a, v_activate(v_load(a), v_load(b), act));
		memcpy(out + i, a, (n - i) * sizeof *a);
	}
}

static void activate(float *out, const float *in, const float *up, uint32_t n, enum sk_act act)
{
	switch (act) {
	case SK_ACT_GELU:
		activate_all(out, in, up, n, SK_ACT_GELU);
		break;
	case SK_ACT_GELU_TANH:
		activate_all(out, in, up, n, SK_ACT_GELU_TANH);
		break;
	case SK_ACT_SWIGLU:
		activate_all(out, in, up, n, SK_ACT_SWIGLU);
		break;
	}
}

/* Sums of 64 vectors at a time go into a double, so that a large vocabulary rounds no more than a
 * small one. What is no number (in a logit, or in inf - inf) stays none. */
static float score_id(const float *logits, uint32_t n, int32_t id)
{
	const uint32_t n_whole = n - n % LANES;
	vf tops = v_set(-INFINITY);
	for (uint32_t i = 0; i < n_whole; i += LANES)
		tops = v_max(tops, v_load(logits + i));
	float top = v_most(tops);
	for (uint32_t i = n_whole; i < n; i++)
		top = logits[i] > top ? logits[i] : top;

	double total = 0;
	for (uint32_t i = 0; i < n_whole;) {
		uint32_t end = n_whole - i < 64 * LANES ? n_whole : i + 64 * LANES;
		vf sum = v_set(0);
		for (; i < end; i += LANES)
			sum += v_exp(v_load(logits + i) - top);
		total += (double)v_sum(sum);
	}
	for (uint32_t i = n_whole; i < n; i++)
		total += (double)v_exp(v_set(logits[i] - top))[0];
	return (float)((double)(logits[id] - top) - log(total));
}
