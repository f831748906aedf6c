/* The CUDA backend at work, against what its memory allows: decode at several numbers of sessions, prompts, the
 * price of a far position, of plain launches, and where the time goes. One line of JSON a measurement on
 * standard output; tools/gpu-day makes a table of them.
 *
 *     bench_gpu MODEL [--weights auto|f32|bf16|q8|q4] [--quick]
 */
#include "gpu/gpu.h"
#include "base/clock.h"
#include "bench/gpu_probe.h"
#include "engine/forward.h"
#include "engine/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROWS     512
#define MAX_SESSIONS 256
#define SINK         8
#define WINDOW       248
#define PAGES        (MAX_SESSIONS * 12 + 64)
#define FAR          1000000

struct bench {
	struct sk_model *model;
	struct sk_backend *backend;
	struct sk_forward forward;
	struct sk_pool pool;
	struct sk_session *sessions[MAX_SESSIONS];
	double bandwidth; /* bytes/s of reading, measured here */
	struct sk_row rows[MAX_ROWS];
	struct sk_view views[MAX_ROWS];
	struct sk_span spans[MAX_ROWS];
	uint32_t wanted[MAX_ROWS];
};

#define COPIES 4 /* times all layers, of an operation that is timed alone */

static void fail(const char *what, int error)
{
	fprintf(stderr, "bench_gpu: %s: %s\n", what, strerror(-error));
	exit(1);
}

static int32_t some_id(const struct bench *b, uint64_t i)
{
	return (int32_t)(i * 2654435761u % b->forward.config.n_vocab);
}

/* Sessions may always take what is free. */
static void top_up(struct bench *b)
{
	int r = sk_pool_promise(&b->pool, b->pool.n_free - b->pool.n_promised);
	if (r < 0)
		fail("pages", r);
}

/* A prompt of n tokens through one session, in steps of MAX_ROWS; the last one's logits. */
static void prefill(struct bench *b, struct sk_session *session, uint32_t n)
{
	int32_t ids[MAX_ROWS];
	for (uint32_t at = 0, k; at < n; at += k) {
		k = n - at < MAX_ROWS ? n - at : MAX_ROWS;
		for (uint32_t i = 0; i < k; i++)
			ids[i] = some_id(b, at + i + 1);
		int r = sk_session_advance(session, ids, k, b->rows, b->views, b->spans);
		struct sk_batch batch = {k, 1, b->rows, b->spans};
		const uint32_t last = k - 1;
		if (r == 0)
			r = sk_forward_run(&b->forward, &batch, &last, at + k == n, NULL, 0);
		if (r < 0)
			fail("a prompt", r);
		sk_session_trim(session);
		top_up(b);
	}
	sk_forward_logits(&b->forward, 0);
}

/* One token of each of the first n sessions. */
static void decode(struct bench *b, uint32_t n, bool read)
{
	for (uint32_t i = 0; i < n; i++) {
		const int32_t id = some_id(b, b->sessions[i]->window.next + i);
		int r = sk_session_advance(b->sessions[i], &id, 1, &b->rows[i], &b->views[i],
					   &b->spans[i]);
		if (r < 0)
			fail("a token", r);
		b->spans[i].row = i;
		b->wanted[i] = i;
	}
	struct sk_batch batch = {n, n, b->rows, b->spans};
	int r = sk_forward_run(&b->forward, &batch, b->wanted, n, NULL, 0);
	if (r < 0)
		fail("a step", r);
	if (read)
		sk_forward_logits(&b->forward, n - 1);
	for (uint32_t i = 0; i < n; i++)
		sk_session_trim(b->sessions[i]);
	top_up(b);
}

static int ascending(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

struct times {
	double least, median;
};

#define MAX_TIMES 256

/* Milliseconds of a decode step. */
static struct times time_decode(struct bench *b, uint32_t n_sessions, uint32_t n, bool read)
{
	double ms[MAX_TIMES];
	for (int i = 0; i < 5; i++)
		decode(b, n_sessions, read);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t begun = sk_clock_ns();
		decode(b, n_sessions, read);
		ms[i] = (double)(sk_clock_ns() - begun) * 1e-6;
	}
	qsort(ms, n, sizeof *ms, ascending);
	return (struct times){ms[0], ms[n / 2]};
}

/* What a step must read: the weights once (of the embedding a row a session), and the cache. */
static double floor_ms(const struct bench *b, uint32_t n_sessions)
{
	const struct sk_model_config *c = &b->forward.config;
	double weights = (double)sk_backend_weight_bytes(b->backend);
	if (!c->tied_output)
		weights -= (double)c->n_vocab * c->n_embd *
			   2; /* the embedding, where it is of 16 bits */
	double cache = (double)n_sessions * (SINK + WINDOW) / SK_PAGE_TOKENS *
		       (double)sk_backend_page_bytes(b->backend);
	return (weights + cache) / b->bandwidth * 1e3;
}

