/* Floors: bytes that must be read at the speed of reading memory, or operations at the speed of this
 * implementation's own products of 32-bit floats, whichever takes longer. Activations of one row lie in a cache,
 * so that their floor is near nothing; what such a call takes is mostly its own overhead.
 */
#include "bench/bench.h"

#include "base/clock.h"
#include "cpu/cpu.h"

#include <stdio.h>

#define HEADS    32
#define HEAD_DIM 80
#define LAYERS   16 /* their pages together are more than a cache holds */
#define LIVE     1024
#define VOCAB    50304
#define CALLS    64 /* of one row; of many: 4 */

struct operations {
	struct sk_backend *backend;
	struct sk_buffer *x, *y, *qkv, *q, *inner, *swiglu, *logits, *scores;
	struct sk_linear *table;
	struct sk_norm *norm;
};

struct operation {
	const char *name;
	void (*run)(struct operations *o, uint32_t layer);
	double bytes, row_bytes; /* read or written by a call, and besides for each row */
	double row_flop;
};

static const int32_t ids[BENCH_ROWS];

static void embed(struct operations *o, uint32_t layer)
{
	(void)layer;
	sk_backend_embed(o->backend, o->x, o->table);
}

static void layer_norm(struct operations *o, uint32_t layer)
{
	(void)layer;
	sk_backend_norm(o->backend, o->y, o->x, o->norm, 1e-5f, true);
}

static void rms_norm(struct operations *o, uint32_t layer)
{
	(void)layer;
	sk_backend_norm(o->backend, o->y, o->x, o->norm, 1e-5f, false);
}

static void append(struct operations *o, uint32_t layer)
{
	sk_backend_append(o->backend, o->q, o->qkv, layer);
}

static void attend(struct operations *o, uint32_t layer)
{
	sk_backend_attend(o->backend, o->y, o->q, layer);
}

static void gelu(struct operations *o, uint32_t layer)
{
	(void)layer;
	sk_backend_activate(o->backend, o->inner, o->inner, SK_ACT_GELU);
}

static void gelu_tanh(struct operations *o, uint32_t layer)
{
	(void)layer;
	sk_backend_activate(o->backend, o->inner, o->inner, SK_ACT_GELU_TANH);
}

static void swiglu(struct operations *o, uint32_t layer)
{
	(void)layer;
	sk_backend_activate(o->backend, o->inner, o->swiglu, SK_ACT_SWIGLU);
}

static void score(struct operations *o, uint32_t layer)
{
	(void)layer;
	sk_backend_score(o->backend, o->scores, 0, o->logits, ids);
}

static const struct operation all[] = {
	{"embed", embed, .row_bytes = 6.0 * BENCH_WIDTH},
	{"layer norm", layer_norm, .bytes = 8.0 * BENCH_WIDTH, .row_bytes = 8.0 * BENCH_WIDTH},
	{"rms norm", rms_norm, .bytes = 4.0 * BENCH_WIDTH, .row_bytes = 8.0 * BENCH_WIDTH},
	{"append", append, .row_bytes = (4.0 * 5 + 2.0 * 2) * HEADS * HEAD_DIM},
	{"attend", attend, .bytes = 2.0 * 2 * LIVE * HEADS * HEAD_DIM,
	 .row_bytes = 4.0 * 3 * HEADS * HEAD_DIM, .row_flop = 4.0 * LIVE * HEADS * HEAD_DIM},
	{"gelu", gelu, .row_bytes = 8.0 * BENCH_INNER},
	{"gelu tanh", gelu_tanh, .row_bytes = 8.0 * BENCH_INNER},
	{"swiglu", swiglu, .row_bytes = 12.0 * BENCH_INNER},
	{"score", score, .row_bytes = 4.0 * VOCAB},
};

/* Nanoseconds a call. The rows see LIVE entries, or (of many) up to so many. */
static double run_ns(struct operations *o, const struct operation *operation, uint32_t n_rows)
{
	const uint32_t calls = n_rows == 1 ? CALLS : CALLS / 16;
	struct bench_batch batch;
	bench_batch_init(&batch, n_rows, LIVE - n_rows);
	if (sk_backend_begin_step(o->backend, &batch.batch) < 0)
		return 0;
	uint64_t start = sk_clock_ns();
	for (uint32_t i = 0; i < calls; i++)
		operation->run(o, i % LAYERS);
	double ns = (double)(sk_clock_ns() - start) / calls;
	sk_backend_end_step(o->backend);
	return ns;
}

