/* Which tensors play which role: a table for each architecture and kind of file. The tables are
 * data only; bind.c looks the tensors up and checks their shapes.
 */
#pragma once

#include "model/config.h"

#include <stddef.h>

/* A dimension that a tensor must have, out of the configuration. */
enum sk_dim {
	SK_DIM_ONE,
	SK_DIM_EMBD,
	SK_DIM_VOCAB,
	SK_DIM_Q,   /* n_heads * head_dim */
	SK_DIM_KV,  /* n_kv_heads * head_dim */
	SK_DIM_QKV, /* Q + 2 KV */
	SK_DIM_FF,
	SK_N_DIMS,
};

/* How rows lie in the file. */
enum sk_order {
	SK_ORDER_PLAIN,
	SK_ORDER_NEOX_QKV,  /* head by head: its queries, its keys, its values */
	SK_ORDER_PAIRED_Q,  /* rotary dims i and i + D/2 of a head side by side */
	SK_ORDER_PAIRED_KV, /* the same for the key heads */
	SK_N_ORDERS,
};

/* Roles that a model may do without; a set of them is an unsigned. */
enum {
	SK_HAS_QKV_BIAS = 1,
	SK_HAS_OUT_BIAS = 2,
	SK_HAS_UP_BIAS = 4,
	SK_HAS_DOWN_BIAS = 8,
	SK_HAS_OUTPUT = 16, /* absent: the embedding serves as output */
};

struct sk_role {
	size_t offset;   /* of its struct sk_matrix, in sk_model_layer or sk_model_top */
	unsigned option; /* 0: every model has it */
	enum sk_dim cols;
	struct {
		const char *name; /* behind the layer's prefix; NULL ends the parts */
		enum sk_dim rows;
		enum sk_order order;
	} parts[3];
};

/* Both lists end with a role without parts. A layer's tensor is called "PREFIX<layer>.NAME". */
struct sk_names {
	const char *layer_prefix;
	const struct sk_role *top, *layer;
};

enum sk_file_kind {
	SK_FILE_HF,
	SK_FILE_GGUF,
	SK_N_FILE_KINDS,
};

const struct sk_names *sk_names(enum sk_arch arch, enum sk_file_kind kind);

/* Buffers that old files carry beside the weights, made anew from the configuration. */
bool sk_name_is_buffer(const char *name);
