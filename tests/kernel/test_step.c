/* What begin_step refuses, pages cleared and copied, rows gathered, and what can be opened and packed. One long file, since a
 * GPU's sanitizers (tools/gpu-day) and the planted faults (tests/cusim) run all of it as one program. */
#include "kernel.h"

static struct sk_backend *open_with_pages(const char *instructions, uint32_t n_pages)
{
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(instructions, 2, true, &shape);
	assert_int_equal(sk_backend_reserve_pages(backend, n_pages), 0);
	return backend;
}

struct two_sessions {
	uint32_t sink_pages[2], pages[2][3];
	struct sk_row rows[8];
	struct sk_span spans[2];
	struct sk_batch batch;
};

/* Five rows of a session that has evicted, then three of a fresh one: nothing wrong with it. */
static void sound(struct two_sessions *two)
{
	*two = (struct two_sessions){.sink_pages = {3, 4},
				     .pages = {{5, 6, SK_NO_PAGE}, {1, SK_NO_PAGE, SK_NO_PAGE}}};
	for (uint32_t i = 0; i < 5; i++)
		two->rows[i] = (struct sk_row){.entry = 190 + i, .first = 160 + i, .n_sink = 40};
	for (uint32_t i = 0; i < 3; i++)
		two->rows[5 + i] = (struct sk_row){.entry = i};
	two->spans[0] = (struct sk_span){.n_rows = 5,
					 .sink_pages = two->sink_pages,
					 .n_sink_pages = 2,
					 .pages = two->pages[0],
					 .n_pages = 3,
					 .page0 = 5};
	two->spans[1] =
		(struct sk_span){.row = 5, .n_rows = 3, .pages = two->pages[1], .n_pages = 3};
	two->batch = (struct sk_batch){8, 2, two->rows, two->spans};
}

static void test_batches(void **state)
{
	struct sk_backend *backend = open_with_pages(*state, 8);
	struct two_sessions two;

	sound(&two);
	assert_int_equal(sk_backend_begin_step(backend, &two.batch), 0);
	assert_int_equal(sk_backend_end_step(backend), 0);

#define REFUSED(change)                                                                            \
	do {                                                                                       \
		sound(&two);                                                                       \
		change;                                                                            \
		assert_int_equal(sk_backend_begin_step(backend, &two.batch), -EINVAL);             \
	} while (0)
	REFUSED(two.batch.n_rows = 0);
	REFUSED(two.batch.n_rows = MAX_ROWS + 1);
	REFUSED(two.batch.n_rows = 9);
	REFUSED(two.batch.n_rows = 7);
	REFUSED(two.batch.n_spans = 0);
	REFUSED(two.batch.n_spans = 1);
	REFUSED(two.spans[1].row = 4);
	REFUSED(two.spans[1].row = 6);
	REFUSED(two.spans[0].n_rows = 0);
	REFUSED(two.spans[1].n_rows = UINT32_MAX);
	REFUSED(two.rows[3].entry++);
	REFUSED(two.rows[7].entry = 1);
	REFUSED(two.rows[2].first = two.rows[2].entry + 1);
	REFUSED(two.rows[6].n_sink = 1);
	REFUSED(two.rows[0].first = 159);
	REFUSED(two.rows[4].n_sink = 65; two.rows[4].first = 164);
	REFUSED(two.sink_pages[1] = 8);
	REFUSED(two.spans[0].n_sink_pages = 1);
	REFUSED(two.pages[0][1] = SK_NO_PAGE);
	REFUSED(two.pages[1][0] = 8);
	REFUSED(two.spans[0].n_pages = 1);
	REFUSED(two.spans[0].page0 = 6);
	REFUSED(two.spans[0].page0 = 3);
	REFUSED(for (int i = 0; i < 5; i++) two.rows[i].entry = UINT64_MAX - 2 + (uint64_t)i);
#undef REFUSED

	sound(&two);
	assert_int_equal(sk_backend_begin_step(backend, &two.batch), 0);
	assert_int_equal(sk_backend_end_step(backend), 0);
	sk_backend_close(backend);
}

