/* Products with packed weights: every format against what it decodes to, in double precision; and that a
 * row's result is the same bits in any batch, on any number of threads. */
#include "matrix.h"

static const uint32_t shapes[][2] = {{16, 32}, {40, 576}, {33, 1024}, {19, 1280}, {61, 100},
				     {40, 96}, {7, 256},  {17, 1037}, {3, 1}};
#define N_SHAPES (sizeof shapes / sizeof *shapes)
#define N_SHORT  4 /* the last, among which every format of blocks finds one */
#define N_RANDOM 2 /* besides, for every kind */
static const uint32_t row_counts[] = {1, 2, 3, 5, 8, 17, 64};

/* One format and shape: what it decodes to, products of several batch sizes with and without bias. */
static void check_kind(const char *instructions, const struct kind *kind, bool exact,
		       uint32_t n_out, uint32_t n_cols)
{
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(instructions, 2, exact, &shape);
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	const enum rounding rounding = rounding_of(kind, instructions, exact);

	struct source source;
	source_init(&source, kind, n_out, n_cols);
	char name[80];
	snprintf(name, sizeof name, "%s (%u, %u)", source.tensors[0].name, n_out, n_cols);
	float *bias = random_floats(n_out, 1);
	struct sk_tensor bias_tensor = float_tensor(bias, n_out, 1);
	struct sk_matrix bias_matrix = matrix_of(&bias_tensor);
	struct sk_linear *plain, *biased;
	assert_int_equal(
		sk_backend_pack_linear(backend, &source.matrix, NULL, kind->format, &plain), 0);
	assert_int_equal(sk_backend_pack_linear(backend, &source.matrix, &bias_matrix, kind->format,
						&biased),
			 0);

	float *w = decode(backend, plain, n_out, n_cols);
	check_decoded(&source.matrix, w, kind->tolerance);
	float *x = random_floats((size_t)MAX_ROWS * n_cols, 1),
	      *start = random_floats((size_t)MAX_ROWS * n_out, 1);
	add_outliers(x, MAX_ROWS, n_cols);
	struct expected e = expect(w, x, MAX_ROWS, n_cols, n_out, rounding);
	struct sk_linear *input = pack_floats(backend, x, MAX_ROWS, n_cols);
	struct sk_linear *begin = pack_floats(backend, start, MAX_ROWS, n_out);

	float *whole = multiply(backend, plain, input, NULL, 0, MAX_ROWS, n_cols, n_out);
	check_product(name, whole, &e, NULL, NULL, 0, MAX_ROWS);
	for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++) {
		uint32_t n = row_counts[i], row0 = random_below(MAX_ROWS - n + 1);
		float *part = multiply(backend, plain, input, NULL, row0, n, n_cols, n_out);
		if (strcmp(instructions, "cuda") ==
		    0) /* a library has its own ways with many rows */
			check_product(name, part, &e, NULL, NULL, row0, n);
		else
			assert_memory_equal(part, whole + (size_t)row0 * n_out,
					    n * n_out * sizeof *part);
		free(part);
		part = multiply(backend, biased, input, begin, row0, n, n_cols, n_out);
		check_product(name, part, &e, bias, start, row0, n);
		free(part);
		part = multiply(backend, biased, input, NULL, row0, n, n_cols, n_out);
		check_product(name, part, &e, bias, NULL, row0, n);
		free(part);
	}
	free(whole);
	expected_finish(&e);
	free(start);
	free(x);
	free(w);
	free(bias);
	source_finish(&source);
	sk_backend_close(backend);
}

