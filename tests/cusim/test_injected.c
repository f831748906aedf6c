/* Every call of the runtime fails once, in opening, loading and stepping: it is told as an error, nothing stays behind, and
 * the same goes through when nothing fails.
 */
#include "control.h"
#include "kernel.h"

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

static void test_every_call_fails_once(void **state)
{
	(void)state;
	const long n_before = cusim_n_calls();
	assert_int_equal(load_and_step(), 0);
	const long n_calls = cusim_n_calls() - n_before;
	unsigned n_told = 0;
	assert_true(n_calls > 50);
	for (long n = 1; n <= n_calls; n++) {
		cusim_fail_at(n);
		const int r = load_and_step();
		if (r != -ENOMEM && r != -EIO && r != -ENODEV && r != 0)
			fail_msg("call %ld: %d", n, r);
		n_told += r < 0;
		if (cusim_n_held() || cusim_n_errors())
			fail_msg("call %ld: %ld things are left; %s", n, cusim_n_held(),
				 cusim_last_error());
	}
	print_message("  %u of %ld failures told\n", n_told, n_calls);
	assert_true(
		n_told + 4 >=
		n_calls); /* a read that fails is told by what follows: the last ones have none */
	cusim_fail_at(0);
	assert_int_equal(load_and_step(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_call_fails_once)};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
