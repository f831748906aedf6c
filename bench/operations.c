/* Floors: bytes that an operation must touch, each once, at the speed of reading memory, or operations at the speed of
 * this implementation's own products of 32-bit floats, whichever takes longer.
 *
 * A call's buffers are the next of many, which together no cache holds: so what many rows read does come from memory.
 * (In a model it may still lie in a cache, from the operation before.) Those of one row do fit into one, so that memory
 * bounds nothing: what such a call takes is mostly its own overhead, and no floor is told.
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
#define CALLS    64 /* of one row; of many: 4, and as many more as 0.2 s allow */
#define MAX_SETS 64
#define UNCACHED (BENCH_MANY_BYTES / 8) /* so much no cache holds */

struct operations {
	struct sk_backend *backend;
	struct sk_buffer *in[MAX_SETS], *out[MAX_SETS], *scores;
	struct sk_linear *table;
	struct sk_norm *norm;
	uint32_t n_sets, turn;
};

struct operation {
	const char *name;
	void (*run)(struct operations *o, struct sk_buffer *out, struct sk_buffer *in);
	uint32_t in, out;        /* floats a row; out: 0 where `in` is written or next to nothing */
	double bytes, row_bytes; /* touched by a call, and besides for each row */
	double row_flop;
};

static const int32_t ids[BENCH_ROWS];

static void embed(struct operations *o, struct sk_buffer *out, struct sk_buffer *in)
{
	(void)out;
	sk_backend_embed(o->backend, in, o->table);
}

static void layer_norm(struct operations *o, struct sk_buffer *out, struct sk_buffer *in)
{
	sk_backend_norm(o->backend, out, in, o->norm, 1e-5f, true);
}

static void rms_norm(struct operations *o, struct sk_buffer *out, struct sk_buffer *in)
{
	sk_backend_norm(o->backend, out, in, o->norm, 1e-5f, false);
}

static void append(struct operations *o, struct sk_buffer *out, struct sk_buffer *in)
{
	sk_backend_append(o->backend, out, in, o->turn % LAYERS);
}

static void attend(struct operations *o, struct sk_buffer *out, struct sk_buffer *in)
{
	sk_backend_attend(o->backend, out, in, o->turn % LAYERS);
}

static void gelu(struct operations *o, struct sk_buffer *out, struct sk_buffer *in)
{
	sk_backend_activate(o->backend, out, in, SK_ACT_GELU);
}

static void gelu_tanh(struct operations *o, struct sk_buffer *out, struct sk_buffer *in)
{
	sk_backend_activate(o->backend, out, in, SK_ACT_GELU_TANH);
}

static void swiglu(struct operations *o, struct sk_buffer *out, struct sk_buffer *in)
{
	sk_backend_activate(o->backend, out, in, SK_ACT_SWIGLU);
}

static void score(struct operations *o, struct sk_buffer *out, struct sk_buffer *in)
{
	(void)out;
	sk_backend_score(o->backend, o->scores, 0, in, ids);
}

/* The rows of `embed`'s table stay in a cache; what it writes does not. */
static const struct operation all[] = {
	{"embed", embed, BENCH_WIDTH, 0, .row_bytes = 4.0 * BENCH_WIDTH},
	{"layer norm", layer_norm, BENCH_WIDTH, BENCH_WIDTH, .row_bytes = 8.0 * BENCH_WIDTH},
	{"rms norm", rms_norm, BENCH_WIDTH, BENCH_WIDTH, .row_bytes = 8.0 * BENCH_WIDTH},
	{"append", append, 3 * HEADS *HEAD_DIM, 2 * HEADS *HEAD_DIM,
	 .row_bytes = (4.0 * 5 + 2.0 * 2) * HEADS * HEAD_DIM},
	{"attend", attend, 2 * HEADS *HEAD_DIM, HEADS *HEAD_DIM,
	 .bytes = 2.0 * 2 * LIVE * HEADS * HEAD_DIM, .row_bytes = 4.0 * 3 * HEADS * HEAD_DIM,
	 .row_flop = 4.0 * LIVE * HEADS * HEAD_DIM},
	{"gelu", gelu, BENCH_INNER, BENCH_INNER, .row_bytes = 8.0 * BENCH_INNER},
	{"gelu tanh", gelu_tanh, BENCH_INNER, BENCH_INNER, .row_bytes = 8.0 * BENCH_INNER},
	{"swiglu", swiglu, 2 * BENCH_INNER, BENCH_INNER, .row_bytes = 12.0 * BENCH_INNER},
	{"score", score, VOCAB, 0, .row_bytes = 4.0 * VOCAB},
};

/* Nanoseconds a call. The rows see LIVE entries, or (of many) up to so many. */
static int run_ns(struct operations *o, const struct operation *operation, uint32_t n_rows,
		  double *ret_ns)
{
	struct bench_batch batch;
	bench_batch_init(&batch, n_rows, LIVE - n_rows);
	int r = sk_backend_begin_step(o->backend, &batch.batch);
	if (r < 0)
		return r;
	const uint32_t n_most = n_rows == 1 ? CALLS : o->n_sets;
	const uint64_t start = sk_clock_ns();
	uint64_t ns = 0;
	uint32_t n = 0;
	while (n < n_most && (n < 4 || ns < 200000000)) {
		const uint32_t set = o->turn++ % o->n_sets;
		operation->run(o, o->out[set], o->in[set]);
		ns = sk_clock_ns() - start;
		n++;
	}
	*ret_ns = (double)ns / n;
	return sk_backend_end_step(o->backend);
}

