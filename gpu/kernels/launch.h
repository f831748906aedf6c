/* What the host asks of kernels: plain C, so that only gpu/kernels is compiled by nvcc. Every function
 * queues on `stream` and returns what the launch returned. Rows of activations are `stride` floats apart,
 * and zero from their width up to it.
 */
#pragma once

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SK_GPU_PAGE_TOKENS 32 /* is SK_PAGE_TOKENS: a lane a token */
#define SK_GPU_COLS        32 /* columns of weights and activations come in such runs */
#define SK_GPU_MATVEC_ROWS 8  /* at once, at most */

/* A row of a step, as kernels see it (struct sk_row and its span). */
struct sk_gpu_row {
	uint64_t place, sink_place; /* text position of the token; query's rotation for the sinks */
	uint32_t pages,
		n_pages; /* of the window in the step's table, from the page of `first` on */
	uint32_t sinks, n_sink_pages;
	uint32_t first_slot, last_slot; /* in the window's first page, in its last */
	uint32_t n_sink;
	int32_t id;
};

/* A matrix (n_rows, n_cols): F32, F16, BF16 as such; Q8 a byte a column, (u - 128) * scale; Q4 columns j and
 * j + 16 of a block in one byte, (u - 8) * scale. Q4M: u * scale + minimum; Q8X: with a zero, too. Rows of codes,
 * and of scales, lie one behind the other; those of codes are multiples of 16 bytes. */
enum sk_gpu_format {
	SK_GPU_F32,
	SK_GPU_F16,
	SK_GPU_BF16,
	SK_GPU_Q8,  /* a half scale for 32 columns */
	SK_GPU_Q8X, /* a float scale and minimum for 16 columns */
	SK_GPU_Q4,  /* a half scale for 32 columns */
	SK_GPU_Q4M, /* a half scale and minimum for 32 columns */
	SK_N_GPU_FORMATS,
};

struct sk_gpu_matrix {
	enum sk_gpu_format format;
	float zero;              /* of Q8X: (u - zero) * scale + minimum */
	uint32_t n_rows, n_cols; /* n_cols: a multiple of SK_GPU_COLS */
	const void *codes, *scales;
	const float *bias; /* (n_rows), or NULL */
};

/* *out += a checksum of n_bytes, a multiple of 16. */
cudaError_t sk_gpu_sum(cudaStream_t stream, uint64_t *out, const void *data, uint64_t n_bytes,
		       uint32_t n_blocks);

/* out (n, m->n_rows) = in m^T + bias, or out += that; n <= SK_GPU_MATVEC_ROWS */
cudaError_t sk_gpu_matvec(cudaStream_t stream, const struct sk_gpu_matrix *m, float *out,
			  uint32_t out_stride, const float *in, uint32_t in_stride, uint32_t n,
			  bool add);
/* Products of a few vectors on the tensor cores, one or two of one format in a launch. Rows are read in chunks of 64 bytes. */
#define SK_GPU_UNIT_THREADS  256
#define SK_GPU_UNIT_CHUNKS   48 /* of a row, that a block takes, at most */
#define SK_GPU_NO_ACTIVATION (-1)

/* Of a vector: its mean, or 0 where a norm subtracts none, and 1 / its deviation from that. */
struct sk_gpu_moments {
	float mean, scale;
};

/* Of a tile's outputs for a vector: their mean, and the squares of their distances from it. */
struct sk_gpu_tile_moments {
	float mean, squares;
};

struct sk_gpu_product {
	struct sk_gpu_matrix matrix;
	float *out;
	const float *in; /* (n, n_cols of the matrix) */
	const float *norm_weight,
		*norm_bias; /* (n_cols), or NULL; weight: `in` is still to be normalised, with `moments` */
	uint32_t out_stride, in_stride;
	uint32_t n_tiles, n_parts; /* of 16 rows; of columns: sk_gpu_product_cut() */
	int activation;            /* enum sk_act, where add is false; or SK_GPU_NO_ACTIVATION */
	bool add;
};

