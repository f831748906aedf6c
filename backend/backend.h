/* The contract of a device, for those who call it (engine/, kv/). Implementers read backend/impl.h.
 *
 * A backend holds packed weights, a pool of KV pages, and activation buffers, all opaque. A forward
 * pass is a sequence of the operations below between begin_step and end_step; operations are queued
 * in order and may run later, so their faults are reported by sk_backend_end_step() alone.
 *
 * One thread calls a backend: the engine thread. Workers are the backend's own business.
 * Not known here: what a model, a session or a token means.
 */
#pragma once

#include "base/diag.h"
#include "base/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SK_PAGE_TOKENS 32 /* entries a KV page, in every layer */
#define SK_NO_PAGE     UINT32_MAX

struct sk_backend;
struct sk_buffer; /* activations: (n_rows, width) floats, row-major */
struct sk_linear; /* a packed matrix and its bias */
struct sk_norm;   /* a norm's weight and bias */

/* How weights are kept. AUTO keeps what the file has: floats as they are, blocks as 8 or 4 bits. */
enum sk_weight_format {
	SK_WEIGHTS_AUTO,
	SK_WEIGHTS_F32,
	SK_WEIGHTS_BF16,
	SK_WEIGHTS_Q8,
	SK_WEIGHTS_Q4,
};

/* How keys and values are kept. BF16 takes the room of F16, with three bits less, and has the range of F32: F16 ends at
 * 65504, and what is larger becomes infinite. */
enum sk_kv_format {
	SK_KV_F32,
	SK_KV_F16,
	SK_KV_BF16,
};

/* Everything that a device must know of a model's attention before it can reserve a pool. */
struct sk_backend_shape {
	uint32_t n_layers, n_heads, n_kv_heads, head_dim;
	uint32_t n_rot; /* rotated dims of a head, half-split pairs (i, i + n_rot/2),
			   base^(-2i/n_rot) */
	double rope_base;
	enum sk_kv_format kv_format;
	uint32_t max_rows; /* tokens a step, at most */
};

/* A kind of device: the one symbol that an implementation exports (cpu/cpu.h, gpu/gpu.h). */
struct sk_backend_kind;

struct sk_backend_options {
	uint32_t n_threads;       /* CPU: 0 = one for each core that this process may use */
	const char *instructions; /* CPU: NULL = the best there is, else "scalar", "avx2", "avx512",
				     ... */
	bool exact; /* CPU: weights of 8 or 4 bits meet activations of 16 bits, BF16 meets floats. Else
		       activations are rounded to 8 bits, where a block of them stands out to 16,
		       and to BF16, if the machine multiplies these faster */
	uint32_t device; /* GPU: which */
};

/* Whether it is worth trying to open one: this machine has such a device. */
bool sk_backend_is_present(const struct sk_backend_kind *kind);
/* Whether shared weights of this layout are for such a device, in the form that this program gives them. On which of
 * several devices is seen at the import. */
bool sk_backend_knows_layout(const struct sk_backend_kind *kind, const char *layout);

/* -ENODEV and a sentence where this machine has no such device. */
int sk_backend_open(const struct sk_backend_kind *kind, const struct sk_backend_options *options,
		    const struct sk_backend_shape *shape, struct sk_backend **ret_backend,
		    struct sk_diag *diag);
void sk_backend_close(struct sk_backend *backend); /* and all that came from it */
uint32_t sk_backend_max_rows(const struct sk_backend *backend);
const char *sk_backend_name(const struct sk_backend *backend); /* "cpu (avx512-vnni, 2 threads)" */

/* --- Memory --- */

int sk_backend_alloc(struct sk_backend *backend, uint32_t n_rows, uint32_t width,
		     struct sk_buffer **ret_buffer);
void sk_backend_free(struct sk_backend *backend, struct sk_buffer *buffer);

/* Packs a matrix (with an optional bias of shape (n_rows, 1), else absent or NULL). The source is
 * not needed afterwards. -ENOMEM, -ENOTSUP (a format that this device cannot keep). */
