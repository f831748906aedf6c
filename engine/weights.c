#include "engine/weights.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct packer {
	struct sk_backend *backend;
	const struct sk_model *model;
	enum sk_weight_format format;
	sk_weights_progress *progress;
	void *context;
	struct sk_diag *diag;
	uint64_t n_done, n_total; /* bytes in the file */
	bool is_measuring;        /* packs nothing */
	uint64_t n_bytes;         /* measured */
	int error;                /* the first; later calls do nothing */
};

static uint64_t matrix_bytes(const struct sk_matrix *matrix)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < matrix->n_parts; i++)
		n += matrix->parts[i].n_rows *
		     sk_dtype_row_bytes(matrix->parts[i].tensor->dtype, matrix->n_cols);
	return n;
}

static void failed(struct packer *packer, int err, const struct sk_matrix *matrix)
{
	const char *name = matrix->n_parts ? matrix->parts[0].tensor->name : "a tensor";
	packer->error = sk_diag_fail(packer->diag, -err, "%s: tensor '%s' could not be packed: %s",
				     sk_model_path(packer->model), name,
				     err == -ENOMEM   ? "not enough memory"
				     : err == -ESTALE ? "the weights held are of another model"
						      : strerror(-err));
}

static void told(struct packer *packer, const struct sk_matrix *matrix)
{
	if (packer->is_measuring)
		return;
	sk_model_release(packer->model, matrix);
	packer->n_done += matrix_bytes(matrix);
	if (packer->progress)
		packer->progress(packer->context, packer->n_done, packer->n_total);
}

static struct sk_linear *linear(struct packer *packer, const struct sk_matrix *matrix,
				const struct sk_matrix *bias)
{
	struct sk_linear *packed = NULL;
	uint64_t n_bytes = 0;
	if (packer->error)
		return NULL;
	int err = packer->is_measuring ? sk_backend_linear_bytes(packer->backend, matrix, bias,
								 packer->format, &n_bytes)
				       : sk_backend_pack_linear(packer->backend, matrix, bias,
								packer->format, &packed);
	if (err < 0)
		failed(packer, err, matrix);
	else
		told(packer, matrix);
	packer->n_bytes += n_bytes;
	return packed;
}

static struct sk_norm *norm(struct packer *packer, const struct sk_matrix *weight,
			    const struct sk_matrix *bias)
{
	struct sk_norm *packed = NULL;
	if (packer->error)
		return NULL;
	if (packer->is_measuring) {
		packer->n_bytes += sk_backend_norm_bytes(packer->backend, weight, bias);
		return NULL;
	}
	int err = sk_backend_pack_norm(packer->backend, weight, bias, &packed);
	if (err < 0)
		failed(packer, err, weight);
	else
		told(packer, weight);
	return packed;
}

/* The largest first: each matrix lies in the file's pages, too, while it is packed. */
static void visit(struct packer *packer, struct sk_weights *weights)
{
	const struct sk_model *model = packer->model;
	const struct sk_model_config *config = sk_model_config(model);

	weights->embedding = linear(packer, sk_model_embedding(model), NULL);
	weights->output = config->tied_output ? weights->embedding
					      : linear(packer, sk_model_output(model), NULL);
	for (uint32_t i = 0; i < config->n_layers; i++) {
		const struct sk_model_layer *from = sk_model_layer(model, i);
		struct sk_layer_weights *to = &weights->layers[i];
		to->attn_norm = norm(packer, &from->attn_norm, &from->attn_norm_bias);
		to->qkv = linear(packer, &from->qkv, &from->qkv_bias);
		to->attn_out = linear(packer, &from->attn_out, &from->attn_out_bias);
		to->ffn_norm = norm(packer, &from->ffn_norm, &from->ffn_norm_bias);
		to->ffn_up = linear(packer, &from->ffn_up, &from->ffn_up_bias);
		to->ffn_down = linear(packer, &from->ffn_down, &from->ffn_down_bias);
	}
	weights->final_norm =
		norm(packer, sk_model_final_norm(model), sk_model_final_norm_bias(model));
}

static int run(struct packer *packer, struct sk_weights *weights)
{
	const uint32_t n_layers = sk_model_config(packer->model)->n_layers;
	*weights = (struct sk_weights){.layers = calloc(n_layers, sizeof *weights->layers)};
	if (!weights->layers)
		return sk_diag_fail(packer->diag, ENOMEM, "%s: not enough memory",
				    sk_model_path(packer->model));
	visit(packer, weights);
	if (packer->error)
		sk_weights_finish(weights);
	return packer->error;
}

int sk_weights_bytes(struct sk_backend *backend, const struct sk_model *model,
		     enum sk_weight_format format, uint64_t *ret_n_bytes, struct sk_diag *diag)
{
	struct packer packer = {.backend = backend,
				.model = model,
				.format = format,
				.diag = diag,
				.is_measuring = true};
	struct sk_weights weights;
	int err = run(&packer, &weights);
	if (err < 0)
		return err;
	sk_weights_finish(&weights);
	*ret_n_bytes = packer.n_bytes;
	return 0;
}

int sk_weights_init(struct sk_weights *weights, struct sk_backend *backend,
		    const struct sk_model *model, enum sk_weight_format format,
		    sk_weights_progress *progress, void *context, struct sk_diag *diag)
{
	struct packer packer = {
		.backend = backend,
		.model = model,
		.format = format,
		.progress = progress,
		.context = context,
		.diag = diag,
		.n_total = sk_model_weight_bytes(model),
	};
	return run(&packer, weights);
}

void sk_weights_finish(struct sk_weights *weights)
{
	free(weights->layers);
	*weights = (struct sk_weights){0};
}