struct sk_gpu_products {
	struct sk_gpu_product product[2]; /* the second: or zeros */
	bool together;                    /* both go to the same outputs, which are the first's */
	uint32_t n;                       /* vectors, at most SK_GPU_MATVEC_ROWS */
	float *parts;       /* (tiles, parts of a tile, 128) of the first, of the second */
	uint32_t *counters; /* (1 + tiles of both), zero before and after */
	const struct sk_gpu_moments
		*moments; /* (n) of `in`, for a product that normalises; or NULL */
	struct sk_gpu_moments *
		ret_moments; /* (n) of what the two leave together, a multiple of 16 rows; or NULL */
	struct sk_gpu_tile_moments *tile_moments; /* (tiles, 8), room for that */
	float eps;                                /* of these, */
	bool subtract_mean;                       /* and whether their norm has a mean */
};

/* Columns of a chunk; 0: such a matrix is not multiplied so. */
static inline uint32_t sk_gpu_chunk_cols(enum sk_gpu_format format)
{
	switch (format) {
	case SK_GPU_F16:
	case SK_GPU_BF16:
		return 32;
	case SK_GPU_Q8:
		return 64;
	case SK_GPU_Q4:
		return 128;
	default:
		return 0;
	}
}

/* For a format that has chunks. */
static inline void sk_gpu_product_cut(struct sk_gpu_product *product)
{
	const uint32_t cols = sk_gpu_chunk_cols(product->matrix.format),
		       n_chunks = (product->matrix.n_cols + cols - 1) / cols;
	product->n_tiles = (product->matrix.n_rows + 15) / 16;
	product->n_parts = (n_chunks + SK_GPU_UNIT_CHUNKS - 1) / SK_GPU_UNIT_CHUNKS;
}

cudaError_t sk_gpu_few(cudaStream_t stream, const struct sk_gpu_products *products);
/* out (n_rows, n_cols) in the format that a library multiplies: F32, F16 or BF16 */
cudaError_t sk_gpu_decode(cudaStream_t stream, const struct sk_gpu_matrix *m, void *out,
			  enum sk_gpu_format to);
/* out (n, width) = in as BF16 */
cudaError_t sk_gpu_round(cudaStream_t stream, void *out, const float *in, uint32_t width,
			 uint32_t n);
/* halves (n, width) = in, each row times a power of two where its numbers are too large for halves, or too small: scales (n).
 * So are rows of out (n, out_width), to which their products are to be added: bias (or NULL), or out + bias. Once they
 * are there sk_gpu_unscale() undoes it. */
cudaError_t sk_gpu_halve(cudaStream_t stream, void *halves, float *scales, const float *in,
			 uint32_t width, float *out, uint32_t out_stride, const float *bias,
			 uint32_t out_width, uint32_t n, bool add);
cudaError_t sk_gpu_unscale(cudaStream_t stream, float *out, uint32_t stride, const float *scales,
			   uint32_t width, uint32_t n);
/* out = bias in every row, or out += it */
cudaError_t sk_gpu_bias(cudaStream_t stream, float *out, uint32_t stride, const float *bias,
			uint32_t width, uint32_t n, bool add);

/* out (n, n_cols): rows of a matrix, by the step's ids */
cudaError_t sk_gpu_embed(cudaStream_t stream, float *out, uint32_t stride,
			 const struct sk_gpu_matrix *m, const struct sk_gpu_row *rows,
			 uint32_t width, uint32_t n);
/* Once or twice the norm of the same rows: the second's `out` is NULL, or as far between rows as the first's. */
struct sk_gpu_norm {
	float *out;
	const float *weight, *bias; /* (width); bias: or NULL */
};

cudaError_t sk_gpu_norm(cudaStream_t stream, const struct sk_gpu_norm all[2], uint32_t out_stride,
			const float *in, uint32_t in_stride, uint32_t width, uint32_t n, float eps,
			bool subtract_mean);
/* kind: enum sk_act */
cudaError_t sk_gpu_activate(cudaStream_t stream, float *out, uint32_t out_stride, const float *in,
			    uint32_t in_stride, uint32_t width, uint32_t n, int kind);
