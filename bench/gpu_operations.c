#include "bench/gpu_operations.h"

#include "base/clock.h"

#include <stdio.h>

#define COPIES 4 /* times all layers */
#define ROUNDS 5

/* --- What is timed --- */

static void qkv(struct sk_forward *f, const struct sk_layer_weights *w, uint32_t layer)
{
	(void)layer;
	sk_backend_matmul(f->backend, f->qkv, f->h, w->qkv);
}

static void attention_output(struct sk_forward *f, const struct sk_layer_weights *w, uint32_t layer)
{
	(void)layer;
	sk_backend_matmul_add(f->backend, f->x, f->att, w->attn_out);
}

static void up(struct sk_forward *f, const struct sk_layer_weights *w, uint32_t layer)
{
	(void)layer;
	sk_backend_matmul(f->backend, f->up, f->h, w->ffn_up);
}

static void down(struct sk_forward *f, const struct sk_layer_weights *w, uint32_t layer)
{
	(void)layer;
	sk_backend_matmul_add(f->backend, f->x, f->act, w->ffn_down);
}

static void norm(struct sk_forward *f, const struct sk_layer_weights *w, uint32_t layer)
{
	(void)layer;
	sk_backend_norm(f->backend, f->h, f->x, w->attn_norm, 1e-5f, true);
}

static void append(struct sk_forward *f, const struct sk_layer_weights *w, uint32_t layer)
{
	(void)w;
	sk_backend_append(f->backend, f->q, f->qkv, layer);
}

static void attend(struct sk_forward *f, const struct sk_layer_weights *w, uint32_t layer)
{
	(void)w;
	sk_backend_attend(f->backend, f->att, f->q, layer);
}

static void activate(struct sk_forward *f, const struct sk_layer_weights *w, uint32_t layer)
{
	(void)w;
	(void)layer;
	sk_backend_activate(f->backend, f->act, f->up, SK_ACT_GELU);
}

static void logits(struct sk_forward *f, const struct sk_layer_weights *w, uint32_t layer)
{
	(void)w;
	(void)layer;
	sk_backend_matmul(f->backend, f->logits, f->h, f->weights.output);
}

/* The least that moves: bytes, of weights and of each row. */
struct moved {
	double weights, row;
};

enum {
	QKV,
	ATTENTION_OUTPUT,
	UP,
	DOWN,
	NORM,
	APPEND,
	ATTEND,
	ACTIVATE,
	LOGITS,
	DRAW,
	SAMPLE,
	N_OPERATIONS
};

static const struct {
	const char *name;
	void (*run)(struct sk_forward *, const struct sk_layer_weights *, uint32_t layer);
} operations[N_OPERATIONS] = {
	[QKV] = {"qkv", qkv},
	[ATTENTION_OUTPUT] = {"attention output", attention_output},
	[UP] = {"up", up},
	[DOWN] = {"down", down},
	[NORM] = {"norm", norm},
	[APPEND] = {"append", append},
	[ATTEND] = {"attend", attend},
	[ACTIVATE] = {"activate", activate},
	[LOGITS] = {"logits", logits},
	[DRAW] = {"draw", NULL}, /* from what the logits before it were */
	[SAMPLE] = {"draw, top-k 40, top-p 0.95, temperature 0.8", NULL},
};