static void measure(struct operations *o, const struct bench *bench,
		    const struct operation *operation, uint32_t n_rows)
{
	double best = 1e18;
	for (int i = 0; i < BENCH_ROUNDS; i++) {
		double ns = run_ns(o, operation, n_rows);
		best = ns < best ? ns : best;
	}
	double bytes = operation->bytes + n_rows * operation->row_bytes,
	       flop = n_rows * operation->row_flop * (n_rows == 1 ? 1 : 1 - n_rows / 2. / LIVE),
	       by_bytes = bytes / bench->gb_per_s, by_flop = flop / bench->gflop_per_s,
	       floor = by_flop > by_bytes ? by_flop : by_bytes;
	printf("%-10s %5u %10.1f %10.1f %8.2f  %s\n", operation->name, n_rows, best / 1e3,
	       floor / 1e3, floor / best, by_flop > by_bytes ? "arithmetic" : "memory");
	fflush(stdout);
}

/* Room, and every page written, so that it is there. */
static int prepare(struct operations *o, const struct bench *bench)
{
	struct sk_tensor table = {"table", SK_DTYPE_F16, BENCH_ROWS, BENCH_WIDTH, bench->data},
			 weight = {"norm", SK_DTYPE_F32, BENCH_WIDTH, 1, bench->data};
	struct sk_matrix tables = {BENCH_ROWS, BENCH_WIDTH, 1, {{&table, NULL, BENCH_ROWS}}},
			 weights = {BENCH_WIDTH, 1, 1, {{&weight, NULL, BENCH_WIDTH}}};
	const struct {
		struct sk_buffer **buffer;
		uint32_t width;
	} buffers[] = {{&o->x, BENCH_WIDTH},
		       {&o->y, BENCH_WIDTH},
		       {&o->qkv, 3 * HEADS * HEAD_DIM},
		       {&o->q, 2 * HEADS * HEAD_DIM},
		       {&o->inner, BENCH_INNER},
		       {&o->swiglu, 2 * BENCH_INNER},
		       {&o->logits, VOCAB},
		       {&o->scores, 1}};
	int r = sk_backend_reserve_pages(o->backend, LIVE / SK_PAGE_TOKENS);
	for (size_t i = 0; r == 0 && i < sizeof buffers / sizeof *buffers; i++)
		r = sk_backend_alloc(o->backend, BENCH_ROWS, buffers[i].width, buffers[i].buffer);
	if (r == 0)
		r = sk_backend_pack_linear(o->backend, &tables, NULL, SK_WEIGHTS_AUTO, &o->table);
	if (r == 0)
		r = sk_backend_pack_norm(o->backend, &weights, &weights, &o->norm);
	for (uint32_t entry = 0; r == 0 && entry < LIVE; entry += BENCH_ROWS) {
		struct bench_batch batch;
		bench_batch_init(&batch, BENCH_ROWS, entry);
		r = sk_backend_begin_step(o->backend, &batch.batch);
		for (uint32_t layer = 0; r == 0 && layer < LAYERS; layer++)
			sk_backend_append(o->backend, o->q, o->qkv, layer);
		sk_backend_end_step(o->backend);
	}
	return r;
}

int bench_operations(struct bench *bench)
{
	const struct sk_backend_shape shape = {.n_layers = LAYERS,
					       .n_heads = HEADS,
					       .n_kv_heads = HEADS,
					       .head_dim = HEAD_DIM,
					       .n_rot = HEAD_DIM / 4,
					       .rope_base = 10000,
					       .kv_format = SK_KV_F16,
					       .max_rows = BENCH_ROWS};
	struct operations o = {0};
	struct sk_diag diag;
	int r = sk_backend_open(&sk_cpu_backend, &bench->options, &shape, &o.backend, &diag);
	if (r < 0)
		return r;
	r = prepare(&o, bench);
	if (r == 0)
		printf("\noperation   rows    us a call   floor us    ratio  bound by\n");
	for (size_t i = 0; r == 0 && i < sizeof all / sizeof *all; i++) {
		measure(&o, bench, &all[i], 1);
		measure(&o, bench, &all[i], BENCH_ROWS);
	}
	sk_backend_close(o.backend);
	return r;
}