cudaError_t sk_gpu_gather(cudaStream_t stream, float *out, uint32_t out_stride, const float *in,
			  uint32_t in_stride, const uint32_t *rows, uint32_t width, uint32_t n);
cudaError_t sk_gpu_score(cudaStream_t stream, float *out, uint32_t out_stride, const float *logits,
			 uint32_t stride, const uint32_t *ids, uint32_t n_vocab, uint32_t n);

/* struct sk_draw, as a kernel wants it. */
struct sk_gpu_draw {
	double random;
	float scale; /* of logits: 1 / temperature; 0: the likeliest */
	float top_p, penalty;
	uint32_t n_ids, top_k;
	uint32_t least;            /* the lightest that min-p lets through, in units of 2^-30 */
	uint32_t recent, n_recent; /* place in the list: ids, then as many words of room */
};

/* out (n, 2) = an id as it lies in memory, and its log-probability; logits are as they were afterwards. */
cudaError_t sk_gpu_draw_rows(cudaStream_t stream, float *out, uint32_t out_stride, float *logits,
			     uint32_t stride, uint32_t n_vocab, const struct sk_gpu_draw *draws,
			     uint32_t *list, uint32_t n);

/* The KV pages and what attention must know of them. A page holds, for each layer and key head, keys as
 * (padded_dim / 16 bytes, SK_GPU_PAGE_TOKENS) words of 16 bytes, then values as (SK_GPU_PAGE_TOKENS,
 * padded_dim). */
struct sk_gpu_cache {
	char *pages;
	uint64_t page_bytes, layer_bytes, head_bytes;
	uint32_t n_heads, n_kv_heads, head_dim, padded_dim, n_rot;
	enum sk_gpu_format format; /* F32, F16 or BF16 */
	const uint64_t *steps;     /* (n_rot / 2) turns a position, in units of 2^-64 */
};

cudaError_t sk_gpu_append(cudaStream_t stream, const struct sk_gpu_cache *cache, float *q,
			  uint32_t q_stride, const float *qkv, uint32_t qkv_stride,
			  const struct sk_gpu_row *rows, const uint32_t *table, uint32_t layer,
			  uint32_t n);

#define SK_GPU_ATTEND_HEADS 4 /* queries of one key head that a block takes at once, at most */
#define SK_GPU_SEGMENT_PAGES                                                                       \
	16 /* parts of so many pages are joined in order; a warp takes a page */

/* Of n queries of one key head, those that a block takes at once: of the largest heads fewer, as every device gives a block
 * 48 KB of shared memory, some not more. */
static inline uint32_t sk_gpu_attend_heads(uint32_t n, uint32_t padded_dim)
{
	const uint32_t most = padded_dim > 128 ? 2 : SK_GPU_ATTEND_HEADS;
	return n < most ? n : most;
}

/* How the work on a row and key head is shared out. The results are the same in any way. */
struct sk_gpu_sharing {
	uint32_t n_warps;    /* of a block: pages at once, at most SK_GPU_SEGMENT_PAGES */
	uint32_t n_segments; /* blocks, a segment each; 1: one block does them all */
	float *parts; /* (n, n_kv_heads, groups of heads, n_segments, heads of a group, padded_dim + 2) */
	uint32_t *counters; /* (n, n_kv_heads, groups of heads), zero before and after */
};

/* appends: q is what sk_gpu_append() would be given (its stride, too), and that is done on the way. For rows none of which
 * sees another's entry, and where one block takes all queries of a key head (sk_gpu_attend_heads()). */
cudaError_t sk_gpu_attend(cudaStream_t stream, const struct sk_gpu_cache *cache, float *out,
			  uint32_t out_stride, const float *q, uint32_t q_stride, bool appends,
			  const struct sk_gpu_row *rows, const uint32_t *table, uint32_t layer,
			  uint32_t n, const struct sk_gpu_sharing *sharing);

#ifdef __cplusplus
}
#endif
