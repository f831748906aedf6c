/* Every call of the runtime fails once, in opening, loading, stepping, in what is done to pages, in drawing, and in export and
 * import of weights: it is told as an error, nothing stays behind, and the same goes through when nothing fails.
 */
#include "control.h"
#include "gpu/device.h"
#include "kernel.h"

#include <dirent.h>

/* 0 where all went well, else the first error. */
static int load_and_step(void)
{
	struct sk_backend_options options = {0};
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = NULL;
	struct sk_diag diag = {""};
	int r = sk_backend_open(&sk_gpu_backend, &options, &shape, &backend, &diag);
	if (r < 0) {
		assert_true(diag.text[0]); /* a sentence */
		return r;
	}
	float *x = random_floats(12 * 48, 1);
	struct sk_tensor tensor = float_tensor(x, 12, 48);
	struct sk_matrix matrix = matrix_of(&tensor);
	struct sk_linear *table = NULL, *linear = NULL;
	struct sk_buffer *in = NULL, *q = NULL, *out = NULL, *wide = NULL;
	if (r == 0)
		r = sk_backend_reserve_pages(backend, 2);
	if (r == 0)
		r = sk_backend_pack_linear(backend, &matrix, NULL, SK_WEIGHTS_F32, &table);
	if (r == 0)
		r = sk_backend_pack_linear(backend, &matrix, NULL, SK_WEIGHTS_BF16, &linear);
	if (r == 0)
		r = sk_backend_alloc(backend, 12, 48, &in);
	if (r == 0)
		r = sk_backend_alloc(backend, 12, 32, &q);
	if (r == 0)
		r = sk_backend_alloc(backend, 12, 16, &out);
	if (r == 0)
		r = sk_backend_alloc(backend, 12, 12, &wide);
	for (uint32_t n = 1; r == 0 && n <= 12; n += 11) { /* few rows, and many */
		struct sk_row rows[12];
		for (uint32_t i = 0; i < n; i++)
			rows[i] = (struct sk_row){.entry = i, .id = (int32_t)i};
		struct sk_span span = {.n_rows = n, .pages = plain_pages, .n_pages = 2};
		struct sk_batch batch = {n, 1, rows, &span};
		sk_backend_clear_pages(backend, plain_pages, 2);
		r = sk_backend_begin_step(backend, &batch);
		if (r < 0)
			break;
		sk_backend_embed(backend, in, table);
		sk_backend_append(backend, q, in, 0);
		sk_backend_attend(backend, out, q, 0);
		sk_backend_matmul(backend, wide, in, linear);
		r = sk_backend_end_step(backend);
		const float *got = r == 0 ? sk_backend_read(backend, wide, n - 1) : NULL;
		if (r == 0 && !got)
			r = -EIO;
	}
	sk_backend_close(backend);
	free(x);
	return r;
}

/* Pages come in, are copied, cleared, and go out; then tokens are drawn. Where no error is told, all is as it should be. */
static int carry_and_draw(void)
{
	enum { N_PAGES = 4, N_VOCAB = 48, N_ROWS = 12 };
	struct sk_backend_options options = {0};
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = NULL;
	struct sk_diag diag = {""};
	struct sk_linear *table = NULL;
	struct sk_buffer *logits = NULL, *drawn = NULL;
	int r = sk_backend_open(&sk_gpu_backend, &options, &shape, &backend, &diag);
	if (r < 0)
		return r;
	const size_t n = sk_backend_page_bytes(backend);
	float *x = random_floats(N_ROWS * N_VOCAB, 1);
	const struct sk_tensor tensor = float_tensor(x, N_ROWS, N_VOCAB);
	const struct sk_matrix matrix = matrix_of(&tensor);
	char *sent = malloc(n), *got = malloc(n), *zeros = calloc(n, 1);
	assert_true(sent && got && zeros);
	for (size_t i = 0; i < n; i++)
		sent[i] = (char)(1 + i % 99);
	for (uint32_t row = 0; row < N_ROWS; row++)
		x[row * N_VOCAB + row] = 99; /* is drawn, once it is penalised as well */
	r = sk_backend_reserve_pages(backend, N_PAGES);
	if (r == 0)
		r = sk_backend_reserve_draws(backend, N_VOCAB, 1);
	if (r == 0)
		r = sk_backend_pack_linear(backend, &matrix, NULL, SK_WEIGHTS_F32, &table);
	if (r == 0)
		r = sk_backend_alloc(backend, N_ROWS, N_VOCAB, &logits);
	if (r == 0)
		r = sk_backend_alloc(backend, N_ROWS, SK_DRAWN_WIDTH, &drawn);
	for (uint32_t n_rows = 1; r == 0 && n_rows <= N_ROWS; n_rows += N_ROWS - 1) {
		struct sk_row rows[N_ROWS];
		struct sk_draw draws[N_ROWS];
		int32_t recent[N_ROWS];
		for (uint32_t i = 0; i < n_rows; i++) {
			rows[i] = (struct sk_row){.entry = i, .id = (int32_t)i};
			recent[i] = (int32_t)i;
			draws[i] = (struct sk_draw){.n_ids = N_VOCAB,
						    .temperature = 1,
						    .top_k = 5,
						    .top_p = 0.9f,
						    .repeat_penalty = 1.5f,
						    .recent = &recent[i],
						    .n_recent = 1,
						    .random = 0.5};
		}
		const struct sk_span span = {.n_rows = n_rows, .pages = plain_pages, .n_pages = 2};
		const struct sk_batch batch = {n_rows, 1, rows, &span};
		r = sk_backend_write_page(backend, 2, sent);
		if (r < 0)
			break;
		sk_backend_copy_page(backend, 2, 3);
		sk_backend_clear_pages(backend, (uint32_t[]){2}, 1);
		r = sk_backend_begin_step(backend, &batch);
		if (r < 0)
			break;
		sk_backend_embed(backend, logits, table);
		sk_backend_draw(backend, drawn, logits, draws);
		r = sk_backend_end_step(backend);
		for (uint32_t i = 0; r == 0 && i < n_rows; i++) {
			const int32_t id = sk_backend_drawn(backend, drawn, i).id;
			if (id < 0)
				r = -EIO;
			else
				assert_int_equal(id, i);
		}
		for (uint32_t page = 2; r == 0 && page < N_PAGES; page++) {
			r = sk_backend_read_page(backend, page, got);
			if (r == 0)
				assert_memory_equal(got, page == 3 ? sent : zeros, n);
		}
	}
	sk_backend_close(backend);
	free(sent);
	free(got);
	free(zeros);
	free(x);
	return r;
}

