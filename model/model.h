/* A model file, opened and checked: its configuration and, for every role in the architecture, where
 * the weights lie. Opening reads headers only; weights are views into mapped files until a backend
 * packs them. Formats: a Hugging Face directory (config.json, model.safetensors or shards with
 * model.safetensors.index.json) and a GGUF file (versions 2 and 3).
 *
 * One thread opens; afterwards read-only and safe from any. Views live until sk_model_close().
 * Not known here: tokens and text (text/ reads the tokenizer through the two accessors below), devices.
 *
 * Every fault of a file ends sk_model_open() with one sentence that names the file, the tensor and
 * the reason, before any weight is loaded: -ENOENT, -EINVAL (malformed), -ENOTSUP (well-formed but
 * not supported: an architecture, rope scaling, a format), or another -errno from opening.
 */
#pragma once

#include "base/tensor.h"
#include "model/config.h"

/* Matrices are (outputs, inputs). Biases and norms are (n, 1), absent where the model has none. */
struct sk_model_layer {
	struct sk_matrix attn_norm, attn_norm_bias; /* (n_embd, 1) */
	struct sk_matrix
		qkv; /* ((n_heads + 2 n_kv_heads) * head_dim, n_embd): all Q, all K, all V, */
	struct sk_matrix
		qkv_bias; /*  heads in order, rotary dims in half-split order, whatever the file had */
	struct sk_matrix attn_out, attn_out_bias; /* (n_embd, n_heads * head_dim) */
	struct sk_matrix ffn_norm, ffn_norm_bias; /* (n_embd, 1) */
	struct sk_matrix ffn_up,
		ffn_up_bias; /* (n_ff, n_embd), or gate over up: (2 n_ff, n_embd) */
	struct sk_matrix ffn_down, ffn_down_bias; /* (n_embd, n_ff) */
};

struct sk_model;
struct sk_gguf;

int sk_model_open(const char *path, struct sk_model **ret_model, struct sk_diag *diag);
void sk_model_close(struct sk_model *model);

const struct sk_model_config *sk_model_config(const struct sk_model *model);
const char *sk_model_path(const struct sk_model *model);
/* Bytes of all weights as they lie in the file(s), for progress and reports. */
uint64_t sk_model_weight_bytes(const struct sk_model *model);
uint64_t sk_model_n_parameters(const struct sk_model *model);
/* The format that most weights have, e.g. SK_DTYPE_Q4_1: what a person would call the file. */
enum sk_dtype sk_model_main_dtype(const struct sk_model *model);
/* Where there are biases beside Llama matrices (attention_bias), they are in the layer like NeoX's. */
const struct sk_model_layer *sk_model_layer(const struct sk_model *model, uint32_t layer);
const struct sk_matrix *sk_model_embedding(const struct sk_model *model);  /* (n_vocab, n_embd) */
const struct sk_matrix *sk_model_final_norm(const struct sk_model *model); /* (n_embd, 1) */
const struct sk_matrix *
sk_model_final_norm_bias(const struct sk_model *model); /* (n_embd, 1) or absent */
const struct sk_matrix *
sk_model_output(const struct sk_model *model); /* (n_vocab, n_embd); the embedding if tied */
/* Once a matrix is packed: the file's pages that hold it leave this process's memory until they are read. */
void sk_model_release(const struct sk_model *model, const struct sk_matrix *matrix);

/* For text/: exactly one of the two is not NULL. */
const struct sk_gguf *sk_model_gguf(const struct sk_model *model); /* metadata with the tokenizer */
const char *sk_model_directory(const struct sk_model *model);      /* holds tokenizer.json */
