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
	if (has_four_bits(stack->dtypes[0]) && has_four_bits(stack->dtypes[1]) &&
	    has_four_bits(stack->dtypes[2]))
		kind.dtypes[0] = SK_DTYPE_Q4_0;
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
	enum rounding rounding = rounding_of(&kind, instructions, exact);
	if (strcmp(instructions, "cuda") == 0 && !exact) /* unless all became floats */
		rounding = HALVES;
	struct expected e = expect(w, x, n_rows, n_cols, matrix.n_rows, rounding);
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

static float *pack_and_decode(const char *instructions, const float *x, uint32_t n_rows,
			      uint32_t n_cols, enum sk_weight_format format)
{
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(instructions, 1, false, &shape);
	struct sk_tensor tensor = float_tensor(x, n_rows, n_cols);
	struct sk_matrix matrix = matrix_of(&tensor);
	struct sk_linear *linear;
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	assert_int_equal(sk_backend_pack_linear(backend, &matrix, NULL, format, &linear), 0);
	float *w = decode(backend, linear, n_rows, n_cols);
	sk_backend_close(backend);
	return w;
}

/* As GGML's Q8_0: the nearest of 127 steps to each side, and of two the one further from zero. */
static void want_q8(const float *x, float *want)
{
	float most = 0;
	for (int i = 0; i < 32; i++)
		most = fmaxf(most, fabsf(x[i]));
	const float scale = most / 127, inverse = scale == 0 ? 0 : 1 / scale,
		    kept = sk_half_to_float(sk_half_from_float(scale));
	for (int i = 0; i < 32; i++)
		want[i] = roundf(x[i] * inverse) * kept;
}

/* As GGML's Q4_0: the value of largest magnitude, of equals the first, is kept as -8. */
static void want_q4(const float *x, float *want)
{
	float most = 0;
	for (int i = 0; i < 32; i++)
		if (fabsf(x[i]) > fabsf(most))
			most = x[i];
	const float scale = most / -8, inverse = scale == 0 ? 0 : 1 / scale,
		    kept = sk_half_to_float(sk_half_from_float(scale));
	for (int i = 0; i < 32; i++) {
		int code = (int)(x[i] * inverse + 8.5f);
		want[i] = (float)((code > 15 ? 15 : code) - 8) * kept;
	}
}

/* Fresh random floats against GGML's formulas, written anew here. */
static void test_codes_of_floats(void **state)
{
	enum { N = 512 * 32 };
	need(*state);
	for (int four = 0; four < 2; four++) {
		float *x = random_floats(N, 0.05f), want[32];
		for (int i = 0; i < N / 2;
		     i++) /* few values: ties in rounding, and for the largest */
			x[i] = i / 32 % 2 ? (float)random_below(509) / 4 - 63.5f
					  : ((float)random_below(13) - 6) / 16;
		memset(x, 0, 32 * sizeof *x);
		float *w = pack_and_decode(*state, x, 16, N / 16,
					   four ? SK_WEIGHTS_Q4 : SK_WEIGHTS_Q8);
		for (int i = 0; i < N; i++) {
			if (i % 32 == 0)
				(four ? want_q4 : want_q8)(x + i, want);
			if (w[i] != want[i % 32])
				fail_msg("%s block %d: %g is kept as %g, not as %g",
					 four ? "q4" : "q8", i / 32, x[i], w[i], want[i % 32]);
		}
		free(w);
		free(x);
	}
}

/* Bytes of hexadecimal digits up to a space or the end of the line; *text goes behind them. */
static size_t unhex(const char **text, uint8_t *out, size_t room)
{
	size_t n = 0;
	for (; **text > ' '; *text += 2) {
		unsigned byte;
		assert_true(n < room);
		assert_int_equal(sscanf(*text, "%2x", &byte), 1);
		out[n++] = (uint8_t)byte;
	}
	*text += **text == ' ';
	return n;
}

/* Floats beside the blocks that GGML itself made of them (tests/golden/make_codes.py). */
static void test_codes_of_ggml(void **state)
{
	static char line[1 << 15];
	static float x[1024], want[1024];
	uint8_t blocks[1024 / 32 * 34];
	need(*state);
	FILE *file = fopen(sk_test_golden("codes.txt"), "r");
	assert_non_null(file);
	int n_lines = 0;
	for (; fgets(line, sizeof line, file); n_lines++) {
		const bool four = strncmp(line, "Q4_0 ", 5) == 0;
		const enum sk_dtype dtype = four ? SK_DTYPE_Q4_0 : SK_DTYPE_Q8_0;
		const char *text = line + 5;
		size_t n = unhex(&text, (uint8_t *)x, sizeof x) / sizeof *x;
		assert_int_equal(unhex(&text, blocks, sizeof blocks), sk_dtype_row_bytes(dtype, n));
		sk_dtype_decode_row(dtype, blocks, n, want);
		float *w = pack_and_decode(*state, x, 1, (uint32_t)n,
					   four ? SK_WEIGHTS_Q4 : SK_WEIGHTS_Q8);
		for (size_t i = 0; i < n; i++)
			if (w[i] != want[i])
				fail_msg("%.4s block %zu: %g is kept as %g, and by GGML as %g",
					 line, i / 32, x[i], w[i], want[i]);
		free(w);
	}
	fclose(file);
	assert_int_equal(n_lines, 2);
}

/* More than goes to a device at once: rows from all of it. */
static void test_large(void **state)
{
	enum { N_ROWS = 8100, N_COLS = 1024, N_SEEN = 20 };
	static const int32_t seen[] = {0, 7700,
				       8080}; /* the first after a stage is about row 7710 */
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(*state, 2, true, &shape);
	float *data = random_floats((size_t)N_ROWS * N_COLS, 1);
	struct sk_tensor tensor = float_tensor(data, N_ROWS, N_COLS);
	struct sk_matrix matrix = matrix_of(&tensor);
	struct sk_linear *linear;
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	assert_int_equal(sk_backend_pack_linear(backend, &matrix, NULL, SK_WEIGHTS_Q8, &linear), 0);
	struct sk_buffer *out = buffer_of(backend, N_SEEN, N_COLS);
	for (size_t i = 0; i < sizeof seen / sizeof *seen; i++) {
		struct plain_batch plain;
		begin_plain(backend, &plain, N_SEEN, seen[i]);
		sk_backend_embed(backend, out, linear);
		assert_int_equal(sk_backend_end_step(backend), 0);
		for (uint32_t r = 0; r < N_SEEN; r++) {
			const float *row = data + ((size_t)seen[i] + r) * N_COLS,
				    *got = sk_backend_read(backend, out, r);
			double most = 0;
			for (uint32_t c = 0; c < N_COLS; c++)
				most = fmax(most, fabs((double)row[c]));
			for (uint32_t c = 0; c < N_COLS; c++)
				assert_true(fabs((double)row[c] - got[c]) <= 0.005 * most);
		}
	}
	free(data);
	sk_backend_close(backend);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KERNEL_TEST(test_stacks),          KERNEL_TEST(test_not_a_number),
		KERNEL_TEST(test_codes_of_floats), KERNEL_TEST(test_codes_of_ggml),
		KERNEL_TEST(test_large),
	};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