/* Appends row 0 of `table` as entry `entry` on `page`, and returns what it then attends to. */
static void attend_one(struct sk_backend *backend, const struct sk_linear *table, uint32_t page,
		       uint32_t id, uint64_t entry, float out[16])
{
	static struct sk_buffer *qkv, *q, *o;
	struct sk_row row = {.entry = entry, .id = (int32_t)id};
	struct sk_span span = {.n_rows = 1, .pages = &page, .n_pages = 1};
	struct sk_batch batch = {1, 1, &row, &span};
	qkv = buffer_of(backend, 1, 48);
	q = buffer_of(backend, 1, 32);
	o = buffer_of(backend, 1, 16);
	assert_int_equal(sk_backend_begin_step(backend, &batch), 0);
	sk_backend_embed(backend, qkv, table);
	sk_backend_append(backend, q, qkv, 0);
	sk_backend_attend(backend, o, q, 0);
	assert_int_equal(sk_backend_end_step(backend), 0);
	memcpy(out, sk_backend_read(backend, o, 0), 16 * sizeof *out);
	sk_backend_free(backend, qkv);
	sk_backend_free(backend, q);
	sk_backend_free(backend, o);
}

static void test_pages(void **state)
{
	struct sk_backend *backend = open_with_pages(*state, 4);
	float *data = random_floats(20 * 48, 1), a[16], b[16];
	struct sk_linear *table = pack_floats(backend, data, 20, 48);
	for (uint32_t i = 0; i < 10; i++)
		attend_one(backend, table, 2, i, i, a);

	sk_backend_copy_page(backend, 2, 0);
	attend_one(backend, table, 2, 10, 10, a);
	attend_one(backend, table, 0, 10, 10, b);
	assert_memory_equal(a, b, sizeof a);

	/* A page that was cleared is one that was never used: keys of zero weigh e^0, values of zero nothing. */
	sk_backend_clear_pages(backend, (uint32_t[]){2, 0}, 2);
	attend_one(backend, table, 2, 11, 5, a);
	attend_one(backend, table, 3, 11, 5, b);
	assert_memory_equal(a, b, sizeof a);
	double score = 0;
	for (int i = 0; i < 16; i++)
		score += (double)data[11 * 48 + i] * data[11 * 48 + 16 + i] / 4;
	for (int i = 0; i < 16; i++)
		assert_true(fabs(a[i] - data[11 * 48 + 32 + i] * exp(score) / (exp(score) + 5)) <
			    1e-5);
	assert_int_equal(sk_backend_reserve_pages(backend, 4), -EBUSY);
	free(data);
	sk_backend_close(backend);
}

/* Copies to and from the host see what was done to a page before, and steps see them, though nobody waits in between. */
static void test_pages_in_order(void **state)
{
	struct sk_backend *backend = open_with_pages(*state, 4);
	const size_t n = sk_backend_page_bytes(backend);
	float *data = random_floats(20 * 48, 1), a[16], b[16], want[16];
	struct sk_linear *table = pack_floats(backend, data, 20, 48);
	char *page = malloc(n), *read = malloc(n), *zeros = calloc(n, 1);
	assert_true(page && read && zeros);
	for (uint32_t i = 0; i < 10; i++)
		attend_one(backend, table, 2, i, i, a);
	assert_int_equal(sk_backend_read_page(backend, 2, page), 0);
	assert_true(memcmp(page, zeros, n) != 0);

	sk_backend_copy_page(backend, 2, 0);
	assert_int_equal(sk_backend_read_page(backend, 0, read), 0);
	assert_memory_equal(read, page, n);
	attend_one(backend, table, 2, 10, 10, want);
	sk_backend_clear_pages(backend, (uint32_t[]){2, 0}, 2);
	assert_int_equal(sk_backend_read_page(backend, 0, read), 0);
	assert_memory_equal(read, zeros, n);
	sk_backend_clear_pages(backend, (uint32_t[]){2, 3}, 2);
	assert_int_equal(sk_backend_write_page(backend, 3, page), 0);
	attend_one(backend, table, 3, 10, 10, b);
	assert_memory_equal(b, want, sizeof b);
	assert_int_equal(sk_backend_write_page(backend, 2, page), 0);
	attend_one(backend, table, 2, 10, 10, a);
	assert_memory_equal(a, b, sizeof a);
	assert_int_equal(sk_backend_read_page(backend, 3, read), 0);
	assert_int_equal(sk_backend_read_page(backend, 2, page), 0);
	assert_memory_equal(read, page, n);
	free(page);
	free(read);
	free(zeros);
	free(data);
	sk_backend_close(backend);
}

