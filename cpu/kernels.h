/* What is written per instruction set: the table of kernels, and the jobs they are given. A kernel does
 * one chunk of a job on one thread, allocates nothing and cannot fail.
 *
 * A row's results do not depend on which other rows are in the batch, nor on how work is cut into chunks:
 * every output is made by the same operations in the same order.
 */
#pragma once

#include "backend/backend.h"
#include "cpu/packed.h"
#include "cpu/pages.h"

/* 32 activations of a row as 16-bit integers times a scale, for weights in blocks. 16 bits, so that what
 * this loses is small beside the rounding of any 8-bit weight; integers, so that sums are exact. How the
 * words hold them is the business of the instruction set that reads them (kernel_quantise.h). */
struct sk_cpu_block {
	int32_t words[16];
	float scale;
	int32_t sum, first_sum; /* of the integers; of the first half of them */
};

/* out (n_rows, out_stride) = or += in W^T + bias */
struct sk_cpu_matmul {
	const struct sk_packed *weights;
	const float *bias;                 /* (n_out), or NULL */
	const float *in;                   /* (n_rows, in_stride): floats, or */
	const struct sk_cpu_block *blocks; /* (n_rows, weights->n_blocks) */
	float *out;
	size_t in_stride, out_stride;
	uint32_t n_rows;
	bool add;
};

struct sk_cpu_append {
	const struct sk_backend_shape *shape;
	const struct sk_cpu_pages *pages;
	const struct sk_batch *batch;
	const uint32_t *row_pages; /* (n_rows) where each row's own entry lies */
	const float
		*angles; /* (n_rows, 2, n_rot): cos, sin; at the text position, then in the cache */
	const float *qkv;
	float *q;
	uint32_t layer;
};

/* Rows of one span, which visit pages together. */
struct sk_cpu_rows {
	const struct sk_span *span;
	uint32_t row, n_rows;
};

#define SK_ATTEND_QUERIES 32 /* at once, at most */

struct sk_cpu_attend {
	const struct sk_backend_shape *shape;
	const struct sk_cpu_pages *pages;
	const struct sk_batch *batch;
	const float *q;
	float *out;
	uint32_t layer;
	float *scratch; /* (n_threads, SK_ATTEND_QUERIES, value_dim) */
};

struct sk_cpu_kernels {
	const char *name;
	void (*quantise)(const float *in, uint32_t n_cols, struct sk_cpu_block *out);
	void (*matmul[SK_N_PACKINGS])(const struct sk_cpu_matmul *job, uint32_t panel,
				      uint32_t n_panels);
	void (*append)(const struct sk_cpu_append *job, uint32_t row);
	void (*attend)(const struct sk_cpu_attend *job, const struct sk_cpu_rows *rows,
		       uint32_t kv_head, uint32_t thread);
	void (*norm)(float *out, const float *in, uint32_t n, const float *weight,
		     const float *bias, float eps, bool subtract_mean);
	/* SwiGLU: out[i] of gate `in` and up `up` */
	void (*activate)(float *out, const float *in, const float *up, uint32_t n, enum sk_act act);
	/* log softmax(logits)[id] */
	float (*score)(const float *logits, uint32_t n, int32_t id);
};

extern const struct sk_cpu_kernels sk_cpu_kernels_scalar, sk_cpu_kernels_avx2,
	sk_cpu_kernels_avx512, sk_cpu_kernels_avx512_vnni;

/* The kernels of that name, or the best where it is NULL. -ENODEV and a sentence that lists those that
 * this machine can run. */
int sk_cpu_kernels_select(const char *name, const struct sk_cpu_kernels **ret_kernels,
			  struct sk_diag *diag);