static void test_products(void **state)
{
	for (size_t k = 0; k < N_KINDS; k++) {
		const uint32_t block = sk_dtype_info(kinds[k].dtypes[0])->block_elements;
		unsigned n_checked = 0;
		for (size_t s = sk_test_some(0, N_SHAPES - N_SHORT);
		     s < N_SHAPES + sk_test_some(N_RANDOM, 0); s++) {
			uint32_t n_out = s < N_SHAPES ? shapes[s][0] : 1 + random_below(MAX_ROWS),
				 n_cols = s < N_SHAPES ? shapes[s][1] : 1 + random_below(1500);
			if (kinds[k].dtypes[1] != SK_DTYPE_F32 && n_out < 2)
				n_out = 2; /* a row of each format: they are rounded as both need it */
			if (s >= N_SHAPES && block > 1)
				n_cols = (n_cols / block + 1) * block;
			if (!has_rows_of(&kinds[k], n_cols))
				continue;
			n_checked++;
			for (int exact = 0; exact < 2; exact++)
				check_kind(*state, &kinds[k], exact, n_out, n_cols);
		}
		assert_int_not_equal(n_checked, 0);
	}
}

/* Little of everything, for many orders of a simulated device. */
static void test_small(void **state)
{
	static const enum sk_dtype dtypes[] = {SK_DTYPE_F16, SK_DTYPE_BF16, SK_DTYPE_Q8_0,
					       SK_DTYPE_Q4_1};
	for (size_t k = 0; k < N_KINDS; k++)
		for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
			if (kinds[k].format == SK_WEIGHTS_AUTO && kinds[k].dtypes[0] == dtypes[i] &&
			    kinds[k].dtypes[1] == SK_DTYPE_F32)
				check_kind(*state, &kinds[k], i == 0, 19, 96);
}

/* CUDA's products of a few rows with 16-bit weights round nothing, though they need not be exact. */
static void check_few(const struct kind *kind, const struct source *source, const float *x,
		      const float *expected, uint32_t n_cols, uint32_t n_out)
{
	enum { N_ROWS = 3 };
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip("cuda", 1, false, &shape);
	struct sk_linear *linear;
	float *w = malloc(n_cols * sizeof *w);
	assert_non_null(w);
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	assert_int_equal(
		sk_backend_pack_linear(backend, &source->matrix, NULL, kind->format, &linear), 0);
	float *got = multiply(backend, linear, pack_floats(backend, x, N_ROWS, n_cols), NULL, 0,
			      N_ROWS, n_cols, n_out);
	for (uint32_t o = 0; o < n_out; o++) {
		sk_matrix_decode_row(&source->matrix, o, w);
		for (uint32_t r = 0; r < N_ROWS; r++) {
			double room =
				1e-6 * norm_of(w, n_cols) * norm_of(x + (size_t)r * n_cols, n_cols);
			assert_true(fabs((double)got[r * n_out + o] - expected[r * n_out + o]) <=
				    2 * room);
		}
	}
	free(w);
	free(got);
	sk_backend_close(backend);
}

/* The same product on other threads (the same bits) and other instructions (close, if exact). */
static void test_agreement(void **state)
{
	struct sk_backend_shape shape = default_shape();
	need(*state);
	for (size_t k = 0; k < N_KINDS; k++) {
		const uint32_t n_out = 50, n_cols = 1280, n_rows = 11;
		const char *const names[] = {*state, *state, *state, *state, "scalar"};
		const bool exact[] = {false, false, true, true, true};
		const uint32_t threads[] = {1, 3, 1, 3, 2};
		struct source source;
		source_init(&source, &kinds[k], n_out, n_cols);
		float *x = random_floats((size_t)n_rows * n_cols, 1), *results[5];
		float *w = malloc(n_cols * sizeof *w);
		assert_non_null(w);
		add_outliers(x, n_rows, n_cols);
		for (int i = 0; i < 5; i++) {
			struct sk_backend *backend =
				open_or_skip(names[i], threads[i], exact[i], &shape);
			struct sk_linear *linear;
			assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
			assert_int_equal(sk_backend_pack_linear(backend, &source.matrix, NULL,
								kinds[k].format, &linear),
					 0);
			results[i] =
				multiply(backend, linear, pack_floats(backend, x, n_rows, n_cols),
					 NULL, 0, n_rows, n_cols, n_out);
			sk_backend_close(backend);
		}
		assert_memory_equal(results[0], results[1], n_rows * n_out * sizeof(float));
		assert_memory_equal(results[2], results[3], n_rows * n_out * sizeof(float));
		for (uint32_t o = 0; o < n_out; o++) {
			sk_matrix_decode_row(&source.matrix, o, w);
			for (uint32_t r = 0; r < n_rows; r++) {
				double room = 1e-6 * norm_of(w, n_cols) *
					      norm_of(x + (size_t)r * n_cols, n_cols),
				       off = (double)results[2][r * n_out + o] -
					     results[4][r * n_out + o];
				/* CUDA's activations are floats there, the others' integers of 16 bits */
				if (strcmp(*state, "cuda") != 0 || !in_blocks(&kinds[k]))
					assert_true(fabs(off) <= 2 * room);
			}
		}
		if (strcmp(*state, "cuda") == 0 && !in_blocks(&kinds[k]))
			check_few(&kinds[k], &source, x, results[4], n_cols, n_out);
		for (int i = 0; i < 5; i++)
			free(results[i]);
		free(w);
		free(x);
		source_finish(&source);
	}
}