int sk_backend_pack_linear(struct sk_backend *backend, const struct sk_matrix *matrix,
			   const struct sk_matrix *bias, enum sk_weight_format format,
			   struct sk_linear **ret_linear);
/* Keeps an embedding table (n_vocab, width) so that rows can be looked up. Where the output matrix
 * is the same table, pack it once with sk_backend_pack_linear() and use it for both: every linear
 * can embed. */
int sk_backend_pack_norm(struct sk_backend *backend, const struct sk_matrix *weight,
			 const struct sk_matrix *bias, struct sk_norm **ret_norm);
uint64_t sk_backend_weight_bytes(const struct sk_backend *backend); /* packed, in all */
/* Activations and everything else that is neither weights nor pages: as reserved, not as touched. */
uint64_t sk_backend_scratch_bytes(const struct sk_backend *backend);

/* --- Weights held apart ---
 *
 * One process packs weights into one allocation of the device and exports it; others import that, then pack the
 * same matrices in the same order: nothing of these is read, and each call gives what lies there already. So all
 * of them use one copy, and a process that starts has its weights at once.
 */

#define SK_LAYOUT_BYTES 64
#define SK_HANDLE_BYTES 64

struct sk_shared_weights {
	char layout
		[SK_LAYOUT_BYTES]; /* how the bytes lie, and on which device: only where the name is the same
					 can they be imported */
	uint64_t n_bytes;          /* of the allocation */
	uint64_t *pieces;          /* (n_pieces) their bytes, in the order of packing; owned */
	uint32_t n_pieces;
	int fd; /* the allocation, to be passed to an importer, who can only read it; owned. -1: `handle` is it */
	uint8_t handle
		[SK_HANDLE_BYTES]; /* importers could write, and lose it with the process that exported it */
	uint64_t checksum; /* of a handle's */
};
void sk_shared_weights_finish(struct sk_shared_weights *shared); /* fd must be -1 in an empty one */

/* What packing takes of an allocation. 0 or what sk_backend_pack_linear() would say. */
int sk_backend_linear_bytes(struct sk_backend *backend, const struct sk_matrix *matrix,
			    const struct sk_matrix *bias, enum sk_weight_format format,
			    uint64_t *ret_n_bytes);
uint64_t sk_backend_norm_bytes(struct sk_backend *backend, const struct sk_matrix *weight,
			       const struct sk_matrix *bias);
/* Before anything is packed: what will be goes into one allocation of so many bytes. -ENOMEM, -ENOTSUP. */
int sk_backend_share_weights(struct sk_backend *backend, uint64_t n_bytes);
/* After all is packed, once: nothing is written there any more. Filled by the callee, finished by the caller; it lasts
 * without the backend only where it has an fd. */
int sk_backend_export_weights(struct sk_backend *backend, struct sk_shared_weights *ret_shared);
/* Before anything is packed; `shared` stays the caller's, and may go afterwards. -ENOTSUP another layout or device,
 * -EBADMSG (no allocation of that size, a wrong checksum), -ENOMEM. Then packing says -ESTALE where the matrix is not
 * the one that was packed there. */
int sk_backend_import_weights(struct sk_backend *backend, const struct sk_shared_weights *shared);
/* Whether shared weights are still as they were exported: 0, -EBADMSG, or a fault of the device. Between steps. */
int sk_backend_check_weights(struct sk_backend *backend);

/* The pool of KV pages, all layers of one page together. Pages start zeroed. Reserve once. */
uint64_t sk_backend_page_bytes(const struct sk_backend *backend);
int sk_backend_reserve_pages(struct sk_backend *backend, uint32_t n_pages);
/* The same in the first bytes of a file (a memfd), as they are there: pages that outlive the process. The file is the
 * caller's, holds n_pages * page_bytes, and does not shrink. -ENOTSUP: the device's memory is no file. */
