/* What packed weights are: parts of several formats in one matrix, values that are none, and the codes of floats. */
#include "matrix.h"

/* Parts of several formats stacked, with rows in another order: what they decode to, and products. A part that is not in
 * blocks makes floats of all, whose activations stay as they are. */
struct stack {
	enum sk_dtype dtypes[3];
	double tolerance;
};

static void check_stack(const char *instructions, const struct stack *stack, bool exact)
{
	static const uint32_t order[5] = {4, 0, 3, 3, 1};
	const uint32_t n_cols = 512, n_rows = 9;
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(instructions, 2, exact, &shape);
	struct kind kind = {{SK_DTYPE_Q8_0}, SK_WEIGHTS_AUTO, 0};
	struct sk_matrix matrix = {.n_cols = n_cols, .n_parts = 3};
	struct sk_tensor tensors[3];
	struct sk_linear *linear;
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	for (int i = 0; i < 3; i++) {
		const struct sk_dtype_info *info = sk_dtype_info(stack->dtypes[i]);
		uint32_t n = i == 1 ? 5 : 13;
		tensors[i] = (struct sk_tensor){info->name, stack->dtypes[i], n, n_cols,
						random_data(stack->dtypes[i], n, n_cols)};
		matrix.parts[i] = (struct sk_matrix_part){&tensors[i], i == 1 ? order : NULL, n};
		matrix.n_rows += n;
		if (info->block_elements == 1)
			kind.dtypes[0] = SK_DTYPE_F32;
	}
	assert_int_equal(sk_backend_pack_linear(backend, &matrix, NULL, SK_WEIGHTS_AUTO, &linear),
			 0);
	float *w = decode(backend, linear, matrix.n_rows, n_cols);
	check_decoded(&matrix, w, stack->tolerance);
	float *x = random_floats((size_t)n_rows * n_cols, 1);
	add_outliers(x, n_rows, n_cols);
	struct expected e = expect(w, x, n_rows, n_cols, matrix.n_rows,
				   rounding_of(&kind, instructions, exact));
	float *y = multiply(backend, linear, pack_floats(backend, x, n_rows, n_cols), NULL, 0,
			    n_rows, n_cols, matrix.n_rows);
	check_product(tensors[0].name, y, &e, NULL, NULL, 0, n_rows);
	expected_finish(&e);
	free(y);
	free(x);
	free(w);
	for (int i = 0; i < 3; i++)
		free((void *)tensors[i].data);
	sk_backend_close(backend);
}

static void test_stacks(void **state)
{
	static const struct stack stacks[] = {
		{{SK_DTYPE_Q4_0, SK_DTYPE_Q8_0, SK_DTYPE_Q4_0}, 0},
		{{SK_DTYPE_Q4_0, SK_DTYPE_Q4_1, SK_DTYPE_Q4_0}, 1e-6},
		{{SK_DTYPE_Q8_0, SK_DTYPE_Q4_1, SK_DTYPE_Q5_0}, 1e-4},
		{{SK_DTYPE_Q5_1, SK_DTYPE_Q4_0, SK_DTYPE_Q5_1}, 1e-6},
		{{SK_DTYPE_Q6_K, SK_DTYPE_Q4_K, SK_DTYPE_Q4_K}, 2e-3},
		{{SK_DTYPE_Q6_K, SK_DTYPE_Q4_0, SK_DTYPE_Q6_K}, 0},
		{{SK_DTYPE_Q4_1, SK_DTYPE_Q6_K, SK_DTYPE_Q5_0}, 1e-7},
		{{SK_DTYPE_F16, SK_DTYPE_F32, SK_DTYPE_BF16}, 0},
		{{SK_DTYPE_Q8_0, SK_DTYPE_F16, SK_DTYPE_F16}, 1e-3},
		{{SK_DTYPE_F32, SK_DTYPE_Q4_1, SK_DTYPE_F32}, 0},
	};
	for (size_t s = 0; s < sizeof stacks / sizeof *stacks; s++)
		for (int exact = 0; exact < 2; exact++)
			check_stack(*state, &stacks[s], exact);
}