/* The same operations again and again, on the same buffers: what a backend keeps of a step (a graph) must not outlive what
 * it knows. */
struct again {
	struct sk_backend *backend;
	struct sk_linear *table;
	struct sk_buffer *qkv, *q, *out;
};

/* A row at the end of n_pages pages, all but the last of them page 2. */
static void run_again(struct again *again, uint32_t n_pages, uint32_t last, uint32_t id,
		      uint32_t slot, bool attends)
{
	uint32_t *pages = malloc(n_pages * sizeof *pages);
	assert_non_null(pages);
	for (uint32_t i = 0; i < n_pages; i++)
		pages[i] = i + 1 < n_pages ? 2 : last;
	struct sk_row row = {.entry = (uint64_t)(n_pages - 1) * SK_PAGE_TOKENS + slot,
			     .id = (int32_t)id};
	struct sk_span span = {.n_rows = 1, .pages = pages, .n_pages = n_pages};
	struct sk_batch batch = {1, 1, &row, &span};
	assert_int_equal(sk_backend_begin_step(again->backend, &batch), 0);
	sk_backend_embed(again->backend, again->qkv, again->table);
	if (attends) {
		sk_backend_append(again->backend, again->q, again->qkv, 0);
		sk_backend_attend(again->backend, again->out, again->q, 0);
	}
	assert_int_equal(sk_backend_end_step(again->backend), 0);
	free(pages);
}

static void test_again_and_again(void **state)
{
	struct again again = {.backend = open_with_pages(*state, 4)};
	struct sk_backend *backend = again.backend;
	float *data = random_floats(40 * 48, 1), first[16];
	again.table = pack_floats(backend, data, 40, 48);
	again.qkv = buffer_of(backend, 1, 48);
	again.q = buffer_of(backend, 1, 32);
	again.out = buffer_of(backend, 1, 16);
	for (uint32_t slot = 0; slot < SK_PAGE_TOKENS; slot++) /* nobody reads in between */
		run_again(&again, 1, 2, slot, slot, true);
	for (uint32_t i = 0; i < 8; i++) {
		if (i == 2) /* more pages, and parts of attention */
			run_again(&again, 40, 1, 33, 0, true);
		if (i == 3) /* a longer table of pages */
			run_again(&again, 3000, 1, 33, 0, false);
		if (i == 4) { /* another buffer, perhaps in the same place */
			sk_backend_free(backend, again.out);
			again.out = buffer_of(backend, 1, 16);
		}
		if (i == 5 && strcmp(*state, "cuda") == 0) { /* a fault that it sees is told once */
			run_again(&again, 1, 1, 34, 0, false);
			struct plain_batch plain;
			begin_plain(backend, &plain, 1, 0);
			sk_backend_activate(backend, again.out, again.q, SK_ACT_GELU);
			assert_int_equal(sk_backend_end_step(backend), -EINVAL);
		}
		run_again(&again, 20, 3, 35, 5, true);
		const float *got = sk_backend_read(backend, again.out, 0);
		if (i)
			assert_memory_equal(got, first, sizeof first);
		else
			memcpy(first, got, sizeof first);
	}

	/* What was put into page 2 step after step is what other steps, each of them read, put into page 1. */
	float a[16], b[16];
	sk_backend_clear_pages(backend, (uint32_t[]){1}, 1);
	for (uint32_t slot = 0; slot < SK_PAGE_TOKENS - 1; slot++)
		attend_one(backend, again.table, 1, slot, slot, a);
	attend_one(backend, again.table, 1, SK_PAGE_TOKENS - 1, SK_PAGE_TOKENS - 1, a);
	attend_one(backend, again.table, 2, SK_PAGE_TOKENS - 1, SK_PAGE_TOKENS - 1, b);
	assert_memory_equal(a, b, sizeof a);
	free(data);
	sk_backend_close(backend);
}

