/* The forward pass: GPT-NeoX and Llama, written once over backend operations (backend/backend.h).
 *
 * Holds the packed weights and the activation buffers; knows nothing of sessions or time. A batch
 * says which tokens of which timelines run and what each sees (kv/window.h); logits come out for
 * the rows that are asked for, and scores: log-probabilities of given tokens, as many as there are
 * rows. Engine thread only (tests: one thread).
 */
#pragma once

#include "engine/weights.h"

struct sk_forward {
	struct sk_backend *backend;
	struct sk_model_config config;
	struct sk_weights weights;
	uint32_t max_rows, max_logits;
	struct sk_buffer *x;   /* (max_rows, n_embd): the residual stream */
	struct sk_buffer *h;   /* (max_rows, n_embd): normed */
	struct sk_buffer *qkv; /* (max_rows, (n_heads + 2 n_kv_heads) * head_dim) */
	struct sk_buffer *q; /* (max_rows, 2 * n_heads * head_dim): rotated for window and sinks */
	struct sk_buffer *att;    /* (max_rows, n_heads * head_dim) */
	struct sk_buffer *up;     /* (max_rows, n_ff) or gate and up (max_rows, 2 n_ff) */
	struct sk_buffer *act;    /* (max_rows, n_ff) */
	struct sk_buffer *last;   /* (max_logits, n_embd): rows whose logits are wanted */
	struct sk_buffer *logits; /* (max_logits, n_vocab) */
	struct sk_buffer *scores; /* (max_rows, 1) */
	struct sk_buffer *drawn;  /* (max_logits, SK_DRAWN_WIDTH) */
	int32_t *score_ids;       /* (max_logits) */
	uint32_t *score_rows;     /* (max_logits) */
};

/* A token whose log-probability is wanted, given everything up to a row of the batch. */
struct sk_score {
	uint32_t row;
	int32_t id; /* below n_vocab */
};

/* The shape that a backend must be opened with for this model. */
struct sk_backend_shape sk_forward_shape(const struct sk_model_config *config,
					 enum sk_kv_format kv_format, uint32_t max_rows);

/* Packs the weights and allocates the buffers; the backend must have been opened with
 * sk_forward_shape() and stays the caller's. Logits for at most max_logits rows a step. */
int sk_forward_init(struct sk_forward *forward, struct sk_backend *backend,
		    const struct sk_model *model, enum sk_weight_format format, uint32_t max_logits,
		    sk_weights_progress *progress, void *context, struct sk_diag *diag);
void sk_forward_finish(struct sk_forward *forward);

/* Runs the batch: keys and values of all rows are appended to their pages, and the logits of batch
 * rows rows[0..n_rows), what draws[0..n_rows) (or NULL) drew from them, and the scores scores[0..n_scores), at most
 * max_rows, can be read until the next run. 0, -EINVAL (a batch against the rules, nothing happened), -EIO (the device
 * failed). */
int sk_forward_run(struct sk_forward *forward, const struct sk_batch *batch, const uint32_t *rows,
		   const struct sk_draw *draws, uint32_t n_rows, const struct sk_score *scores,
		   uint32_t n_scores);
const float *sk_forward_logits(struct sk_forward *forward,
			       uint32_t index); /* (n_vocab) of rows[index] */
struct sk_drawn sk_forward_drawn(struct sk_forward *forward, uint32_t index); /* by draws[index] */
/* Natural log of the probability of scores[index].id; NaN where the logits are no numbers. */
float sk_forward_score(struct sk_forward *forward, uint32_t index);
