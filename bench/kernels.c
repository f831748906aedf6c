/* bench_kernels --read: how fast this machine reads memory, in GB/s, by all cores together.
 * bench_kernels [INSTRUCTIONS [THREADS]]: how fast the CPU backend reads packed weights when it decodes
 * one token, beside how fast this machine reads memory at all (measured in turns with it), and how fast
 * it multiplies many rows. A (2560, 10240) matrix, in as many copies as no cache holds. */
#include "backend/backend.h"
#include "base/clock.h"
#include "cpu/cpu.h"
#include "cpu/pool.h"
#include "cpu/region.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_COLS      2560
#define N_OUT       10240
#define MAX_ROWS    256
#define MANY_BYTES  ((size_t)1 << 30)
#define MAX_COPIES  128
#define ROUNDS      5
#define READ_ROUNDS 32 /* a second or so */
#define CHUNK_WORDS ((size_t)1 << 17) /* 1 MB */

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

struct reading {
	const uint64_t *words;
	uint64_t sums[MANY_BYTES / 8 / CHUNK_WORDS];
};

static void read_chunk(void *job, uint32_t chunk, uint32_t thread)
{
	struct reading *reading = job;
	const uint64_t *words = reading->words + chunk * CHUNK_WORDS;
	uint64_t sums[8] = {0};
	(void)thread;
	for (size_t i = 0; i < CHUNK_WORDS; i += 8) {
		__builtin_prefetch(words + i + 512);
		for (int j = 0; j < 8; j++)
			sums[j] += words[i + (size_t)j];
	}
	for (int j = 0; j < 8; j++)
		reading->sums[chunk] += sums[j];
}

static double read_gb_per_s(struct sk_cpu_pool *pool, struct reading *reading)
{
	uint64_t start = sk_clock_ns();
	sk_cpu_pool_run(pool, MANY_BYTES / 8 / CHUNK_WORDS, read_chunk, reading);
	return (double)MANY_BYTES / (double)(sk_clock_ns() - start);
}

struct bench {
	struct sk_backend *backend;
	struct sk_cpu_pool *pool;
	struct reading *reading;
	struct sk_buffer *in, *out;
	struct sk_linear *ids;
	struct sk_row rows[MAX_ROWS];
	uint32_t pages[MAX_ROWS / SK_PAGE_TOKENS];
};

static double run_ns(struct bench *bench, struct sk_linear *const *linears, size_t n_linears,
		     uint32_t n_rows)
{
	struct sk_span span = {
		.n_rows = n_rows, .pages = bench->pages, .n_pages = MAX_ROWS / SK_PAGE_TOKENS};
	struct sk_batch batch = {n_rows, 1, bench->rows, &span};
	if (sk_backend_begin_step(bench->backend, &batch) < 0)
		return 0;
	sk_backend_embed(bench->backend, bench->in, bench->ids);
	uint64_t start = sk_clock_ns();
	for (size_t i = 0; i < n_linears; i++)
		sk_backend_matmul(bench->backend, bench->out, bench->in, linears[i]);
	sk_backend_end_step(bench->backend);
	return (double)(sk_clock_ns() - start);
}

