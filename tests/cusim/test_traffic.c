/* How well accesses go together, by the file that a kernel stands in: a decode step of four sessions with a cache of nine
 * pages, every format of weights, pages of F16 and of BF16. The bounds are gates: what is streamed is read in whole sectors,
 * and shared memory without conflicts that matter. Kernels that stream nothing are held to all that they touch.
 */
#include "control.h"
#include "kernel.h"

#define WIDTH    512
#define HEADS    8
#define HEAD_DIM 64
#define N_ROWS   4
#define N_PAGES  9 /* of a session */
#define N_VOCAB  4096

/* Sectors of what is streamed (0: nothing is), of other global memory (0: no gate), and cycles of shared memory, against the
 * least there could be. */
static const struct {
	const char *file;
	double most_sectors, most_others, most_cycles;
} bounds[] = {
	{"few.cu", 1, 0, 1},
	{"matvec.cu", 1, 1, 1},
	{"attend.cu", 1, 1, 1.2},
	{"append.cu", 0, 1.1, 1},
	{"rows.cu", 0, 1, 1},
	{"convert.cu", 1, 0, 1},
	{"sum.cu", 1, 1, 1},
	/* Some passes walk over ids in order, a run to each lane: eight logits a sector, of which the first-level cache has
	 * seven. Lanes add to the same bins. */
	{"draw.cu", 0, 3, 1.5},
};

static double share(long n, long n_least)
{
	return n_least ? (double)n / (double)n_least : 0;
}

static struct sk_linear *pack(struct sk_backend *backend, uint32_t n_rows, uint32_t n_cols,
			      enum sk_weight_format format)
{
	float *x = random_floats((size_t)n_rows * n_cols, 0.05f);
	const struct sk_tensor tensor = float_tensor(x, n_rows, n_cols);
	const struct sk_matrix matrix = matrix_of(&tensor);
	struct sk_linear *linear;
	assert_int_equal(sk_backend_pack_linear(backend, &matrix, NULL, format, &linear), 0);
	free(x);
	return linear;
}

static void step(struct sk_backend *backend, struct sk_linear *const *linears, unsigned n_linears,
		 struct sk_linear *table, struct sk_norm *norm, uint32_t n_rows)
{
	struct sk_row rows[N_ROWS];
	struct sk_span spans[N_ROWS];
	uint32_t pages[N_ROWS][N_PAGES];
	struct sk_draw draws[N_ROWS];
	struct sk_buffer *x = buffer_of(backend, N_ROWS, WIDTH),
			 *h = buffer_of(backend, N_ROWS, WIDTH),
			 *qkv = buffer_of(backend, N_ROWS, 3 * WIDTH),
			 *q = buffer_of(backend, N_ROWS, 2 * WIDTH),
			 *att = buffer_of(backend, N_ROWS, WIDTH),
			 *act = buffer_of(backend, N_ROWS, WIDTH),
			 *logits = buffer_of(backend, N_ROWS, N_VOCAB),
			 *drawn = buffer_of(backend, N_ROWS, SK_DRAWN_WIDTH);
	for (uint32_t i = 0; i < n_rows; i++) {
		rows[i] = (struct sk_row){
			.entry = 9 * 32 - 1, .first = 32, .n_sink = 4, .id = (int32_t)i};
		for (uint32_t k = 0; k < N_PAGES; k++)
			pages[i][k] = i * N_PAGES + k;
		spans[i] = (struct sk_span){.row = i,
					    .n_rows = 1,
					    .sink_pages = &pages[i][0],
					    .n_sink_pages = 1,
					    .pages = &pages[i][1],
					    .n_pages = N_PAGES - 1,
					    .page0 = 1};
		draws[i] = (struct sk_draw){.n_ids = N_VOCAB,
					    .temperature = 1,
					    .top_k = 40,
					    .top_p = 0.95f,
					    .repeat_penalty = 1,
					    .random = 0.5};
	}
	const struct sk_batch batch = {n_rows, n_rows, rows, spans};
	assert_int_equal(sk_backend_begin_step(backend, &batch), 0);
	sk_backend_embed(backend, x, table);
	sk_backend_norm(backend, h, x, norm, 1e-5f, true);
	for (unsigned i = 0; i < n_linears; i++)
		sk_backend_matmul(backend, qkv, h, linears[i]);
	sk_backend_append(backend, q, qkv, 0);
	sk_backend_attend(backend, att, q, 0);
	sk_backend_activate(backend, act, att, SK_ACT_GELU);
	sk_backend_matmul(backend, logits, act, table);
	sk_backend_draw(backend, drawn, logits, draws);
	assert_int_equal(sk_backend_end_step(backend), 0);
	struct sk_buffer *all[] = {x, h, qkv, q, att, act, logits, drawn};
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
		sk_backend_free(backend, all[i]);
}

