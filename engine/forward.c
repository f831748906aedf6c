#include "engine/forward.h"

#include "engine/request.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

struct sk_backend_shape sk_forward_shape(const struct sk_model_config *config,
					 enum sk_kv_format kv_format, uint32_t max_rows)
{
	return (struct sk_backend_shape){
		.n_layers = config->n_layers,
		.n_heads = config->n_heads,
		.n_kv_heads = config->n_kv_heads,
		.head_dim = config->head_dim,
		.n_rot = config->n_rot,
		.rope_base = config->rope_base,
		.kv_format = kv_format,
		.max_rows = max_rows,
	};
}

static int alloc_buffers(struct sk_forward *f)
{
	const struct sk_model_config *c = &f->config;
	uint32_t q_width = c->n_heads * c->head_dim, kv_width = c->n_kv_heads * c->head_dim;
	struct {
		struct sk_buffer **buffer;
		uint32_t n_rows, width;
	} wanted[] = {
		{&f->x, f->max_rows, c->n_embd},
		{&f->h, f->max_rows, c->n_embd},
		{&f->qkv, f->max_rows, q_width + 2 * kv_width},
		{&f->q, f->max_rows, 2 * q_width},
		{&f->att, f->max_rows, q_width},
		{&f->up, f->max_rows, c->activation == SK_SWIGLU ? 2 * c->n_ff : c->n_ff},
		{&f->act, f->max_rows, c->n_ff},
		{&f->last, f->max_logits, c->n_embd},
		{&f->logits, f->max_logits, c->n_vocab},
		{&f->scores, f->max_rows, 1},
		{&f->drawn, f->max_logits, SK_DRAWN_WIDTH},
	};
	for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		int err = sk_backend_alloc(f->backend, wanted[i].n_rows, wanted[i].width,
					   wanted[i].buffer);
		if (err < 0)
			return err;
	}
	f->score_ids = calloc(f->max_logits, sizeof *f->score_ids);
	f->score_rows = calloc(f->max_logits, sizeof *f->score_rows);
	if (!f->score_ids || !f->score_rows)
		return -ENOMEM;
	return sk_backend_reserve_draws(f->backend, c->n_vocab, SK_REPEAT_MOST);
}

int sk_forward_init(struct sk_forward *forward, struct sk_backend *backend,
		    const struct sk_model *model, enum sk_weight_format format, uint32_t max_logits,
		    sk_weights_progress *progress, void *context, struct sk_diag *diag)
{
	*forward = (struct sk_forward){
		.backend = backend,
		.config = *sk_model_config(model),
		.max_rows = sk_backend_max_rows(backend),
		.max_logits = max_logits,
	};
	int err =
		sk_weights_init(&forward->weights, backend, model, format, progress, context, diag);
	if (err < 0)
		return err;
	err = alloc_buffers(forward);
	if (err < 0) {
		sk_forward_finish(forward);
		return sk_diag_fail(diag, -err,
				    "%s: not enough memory for activations of %u tokens a step",
				    sk_model_path(model), sk_backend_max_rows(backend));
	}
	return 0;
}

void sk_forward_finish(struct sk_forward *f)
{
	struct sk_buffer *buffers[] = {f->x,   f->h,    f->qkv,    f->q,      f->att,  f->up,
				       f->act, f->last, f->logits, f->scores, f->drawn};
	for (unsigned i = 0; i < sizeof buffers / sizeof *buffers; i++)
		sk_backend_free(f->backend, buffers[i]);
	sk_weights_finish(&f->weights);
	free(f->score_ids);
	free(f->score_rows);
	*f = (struct sk_forward){0};
}

static enum sk_act act_of(const struct sk_model_config *config)
{
	switch (config->activation) {
	case SK_GELU_TANH:
		return SK_ACT_GELU_TANH;
	case SK_SWIGLU:
		return SK_ACT_SWIGLU;
	case SK_GELU_ERF:
		break;
	}
	return SK_ACT_GELU;
}

/* logits = the output matrix of the final norm, for `rows` of the batch */
static void project(struct sk_forward *f, const uint32_t *rows, uint32_t n_rows)
{
	struct sk_backend *b = f->backend;

	sk_backend_gather(b, f->last, f->x, rows, n_rows);
	sk_backend_norm(b, f->last, f->last, f->weights.final_norm, f->config.norm_eps,
			f->config.arch == SK_ARCH_NEOX);
	sk_backend_matmul(b, f->logits, f->last, f->weights.output);
}

int sk_forward_run(struct sk_forward *f, const struct sk_batch *batch, const uint32_t *rows,
		   const struct sk_draw *draws, uint32_t n_rows, const struct sk_score *scores,
		   uint32_t n_scores)
{
	struct sk_backend *b = f->backend;
	const struct sk_model_config *c = &f->config;
	bool layer_norm = c->arch == SK_ARCH_NEOX;

	if (n_rows > f->max_logits || n_scores > f->max_rows)
		return -EINVAL;
	int err = sk_backend_begin_step(b, batch);
	if (err < 0)
		return err;

	sk_backend_embed(b, f->x, f->weights.embedding);
	for (uint32_t i = 0; i < c->n_layers; i++) {
		const struct sk_layer_weights *w = &f->weights.layers[i];

		sk_backend_norm(b, f->h, f->x, w->attn_norm, c->norm_eps, layer_norm);
		sk_backend_matmul(b, f->qkv, f->h, w->qkv);
		sk_backend_append(b, f->q, f->qkv, i);
		sk_backend_attend(b, f->att, f->q, i);

		/* In a parallel residual the MLP reads x as it was before the attention. */
		if (c->parallel_residual)
			sk_backend_norm(b, f->h, f->x, w->ffn_norm, c->norm_eps, layer_norm);
		sk_backend_matmul_add(b, f->x, f->att, w->attn_out);
		if (!c->parallel_residual)
			sk_backend_norm(b, f->h, f->x, w->ffn_norm, c->norm_eps, layer_norm);

		sk_backend_matmul(b, f->up, f->h, w->ffn_up);
		sk_backend_activate(b, f->act, f->up, act_of(c));
		sk_backend_matmul_add(b, f->x, f->act, w->ffn_down);
	}
	/* Whole logits of every row would be hundreds of megabytes: scores take their place a few rows
	 * at a time. */
	for (uint32_t at = 0, n; at < n_scores; at += n) {
		n = n_scores - at < f->max_logits ? n_scores - at : f->max_logits;
		for (uint32_t i = 0; i < n; i++) {
			f->score_rows[i] = scores[at + i].row;
			f->score_ids[i] = scores[at + i].id;
		}
		project(f, f->score_rows, n);
		sk_backend_score(b, f->scores, at, f->logits, f->score_ids);
	}
	if (n_rows)
		project(f, rows, n_rows);
	if (n_rows && draws)
		sk_backend_draw(b, f->drawn, f->logits, draws);
	return sk_backend_end_step(b);
}

const float *sk_forward_logits(struct sk_forward *forward, uint32_t index)
{
	return sk_backend_read(forward->backend, forward->logits, index);
}

struct sk_drawn sk_forward_drawn(struct sk_forward *forward, uint32_t index)
{
	return sk_backend_drawn(forward->backend, forward->drawn, index);
}

float sk_forward_score(struct sk_forward *forward, uint32_t index)
{
	const float *score = sk_backend_read(forward->backend, forward->scores, index);
	return score ? *score : NAN;
}
