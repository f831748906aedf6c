/* A model's weights, packed into a backend. They belong to the backend and go with it.
 */
#pragma once

#include "backend/backend.h"
#include "model/model.h"

struct sk_layer_weights {
	struct sk_norm *attn_norm, *ffn_norm;
	struct sk_linear *qkv;      /* ((n_heads + 2 n_kv_heads) * head_dim, n_embd) */
	struct sk_linear *attn_out; /* (n_embd, n_heads * head_dim) */
	struct sk_linear *ffn_up;   /* (n_ff, n_embd), or gate over up (2 n_ff, n_embd) */
	struct sk_linear *ffn_down; /* (n_embd, n_ff) */
};

struct sk_weights {
	struct sk_linear *embedding; /* (n_vocab, n_embd) */
	struct sk_linear *output;    /* (n_vocab, n_embd); the same as embedding where tied */
	struct sk_norm *final_norm;
	struct sk_layer_weights *layers; /* n_layers */
};

/* Told after every matrix; may be NULL. */
typedef void sk_weights_progress(void *context, uint64_t n_bytes_done, uint64_t n_bytes_total);

/* What they take as one allocation of the device (sk_backend_share_weights). 0, -ENOTSUP and a sentence. */
int sk_weights_bytes(struct sk_backend *backend, const struct sk_model *model,
		     enum sk_weight_format format, uint64_t *ret_n_bytes, struct sk_diag *diag);

/* 0, -ENOMEM or -ENOTSUP and a sentence. Of a backend that has imported weights it only looks them up: -ESTALE where
 * these are another model's. */
int sk_weights_init(struct sk_weights *weights, struct sk_backend *backend,
		    const struct sk_model *model, enum sk_weight_format format,
		    sk_weights_progress *progress, void *context, struct sk_diag *diag);
void sk_weights_finish(struct sk_weights *weights);