/* What is no number must not become one on its way through integers: activations anywhere, and weights. */
static void check_not_a_number(const char *instructions, const struct kind *kind, bool exact,
			       uint32_t n_cols)
{
	const uint32_t n_out = 20;
	const bool floats = kind->dtypes[0] == SK_DTYPE_F32 && kind->dtypes[1] == SK_DTYPE_F32;
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(instructions, 1, exact, &shape);
	struct source source;
	source_init(&source, kind, n_out, n_cols);
	float *x = random_floats(5 * (size_t)n_cols, 1);
	x[n_cols + random_below(n_cols)] = NAN;
	x[2 * n_cols + random_below(n_cols)] = INFINITY;
	x[3 * n_cols + n_cols - 1] = NAN;
	x[4 * n_cols + n_cols - 1] = -INFINITY;
	if (floats) {
		float *weights = (float *)(uintptr_t)source.tensors[0].data;
		weights[2 * n_cols + random_below(n_cols)] = NAN;
		weights[18 * n_cols + n_cols - 1] = INFINITY;
	}
	struct sk_linear *linear;
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	assert_int_equal(
		sk_backend_pack_linear(backend, &source.matrix, NULL, kind->format, &linear), 0);
	float *y = multiply(backend, linear, pack_floats(backend, x, 5, n_cols), NULL, 0, 5, n_cols,
			    n_out);
	for (uint32_t i = 0; i < n_out; i++) {
		if (floats && (i == 2 || i == 18))
			assert_false(isfinite(y[i]));
		else
			assert_true(isfinite(y[i]));
		assert_true(isnan(y[n_out + i]));
		assert_false(isfinite(y[2 * n_out + i]));
		assert_true(isnan(y[3 * n_out + i]));
		assert_false(isfinite(y[4 * n_out + i]));
	}
	free(y);
	free(x);
	source_finish(&source);
	sk_backend_close(backend);
}

static void test_not_a_number(void **state)
{
	for (size_t k = 0; k < N_KINDS; k++)
		for (int exact = 0; exact < 2; exact++) {
			check_not_a_number(*state, &kinds[k], exact, 256);
			if (has_rows_of(&kinds[k], 261)) /* half a block, and half a pair */
				check_not_a_number(*state, &kinds[k], exact, 261);
		}
}

/* Q4 of floats is GGML's Q4_0 of them: the value of largest magnitude, of equals the first, is kept as -8. */
static void test_q4_of_floats(void **state)
{
	enum { N_BLOCKS = 512, N = N_BLOCKS * 32 };
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(*state, 1, false, &shape);
	float *x = random_floats(N, 0.05f);
	for (int i = 0; i < N / 4; i++) /* few values: ties in rounding, and for the largest */
		x[i] = ((float)random_below(13) - 6) / 16;
	memset(x, 0, 32 * sizeof *x);
	struct sk_tensor tensor = float_tensor(x, 16, N / 16);
	struct sk_matrix matrix = matrix_of(&tensor);
	struct sk_linear *linear;
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	assert_int_equal(sk_backend_pack_linear(backend, &matrix, NULL, SK_WEIGHTS_Q4, &linear), 0);
	float *w = decode(backend, linear, 16, N / 16);
	for (const float *block = x; block < x + N; block += 32) {
		float most = 0;
		for (int i = 0; i < 32; i++)
			if (fabsf(block[i]) > fabsf(most))
				most = block[i];
		const float scale = most / -8, inverse = most == 0 ? 0 : 1 / scale,
			    kept = sk_half_to_float(sk_half_from_float(scale));
		for (int i = 0; i < 32; i++) {
			int code = (int)(block[i] * inverse + 8.5f);
			float want = (float)((code > 15 ? 15 : code) - 8) * kept,
			      got = w[block - x + i];
			if (got != want)
				fail_msg("block %td: %g is kept as %g, not as %g", (block - x) / 32,
					 block[i], got, want);
		}
	}
	free(w);
	free(x);
	sk_backend_close(backend);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KERNEL_TEST(test_stacks),
		KERNEL_TEST(test_not_a_number),
		KERNEL_TEST(test_q4_of_floats),
	};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
