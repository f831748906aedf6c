/* Opening a model: which kind of file it is, then configuration, tensors and roles in that order.
 */
#include "model/model.h"
#include "model/mapped_file.h"

#include "base/cleanup.h"
#include "model/model_impl.h"
#include "model/printable.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static struct sk_model *create(const char *path, enum sk_file_kind kind, struct sk_diag *diag)
{
	struct sk_model *model = calloc(1, sizeof *model);
	if (model)
		model->path = strdup(path);
	if (!model || !model->path) {
		free(model);
		sk_diag_fail(diag, ENOMEM, "%s: no memory to open it", path);
		return NULL;
	}
	model->kind = kind;
	return model;
}

/* Names the model after the last part of its path, resolved so that "." has a name too. */
static void name_after_path(struct sk_model *model)
{
	sk_autofree char *real = realpath(model->path, NULL);
	const char *slash = real ? strrchr(real, '/') : NULL;
	const char *name = slash && slash[1] ? slash + 1 : model->path;
	struct sk_printable words;
	snprintf(model->config.name, sizeof model->config.name, "%s",
		 sk_printable(&words, name, strlen(name)));
}

static int open_directory(struct sk_model *model, struct sk_diag *diag)
{
	sk_autofree char *source = NULL;
	sk_autojson json_t *json = NULL;
	unsigned options;

	if (asprintf(&source, "%s/config.json", model->path) < 0) {
		source = NULL;
		return sk_diag_fail(diag, ENOMEM, "%s: no memory to open it", model->path);
	}
	if (access(source, F_OK) < 0)
		return sk_diag_fail(
			diag, ENOENT,
			"%s: has no config.json; a model is a directory with config.json and "
			"model.safetensors, or a .gguf file",
			model->path);
	int r;
	if ((r = sk_json_parse_file(source, &json, diag)) < 0 ||
	    (r = sk_hf_config_read(json, source, &model->config, &options, diag)) < 0 ||
	    (r = sk_hf_files_open(model, diag)) < 0)
		return r;
	name_after_path(model);
	return sk_bind(model, options, diag);
}

static int bind_gguf(struct sk_model *model, struct sk_diag *diag)
{
	struct sk_gguf_string name;
	int r = sk_gguf_config_read(model->gguf, &model->config, diag);
	for (size_t i = 0; r == 0 && i < sk_gguf_n_tensors(model->gguf); i++)
		r = sk_tensor_index_add(&model->index, sk_gguf_tensor_at(model->gguf, i),
					model->path, diag);
	if (r == 0)
		r = sk_tensor_index_seal(&model->index, diag);
	if (r < 0)
		return r;
	const struct sk_tensor *scaling = sk_gguf_tensor(model->gguf, "rope_freqs.weight");
	if (scaling)
		return sk_diag_fail(
			diag, ENOTSUP,
			"%s: tensor '%s' asks for a rotary scaling that is not supported",
			model->path, scaling->name);

	name_after_path(model);
	if (sk_gguf_get_string(model->gguf, "general.name", &name) == 0 && name.n_bytes > 0) {
		struct sk_printable words;
		snprintf(model->config.name, sizeof model->config.name, "%s",
			 sk_printable(&words, name.text, name.n_bytes));
	}
	return sk_bind(model, sk_bind_probe(model), diag);
}

int sk_model_open_gguf(struct sk_gguf *gguf, struct sk_model **ret_model, struct sk_diag *diag)
{
	struct sk_model *model = create(sk_gguf_path(gguf), SK_FILE_GGUF, diag);
	if (!model) {
		sk_gguf_close(gguf);
		return -ENOMEM;
	}
	model->gguf = gguf;
	int r = bind_gguf(model, diag);
	if (r < 0) {
		sk_model_close(model);
		return r;
	}
	*ret_model = model;
	return 0;
}

static bool ends_with(const char *text, const char *ending)
{
	size_t n = strlen(text), n_ending = strlen(ending);
	return n >= n_ending && strcmp(text + n - n_ending, ending) == 0;
}

int sk_model_open(const char *path, struct sk_model **ret_model, struct sk_diag *diag)
{
	struct stat st;
	if (stat(path, &st) < 0) {
		int error = errno;
		return sk_diag_fail(diag, error, "%s: cannot be opened: %s", path, strerror(error));
	}
	if (!S_ISDIR(st.st_mode)) {
		struct sk_gguf *gguf;
		if (ends_with(path, ".safetensors"))
			return sk_diag_fail(
				diag, EINVAL,
				"%s: is one file of a model; give the directory that holds it "
				"and config.json",
				path);
		int r = sk_gguf_open(path, &gguf, diag);
		return r < 0 ? r : sk_model_open_gguf(gguf, ret_model, diag);
	}

	struct sk_model *model = create(path, SK_FILE_HF, diag);
	if (!model)
		return -ENOMEM;
	int r = open_directory(model, diag);
	if (r < 0) {
		sk_model_close(model);
		return r;
	}
	*ret_model = model;
	return 0;
}

void sk_model_close(struct sk_model *model)
{
	if (!model)
		return;
	for (unsigned i = 0; i < SK_N_ORDERS; i++)
		free(model->orders[i]);
	free(model->layers);
	sk_tensor_index_finish(&model->index);
	for (size_t i = 0; i < model->n_shards; i++)
		sk_safetensors_close(model->shards[i]);
	free(model->shards);
	sk_gguf_close(model->gguf);
	free(model->path);
	free(model);
}

const struct sk_model_config *sk_model_config(const struct sk_model *model)
{
	return &model->config;
}

const char *sk_model_path(const struct sk_model *model)
{
	return model->path;
}

uint64_t sk_model_weight_bytes(const struct sk_model *model)
{
	return model->n_weight_bytes;
}

uint64_t sk_model_n_parameters(const struct sk_model *model)
{
	return model->n_parameters;
}

enum sk_dtype sk_model_main_dtype(const struct sk_model *model)
{
	unsigned most = 0;
	for (unsigned i = 1; i < SK_N_DTYPES; i++) {
		if (model->n_elements[i] > model->n_elements[most])
			most = i;
	}
	return (enum sk_dtype)most;
}

const struct sk_model_layer *sk_model_layer(const struct sk_model *model, uint32_t layer)
{
	return &model->layers[layer];
}

const struct sk_matrix *sk_model_embedding(const struct sk_model *model)
{
	return &model->top.embedding;
}

const struct sk_matrix *sk_model_final_norm(const struct sk_model *model)
{
	return &model->top.final_norm;
}

const struct sk_matrix *sk_model_final_norm_bias(const struct sk_model *model)
{
	return &model->top.final_norm_bias;
}

const struct sk_matrix *sk_model_output(const struct sk_model *model)
{
	return &model->top.output;
}

const struct sk_gguf *sk_model_gguf(const struct sk_model *model)
{
	return model->gguf;
}

const char *sk_model_directory(const struct sk_model *model)
{
	return model->kind == SK_FILE_HF ? model->path : NULL;
}

void sk_model_release(const struct sk_model *model, const struct sk_matrix *matrix)
{
	(void)model;
	for (uint32_t i = 0; i < matrix->n_parts; i++) {
		const struct sk_tensor *tensor = matrix->parts[i].tensor;
		sk_mapped_file_release(tensor->data,
				       tensor->n_rows *
					       sk_dtype_row_bytes(tensor->dtype, tensor->n_cols));
	}
}