/* Which blocks of activations get sixteen bits where the others get eight: those whose largest value is above four
 * times their row's root mean square. A matrix with one number a row shows what became of them. */
static void check_planes(const char *instructions, enum sk_weight_format format)
{
	enum { N = 256, N_OUT = 64, HIGH = 3, LOW = 5 }; /* blocks */
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(instructions, 1, false, &shape);
	const struct kind kind = {{SK_DTYPE_F32}, format, 0};
	if (rounding_of(&kind, instructions, false) != EIGHT_BITS) {
		sk_backend_close(backend);
		sk_test_skip("%s has no products of bytes for such weights: all activations get "
			     "sixteen bits",
			     instructions);
	}
	float *ones = calloc((size_t)N_OUT * N, sizeof *ones), *x = random_floats(N, 1);
	assert_non_null(ones);
	for (int i = 0; i < N; i++)
		x[i] = fmodf(x[i], 1);
	/* two unknowns: the largest of two blocks, and with them the root mean square */
	for (int times = 0; times < 50; times++) {
		double rms = norm_of(x, N) / sqrt(N);
		x[HIGH * 32] = (float)(4.01 * rms);
		x[LOW * 32 + 1] = (float)(-3.99 * rms);
	}
	for (int o = 0; o < N_OUT; o++)
		ones[o * N + o / 8 * 32 + o % 8] = 1; /* eight of each block */
	struct sk_tensor tensor = float_tensor(ones, N_OUT, N);
	struct sk_matrix matrix = matrix_of(&tensor);
	struct sk_linear *linear;
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	assert_int_equal(sk_backend_pack_linear(backend, &matrix, NULL, format, &linear), 0);
	float *w = decode(backend, linear, N_OUT, N);
	float *y = multiply(backend, linear, pack_floats(backend, x, 1, N), NULL, 0, 1, N, N_OUT);
	for (int b = 0; b < N / 32; b++) {
		double most = 0, off = 0;
		for (int i = b * 32; i < b * 32 + 32; i++)
			most = fmax(most, fabs((double)x[i]));
		for (int o = b * 8; o < b * 8 + 8; o++) {
			const int i = o / 8 * 32 + o % 8;
			off = fmax(off, fabs((double)y[o] / w[o * N + i] - x[i]));
		}
		if (b == HIGH)
			assert_true(off <= most / 32639);
		else
			assert_true(off <= most / 127 * 0.51 && off > most / 32639);
	}
	free(y);
	free(w);
	free(x);
	free(ones);
	sk_backend_close(backend);
}

static void test_planes(void **state)
{
	check_planes(*state, SK_WEIGHTS_Q8);
}

static void test_planes_of_four_bits(void **state)
{
	check_planes(*state, SK_WEIGHTS_Q4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KERNEL_TEST(test_products),
		KERNEL_TEST(test_small),
		KERNEL_TEST(test_agreement),
		KERNEL_TEST(test_planes),
		KERNEL_TEST(test_planes_of_four_bits),
	};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
