#include "bench/bench.h"

#include "base/clock.h"
#include "cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_COPIES 128

static const struct {
	const char *name;
	enum sk_dtype dtypes[2]; /* the second of the lower half of the rows, where it is not F32 */
	enum sk_weight_format format;
} formats[] = {
	{"f32", {SK_DTYPE_F32}, SK_WEIGHTS_AUTO},
	{"f16", {SK_DTYPE_F16}, SK_WEIGHTS_AUTO},
	{"bf16", {SK_DTYPE_F32}, SK_WEIGHTS_BF16},
	{"q8", {SK_DTYPE_F32}, SK_WEIGHTS_Q8},
	{"q8m", {SK_DTYPE_Q5_1}, SK_WEIGHTS_AUTO},
	{"q4", {SK_DTYPE_F32}, SK_WEIGHTS_Q4},
	{"q4m", {SK_DTYPE_Q4_1}, SK_WEIGHTS_AUTO},
	{"q8h", {SK_DTYPE_Q6_K}, SK_WEIGHTS_AUTO},
	{"q8hm", {SK_DTYPE_Q6_K, SK_DTYPE_Q4_K}, SK_WEIGHTS_AUTO},
};
#define N_FORMATS (sizeof formats / sizeof *formats)

struct matrices {
	struct sk_backend *backend;
	struct sk_buffer *in, *out;
	struct sk_linear *inputs, *copies[MAX_COPIES];
	size_t n_copies;
	uint64_t bytes; /* of all copies */
};

void bench_batch_init(struct bench_batch *b, uint32_t n_rows, uint32_t entry)
{
	*b = (struct bench_batch){0};
	for (uint32_t i = 0; i < n_rows; i++)
		b->rows[i] = (struct sk_row){.entry = entry + i, .id = (int32_t)i};
	for (uint32_t i = 0; i < sizeof b->pages / sizeof *b->pages; i++)
		b->pages[i] = i;
	b->span = (struct sk_span){.n_rows = n_rows,
				   .pages = b->pages,
				   .n_pages = (entry + n_rows - 1) / SK_PAGE_TOKENS + 1};
	b->batch = (struct sk_batch){n_rows, 1, b->rows, &b->span};
}

/* Nanoseconds of n_rows rows through the first n copies. */
static int run_ns(struct matrices *m, size_t n, uint32_t n_rows, double *ret_ns)
{
	struct bench_batch batch;
	bench_batch_init(&batch, n_rows, 0);
	int r = sk_backend_begin_step(m->backend, &batch.batch);
	if (r < 0)
		return r;
	sk_backend_embed(m->backend, m->in, m->inputs);
	uint64_t start = sk_clock_ns();
	for (size_t i = 0; i < n; i++)
		sk_backend_matmul(m->backend, m->out, m->in, m->copies[i]);
	r = sk_backend_end_step(m->backend);
	*ret_ns = (double)(sk_clock_ns() - start);
	return r;
}

static int prepare(struct matrices *m, const struct bench *bench, size_t f)
{
	const bool halves = formats[f].dtypes[1] != SK_DTYPE_F32;
	const uint32_t n_above = halves ? BENCH_INNER / 2 : BENCH_INNER,
		       n_below = BENCH_INNER - n_above;
	struct sk_tensor above = {formats[f].name, formats[f].dtypes[0], n_above, BENCH_WIDTH,
				  bench->data},
			 below = {formats[f].name, formats[f].dtypes[1], n_below, BENCH_WIDTH,
				  bench->data},
			 rows = {"activations", SK_DTYPE_F32, BENCH_ROWS, BENCH_WIDTH, bench->data};
	struct sk_matrix matrix = {BENCH_INNER,
				   BENCH_WIDTH,
				   halves ? 2 : 1,
				   {{&above, NULL, n_above}, {&below, NULL, n_below}}};
	struct sk_matrix inputs = {BENCH_ROWS, BENCH_WIDTH, 1, {{&rows, NULL, BENCH_ROWS}}};

	int r = sk_backend_reserve_pages(m->backend, BENCH_ROWS / SK_PAGE_TOKENS);
	if (r == 0)
		r = sk_backend_alloc(m->backend, BENCH_ROWS, BENCH_WIDTH, &m->in);
	if (r == 0)
		r = sk_backend_alloc(m->backend, BENCH_ROWS, BENCH_INNER, &m->out);
	if (r == 0)
		r = sk_backend_pack_linear(m->backend, &inputs, NULL, SK_WEIGHTS_F32, &m->inputs);
	const uint64_t before = sk_backend_weight_bytes(m->backend);
	while (r == 0 && m->n_copies < MAX_COPIES && m->bytes < BENCH_MANY_BYTES) {
		r = sk_backend_pack_linear(m->backend, &matrix, NULL, formats[f].format,
					   &m->copies[m->n_copies++]);
		m->bytes = sk_backend_weight_bytes(m->backend) - before;
	}
	return r;
}