int sk_backend_reserve_pages_in(struct sk_backend *backend, uint32_t n_pages, int fd);
void sk_backend_clear_pages(struct sk_backend *backend, const uint32_t *pages, uint32_t n_pages);
void sk_backend_copy_page(struct sk_backend *backend, uint32_t from, uint32_t to);
/* A page's bytes (page_bytes), out of the pool and into it. Another thread than the engine's may call these
 * two, for pages that no step and no other call touches meanwhile. -EIO: the device failed, and what is there now,
 * in `bytes` or in the page, is of no use. */
int sk_backend_read_page(struct sk_backend *backend, uint32_t page, void *bytes);
int sk_backend_write_page(struct sk_backend *backend, uint32_t page, const void *bytes);
/* How those bytes lie, at most 31 characters: only where the name is the same can they be written. */
const char *sk_backend_page_layout(const struct sk_backend *backend);

/* --- A step --- */

/* One token of a step. Entries of a session are numbered 0, 1, ... from its first token; an entry's
 * page is entry / SK_PAGE_TOKENS of its session, its slot entry % SK_PAGE_TOKENS. The token sees
 * the entries [0, n_sink) and [first, entry]; n_sink <= first. See kv/window.h, which computes
 * them.
 *
 * Rotary positions (design section 2.1): the key is rotated at text position origin + entry, once.
 * Entries from `first` on are scored with the query rotated at origin + entry, sinks with the query
 * rotated at origin + live, where live = n_sink + (entry - first) is the query's place in the
 * cache. */
struct sk_row {
	uint64_t entry;
	uint64_t first;
	uint32_t n_sink;
	int32_t id; /* the token, for embed */
};

/* One session's rows in a step: contiguous, entries ascending by one. */
struct sk_span {
	uint32_t row, n_rows;       /* step rows [row, row + n_rows) */
	uint64_t origin;            /* text position of entry 0 */
	const uint32_t *sink_pages; /* pages that hold entries [0, n_sink) of every row */
	uint32_t n_sink_pages;
	const uint32_t *pages; /* page of entry e >= first: pages[e / SK_PAGE_TOKENS - page0] */
	uint32_t n_pages;
	uint64_t page0;
};

struct sk_batch {
	uint32_t n_rows, n_spans;
	const struct sk_row *rows;
	const struct sk_span *spans;
};

/* The batch, and what it points to, stay untouched until end_step. -EINVAL where it breaks a rule
 * above (more rows than max_rows, a page past the pool): then nothing is queued. */
int sk_backend_begin_step(struct sk_backend *backend, const struct sk_batch *batch);
/* Waits until all is done. A fault of the device: -EIO, and every session of the batch is lost. */
int sk_backend_end_step(struct sk_backend *backend);

/* out = rows of `table` by the batch's ids; ids are < its n_rows (checked by begin_step's caller).
 */
void sk_backend_embed(struct sk_backend *backend, struct sk_buffer *out,
		      const struct sk_linear *table);

/* out = norm(in) over each of the batch's rows: with subtract_mean layer norm, without RMS norm. */
void sk_backend_norm(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *in,
		     const struct sk_norm *norm, float eps, bool subtract_mean);

/* out = in W^T + b */
void sk_backend_matmul(struct sk_backend *backend, struct sk_buffer *out,
		       const struct sk_buffer *in, const struct sk_linear *linear);
/* x += in W^T + b */
void sk_backend_matmul_add(struct sk_backend *backend, struct sk_buffer *x,
			   const struct sk_buffer *in, const struct sk_linear *linear);

/* Reads (n_rows, Q + K + V) from `qkv`, writes each row's rotated key and its value to its page in
 * `layer`, and leaves in `q` (n_rows, 2 * n_heads * head_dim) the query rotated at the text
 * position, then the query for the sinks. */
void sk_backend_append(struct sk_backend *backend, struct sk_buffer *q, const struct sk_buffer *qkv,
		       uint32_t layer);
/* out (n_rows, n_heads * head_dim) = softmax(q k / sqrt(head_dim)) v over what each row sees. All
 * rows of the step have been appended before. */
void sk_backend_attend(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *q,
		       uint32_t layer);

/* The MLP's nonlinearity, (n_rows, width) -> out; SK_ACT_SWIGLU reads (n_rows, 2 width), gate
 * first. */
