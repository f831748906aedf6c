/* The CUDA backend's own struct. gpu.c opens and closes, memory.c holds weights and buffers, packed.c brings
 * weights into their layout, shared.c shares them with other processes, pages.c is the pool, step.c notes the operations of a step, launch.c makes
 * launches of them, run.c decides when.
 *
 * Operations are noted, not run, until the step ends (or is waited for): then it is known whether they are
 * those of an earlier step, whose graph can be launched again. One thread calls (the engine's), but for the
 * copies of pages (pages.c), which have a stream of their own.
 */
#pragma once

#include "backend/impl.h"
#include "backend/pieces.h"
#include "base/list.h"
#include "gpu/kernels/launch.h"
#include "gpu/shared.h"

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <stdatomic.h>

/* Memory of the device. */
struct sk_gpu_block {
	void *data;
	size_t size_bytes;
	bool is_part; /* of what weights share, with which it goes */
};

struct sk_buffer {
	struct sk_list node; /* in sk_gpu.buffers */
	struct sk_gpu_block block;
	uint32_t n_rows, width,
		stride;     /* stride: width rounded up to SK_GPU_COLS, zero beyond width */
	float *host;        /* (n_rows, stride) pinned, once somebody reads */
	uint64_t host_step; /* the step that it was copied after */
	uint32_t n_host;    /* rows copied */
	uint32_t n_written; /* rows, in the last step that wrote it */
};

struct sk_linear {
	struct sk_list node; /* in sk_gpu.linears */
	struct sk_gpu_block codes, scales, bias;
	struct sk_gpu_matrix matrix;
	uint32_t n_cols; /* of the model; those of `matrix` are padded with zeros */
};

struct sk_norm {
	struct sk_list node;              /* in sk_gpu.norms */
	struct sk_gpu_block weight, bias; /* bias: or empty */
	uint32_t width;
};

/* An operation as it was noted. */
struct sk_gpu_note {
	enum sk_gpu_op {
		SK_GPU_EMBED,
		SK_GPU_NORM,
		SK_GPU_MATMUL,
		SK_GPU_MATMUL_ADD,
		SK_GPU_APPEND,
		SK_GPU_ATTEND,
		SK_GPU_ACTIVATE,
		SK_GPU_GATHER,
		SK_GPU_SCORE,
		SK_GPU_DRAW,
	} op;
	struct sk_buffer *out;
	const struct sk_buffer *in;
	const void *weights; /* a linear, a norm, or NULL */
	uint32_t n_rows;
	uint32_t number; /* layer, enum sk_act, place in the step's list of rows, subtract_mean */
	uint32_t at;     /* row of `out` */
	float eps;
};

/* A step that was captured. */
struct sk_gpu_graph {
	uint64_t key;
	uint32_t place; /* in sk_gpu.graph_at */
	uint32_t n_segments, n_warps, n_notes;
	struct sk_gpu_note *notes; /* to be sure that it is the same */
	cudaGraphExec_t exec;
};

/* Kept at most: steps of 1 to 256 rows, and as many again of which something else differs (how attention is shared out, which
 * rows have logits). All go when another comes. */
#define SK_GPU_GRAPHS       512
#define SK_GPU_GRAPH_PLACES 1024

struct sk_gpu {
	struct sk_backend base;
	char name[272];
	int device;
	uint8_t uuid[16];
	uint32_t n_processors;
	bool exact;
	uint32_t few_rows;           /* up to which our own kernel is faster than the library */
	cudaStream_t stream, copies; /* of steps; of pages that come and go */
	cublasHandle_t cublas;
	struct sk_gpu_block workspace; /* the library's */

	struct sk_list buffers, linears, norms;
	uint64_t weight_bytes;
	struct sk_pieces pieces; /* of `shared`, where weights are shared */
	struct sk_gpu_shared shared;
	struct sk_gpu_block
		decoded; /* weights as the library multiplies them, where they are not */
	struct sk_gpu_block rounded,
		scales; /* activations for it; of their rows, where these are halves */