static void test_traffic(void **state)
{
	static const enum sk_weight_format formats[] = {SK_WEIGHTS_BF16, SK_WEIGHTS_F32,
							SK_WEIGHTS_Q8, SK_WEIGHTS_Q4};
	struct sk_backend_shape shape = {.n_layers = 1,
					 .n_heads = HEADS,
					 .n_kv_heads = HEADS,
					 .head_dim = HEAD_DIM,
					 .n_rot = HEAD_DIM / 4,
					 .rope_base = 10000,
					 .kv_format = *(const enum sk_kv_format *)*state,
					 .max_rows = N_ROWS};
	struct sk_backend *backend = open_or_skip("cuda", 1, false, &shape);
	struct sk_linear *linears[4];
	struct sk_norm *norm;
	struct sk_shared_weights shared;
	unsigned n_bad = 0;
	float *ones = random_floats(WIDTH, 1);
	const struct sk_tensor gain = float_tensor(ones, WIDTH, 1);
	const struct sk_matrix weight = matrix_of(&gain), none = {0};
	assert_int_equal(sk_backend_reserve_pages(backend, N_ROWS * N_PAGES), 0);
	assert_int_equal(sk_backend_share_weights(backend, 16 << 20), 0);
	for (int i = 0; i < 4; i++)
		linears[i] = pack(backend, 3 * WIDTH, WIDTH, formats[i]);
	struct sk_linear *table = pack(backend, N_VOCAB, WIDTH, SK_WEIGHTS_BF16);
	assert_int_equal(sk_backend_pack_norm(backend, &weight, &none, &norm), 0);
	cusim_count_traffic(1);
	assert_int_equal(sk_backend_export_weights(backend, &shared), 0);
	step(backend, linears, 4, table, norm, 1);
	step(backend, linears, 4, table, norm, N_ROWS);
	print_message("  %-12s %9s %12s %9s %12s %14s\n", "", "streamed", "sectors", "others",
		      "sectors", "shared cycles");
	for (unsigned i = 0; i < sizeof bounds / sizeof *bounds; i++) {
		const struct cusim_traffic_of t = cusim_traffic(bounds[i].file);
		const double sectors = share(t.sectors, t.sectors_least),
			     others = share(t.other_sectors, t.other_sectors_least),
			     cycles = share(t.shared_cycles, t.shared_least);
		print_message("  %-12s %9ld %9.3f x  %9ld %9.3f x  %11.3f x  (at most %.2f, %.2f, "
			      "%.2f)\n",
			      bounds[i].file, t.requests, sectors, t.other_requests, others, cycles,
			      bounds[i].most_sectors, bounds[i].most_others, bounds[i].most_cycles);
		n_bad += !t.launches || sectors > bounds[i].most_sectors ||
			 !t.requests != !bounds[i].most_sectors ||
			 (bounds[i].most_others && others > bounds[i].most_others) ||
			 (bounds[i].most_others && !t.other_requests) ||
			 cycles > bounds[i].most_cycles;
	}
	cusim_count_traffic(0);
	assert_int_equal(n_bad, 0);
	assert_int_equal(cusim_n_errors(), 0);
	sk_backend_close(backend);
	sk_shared_weights_finish(&shared);
	free(ones);
}

int main(void)
{
	static enum sk_kv_format formats[] = {SK_KV_F16, SK_KV_BF16};
	const struct CMUnitTest tests[] = {
		{"test_traffic f16", test_traffic, NULL, NULL, &formats[0]},
		{"test_traffic bf16", test_traffic, NULL, NULL, &formats[1]},
	};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