static struct moved moved_by(const struct gpu_work *work, int operation)
{
	const struct sk_model_config *c = &work->forward.config;
	const struct sk_weights *w = &work->forward.weights;
	const struct sk_layer_weights *l = &w->layers[0];
	const double width = c->n_embd, q = (double)c->n_heads * c->head_dim,
		     kv = (double)c->n_kv_heads * c->head_dim, ff = c->n_ff, vocab = c->n_vocab,
		     entry = (double)sk_backend_page_bytes(work->backend) / c->n_layers /
			     SK_PAGE_TOKENS;
	const struct moved all[N_OPERATIONS] = {
		/* rows are floats */
		[QKV] = {gpu_work_linear_bytes(l->qkv), 4 * (width + q + 2 * kv)},
		[ATTENTION_OUTPUT] = {gpu_work_linear_bytes(l->attn_out), 4 * (q + 2 * width)},
		[UP] = {gpu_work_linear_bytes(l->ffn_up), 4 * (width + ff)},
		[DOWN] = {gpu_work_linear_bytes(l->ffn_down), 4 * (ff + 2 * width)},
		[NORM] = {0, 4 * 2 * width},
		[APPEND] = {0, 4 * (q + 2 * kv) + 4 * 2 * q + entry},
		[ATTEND] = {0, entry * (GPU_WORK_SINK + GPU_WORK_WINDOW)},
		[ACTIVATE] = {0, 4 * 2 * ff},
		[LOGITS] = {gpu_work_linear_bytes(w->output), 4 * (width + vocab)},
		[DRAW] = {0, 4 * vocab},
		[SAMPLE] = {0, 4 * vocab},
	};
	return all[operation];
}

/* --- How --- */

/* So many times for each layer, in one step: nanoseconds. */
static uint64_t time_copies(struct gpu_work *work, const struct sk_batch *batch, int operation,
			    uint32_t n_copies)
{
	struct sk_forward *f = &work->forward;
	uint64_t begun = 0;
	for (int warm = 0; warm < 2; warm++) {
		int r = sk_backend_begin_step(work->backend, batch);
		if (r < 0)
			gpu_work_fail("a step", r);
		begun = sk_clock_ns();
		for (uint32_t copy = 0; copy < n_copies; copy++)
			for (uint32_t l = 0; l < f->config.n_layers; l++)
				if (operations[operation].run)
					operations[operation].run(f, &f->weights.layers[l], l);
				else
					sk_backend_draw(f->backend, f->drawn, f->logits,
							operation == SAMPLE ? work->sampled
									    : work->draws);
		r = sk_backend_end_step(work->backend);
		if (r < 0)
			gpu_work_fail("a step", r);
	}
	return sk_clock_ns() - begun;
}

void gpu_operations(struct gpu_work *work, uint32_t n_rows)
{
	for (int operation = 0; operation < N_OPERATIONS; operation++) {
		double best = 0;
		for (int round = 0; round < ROUNDS; round++) {
			const struct sk_batch batch = gpu_work_batch(work, n_rows);
			/* The difference has no launch of a step in it. */
			const uint64_t once = time_copies(work, &batch, operation, 1),
				       more = time_copies(work, &batch, operation, COPIES + 1);
			const double us = ((double)more - (double)once) * 1e-3 / COPIES /
					  work->forward.config.n_layers;
			if (round == 0 || us < best)
				best = us;
			gpu_work_trim(work, n_rows);
		}
		const struct moved moved = moved_by(work, operation);
		const double bytes = moved.weights + n_rows * moved.row;
		printf("{\"what\": \"operation\", \"rows\": %u, \"operation\": \"%s\", \"us\": "
		       "%.2f",
		       n_rows, operations[operation].name, best);
		if (work->bandwidth > 0)
			printf(", \"of_bandwidth\": %.3f", bytes / work->bandwidth * 1e6 / best);
		printf("}\n");
		fflush(stdout);
	}
}

void gpu_profile(struct gpu_work *work, uint32_t n_sessions)
{
	struct sk_profile p = {0};
	sk_backend_set_profile(work->backend, &p);
	for (int i = 0; i < 5; i++)
		gpu_work_decode(work, n_sessions, false);
	sk_backend_set_profile(work->backend, NULL);
	for (int op = 0; op < SK_N_OPS; op++)
		if (p.ns[op])
			printf("{\"what\": \"profile\", \"sessions\": %u, \"operation\": \"%s\", "
			       "\"ms\": %.4f}\n",
			       n_sessions, sk_op_name(op), (double)p.ns[op] * 1e-6 / 5);
	fflush(stdout);
}