	struct sk_gpu_cache cache;
	struct sk_gpu_block pages, steps;
	cudaEvent_t pages_done;     /* what the engine thread did to pages */
	char *stage;                /* pinned: a page on its way to the host or from it */
	atomic_flag stage_is_taken; /* by one of the two threads that may copy */

	/* The step. What kernels must know of it lies in one piece, here and on the device: rows, then the table
	 * of pages; before both, lists of rows and ids. */
	struct sk_gpu_block told;
	char *telling;                /* pinned */
	size_t told_rows, told_table; /* in bytes, after the list */
	size_t n_list, n_table, max_list, max_table;
	const struct sk_batch *batch;
	uint32_t n_rows;       /* at work now */
	uint32_t n_most_pages; /* that a row sees */
	struct sk_gpu_sharing sharing;
	struct sk_gpu_note *notes;
	uint32_t n_notes, n_run, max_notes;
	uint64_t step;                                 /* number of it */
	struct sk_gpu_block parts, counters;           /* of attention */
	struct sk_gpu_block unit_parts, unit_counters; /* of products */
	struct sk_gpu_block second_norm;               /* (SK_GPU_MATVEC_ROWS, the widest norm) */
	struct sk_gpu_block moments, tile_moments;     /* of a layer's outputs */
	struct sk_gpu_graph graphs[SK_GPU_GRAPHS];
	uint16_t graph_at
		[SK_GPU_GRAPH_PLACES]; /* by key: a number in graphs, if that one's place is here */
	uint32_t n_graphs;
	bool without_graphs,
		five_launches; /* to compare; the second: of a layer, instead of three */

	int error;     /* the first of the step, -errno */
	char why[160]; /* of the last step that the device failed in */
};

extern const struct sk_backend_ops sk_gpu_ops;

/* NULL for a backend of another kind: a fault of the caller, which then does nothing. */
static inline struct sk_gpu *sk_gpu_from(const struct sk_backend *backend)
{
	return backend->ops == &sk_gpu_ops ? (struct sk_gpu *)backend : NULL;
}

static inline uint32_t sk_gpu_padded(uint32_t n_cols)
{
	return (n_cols + SK_GPU_COLS - 1) / SK_GPU_COLS * SK_GPU_COLS;
}

/* gpu.c: keeps the first fault of a step. False where it is one. */
bool sk_gpu_check(struct sk_gpu *gpu, cudaError_t error, const char *what);
int sk_gpu_errno(cudaError_t error); /* -ENOMEM or -EIO */

/* memory.c */
int sk_gpu_block_init(struct sk_gpu *gpu, struct sk_gpu_block *block,
		      size_t size_bytes); /* zeroed */
void sk_gpu_block_finish(struct sk_gpu_block *block);
int sk_gpu_alloc(struct sk_backend *backend, uint32_t n_rows, uint32_t width,
		 struct sk_buffer **ret_buffer);
void sk_gpu_free(struct sk_backend *backend, struct sk_buffer *buffer);
int sk_gpu_pack_linear(struct sk_backend *backend, const struct sk_matrix *matrix,
		       const struct sk_matrix *bias, enum sk_weight_format format,
		       struct sk_linear **ret_linear);
int sk_gpu_pack_norm(struct sk_backend *backend, const struct sk_matrix *weight,
		     const struct sk_matrix *bias, struct sk_norm **ret_norm);
uint64_t sk_gpu_norm_bytes(struct sk_backend *backend, const struct sk_matrix *weight,
			   const struct sk_matrix *bias);
uint64_t sk_gpu_scratch_bytes(const struct sk_backend *backend);
void sk_gpu_free_all(struct sk_gpu *gpu);