static int bench_format(struct bench *bench, size_t f, const void *data)
{
	static struct sk_linear *linears[MAX_COPIES];
	const bool halves = formats[f].dtypes[1] != SK_DTYPE_F32;
	const uint32_t n_above = halves ? N_OUT / 2 : N_OUT, n_below = N_OUT - n_above;
	struct sk_tensor above = {formats[f].name, formats[f].dtypes[0], n_above, N_COLS, data},
			 below = {formats[f].name, formats[f].dtypes[1], n_below, N_COLS, data};
	struct sk_matrix matrix = {
		N_OUT, N_COLS, halves ? 2 : 1, {{&above, NULL, n_above}, {&below, NULL, n_below}}};
	uint64_t before = sk_backend_weight_bytes(bench->backend), bytes = 0;
	size_t n = 0;
	while (n < MAX_COPIES && bytes < MANY_BYTES) {
		int r = sk_backend_pack_linear(bench->backend, &matrix, NULL, formats[f].format,
					       &linears[n++]);
		if (r < 0)
			return r;
		bytes = sk_backend_weight_bytes(bench->backend) - before;
	}

	double decode = 0, read = 0, prefill = 0, ratio = 0;
	for (int i = 0; i < ROUNDS;
	     i++) { /* in turns, so that both see the same machine; the best counts */
		double a = (double)bytes / run_ns(bench, linears, n, 1),
		       b = read_gb_per_s(bench->pool, bench->reading);
		double c = 2.0 * N_COLS * N_OUT * MAX_ROWS / run_ns(bench, linears, 1, MAX_ROWS);
		decode = a > decode ? a : decode;
		read = b > read ? b : read;
		prefill = c > prefill ? c : prefill;
		ratio += a / b / ROUNDS;
	}
	printf("%-5s %6.2f %10.1f %10.1f %9.2f %12.0f\n", formats[f].name,
	       8.0 * (double)bytes / (double)n / N_COLS / N_OUT, decode, read, ratio, prefill);
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	struct sk_backend_shape shape = {.n_layers = 1,
					 .n_heads = 1,
					 .n_kv_heads = 1,
					 .head_dim = 16,
					 .n_rot = 16,
					 .rope_base = 10000,
					 .max_rows = MAX_ROWS};
	struct sk_backend_options options = {
		.instructions = argc > 1 ? argv[1] : NULL,
		.n_threads = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0,
	};
	struct bench bench = {0};
	struct sk_region memory = {0};
	struct sk_diag diag;
	float *data = calloc((size_t)N_OUT * N_COLS, sizeof *data);
	bench.reading = calloc(1, sizeof *bench.reading);
	if (!data || !bench.reading || sk_region_init(&memory, MANY_BYTES) < 0 ||
	    sk_cpu_pool_create(options.n_threads, &bench.pool) < 0) {
		fprintf(stderr, "bench_kernels: out of memory\n");
		return 1;
	}
	memset(memory.data, 1, MANY_BYTES);
	bench.reading->words = memory.data;
	if (argc == 2 && strcmp(argv[1], "--read") == 0) {
		double seconds = 0;
		for (int i = 0; i < READ_ROUNDS; i++)
			seconds += 1 / read_gb_per_s(bench.pool, bench.reading);
		printf("%.2f GB/s\n", READ_ROUNDS / seconds);
		return 0;
	}
	uint32_t state = 1;
	for (size_t i = 0; i < (size_t)N_OUT * N_COLS; i++) {
		state = state * 1664525u + 1013904223u;
		data[i] = (float)(int32_t)state * 0x1p-36f;
	}
	for (uint32_t i = 0; i < MAX_ROWS; i++) {
		bench.rows[i] = (struct sk_row){.entry = i, .id = (int32_t)i};
		bench.pages[i / SK_PAGE_TOKENS] = i / SK_PAGE_TOKENS;
	}
	struct sk_tensor tensor = {"activations", SK_DTYPE_F32, MAX_ROWS, N_COLS, data};
	struct sk_matrix matrix = {MAX_ROWS, N_COLS, 1, {{&tensor, NULL, MAX_ROWS}}};

	int r = 0;
	for (size_t f = 0; f < sizeof formats / sizeof *formats && r == 0;
	     f++) { /* each frees the last one's */
		r = sk_backend_open(&sk_cpu_backend, &options, &shape, &bench.backend, &diag);
		if (r < 0) {
			fprintf(stderr, "bench_kernels: %s\n", diag.text);
			return 1;
		}
		if (f == 0)
			printf("%s\nkind  bits/w  decode GB/s  read GB/s  ratio  prefill GFLOP/s "
			       "(%d rows)\n",
			       sk_backend_name(bench.backend), MAX_ROWS);
		r = sk_backend_reserve_pages(bench.backend, MAX_ROWS / SK_PAGE_TOKENS);
		if (r == 0)
			r = sk_backend_alloc(bench.backend, MAX_ROWS, N_COLS, &bench.in);
		if (r == 0)
			r = sk_backend_alloc(bench.backend, MAX_ROWS, N_OUT, &bench.out);
		if (r == 0)
			r = sk_backend_pack_linear(bench.backend, &matrix, NULL, SK_WEIGHTS_F32,
						   &bench.ids);
		if (r == 0)
			r = bench_format(&bench, f, data);
		sk_backend_close(bench.backend);
	}
	if (r < 0)
		fprintf(stderr, "bench_kernels: %s\n", strerror(-r));
	sk_cpu_pool_destroy(bench.pool);
	sk_region_finish(&memory);
	free(bench.reading);
	free(data);
	return r < 0;
}