enum sk_act {
	SK_ACT_GELU, /* exact, erf */
	SK_ACT_GELU_TANH,
	SK_ACT_SWIGLU,
};
void sk_backend_activate(struct sk_backend *backend, struct sk_buffer *out,
			 const struct sk_buffer *in, enum sk_act act);

/* Gathers `rows` of the batch from x: out (n_rows, width). What follows works on those rows alone:
 * after it, operations take their row count from this call until the next gather or the step's end. */
void sk_backend_gather(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *x,
		       const uint32_t *rows, uint32_t n_rows);

/* scores (n, 1) from row `at` on = log softmax of each row of logits, at that row's id: natural
 * logarithms; NaN where a logit is NaN or none is finite. One id for each row at work, copied. */
void sk_backend_score(struct sk_backend *backend, struct sk_buffer *scores, uint32_t at,
		      const struct sk_buffer *logits, const int32_t *ids);

/* How to draw a token from a row of logits: at temperature 0 the likeliest; else, in this order: repetition penalty,
 * temperature, top-k, top-p (on what top-k left, renormalised), min-p (against the likeliest), and one draw. Of equals
 * the lower id is the likelier. A token that is 2^30 times less likely than the likeliest, after temperature, is
 * never drawn. */
struct sk_draw {
	uint32_t
		n_ids; /* that may be drawn, at most the row's width: the rest are padding that no token has, though
			   probabilities count it */
	float temperature;
	uint32_t top_k;        /* 0: all */
	float top_p, min_p;    /* 1, 0: all */
	float repeat_penalty;  /* 1: off. A logit above 0 is divided by it, another multiplied, */
	const int32_t *recent; /* where its id is among these (n_recent), each below n_ids */
	uint32_t n_recent;
	double random; /* in [0, 1) */
};

struct sk_drawn {
	int32_t id;    /* -1: a logit is no number, or none is finite */
	float logprob; /* natural log of its probability at temperature 1, without penalty */
};

#define SK_DRAWN_WIDTH 2 /* floats: what a drawn token takes of a buffer */

/* Once, before the first: room to draw from rows of that width, with so many recent ids at most. -ENOMEM. */
int sk_backend_reserve_draws(struct sk_backend *backend, uint32_t width, uint32_t most_recent);
/* For each row at work: out (n, SK_DRAWN_WIDTH) = what draws[row] drew from logits. The draws and what they point to
 * stay untouched until end_step. */
void sk_backend_draw(struct sk_backend *backend, struct sk_buffer *out, struct sk_buffer *logits,
		     const struct sk_draw *draws);
/* After end_step, as sk_backend_read(); where that fails the id is -1. */
struct sk_drawn sk_backend_drawn(struct sk_backend *backend, const struct sk_buffer *out,
				 uint32_t row);

/* After end_step: the floats of row `row`, valid until the next step begins. NULL: the device failed. What another operation of
 * the step has read a device may have kept to itself, where it does several at once: then the floats are old ones. */
const float *sk_backend_read(struct sk_backend *backend, const struct sk_buffer *buffer,
			     uint32_t row);

/* What failed, in a few words, where the last step that did not end well ended with -EIO; "" where nobody knows. */
const char *sk_backend_why(const struct sk_backend *backend);

/* --- Where the time goes --- */

enum sk_op {
	SK_OP_EMBED,
	SK_OP_NORM,
	SK_OP_MATMUL, /* and matmul_add */
	SK_OP_APPEND,
	SK_OP_ATTEND,
	SK_OP_ACTIVATE,
	SK_OP_GATHER,
	SK_OP_SCORE,
	SK_OP_DRAW,
	SK_N_OPS,
};

const char *sk_op_name(enum sk_op op); /* "matmul" */

struct sk_profile {
	uint64_t ns[SK_N_OPS];
};

/* From now on adds the time of every operation to `profile` (the caller's, until NULL is given). It
 * costs two readings of the clock an operation, and a device that queues waits after each: so it is
 * off unless somebody asked. Between steps only. */
void sk_backend_set_profile(struct sk_backend *backend, struct sk_profile *profile);