static double most(double a, double b)
{
	return a > b ? a : b;
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

/* In turns with reading, so that both see the same machine. */
static int measure(struct matrices *m, struct bench *bench, size_t f)
{
	/* several rows: enough copies that no cache holds them, too; many: arithmetic, one will do */
	static const uint32_t n_rows[] = {8, 16, 32, BENCH_ROWS};
	const size_t few = m->n_copies / 4 + 1, n_copies[] = {few, few, few, 1};
	const double operations = 2.0 * BENCH_WIDTH * BENCH_INNER;
	double decode = 0, read = 0, ratios[BENCH_ROUNDS], speeds[4] = {0}, ns;
	for (int i = 0; i < BENCH_ROUNDS; i++) {
		double before = reading_gb_per_s(bench->reading);
		int r = run_ns(m, m->n_copies, 1, &ns);
		double after = reading_gb_per_s(bench->reading);
		if (r < 0)
			return r;
		decode = most(decode, (double)m->bytes / ns);
		read = most(read, most(before, after));
		ratios[i] = (double)m->bytes / ns * 2 / (before + after);
		for (int j = 0; j < 4; j++) {
			r = run_ns(m, n_copies[j], n_rows[j], &ns);
			if (r < 0)
				return r;
			speeds[j] =
				most(speeds[j], n_rows[j] * operations * (double)n_copies[j] / ns);
		}
	}
	qsort(ratios, BENCH_ROUNDS, sizeof *ratios, compare);
	const double ratio = ratios[BENCH_ROUNDS / 2];
	if (f == 0) {
		bench->gb_per_s = read;
		bench->gflop_per_s = speeds[3];
	}
	bench->above_reading |= ratio > 1;
	printf("%-5s %6.2f %8.1f %8.1f %7.2f %8.0f %8.0f %8.0f %8.0f\n", formats[f].name,
	       8.0 * (double)m->bytes / (double)m->n_copies / BENCH_WIDTH / BENCH_INNER, decode,
	       read, ratio, speeds[0], speeds[1], speeds[2], speeds[3]);
	fflush(stdout);
	return 0;
}

int bench_matrices(struct bench *bench)
{
	const struct sk_backend_shape shape = {.n_layers = 1,
					       .n_heads = 1,
					       .n_kv_heads = 1,
					       .head_dim = 16,
					       .n_rot = 16,
					       .rope_base = 10000,
					       .max_rows = BENCH_ROWS};
	struct sk_diag diag;
	int r = 0;
	bench->above_reading = false;
	for (size_t f = 0; f < N_FORMATS && r == 0; f++) { /* each frees the last one's memory */
		struct matrices m = {0};
		r = sk_backend_open(&sk_cpu_backend, &bench->options, &shape, &m.backend, &diag);
		if (r < 0)
			return r;
		if (f == 0)
			printf("\n%s\nweights       1 row  reading   ratio   8 rows       16       "
			       "32      %d\n"
			       "       bits     GB/s     GB/s          GFLOP/s  GFLOP/s  GFLOP/s  "
			       "GFLOP/s\n",
			       sk_backend_name(m.backend), BENCH_ROWS);
		r = prepare(&m, bench, f);
		if (r == 0)
			r = measure(&m, bench, f);
		sk_backend_close(m.backend);
	}
	if (r == 0 && bench->above_reading)
		printf("A ratio above 1: no reader here is as fast as that product; memory is "
		       "faster than the "
		       "baseline says.\n");
	return r;
}