static void decode_all(struct bench *b, bool quick)
{
	static const uint32_t counts[] = {1, 8, 16, 64, 256};
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
		for (int read = 0; read < 2; read++) {
			struct times t = time_decode(b, counts[i], quick ? 30 : 100, read);
			printf("{\"what\": \"decode\", \"sessions\": %u, \"logits_read\": %s, "
			       "\"least_ms\": %.4f, "
			       "\"median_ms\": %.4f, \"floor_ms\": %.4f, \"of_floor\": %.3f, "
			       "\"tokens_per_s\": %.1f}\n",
			       counts[i], read ? "true" : "false", t.least, t.median,
			       floor_ms(b, counts[i]), floor_ms(b, counts[i]) / t.median,
			       counts[i] / t.median * 1e3);
			fflush(stdout);
		}
}

static void prompts(struct bench *b)
{
	static const uint32_t lengths[] = {16, 128, 512, 4096};
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		double ms[5];
		for (int k = 0; k < 5; k++) {
			sk_session_reset(b->sessions[0]);
			uint64_t begun = sk_clock_ns();
			prefill(b, b->sessions[0], lengths[i]);
			ms[k] = (double)(sk_clock_ns() - begun) * 1e-6;
		}
		qsort(ms, 5, sizeof *ms, ascending);
		printf("{\"what\": \"prefill\", \"tokens\": %u, \"least_ms\": %.3f, \"median_ms\": "
		       "%.3f, "
		       "\"tokens_per_s\": %.0f}\n",
		       lengths[i], ms[0], ms[2], lengths[i] / ms[2] * 1e3);
		fflush(stdout);
	}
	prefill(b, b->sessions[0], SINK + WINDOW + 32);
}

/* Operations alone, many in one step: microseconds each, and what they read of the floor. */
static void operations(struct bench *b, uint32_t n_rows)
{
	struct sk_forward *f = &b->forward;
	const struct sk_model_config *c = &f->config;
	const double page =
		(double)sk_backend_page_bytes(b->backend) / c->n_layers / SK_PAGE_TOKENS;
	static const char *const names[] = {"qkv",   "attention output", "up",     "down",
					    "norm",  "append",           "attend", "activate",
					    "logits"};
	for (int op = 0; op < 9; op++) {
		double best = 0, bytes = 0;
		for (int round = 0; round < 5; round++) {
			for (uint32_t i = 0; i < n_rows; i++) {
				const int32_t id = some_id(b, i);
				int r = sk_session_advance(b->sessions[i], &id, 1, &b->rows[i],
							   &b->views[i], &b->spans[i]);
				if (r < 0)
					fail("a token", r);
				b->spans[i].row = i;
				b->wanted[i] = i;
			}
			struct sk_batch batch = {n_rows, n_rows, b->rows, b->spans};
			double us
				[2]; /* once, and COPIES times more: the difference has no launch in it */
			for (int times = 0; times < 2; times++) {
				uint64_t begun = 0;
				for (int warm = 0; warm < 2; warm++) {
					int r = sk_backend_begin_step(b->backend, &batch);
					if (r < 0)
						fail("a step", r);
					begun = sk_clock_ns();
					for (int copy = 0; copy < (times ? COPIES + 1 : 1); copy++)
						for (uint32_t l = 0; l < c->n_layers; l++) {
							const struct sk_layer_weights *w =
								&f->weights.layers[l];
							switch (op) {
							case 0:
								sk_backend_matmul(b->backend,
										  f->qkv, f->h,
										  w->qkv);
								break;
							case 1:
								sk_backend_matmul_add(b->backend,
										      f->x, f->att,
										      w->attn_out);
								break;
							case 2:
								sk_backend_matmul(b->backend, f->up,
										  f->h, w->ffn_up);
								break;
							case 3:
								sk_backend_matmul_add(b->backend,
										      f->x, f->act,
										      w->ffn_down);
								break;
							case 4:
								sk_backend_norm(b->backend, f->h,
										f->x, w->attn_norm,
										1e-5f, true);
								break;
							case 5:
								sk_backend_append(b->backend, f->q,
										  f->qkv, l);
								break;
							case 6:
								sk_backend_attend(b->backend,
										  f->att, f->q, l);
								break;
							case 7:
								sk_backend_activate(b->backend,
										    f->act, f->up,
										    SK_ACT_GELU);
								break;
							default:
								sk_backend_matmul(
									b->backend, f->logits, f->h,
									f->weights.output);
							}
						}
					r = sk_backend_end_step(b->backend);
					if (r < 0)
						fail("a step", r);
				}
				us[times] = (double)(sk_clock_ns() - begun) * 1e-3;
			}
			const double one = (us[1] - us[0]) / COPIES / c->n_layers;
			if (round == 0 || one < best)
				best = one;
			for (uint32_t i = 0; i < n_rows; i++)
				sk_session_trim(b->sessions[i]);
			top_up(b);
		}
		const double width = c->n_embd, q = (double)c->n_heads * c->head_dim;
		switch (op) {
		case 0:
			bytes = width * 3 * q * 2;
			break;
		case 1:
			bytes = width * q * 2;
			break;
		case 2:
		case 3:
			bytes = width * c->n_ff * 2;
			break;
		case 6:
			bytes = n_rows * page * (SINK + WINDOW);
			break;
		case 8:
			bytes = width * c->n_vocab * 2;
			break;
		default:
			break;
		}
		printf("{\"what\": \"operation\", \"rows\": %u, \"operation\": \"%s\", \"us\": "
		       "%.2f, \"of_bandwidth\": %.3f}\n",
		       n_rows, names[op], best, bytes / b->bandwidth * 1e6 / best);
		fflush(stdout);
	}
}

