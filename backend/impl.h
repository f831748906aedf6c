/* The contract of a device, for those who implement one. Each operation is specified at the
 * function of the same name in backend/backend.h; this table only says how it is reached.
 *
 * An implementation embeds struct sk_backend first in its own struct and casts back after checking
 * `ops` (see sk_cpu_from() in cpu/): a foreign backend is then a fault that is seen, not a crash.
 * Operations other than the int ones cannot fail; a fault is kept and returned by end_step.
 */
#pragma once

#include "backend/backend.h"

struct sk_backend {
	const struct sk_backend_ops *ops;
	struct sk_backend_shape shape;
	uint32_t n_pages; /* reserved; kept by backend.c, which checks batches against it */
	struct sk_profile *profile; /* kept by backend.c, which takes the time; or NULL */
};

struct sk_backend_ops {
	void (*close)(struct sk_backend *backend);
	const char *(*name)(const struct sk_backend *backend);

	int (*alloc)(struct sk_backend *backend, uint32_t n_rows, uint32_t width,
		     struct sk_buffer **ret_buffer);
	void (*free)(struct sk_backend *backend, struct sk_buffer *buffer);
	int (*pack_linear)(struct sk_backend *backend, const struct sk_matrix *matrix,
			   const struct sk_matrix *bias, enum sk_weight_format format,
			   struct sk_linear **ret_linear);
	int (*pack_norm)(struct sk_backend *backend, const struct sk_matrix *weight,
			 const struct sk_matrix *bias, struct sk_norm **ret_norm);
	int (*linear_bytes)(struct sk_backend *backend, const struct sk_matrix *matrix,
			    const struct sk_matrix *bias, enum sk_weight_format format,
			    uint64_t *ret_n_bytes);
	uint64_t (*norm_bytes)(struct sk_backend *backend, const struct sk_matrix *weight,
			       const struct sk_matrix *bias);
	int (*share_weights)(struct sk_backend *backend, uint64_t n_bytes);
	int (*export_weights)(struct sk_backend *backend, struct sk_shared_weights *ret_shared);
	int (*import_weights)(struct sk_backend *backend, const struct sk_shared_weights *shared);
	/* NULL: nobody can change them. */
	int (*check_weights)(struct sk_backend *backend);
	uint64_t (*weight_bytes)(const struct sk_backend *backend);
	uint64_t (*scratch_bytes)(const struct sk_backend *backend);
	uint64_t (*page_bytes)(const struct sk_backend *backend);
	int (*reserve_pages)(struct sk_backend *backend, uint32_t n_pages);
	/* NULL: not in a file. */
	int (*reserve_pages_in)(struct sk_backend *backend, uint32_t n_pages, int fd);
	void (*clear_pages)(struct sk_backend *backend, const uint32_t *pages, uint32_t n_pages);
	void (*copy_page)(struct sk_backend *backend, uint32_t from, uint32_t to);
	int (*read_page)(struct sk_backend *backend, uint32_t page, void *bytes);
	int (*write_page)(struct sk_backend *backend, uint32_t page, const void *bytes);
	const char *(*page_layout)(const struct sk_backend *backend);

	int (*begin_step)(struct sk_backend *backend, const struct sk_batch *batch);
	int (*end_step)(struct sk_backend *backend);
	void (*embed)(struct sk_backend *backend, struct sk_buffer *out,
		      const struct sk_linear *table);
	void (*norm)(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *in,
		     const struct sk_norm *norm, float eps, bool subtract_mean);
	void (*matmul)(struct sk_backend *backend, struct sk_buffer *out,
		       const struct sk_buffer *in, const struct sk_linear *linear);
	void (*matmul_add)(struct sk_backend *backend, struct sk_buffer *x,
			   const struct sk_buffer *in, const struct sk_linear *linear);
	void (*append)(struct sk_backend *backend, struct sk_buffer *q, const struct sk_buffer *qkv,
		       uint32_t layer);
	void (*attend)(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *q,
		       uint32_t layer);
	void (*activate)(struct sk_backend *backend, struct sk_buffer *out,
			 const struct sk_buffer *in, enum sk_act act);
	void (*gather)(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *x,
		       const uint32_t *rows, uint32_t n_rows);
	void (*score)(struct sk_backend *backend, struct sk_buffer *scores, uint32_t at,
		      const struct sk_buffer *logits, const int32_t *ids);
	/* NULL: it needs no room. */
	int (*reserve_draws)(struct sk_backend *backend, uint32_t width, uint32_t most_recent);
	void (*draw)(struct sk_backend *backend, struct sk_buffer *out, struct sk_buffer *logits,
		     const struct sk_draw *draws);
	/* Waits for what is queued, so that its time can be told. NULL: nothing ever is. */
	void (*wait)(struct sk_backend *backend);
	const float *(*read)(struct sk_backend *backend, const struct sk_buffer *buffer,
			     uint32_t row);
	/* NULL: there is never more to say than the error. */
	const char *(*why)(const struct sk_backend *backend);
};

struct sk_backend_kind {
	const char *name;         /* "cpu", "cuda" */
	const char *layout;       /* begins that of its shared weights; NULL: it shares none */
	bool (*is_present)(void); /* whether this machine has such a device; NULL: every one has */
	int (*open)(const struct sk_backend_options *options, const struct sk_backend_shape *shape,
		    struct sk_backend **ret_backend, struct sk_diag *diag);
};