/* What follows a gather works on its rows, and leaves the others alone. */
static void test_gather(void **state)
{
	struct sk_backend *backend = open_with_pages(*state, 2);
	float *data = random_floats(10 * 32, 1), *w = random_floats(20 * 32, 1);
	struct sk_linear *table = pack_floats(backend, data, 10, 32),
			 *linear = pack_floats(backend, w, 20, 32);
	struct sk_buffer *x = buffer_of(backend, 10, 32), *some = buffer_of(backend, 10, 32);
	struct sk_buffer *all = buffer_of(backend, 10, 20), *out = buffer_of(backend, 10, 20);
	static const uint32_t rows[] = {7, 2, 7};
	struct plain_batch plain;

	begin_plain(backend, &plain, 10, 0);
	sk_backend_embed(backend, x, table);
	sk_backend_matmul(backend, all, x, linear);
	sk_backend_gather(backend, some, x, rows, 3);
	sk_backend_matmul(backend, out, some, linear);
	sk_backend_activate(backend, out, out, SK_ACT_GELU);
	sk_backend_activate(backend, all, all, SK_ACT_GELU);
	assert_int_equal(sk_backend_end_step(backend), 0);
	for (uint32_t i = 0; i < 3; i++)
		assert_memory_equal(sk_backend_read(backend, some, i), data + rows[i] * 32,
				    32 * sizeof(float));
	for (uint32_t i = 3; i < 10; i++)
		for (uint32_t j = 0; j < 20; j++)
			assert_true(sk_backend_read(backend, out, i)[j] == 0);
	for (uint32_t j = 0; j < 20;
	     j++) /* ten rows and three: CUDA multiplies them in other ways */
		if (strcmp(*state, "cuda") == 0)
			assert_true(fabsf(sk_backend_read(backend, out, 1)[j] -
					  sk_backend_read(backend, all, 2)[j]) < 1e-4f);
		else
			assert_true(sk_backend_read(backend, out, 1)[j] ==
				    sk_backend_read(backend, all, 2)[j]);

	begin_plain(backend, &plain, 10, 0); /* the next step has all its rows again */
	sk_backend_embed(backend, x, table);
	sk_backend_matmul(backend, out, x, linear);
	assert_int_equal(sk_backend_end_step(backend), 0);
	assert_true(sk_backend_read(backend, out, 9)[0] != 0);
	free(data);
	free(w);
	sk_backend_close(backend);
}

static void test_open(void **state)
{
	struct sk_backend_options options = {.instructions = "abacus"};
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = NULL;
	struct sk_diag diag = {""};
	(void)state;
	assert_int_equal(sk_backend_open(&sk_cpu_backend, &options, &shape, &backend, &diag),
			 -ENODEV);
	assert_null(backend);
	assert_non_null(strstr(diag.text, "abacus"));
	assert_non_null(strstr(diag.text, "scalar"));

	options.instructions = NULL;
	shape.n_rot = 17;
	assert_int_equal(sk_backend_open(&sk_cpu_backend, &options, &shape, &backend, &diag),
			 -EINVAL);
	shape.n_rot = 16;
	assert_int_equal(sk_backend_open(&sk_cpu_backend, &options, &shape, &backend, &diag), 0);
	assert_int_equal(strncmp(sk_backend_name(backend), "cpu (", 5), 0);
	assert_int_equal(sk_backend_max_rows(backend), MAX_ROWS);
	assert_int_equal(sk_backend_page_bytes(backend), 2 * SK_PAGE_TOKENS * 16 * sizeof(float));
	sk_backend_close(backend);
	sk_backend_close(NULL);
}

