/* Steps are captured once: each of up to 256 rows stays, and when there are too many all begin anew. Also where all have the
 * same hash (cusim_graphs_one_key), so that what else tells them apart has to. */
#include "kernel.h"

#include "gpu/device.h"

enum { N = 256, WIDTH = 32, KINDS = 3 };

/* A step of n rows that is unlike those of another kind: how often it does the same. */
static void step(struct sk_backend *backend, struct sk_linear *table, struct sk_buffer *out,
		 uint32_t n, uint32_t kind)
{
	static const uint32_t page;
	struct sk_row rows[N];
	struct sk_span spans[N];
	for (uint32_t i = 0; i < n; i++) {
		rows[i] = (struct sk_row){.id = (int32_t)(n - 1 - i)};
		spans[i] = (struct sk_span){.row = i, .n_rows = 1, .pages = &page, .n_pages = 1};
	}
	const struct sk_batch batch = {n, n, rows, spans};
	assert_int_equal(sk_backend_begin_step(backend, &batch), 0);
	for (uint32_t i = 0; i <= kind; i++)
		sk_backend_embed(backend, out, table);
	assert_int_equal(sk_backend_end_step(backend), 0);
}

static void test_many(void **state)
{
	(void)state;
	struct sk_backend_shape shape = default_shape();
	shape.max_rows = N;
	struct sk_backend *backend = open_or_skip("cuda", 1, true, &shape);
	assert_int_equal(sk_backend_reserve_pages(backend, 1), 0);
	float *data = random_floats((size_t)N * WIDTH, 1);
	struct sk_linear *table = pack_floats(backend, data, N, WIDTH);
	struct sk_buffer *out = buffer_of(backend, N, WIDTH);
	const struct sk_gpu *gpu = sk_gpu_from(backend);
	assert_int_equal(SK_GPU_GRAPHS, 2 * N);
	for (uint32_t kind = 0; kind < KINDS; kind++)
		for (int again = 0; again < (kind == 1 ? 1 : 2); again++)
			for (uint32_t n = 1; n <= N; n++) {
				step(backend, table, out, n, kind);
				assert_memory_equal(sk_backend_read(backend, out, n - 1), data,
						    WIDTH * sizeof *data);
				const uint32_t before = kind % 2 * N;
				assert_int_equal(gpu->n_graphs, before + (again ? N : n));
			}
	sk_backend_free(backend, out);
	assert_int_equal(gpu->n_graphs, 0);
	sk_backend_close(backend);
	free(data);
}

/* The same operations over more pages, which more blocks share, are another step. */
static void test_segments(void **state)
{
	(void)state;
	static const uint32_t n_pages[] = {40, 20, 40, 20}, n_graphs[] = {1, 2, 2, 2};
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip("cuda", 1, true, &shape);
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	sk_backend_clear_pages(backend, (uint32_t[]){0, 1}, 2);
	float *data = random_floats(48, 1);
	struct sk_linear *table = pack_floats(backend, data, 1, 48);
	struct sk_buffer *qkv = buffer_of(backend, 1, 48), *q = buffer_of(backend, 1, 32),
			 *out = buffer_of(backend, 1, 16);
	for (int i = 0; i < 4; i++) {
		uint32_t pages[40] = {0};
		pages[n_pages[i] - 1] = 1;
		struct sk_row row = {.entry = (uint64_t)(n_pages[i] - 1) * SK_PAGE_TOKENS};
		struct sk_span span = {.n_rows = 1, .pages = pages, .n_pages = n_pages[i]};
		const struct sk_batch batch = {1, 1, &row, &span};
		assert_int_equal(sk_backend_begin_step(backend, &batch), 0);
		sk_backend_embed(backend, qkv, table);
		sk_backend_append(backend, q, qkv, 0);
		sk_backend_attend(backend, out, q, 0);
		assert_int_equal(sk_backend_end_step(backend), 0);
		assert_int_equal(sk_gpu_from(backend)->n_graphs, n_graphs[i]);
	}
	sk_backend_close(backend);
	free(data);
}

/* Two rows, the first over page 1, the second over many. */
struct two_rows {
	uint32_t one, *pages;
	struct sk_row rows[2];
	struct sk_span spans[2];
	struct sk_batch batch;
};

static void begin_over(struct sk_backend *backend, struct two_rows *two, uint32_t n_pages)
{
	two->one = 1;
	two->pages = calloc(n_pages, sizeof *two->pages);
	assert_non_null(two->pages);
	two->rows[0] = (struct sk_row){.id = 1};
	two->rows[1] = (struct sk_row){.entry = (uint64_t)n_pages * SK_PAGE_TOKENS - 1};
	two->spans[0] = (struct sk_span){.row = 0, .n_rows = 1, .pages = &two->one, .n_pages = 1};
	two->spans[1] =
		(struct sk_span){.row = 1, .n_rows = 1, .pages = two->pages, .n_pages = n_pages};
	two->batch = (struct sk_batch){2, 2, two->rows, two->spans};
	assert_int_equal(sk_backend_begin_step(backend, &two->batch), 0);
}

static void end(struct sk_backend *backend, struct two_rows *two)
{
	assert_int_equal(sk_backend_end_step(backend), 0);
	free(two->pages);
}

/* A graph knows addresses: where what is told to the device, or what products leave for one another, gets another place, none
 * stays. What was told before it grew is there still. */
static void test_moved(void **state)
{
	(void)state;
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip("cuda", 1, true, &shape);
	const struct sk_gpu *gpu = sk_gpu_from(backend);
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	float *data = random_floats((size_t)N * WIDTH, 1);
	struct sk_linear *table = pack_floats(backend, data, 2, WIDTH);
	struct sk_buffer *out = buffer_of(backend, 2, WIDTH);
	const uint32_t most = (uint32_t)gpu->max_table;
	struct two_rows two;
	begin_over(backend, &two, most - 1); /* attention's parts get their place */
	assert_int_equal(gpu->max_table, most);
	end(backend, &two);
	step(backend, table, out, 1, 0);
	step(backend, table, out, 2, 0);
	assert_int_equal(gpu->n_graphs, 2);

	const void *parts = gpu->parts.data;
	begin_over(backend, &two, most); /* one too many */
	assert_true(gpu->max_table > most && gpu->parts.data == parts);
	assert_int_equal(((const uint32_t *)(gpu->telling + gpu->told_table))[0], 1);
	assert_int_equal(gpu->n_graphs, 0);
	sk_backend_embed(backend, out, table);
	end(backend, &two);
	assert_memory_equal(sk_backend_read(backend, out, 0), data + WIDTH, WIDTH * sizeof *data);
	assert_int_equal(gpu->n_graphs, 1);

	const struct sk_tensor tensor = float_tensor(data, N, WIDTH);
	const struct sk_matrix matrix = matrix_of(&tensor);
	struct sk_linear *many;
	assert_int_equal(sk_backend_pack_linear(backend, &matrix, NULL, SK_WEIGHTS_BF16, &many), 0);
	assert_int_equal(gpu->n_graphs, 0);
	sk_backend_close(backend);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_many),
					   cmocka_unit_test(test_segments),
					   cmocka_unit_test(test_moved)};
	return sk_test_run(tests, NULL, NULL);
}
