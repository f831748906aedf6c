/* What a model's architecture is, on a page: every shape that the forward pass needs.
 * Filled from config.json (Hugging Face) or GGUF metadata, checked before any weight is looked at.
 */
#pragma once

#include "base/diag.h"

#include <stdbool.h>
#include <stdint.h>

enum sk_arch {
	SK_ARCH_NEOX,  /* GPT-NeoX, Pythia: layer norm, partial rotary, GELU, biases */
	SK_ARCH_LLAMA, /* Llama: RMS norm, full rotary, SwiGLU, grouped queries */
};

enum sk_activation {
	SK_GELU_ERF,
	SK_GELU_TANH,
	SK_SWIGLU, /* silu(gate) * up; the `up` matrix is gate stacked over up */
};

struct sk_model_config {
	enum sk_arch arch;
	enum sk_activation activation;
	uint32_t n_vocab;   /* rows of the embedding, at least the tokenizer's ids */
	uint32_t n_context; /* positions seen in training: the limit of a dense session */
	uint32_t n_layers;
	uint32_t n_embd;     /* width of the residual stream */
	uint32_t n_heads;    /* query heads */
	uint32_t n_kv_heads; /* key/value heads, divides n_heads */
	uint32_t head_dim;
	uint32_t n_rot; /* first dims of a head that are rotated, in half-split pairs; even */
	uint32_t n_ff;  /* width of the MLP */
	double rope_base;
	float norm_eps;
	bool parallel_residual; /* NeoX: x + attn(norm1(x)) + mlp(norm2(x)) */
	bool tied_output;       /* the output matrix is the embedding */
	int32_t bos_id, eos_id; /* -1: none. The tokenizer may know better */
	char name[128];         /* for people: "SmolLM2 135M", or the folder's name */
};

/* Checks that the shapes fit each other; `source` (a path) opens the sentence. 0 or -EINVAL. */
int sk_model_config_check(const struct sk_model_config *config, const char *source,
			  struct sk_diag *diag);

/* Values of keys and values that a cached token needs in all layers together (for both K and V). */
static inline uint64_t sk_model_config_kv_floats(const struct sk_model_config *c)
{
	return 2ull * c->n_layers * c->n_kv_heads * c->head_dim;
}
