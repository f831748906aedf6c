/* The CPU backend's own struct, and its operations: cpu.c opens and closes, memory.c holds weights and
 * buffers, shared.c weights for several processes, step.c computes. One thread calls (the engine's); workers see jobs alone.
 */
#pragma once

#include "backend/impl.h"
#include "backend/pieces.h"
#include "base/list.h"
#include "cpu/kernels.h"
#include "cpu/packed.h"
#include "cpu/pages.h"
#include "cpu/pool.h"
#include "cpu/rotary.h"

struct sk_buffer {
	struct sk_list node; /* in sk_cpu.buffers */
	struct sk_region region;
	uint32_t n_rows, width;
};

struct sk_linear {
	struct sk_list node; /* in sk_cpu.linears */
	struct sk_packed weights;
	struct sk_region bias; /* (n_rows) floats, or empty */
};

struct sk_norm {
	struct sk_list node; /* in sk_cpu.norms */
	uint32_t width;
	struct sk_region weight, bias; /* (width) floats; bias: or empty */
};

struct sk_cpu {
	struct sk_backend base;
	const struct sk_cpu_kernels *kernels;
	struct sk_cpu_pool *pool;
	struct sk_cpu_pages pages;
	struct sk_rotary rotary;
	char name[64];
	bool exact; /* see struct sk_backend_options */

	struct sk_list buffers, linears, norms;
	uint64_t weight_bytes;
	struct sk_pieces pieces; /* of `shared`, where weights are shared */
	struct sk_region shared;
	int shared_fd; /* until the export; or -1 */

	/* The step: the batch, what begin_step makes of it, and how many rows are at work now. */
	const struct sk_batch *batch;
	uint32_t n_rows;
	uint32_t n_groups;
	struct sk_cpu_rows *groups; /* (n_groups) rows that attend together; room for max_rows */
	uint32_t *row_pages;        /* (max_rows) */
	float *angles;              /* (max_rows, 2, n_rot) */
	float *attend_scratch;      /* (n_threads, SK_ATTEND_QUERIES, 2, value_dim) */
	float *attend_parts;      /* see struct sk_cpu_attend: n_threads * SK_ATTEND_SPLIT heads */
	struct sk_region rounded; /* (max_rows, most bytes of a linear's row): activations */
	struct sk_region
		draws; /* (n_threads, draw_floats): weights, then logits before the penalty */
	size_t draw_floats;
	uint32_t draw_width, draw_recent; /* as reserved */
};

extern const struct sk_backend_ops sk_cpu_ops;

/* NULL for a backend of another kind: a fault of the caller, which then does nothing. */
static inline struct sk_cpu *sk_cpu_from(struct sk_backend *backend)
{
	return backend->ops == &sk_cpu_ops ? (struct sk_cpu *)backend : NULL;
}

static inline float *sk_buffer_row(const struct sk_buffer *buffer, uint32_t row)
{
	return (float *)buffer->region.data + (size_t)row * buffer->width;
}

/* What attention wants a thread: multiples of 16 floats. */
static inline size_t sk_cpu_scratch_floats(const struct sk_cpu *cpu)
{
	return (size_t)SK_ATTEND_QUERIES * 2 * cpu->pages.value_dim;
}

static inline size_t sk_cpu_parts_floats(const struct sk_cpu *cpu)
{
	size_t queries = cpu->base.shape.n_heads / cpu->base.shape.n_kv_heads;
	return SK_ATTEND_SPLIT * SK_ATTEND_SEGMENTS * queries *
	       (cpu->pages.value_dim + SK_ATTEND_PART);
}

/* A vector's floats, or NULL. */
static inline const float *sk_cpu_floats(const struct sk_region *vector)
{
	return vector->data;
}

/* shared.c */
int sk_cpu_linear_bytes(struct sk_backend *backend, const struct sk_matrix *matrix,
			const struct sk_matrix *bias, enum sk_weight_format format,
			uint64_t *ret_n_bytes);
uint64_t sk_cpu_norm_bytes(struct sk_backend *backend, const struct sk_matrix *weight,
			   const struct sk_matrix *bias);
int sk_cpu_share_weights(struct sk_backend *backend, uint64_t n_bytes);
/* cpu/packed.h; to be counted up with every change of it. It is the same for all instruction sets. */
#define SK_CPU_LAYOUT "cpu weights 1"
int sk_cpu_export_weights(struct sk_backend *backend, struct sk_shared_weights *ret_shared);
int sk_cpu_import_weights(struct sk_backend *backend, const struct sk_shared_weights *shared);
/* Memory for weights: of its own, or a piece of what is shared, which may be filled already (then it is read only). */
int sk_cpu_take(struct sk_cpu *cpu, struct sk_region *region, size_t n_bytes, bool *ret_is_filled);

/* memory.c */
int sk_cpu_alloc(struct sk_backend *backend, uint32_t n_rows, uint32_t width,
		 struct sk_buffer **ret_buffer);
void sk_cpu_free(struct sk_backend *backend, struct sk_buffer *buffer);
int sk_cpu_pack_linear(struct sk_backend *backend, const struct sk_matrix *matrix,
		       const struct sk_matrix *bias, enum sk_weight_format format,
		       struct sk_linear **ret_linear);
int sk_cpu_pack_norm(struct sk_backend *backend, const struct sk_matrix *weight,
		     const struct sk_matrix *bias, struct sk_norm **ret_norm);
uint64_t sk_cpu_scratch_bytes(const struct sk_backend *backend);
void sk_cpu_free_all(struct sk_cpu *cpu); /* buffers, linears, norms */

/* step.c */
int sk_cpu_begin_step(struct sk_backend *backend, const struct sk_batch *batch);
int sk_cpu_end_step(struct sk_backend *backend);
void sk_cpu_embed(struct sk_backend *backend, struct sk_buffer *out, const struct sk_linear *table);
void sk_cpu_norm(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *in,
		 const struct sk_norm *norm, float eps, bool subtract_mean);
void sk_cpu_matmul(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *in,
		   const struct sk_linear *linear);
void sk_cpu_matmul_add(struct sk_backend *backend, struct sk_buffer *x, const struct sk_buffer *in,
		       const struct sk_linear *linear);
void sk_cpu_append(struct sk_backend *backend, struct sk_buffer *q, const struct sk_buffer *qkv,
		   uint32_t layer);
void sk_cpu_attend(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *q,
		   uint32_t layer);
void sk_cpu_activate(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *in,
		     enum sk_act act);
void sk_cpu_gather(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *x,
		   const uint32_t *rows, uint32_t n_rows);
int sk_cpu_reserve_draws(struct sk_backend *backend, uint32_t width, uint32_t most_recent);
void sk_cpu_draw_rows(struct sk_backend *backend, struct sk_buffer *out, struct sk_buffer *logits,
		      const struct sk_draw *draws);
void sk_cpu_score(struct sk_backend *backend, struct sk_buffer *scores, uint32_t at,
		  const struct sk_buffer *logits, const int32_t *ids);