/* shared.c */
int sk_gpu_share_weights(struct sk_backend *backend, uint64_t n_bytes);
/* gpu/kernels/launch.h; to be counted up with every change of it. The device follows. */
#define SK_GPU_LAYOUT "cuda weights 1"
int sk_gpu_export_weights(struct sk_backend *backend, struct sk_shared_weights *ret_shared);
int sk_gpu_import_weights(struct sk_backend *backend, const struct sk_shared_weights *shared);
int sk_gpu_check_weights(struct sk_backend *backend);
/* Memory for weights: of its own, zeroed, or a piece of what is shared, which may be filled already. */
int sk_gpu_take(struct sk_gpu *gpu, struct sk_gpu_block *block, size_t size_bytes,
		bool *ret_is_filled);

/* packed.c: uploads a matrix. */
int sk_gpu_linear_bytes(struct sk_backend *backend, const struct sk_matrix *matrix,
			const struct sk_matrix *bias, enum sk_weight_format format,
			uint64_t *ret_n_bytes);
int sk_gpu_pack(struct sk_gpu *gpu, struct sk_linear *linear, const struct sk_matrix *matrix,
		enum sk_weight_format format);

/* pages.c */
void sk_gpu_pages_init(struct sk_gpu *gpu);
const char *sk_gpu_page_layout(const struct sk_backend *backend);
int sk_gpu_reserve_pages(struct sk_backend *backend, uint32_t n_pages);
void sk_gpu_clear_pages(struct sk_backend *backend, const uint32_t *pages, uint32_t n_pages);
void sk_gpu_copy_page(struct sk_backend *backend, uint32_t from, uint32_t to);
int sk_gpu_read_page(struct sk_backend *backend, uint32_t page, void *bytes);
int sk_gpu_write_page(struct sk_backend *backend, uint32_t page, const void *bytes);
void sk_gpu_pages_finish(struct sk_gpu *gpu);

/* step.c */
int sk_gpu_step_init(struct sk_gpu *gpu);
void sk_gpu_step_finish(struct sk_gpu *gpu);
int sk_gpu_begin_step(struct sk_backend *backend, const struct sk_batch *batch);
void sk_gpu_embed_op(struct sk_backend *backend, struct sk_buffer *out,
		     const struct sk_linear *table);
void sk_gpu_norm_op(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *in,
		    const struct sk_norm *norm, float eps, bool subtract_mean);
void sk_gpu_matmul_op(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *in,
		      const struct sk_linear *linear);
void sk_gpu_matmul_add_op(struct sk_backend *backend, struct sk_buffer *x,
			  const struct sk_buffer *in, const struct sk_linear *linear);
void sk_gpu_append_op(struct sk_backend *backend, struct sk_buffer *q, const struct sk_buffer *qkv,
		      uint32_t layer);
void sk_gpu_attend_op(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *q,
		      uint32_t layer);
void sk_gpu_activate_op(struct sk_backend *backend, struct sk_buffer *out,
			const struct sk_buffer *in, enum sk_act act);
void sk_gpu_gather_op(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *x,
		      const uint32_t *rows, uint32_t n_rows);
void sk_gpu_score_op(struct sk_backend *backend, struct sk_buffer *scores, uint32_t at,
		     const struct sk_buffer *logits, const int32_t *ids);
void sk_gpu_draw_op(struct sk_backend *backend, struct sk_buffer *out, struct sk_buffer *logits,
		    const struct sk_draw *draws);

/* launch.c: launches the first of some notes, or the first few, which is *ret_n_taken. */
cudaError_t sk_gpu_launch(struct sk_gpu *gpu, const struct sk_gpu_note *notes, uint32_t n_notes,
			  uint32_t *ret_n_taken);

/* run.c */
int sk_gpu_end_step(struct sk_backend *backend);
void sk_gpu_wait(struct sk_backend *backend);
const float *sk_gpu_read(struct sk_backend *backend, const struct sk_buffer *buffer, uint32_t row);
void sk_gpu_drop_graphs(struct sk_gpu *gpu);
