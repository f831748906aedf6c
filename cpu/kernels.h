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

/* 1024 activations of a row, in 32 blocks, as integers for weights in blocks: sums of products are exact.
 * Where the bits are 16, what they lose is small beside the rounding of any 8-bit weight. Where bytes are
 * multiplied (VNNI) a second plane of eight bits costs as much as the first, so it is kept for the blocks
 * that have bit `fine` alone; in the others the integers have eight bits. Which those are is a matter of
 * the row alone (kernel_quantise.h), so a row's result is the same in any batch. */
#define SK_RUN_BLOCKS 32

struct sk_cpu_run {
	int32_t words[SK_RUN_BLOCKS * 16]; /* as the instruction set reads them */
	float scale[SK_RUN_BLOCKS];        /* of the first plane; the second's is 1/256 of it */
	float total[SK_RUN_BLOCKS];        /* of the activations, as rounded */
	int32_t start[2][2]
		     [SK_RUN_BLOCKS]; /* by plane and part of the block: -zero * sum of integers,
						   where zero is the code that stands for it */
	uint32_t fine;
};

static inline uint32_t sk_cpu_n_runs(uint32_t n_blocks)
{
	return (n_blocks + SK_RUN_BLOCKS - 1) / SK_RUN_BLOCKS;
}

static inline size_t sk_cpu_pair_stride(uint32_t n_cols)
{
	return (n_cols + 1) / 2;
}

/* out (n_rows, out_stride) = or += in W^T + bias */
struct sk_cpu_matmul {
	const struct sk_packed *weights;
	const float *bias;             /* (n_out), or NULL */
	const float *in;               /* (n_rows, in_stride): floats, or */
	const struct sk_cpu_run *runs; /* (n_rows, n_runs): integers, or */
	const uint32_t *pairs;         /* (n_rows, pair_stride): of bfloat16, the even column low */
	float *out;
	size_t in_stride, out_stride, pair_stride;
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

#define SK_ATTEND_QUERIES  32 /* at once, at most */
#define SK_ATTEND_SEGMENTS 16 /* of a row's window, at most */
#define SK_ATTEND_PART     16 /* floats of a part beside its sum of values */
#define SK_ATTEND_SPLIT    2  /* heads a thread, of all rows, up to which segments are shared out */

/* The pages of a segment: 4, or the next power of two with which SK_ATTEND_SEGMENTS are enough. */
static inline uint64_t sk_attend_segment_pages(const struct sk_row *row)
{
	uint64_t pages = row->entry / SK_PAGE_TOKENS - row->first / SK_PAGE_TOKENS + 1, segment = 4;
	while (segment * SK_ATTEND_SEGMENTS < pages)
		segment *= 2;
	return segment;
}

static inline uint32_t sk_attend_n_segments(const struct sk_row *row)
{
	uint64_t pages = row->entry / SK_PAGE_TOKENS - row->first / SK_PAGE_TOKENS;
	return (uint32_t)(pages / sk_attend_segment_pages(row)) + 1;
}

struct sk_cpu_attend {
	const struct sk_backend_shape *shape;
	const struct sk_cpu_pages *pages;
	const struct sk_batch *batch;
	const float *q;
	float *out;
	uint32_t layer;
	float *scratch; /* (n_threads, SK_ATTEND_QUERIES, 2, value_dim) */
	float *parts;   /* (groups, n_kv_heads, SK_ATTEND_SEGMENTS, n_heads / n_kv_heads,
			   value_dim + SK_ATTEND_PART) */
};

/* A thread's room to draw. */
struct sk_cpu_draw {
	uint32_t *weights; /* (width, up to whole vectors) */
	float *before;     /* (most_recent) */
};

struct sk_cpu_kernels {
	const char *name;
	/* for weights of that packing; exact: 16 bits for every block */
	void (*quantise)(const float *in, uint32_t n_cols, enum sk_packing packing, bool exact,
			 struct sk_cpu_run *out);
	/* to pairs of bfloat16; NULL where nothing multiplies them, and matmul_pairs too */
	void (*round)(const float *in, uint32_t n_cols, uint32_t *out);
	void (*matmul_pairs)(const struct sk_cpu_matmul *job, uint32_t panel, uint32_t n_panels);
	void (*matmul[SK_N_PACKINGS])(const struct sk_cpu_matmul *job, uint32_t panel,
				      uint32_t n_panels);
	void (*append)(const struct sk_cpu_append *job, uint32_t row);
	void (*attend)(const struct sk_cpu_attend *job, const struct sk_cpu_rows *rows,
		       uint32_t kv_head, uint32_t thread);
	/* The same in pieces, for a group of one row: a part for each segment, then (on one thread) the
	 * whole. */
	void (*attend_segment)(const struct sk_cpu_attend *job, const struct sk_cpu_rows *row,
			       uint32_t group, uint32_t kv_head, uint32_t segment, uint32_t thread);
	void (*attend_join)(const struct sk_cpu_attend *job, const struct sk_cpu_rows *row,
			    uint32_t group, uint32_t kv_head);
	void (*norm)(float *out, const float *in, uint32_t n, const float *weight,
		     const float *bias, float eps, bool subtract_mean);
	/* SwiGLU: out[i] of gate `in` and up `up` */
	void (*activate)(float *out, const float *in, const float *up, uint32_t n, enum sk_act act);
	/* logits (n_vocab) are as they were afterwards */
	void (*draw)(float *logits, uint32_t n_vocab, const struct sk_draw *draw,
		     const struct sk_cpu_draw *scratch, struct sk_drawn *ret_drawn);
	/* log softmax(logits)[id] */
	float (*score)(const float *logits, uint32_t n, int32_t id);
};

extern const struct sk_cpu_kernels sk_cpu_kernels_scalar, sk_cpu_kernels_avx2,
	sk_cpu_kernels_avx512, sk_cpu_kernels_avx512_vnni, sk_cpu_kernels_avx512_bf16;

/* All that were compiled, best first, whether this machine has them or not; NULL past the last. */
const char *sk_cpu_kernels_name(size_t i);

/* The kernels of that name; where it is NULL those that the environment's STREAMKV_INSTRUCTIONS names, else
 * the best. -ENODEV and a sentence that lists those that this machine can run. */
int sk_cpu_kernels_select(const char *name, const struct sk_cpu_kernels **ret_kernels,
			  struct sk_diag *diag);