/* Packs where another can have it, exports, and imports: the same. */
static int share_and_import(void)
{
	struct sk_backend_options options = {0};
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *holder = NULL, *backend = NULL;
	struct sk_shared_weights shared = {.fd = -1};
	struct sk_diag diag = {""};
	float *x = random_floats(12 * 48, 1);
	const struct sk_tensor tensor = float_tensor(x, 12, 48), gain = float_tensor(x, 48, 1);
	const struct sk_matrix matrix = matrix_of(&tensor), weight = matrix_of(&gain), none = {0};
	struct sk_linear *linear;
	struct sk_norm *norm;
	uint64_t n = 0;
	int r = sk_backend_open(&sk_gpu_backend, &options, &shape, &holder, &diag);
	if (r == 0)
		r = sk_backend_linear_bytes(holder, &matrix, NULL, SK_WEIGHTS_Q8, &n);
	if (r == 0)
		r = sk_backend_share_weights(holder,
					     n + sk_backend_norm_bytes(holder, &weight, &none));
	if (r == 0)
		r = sk_backend_pack_linear(holder, &matrix, NULL, SK_WEIGHTS_Q8, &linear);
	if (r == 0)
		r = sk_backend_pack_norm(holder, &weight, &none, &norm);
	if (r == 0)
		r = sk_backend_export_weights(holder, &shared);
	if (r == 0)
		r = sk_backend_open(&sk_gpu_backend, &options, &shape, &backend, &diag);
	if (r == 0 && shared.fd >= 0) { /* a handle is another process' */
		r = sk_backend_import_weights(backend, &shared);
		if (r == 0)
			r = sk_backend_pack_linear(backend, &matrix, NULL, SK_WEIGHTS_Q8, &linear);
		if (r == 0)
			r = sk_backend_pack_norm(backend, &weight, &none, &norm);
	}
	if (r == 0)
		r = sk_backend_check_weights(holder);
	sk_backend_close(backend);
	sk_backend_close(holder);
	sk_shared_weights_finish(&shared);
	free(x);
	return r;
}

static int n_descriptors(void)
{
	int n = 0;
	DIR *folder = opendir("/proc/self/fd");
	assert_non_null(folder);
	while (readdir(folder))
		n++;
	closedir(folder);
	return n;
}

/* n_untold: what the driver is asked before memory is shared; where it does not answer, memory with a handle serves. And what
 * captures a step, which else is launched plainly. */
static void fail_each_call(int (*run)(void), long n_least, unsigned n_untold)
{
	const long n_before = cusim_n_calls();
	assert_int_equal(run(), 0);
	const long n_calls = cusim_n_calls() - n_before;
	const int n_open = n_descriptors();
	unsigned n_told = 0;
	assert_true(n_calls > n_least);
	for (long n = 1; n <= n_calls; n++) {
		cusim_fail_at(n);
		const int r = run();
		if (r != -ENOMEM && r != -EIO && r != -ENODEV && r != -EBADMSG && r != -ENOTSUP &&
		    r != 0)
			fail_msg("call %ld: %d", n, r);
		n_told += r < 0;
		if (cusim_n_held() || cusim_n_errors() || n_descriptors() != n_open)
			fail_msg("call %ld: %ld things and %d descriptors are left; %s", n,
				 cusim_n_held(), n_descriptors() - n_open, cusim_last_error());
	}
	print_message("  %u of %ld failures told\n", n_told, n_calls);
	assert_true(n_told + n_untold >= n_calls);
	cusim_fail_at(0);
	assert_int_equal(run(), 0);
}

static void test_every_call_fails_once(void **state)
{
	(void)state;
	fail_each_call(load_and_step, 50, 6);
}

static void test_pages_and_draws_fail_once(void **state)
{
	(void)state;
	fail_each_call(carry_and_draw, 50, 4);
}

/* Where the driver's calls fail at first, memory with a handle does instead. */
static void test_sharing_fails_once(void **state)
{
	(void)state;
	fail_each_call(share_and_import, 40, 3);
}

static void test_sharing_by_handle_fails_once(void **state)
{
	(void)state;
	setenv("CUSIM_VMM", "0", 1);
	fail_each_call(share_and_import, 30, 2);
	unsetenv("CUSIM_VMM");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_call_fails_once),
		cmocka_unit_test(test_pages_and_draws_fail_once),
		cmocka_unit_test(test_sharing_fails_once),
		cmocka_unit_test(test_sharing_by_handle_fails_once),
	};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