static int measure(struct operations *o, const struct bench *bench,
		   const struct operation *operation, uint32_t n_rows)
{
	double best = 1e18, ns;
	for (int i = 0; i < BENCH_ROUNDS; i++) {
		int r = run_ns(o, operation, n_rows, &ns);
		if (r < 0)
			return r;
		best = ns < best ? ns : best;
	}
	/* pages of all layers, and buffers of all sets, before a call meets the same again */
	const double all_bytes =
		LAYERS * operation->bytes + o->n_sets * n_rows * operation->row_bytes;
	double bytes = operation->bytes + n_rows * operation->row_bytes,
	       flop = n_rows * operation->row_flop * (n_rows == 1 ? 1 : 1 - n_rows / 2. / LIVE),
	       by_bytes = all_bytes < UNCACHED ? 0 : bytes / bench->gb_per_s,
	       by_flop = flop / bench->gflop_per_s, floor = by_flop > by_bytes ? by_flop : by_bytes;
	if (floor > 0)
		printf("%-10s %5u %10.1f %10.1f %8.2f  %s\n", operation->name, n_rows, best / 1e3,
		       floor / 1e3, floor / best, by_flop > by_bytes ? "arithmetic" : "memory");
	else
		printf("%-10s %5u %10.1f %10s %8s  in a cache\n", operation->name, n_rows,
		       best / 1e3, "", "");
	fflush(stdout);
	return 0;
}

/* As many buffers as a cache surely does not hold, all of them full of random numbers. */
static int alloc_sets(struct operations *o, const struct bench *bench,
		      const struct operation *operation)
{
	const size_t set_bytes = (size_t)(operation->in + operation->out) * 4 * BENCH_ROWS;
	struct sk_tensor numbers = {"numbers", SK_DTYPE_F32, BENCH_ROWS, operation->in,
				    bench->data};
	struct sk_matrix matrix = {BENCH_ROWS, operation->in, 1, {{&numbers, NULL, BENCH_ROWS}}};
	struct sk_linear *table;
	struct bench_batch batch;
	int r = sk_backend_pack_linear(o->backend, &matrix, NULL, SK_WEIGHTS_F32, &table);
	bench_batch_init(&batch, BENCH_ROWS, 0);
	o->n_sets = (uint32_t)(2 * UNCACHED / set_bytes) + 1;
	if (o->n_sets > MAX_SETS)
		o->n_sets = MAX_SETS;
	for (uint32_t i = 0; r == 0 && i < o->n_sets; i++) {
		r = sk_backend_alloc(o->backend, BENCH_ROWS, operation->in, &o->in[i]);
		if (r == 0 && operation->out)
			r = sk_backend_alloc(o->backend, BENCH_ROWS, operation->out, &o->out[i]);
		if (r == 0)
			r = sk_backend_begin_step(o->backend, &batch.batch);
		if (r == 0) {
			sk_backend_embed(o->backend, o->in[i], table);
			r = sk_backend_end_step(o->backend);
		}
	}
	return r;
}

static void free_sets(struct operations *o)
{
	for (uint32_t i = 0; i < MAX_SETS; i++) {
		sk_backend_free(o->backend, o->in[i]);
		sk_backend_free(o->backend, o->out[i]);
		o->in[i] = o->out[i] = NULL;
	}
}

/* What all share: a table, a norm, and pages of every layer full of keys and values. */
static int prepare(struct operations *o, const struct bench *bench)
{
	struct sk_tensor table = {"table", SK_DTYPE_F16, BENCH_ROWS, BENCH_WIDTH, bench->data},
			 weight = {"norm", SK_DTYPE_F32, BENCH_WIDTH, 1, bench->data};
	struct sk_matrix tables = {BENCH_ROWS, BENCH_WIDTH, 1, {{&table, NULL, BENCH_ROWS}}},
			 weights = {BENCH_WIDTH, 1, 1, {{&weight, NULL, BENCH_WIDTH}}};
	int r = sk_backend_reserve_pages(o->backend, LIVE / SK_PAGE_TOKENS);
	if (r == 0)
		r = sk_backend_alloc(o->backend, BENCH_ROWS, 1, &o->scores);
	if (r == 0)
		r = sk_backend_pack_linear(o->backend, &tables, NULL, SK_WEIGHTS_AUTO, &o->table);
	if (r == 0)
		r = sk_backend_pack_norm(o->backend, &weights, &weights, &o->norm);
	return r;
}

static int fill_pages(struct operations *o)
{
	int r = 0;
	for (uint32_t entry = 0; r == 0 && entry < LIVE; entry += BENCH_ROWS) {
		struct bench_batch batch;
		bench_batch_init(&batch, BENCH_ROWS, entry);
		r = sk_backend_begin_step(o->backend, &batch.batch);
		for (uint32_t layer = 0; r == 0 && layer < LAYERS; layer++)
			sk_backend_append(o->backend, o->out[0], o->in[0], layer);
		if (r == 0)
			r = sk_backend_end_step(o->backend);
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
		r = alloc_sets(&o, bench, &all[i]);
		if (r == 0 && all[i].run == append) /* which comes before attend */
			r = fill_pages(&o);
		if (r == 0)
			r = measure(&o, bench, &all[i], 1);
		if (r == 0)
			r = measure(&o, bench, &all[i], BENCH_ROWS);
		free_sets(&o);
	}
	sk_backend_close(o.backend);
	return r;
}
