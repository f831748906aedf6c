/* Inside a model: what opening fills. model.c owns it, hf_*.c and gguf_config.c read what the file
 * says, bind.c gives every role its tensors. Private to model/ (and its tests).
 */
#pragma once

#include "model/gguf.h"
#include "model/json.h"
#include "model/model.h"
#include "model/names.h"
#include "model/safetensors.h"
#include "model/tensor_index.h"

/* The matrices outside the layers. */
struct sk_model_top {
	struct sk_matrix embedding, final_norm, final_norm_bias, output;
};

struct sk_model {
	struct sk_model_config config;
	char *path;
	enum sk_file_kind kind;

	struct sk_gguf *gguf;           /* SK_FILE_GGUF */
	struct sk_safetensors **shards; /* SK_FILE_HF; one for a file without an index */
	size_t n_shards;
	struct sk_tensor_index index;

	struct sk_model_top top;
	struct sk_model_layer *layers; /* config.n_layers */
	uint32_t *orders[SK_N_ORDERS]; /* the rows of the orders in use; layers share them */
	uint64_t n_weight_bytes, n_parameters;
	uint64_t n_elements[SK_N_DTYPES]; /* by format, to tell the main one */
};

/* Reads config.json. *ret_options says which optional roles the weights must fill. */
int sk_hf_config_read(const json_t *json, const char *source, struct sk_model_config *ret_config,
		      unsigned *ret_options, struct sk_diag *diag);
/* Opens the shards of the directory at model->path and fills the index. */
int sk_hf_files_open(struct sk_model *model, struct sk_diag *diag);

int sk_gguf_config_read(const struct sk_gguf *gguf, struct sk_model_config *ret_config,
			struct sk_diag *diag);

/* The optional roles that the indexed tensors fill, for files that do not say. */
unsigned sk_bind_probe(const struct sk_model *model);
/* Fills top, layers and totals from the index; every tensor must fit its role, and have one. */
int sk_bind(struct sk_model *model, unsigned options, struct sk_diag *diag);

/* Makes a model of an open GGUF file, which is the model's from here on, also on failure. */
int sk_model_open_gguf(struct sk_gguf *gguf, struct sk_model **ret_model, struct sk_diag *diag);
