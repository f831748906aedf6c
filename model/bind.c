/* Roles to tensors: each name of the architecture's tables is looked up and its shape checked
 * against the configuration; then nothing may be left over, for a tensor that is not understood is
 * a model that would be computed wrongly.
 */
#include "model/model_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t dim(const struct sk_model_config *c, enum sk_dim which)
{
	switch (which) {
	case SK_DIM_EMBD:
		return c->n_embd;
	case SK_DIM_VOCAB:
		return c->n_vocab;
	case SK_DIM_Q:
		return c->n_heads * c->head_dim;
	case SK_DIM_KV:
		return c->n_kv_heads * c->head_dim;
	case SK_DIM_QKV:
		return (c->n_heads + 2 * c->n_kv_heads) * c->head_dim;
	case SK_DIM_FF:
		return c->n_ff;
	default:
		return 1;
	}
}

/* Row i of what the model wants is row rows[i] of what the file has. */
static void fill_order(const struct sk_model_config *c, enum sk_order order, uint32_t *rows,
		       uint32_t n_rows)
{
	uint32_t n_dims = c->head_dim, half = n_dims / 2, n_q = c->n_heads * n_dims;
	for (uint32_t i = 0; i < n_rows; i++) {
		if (order == SK_ORDER_NEOX_QKV) {
			uint32_t which = i / n_q, head = i % n_q / n_dims;
			rows[i] = (head * 3 + which) * n_dims + i % n_dims;
		} else {
			uint32_t head = i / n_dims, d = i % n_dims;
			rows[i] = head * n_dims + d % half * 2 + d / half;
		}
	}
}

static int need_order(struct sk_model *model, enum sk_order order, uint32_t n_rows,
		      struct sk_diag *diag)
{
	if (order == SK_ORDER_PLAIN || model->orders[order])
		return 0;
	uint32_t *rows = calloc(n_rows, sizeof *rows);
	if (!rows)
		return sk_diag_fail(diag, ENOMEM, "%s: no memory for the order of its rows",
				    model->path);
	fill_order(&model->config, order, rows, n_rows);
	model->orders[order] = rows;
	return 0;
}

struct name {
	char text[96];
};

/* `layer` is -1 for a role outside the layers. */
static const char *part_name(const struct sk_model *model, const struct sk_role *role,
			     unsigned part, long layer, struct name *out)
{
	if (layer < 0)
		return role->parts[part].name;
	snprintf(out->text, sizeof out->text, "%s%ld.%s",
		 sk_names(model->config.arch, model->kind)->layer_prefix, layer,
		 role->parts[part].name);
	return out->text;
}

static int bind_part(struct sk_model *model, const struct sk_role *role, unsigned part, long layer,
		     struct sk_matrix *matrix, struct sk_diag *diag)
{
	struct name buffer;
	const char *name = part_name(model, role, part, layer, &buffer);
	struct sk_tensor_entry *entry = sk_tensor_index_find(&model->index, name);
	uint32_t n_rows = dim(&model->config, role->parts[part].rows);
	uint32_t n_cols = dim(&model->config, role->cols);
	enum sk_order order = role->parts[part].order;

	if (!entry)
		return sk_diag_fail(diag, EINVAL, "%s: tensor '%s' is missing", model->path, name);
	const struct sk_tensor *tensor = entry->tensor;
	if (tensor->n_rows != n_rows || tensor->n_cols != n_cols)
		return sk_diag_fail(
			diag, EINVAL,
			"%s: tensor '%s' is %llu x %llu where the configuration wants %u x %u",
			entry->source, name, (unsigned long long)tensor->n_rows,
			(unsigned long long)tensor->n_cols, n_rows, n_cols);
	int r = need_order(model, order, n_rows, diag);
	if (r < 0)
		return r;

	entry->is_used = true;
	matrix->parts[matrix->n_parts++] = (struct sk_matrix_part){
		.tensor = tensor,
		.rows = model->orders[order],
		.n_rows = n_rows,
	};
	matrix->n_rows += n_rows;
	matrix->n_cols = n_cols;
	uint64_t n_elements = (uint64_t)n_rows * n_cols;
	model->n_parameters += n_elements;
	model->n_elements[tensor->dtype] += n_elements;
	model->n_weight_bytes += n_rows * (uint64_t)sk_dtype_row_bytes(tensor->dtype, n_cols);
	return 0;
}

static int bind_roles(struct sk_model *model, const struct sk_role *roles, unsigned options,
		      long layer, void *base, struct sk_diag *diag)
{
	for (const struct sk_role *role = roles; role->parts[0].name; role++) {
		if (role->option && !(options & role->option))
			continue;
		struct sk_matrix *matrix = (struct sk_matrix *)((char *)base + role->offset);
		for (unsigned part = 0; part < 3 && role->parts[part].name; part++) {
			int r = bind_part(model, role, part, layer, matrix, diag);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* A tied model's file may still hold the output matrix, which is then passed over. */
static void tie_output(struct sk_model *model, const struct sk_names *names)
{
	model->top.output = model->top.embedding;
	for (const struct sk_role *role = names->top; role->parts[0].name; role++) {
		if (role->option != SK_HAS_OUTPUT)
			continue;
		struct sk_tensor_entry *entry =
			sk_tensor_index_find(&model->index, role->parts[0].name);
		if (entry)
			entry->is_used = true;
	}
}

unsigned sk_bind_probe(const struct sk_model *model)
{
	const struct sk_names *names = sk_names(model->config.arch, model->kind);
	const struct sk_role *lists[] = {names->top, names->layer};
	unsigned options = 0;
	for (unsigned list = 0; list < 2; list++) {
		for (const struct sk_role *role = lists[list]; role->parts[0].name; role++) {
			struct name buffer;
			const char *name = part_name(model, role, 0, list == 0 ? -1 : 0, &buffer);
			if (sk_tensor_index_find(&model->index, name))
				options |= role->option;
		}
	}
	return options;
}

int sk_bind(struct sk_model *model, unsigned options, struct sk_diag *diag)
{
	const struct sk_names *names = sk_names(model->config.arch, model->kind);
	uint32_t n_layers = model->config.n_layers;

	model->layers = calloc(n_layers, sizeof *model->layers);
	if (!model->layers)
		return sk_diag_fail(diag, ENOMEM, "%s: no memory for %u layers", model->path,
				    n_layers);
	int r = bind_roles(model, names->top, options, -1, &model->top, diag);
	for (uint32_t i = 0; r == 0 && i < n_layers; i++)
		r = bind_roles(model, names->layer, options, i, &model->layers[i], diag);
	if (r < 0)
		return r;

	model->config.tied_output = !(options & SK_HAS_OUTPUT);
	if (model->config.tied_output)
		tie_output(model, names);
	for (size_t i = 0; i < model->index.n_entries; i++) {
		const struct sk_tensor_entry *entry = &model->index.entries[i];
		if (!entry->is_used)
			return sk_diag_fail(
				diag, ENOTSUP,
				"%s: tensor '%s' has no place in this architecture as it is "
				"supported here",
				entry->source, entry->tensor->name);
	}
	return 0;
}