/* The environment names an instruction set where no option does; what this machine lacks is refused by name. */
static void test_environment(void **state)
{
	struct sk_backend_options options = {0};
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = NULL;
	struct sk_diag diag = {""};
	const char *before = getenv("STREAMKV_INSTRUCTIONS");
	char *kept = before ? strdup(before) : NULL;
	(void)state;

	assert_int_equal(setenv("STREAMKV_INSTRUCTIONS", "scalar", 1), 0);
	assert_int_equal(sk_backend_open(&sk_cpu_backend, &options, &shape, &backend, &diag), 0);
	assert_non_null(strstr(sk_backend_name(backend), "(scalar"));
	sk_backend_close(backend);
	backend = NULL;

	assert_int_equal(setenv("STREAMKV_INSTRUCTIONS", "abacus", 1), 0);
	assert_int_equal(sk_backend_open(&sk_cpu_backend, &options, &shape, &backend, &diag),
			 -ENODEV);
	assert_null(backend);
	assert_non_null(strstr(diag.text, "'abacus' (from STREAMKV_INSTRUCTIONS)"));

	options.instructions = "scalar"; /* an option comes before it */
	assert_int_equal(sk_backend_open(&sk_cpu_backend, &options, &shape, &backend, &diag), 0);
	assert_non_null(strstr(sk_backend_name(backend), "(scalar"));
	sk_backend_close(backend);

	if (kept)
		setenv("STREAMKV_INSTRUCTIONS", kept, 1);
	else
		unsetenv("STREAMKV_INSTRUCTIONS");
	free(kept);
}

/* Blocks are kept as blocks, and memory that is not there is an error. */
static void test_memory(void **state)
{
	struct sk_backend *backend = open_with_pages(*state, 1);
	uint8_t *data = calloc(1024, 1152);
	assert_non_null(data);
	struct sk_tensor tensor = {"w", SK_DTYPE_Q4_0, 1024, 1024, data};
	struct sk_matrix matrix = matrix_of(&tensor);
	struct sk_linear *linear = NULL;
	struct sk_buffer *buffer = NULL;
	assert_int_equal(sk_backend_weight_bytes(backend), 0);
	assert_int_equal(sk_backend_pack_linear(backend, &matrix, NULL, SK_WEIGHTS_AUTO, &linear),
			 0);
	assert_int_equal(sk_backend_weight_bytes(backend), 1024 * 1024 / 32 * 18);
	assert_int_equal(
		sk_backend_pack_linear(backend, &matrix, NULL, (enum sk_weight_format)99, &linear),
		-ENOTSUP);
	assert_int_equal(sk_backend_alloc(backend, UINT32_MAX, UINT32_MAX, &buffer), -ENOMEM);
	assert_null(buffer);
	free(data);
	sk_backend_close(backend);

	struct sk_backend_shape shape = default_shape();
	shape.n_layers = 1 << 20;
	backend = open_or_skip(*state, 1, true, &shape);
	assert_int_equal(sk_backend_reserve_pages(backend, UINT32_MAX), -ENOMEM);
	sk_backend_close(backend);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KERNEL_TEST(test_batches),        KERNEL_TEST(test_pages),
		KERNEL_TEST(test_pages_in_order), KERNEL_TEST(test_again_and_again),
		KERNEL_TEST(test_gather),         KERNEL_TEST(test_memory),
		cmocka_unit_test(test_open),      cmocka_unit_test(test_environment),
	};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