/* Where the time goes: every operation waited for. */
static void profile(struct bench *b, uint32_t n_sessions)
{
	struct sk_profile p = {0};
	sk_backend_set_profile(b->backend, &p);
	for (int i = 0; i < 5; i++)
		decode(b, n_sessions, false);
	sk_backend_set_profile(b->backend, NULL);
	for (int op = 0; op < SK_N_OPS; op++)
		if (p.ns[op])
			printf("{\"what\": \"profile\", \"sessions\": %u, \"operation\": \"%s\", "
			       "\"ms\": %.4f}\n",
			       n_sessions, sk_op_name(op), (double)p.ns[op] * 1e-6 / 5);
	fflush(stdout);
}

static void far(struct bench *b)
{
	struct times near = time_decode(b, 1, 100, false);
	b->sessions[0]->origin += FAR; /* keys are where they were: time alone is measured */
	struct times there = time_decode(b, 1, 100, false);
	b->sessions[0]->origin -= FAR;
	printf("{\"what\": \"far\", \"position\": %d, \"near_ms\": %.4f, \"far_ms\": %.4f, "
	       "\"ratio\": %.4f}\n",
	       FAR, near.median, there.median, there.median / near.median);
}

int main(int argc, char **argv)
{
	static struct bench b;
	struct sk_diag diag = {""};
	enum sk_weight_format weights = SK_WEIGHTS_AUTO;
	bool quick = false;
	const char *path = NULL;
	static const char *const names[] = {"auto", "f32", "bf16", "q8", "q4"};
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--quick") == 0)
			quick = true;
		else if (strcmp(argv[i], "--weights") == 0 && i + 1 < argc) {
			for (int f = 0; f < 5; f++)
				if (strcmp(argv[i + 1], names[f]) == 0)
					weights = (enum sk_weight_format)f;
			i++;
		} else
			path = argv[i];
	}
	if (!path) {
		fprintf(stderr, "usage: bench_gpu MODEL [--weights FORMAT] [--quick]\n");
		return 64;
	}
	if (sk_model_open(path, &b.model, &diag) < 0) {
		fprintf(stderr, "bench_gpu: %s\n", diag.text);
		return 66;
	}
	struct sk_backend_options options = {0};
	struct sk_backend_shape shape =
		sk_forward_shape(sk_model_config(b.model), SK_KV_F16, MAX_ROWS);
	int r = sk_backend_open(&sk_gpu_backend, &options, &shape, &b.backend, &diag);
	if (r < 0) {
		fprintf(stderr, "bench_gpu: %s\n", diag.text);
		return r == -ENODEV ? 77 : 1;
	}
	b.bandwidth = bench_gpu_bandwidth();
	printf("{\"what\": \"device\", \"name\": \"%s\", \"bandwidth_gb_s\": %.1f}\n",
	       sk_backend_name(b.backend), b.bandwidth * 1e-9);
	uint64_t begun = sk_clock_ns();
	r = sk_forward_init(&b.forward, b.backend, b.model, weights, MAX_SESSIONS, NULL, NULL,
			    &diag);
	if (r < 0) {
		fprintf(stderr, "bench_gpu: %s\n", diag.text);
		return 1;
	}
	double s = (double)(sk_clock_ns() - begun) * 1e-9;
	printf("{\"what\": \"load\", \"seconds\": %.2f, \"gb\": %.3f, \"scratch_gb\": %.3f}\n", s,
	       (double)sk_backend_weight_bytes(b.backend) * 1e-9,
	       (double)sk_backend_scratch_bytes(b.backend) * 1e-9);
	fflush(stdout);
	if ((r = sk_pool_init(&b.pool, b.backend, PAGES)) < 0 ||
	    (r = sk_pool_promise(&b.pool, PAGES)) < 0)
		fail("the pool of pages", r);
	struct sk_policy policy = {SK_MODE_STREAMING, SINK, WINDOW, 0};
	for (uint32_t i = 0; i < MAX_SESSIONS; i++) {
		b.sessions[i] = sk_session_create(&b.pool, 0, "", &policy);
		if (!b.sessions[i])
			fail("a session", -ENOMEM);
		prefill(&b, b.sessions[i], SINK + WINDOW + 32);
	}
	decode_all(&b, quick);
	prompts(&b);
	far(&b);
	static const uint32_t rows[] = {1, 8, 16, 64, 256};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		operations(&b, rows[i]);
	profile(&b, 1);
	profile(&b, 64);
	for (uint32_t i = 0; i < MAX_SESSIONS; i++)
		sk_session_destroy(b.sessions[i]);
	sk_pool_finish(&b.pool);
	sk_forward_finish(&b.forward);
	sk_backend_close(b.backend);
	sk_model_close(b.model);
	return 0;
}
