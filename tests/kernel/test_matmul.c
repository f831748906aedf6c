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

/* CUDA's products of a few rows round nothing that counts, though they need not be exact. */
static void check_few(const struct kind *kind, const struct source *source, const float *x,
		      uint32_t n_cols, uint32_t n_out)
{
	enum { N_ROWS = 3 };
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip("cuda", 1, false, &shape);
	struct sk_linear *linear;
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	assert_int_equal(
		sk_backend_pack_linear(backend, &source->matrix, NULL, kind->format, &linear), 0);
	float *w = decode(backend, linear, n_out, n_cols);
	float *got = multiply(backend, linear, pack_floats(backend, x, N_ROWS, n_cols), NULL, 0,
			      N_ROWS, n_cols, n_out);
	struct expected e = expect(w, x, N_ROWS, n_cols, n_out, FLOATS);
	for (uint32_t i = 0; i < N_ROWS * n_out; i++)
		assert_true(fabs((double)got[i] - e.sums[i]) <= 2 * e.rooms[i]);
	expected_finish(&e);
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
		if (strcmp(*state, "cuda") == 0)
			check_few(&kinds[k], &source, x, n_cols, n_out);
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

/* --- Activations of any size (CUDA, whose halves end at 65504) --- */

enum { RANGE_ROWS = 17, RANGE_COLS = 200, RANGE_OUT = 40 };

/* Rows of very different sizes, in no order that a batch could rely on. Every seventh has all sizes itself. */
static float *rows_of_all_sizes(void)
{
	static const float sizes[] = {1, 7e4f, 1e-4f, 1e20f, 1e-7f, 1e6f, 0, 1e-20f, 1e30f, 3e-3f};
	float *x = random_floats((size_t)RANGE_ROWS * RANGE_COLS, 1);
	for (uint32_t r = 0; r < RANGE_ROWS; r++)
		for (uint32_t c = 0; c < RANGE_COLS; c++) {
			const float size = sizes[r % (sizeof sizes / sizeof *sizes)];
			x[r * RANGE_COLS + c] *= size != 0 ? size : powf(100, c / 32 - 3.f);
		}
	return x;
}

/* How far a product may be off, of the norms of both sides. With few rows two BF16 stand for a float, whose first 16 bits they have,
 * where weights are BF16, too, or codes that are taken for such. */
static double room_of_range(const struct kind *kind, uint32_t n_rows)
{
	const enum rounding rounding = rounding_of(kind, "cuda", false);
	const bool are_codes = kind->format == SK_WEIGHTS_Q8 || kind->format == SK_WEIGHTS_Q4;
	if (n_rows <= 8)
		return rounding == BFLOATS || are_codes ? 5e-6 : 2e-6;
	return rounding == BFLOATS ? 2.5e-3 : rounding == HALVES ? 5e-4 : 2e-6;
}

static void check_range(const struct kind *kind)
{
	static const uint32_t counts[] = {1, 3, 8, 9, RANGE_ROWS};
	enum { COLS = 256 }; /* whole blocks */
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip("cuda", 1, false, &shape);
	struct source source;
	struct sk_linear *plain, *biased;
	float *narrow = rows_of_all_sizes(), *x = calloc((size_t)RANGE_ROWS * COLS, sizeof *x),
	      *bias = random_floats(RANGE_OUT, 1),
	      *start = random_floats((size_t)RANGE_ROWS * RANGE_OUT, 1), *alone[RANGE_ROWS];
	assert_non_null(x);
	for (uint32_t r = 0; r < RANGE_ROWS; r++)
		memcpy(x + r * COLS, narrow + r * RANGE_COLS, RANGE_COLS * sizeof *x);
	source_init(&source, kind, RANGE_OUT, COLS);
	const struct sk_tensor bias_tensor = float_tensor(bias, RANGE_OUT, 1);
	const struct sk_matrix bias_matrix = matrix_of(&bias_tensor);
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	assert_int_equal(
		sk_backend_pack_linear(backend, &source.matrix, NULL, kind->format, &plain), 0);
	assert_int_equal(sk_backend_pack_linear(backend, &source.matrix, &bias_matrix, kind->format,
						&biased),
			 0);
	float *w = decode(backend, plain, RANGE_OUT, COLS);
	struct sk_linear *input = pack_floats(backend, x, RANGE_ROWS, COLS),
			 *begin = pack_floats(backend, start, RANGE_ROWS, RANGE_OUT);
	struct expected e = expect(w, x, RANGE_ROWS, COLS, RANGE_OUT, FLOATS);
	for (uint32_t r = 0; r < RANGE_ROWS; r++)
		alone[r] = multiply(backend, plain, input, NULL, r, 1, COLS, RANGE_OUT);
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
		for (int how = 0; how < 4; how++) { /* with a bias, added to what is there */
			const uint32_t n = counts[i], row0 = random_below(RANGE_ROWS - n + 1);
			const bool has_bias = how & 1, add = how & 2;
			float *got = multiply(backend, has_bias ? biased : plain, input,
					      add ? begin : NULL, row0, n, COLS, RANGE_OUT);
			for (uint32_t at = 0; at < n * RANGE_OUT; at++) {
				const uint32_t r = row0 + at / RANGE_OUT, o = at % RANGE_OUT;
				const double b = has_bias ? bias[o] : 0,
					     s = add ? start[r * RANGE_OUT + o] : 0,
					     sum = e.sums[r * RANGE_OUT + o] + b + s,
					     room = room_of_range(kind, n) *
							    norm_of(w + o * COLS, COLS) *
							    norm_of(x + r * COLS, COLS) +
						    4e-7 * (fabs(b) + fabs(s));
				if (!(fabs(got[at] - sum) <= room))
					fail_msg("%s, %u rows, row %u output %u: %g instead of %g",
						 source.tensors[0].name, n, r, o, (double)got[at],
						 sum);
			}
			for (uint32_t k = 0; n <= 8 && how == 0 && k < n; k++)
				assert_memory_equal(got + k * RANGE_OUT, alone[row0 + k],
						    RANGE_OUT * sizeof *got);
			free(got);
		}
	for (uint32_t r = 0; r < RANGE_ROWS; r++)
		free(alone[r]);
	expected_finish(&e);
	free(w);
	free(x);
	free(narrow);
	free(bias);
	free(start);
	source_finish(&source);
	sk_backend_close(backend);
}

/* Activations of which any more would make a product infinite, and which agree with a row of the matrix in all signs. */
static void check_largest(const struct kind *kind, uint32_t n_rows)
{
	enum { COLS = 256 };
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip("cuda", 1, false, &shape);
	struct source source;
	struct sk_linear *linear;
	source_init(&source, kind, RANGE_OUT, COLS);
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	assert_int_equal(
		sk_backend_pack_linear(backend, &source.matrix, NULL, kind->format, &linear), 0);
	float *w = decode(backend, linear, RANGE_OUT, COLS),
	      *x = calloc((size_t)n_rows * COLS, sizeof *x);
	assert_non_null(x);
	double most = 0;
	for (uint32_t o = 0; o < RANGE_OUT; o++) {
		double sum = 0;
		for (uint32_t c = 0; c < COLS; c++)
			sum += fabs(w[o * COLS + c]);
		most = fmax(most, sum);
	}
	for (uint32_t i = 0; i < n_rows * COLS; i++)
		x[i] = (float)copysign(3e38 / most * (1 - random_below(500) * 1e-3),
				       w[i / COLS % RANGE_OUT * COLS + i % COLS]);
	float *got = multiply(backend, linear, pack_floats(backend, x, n_rows, COLS), NULL, 0,
			      n_rows, COLS, RANGE_OUT);
	struct expected e = expect(w, x, n_rows, COLS, RANGE_OUT, FLOATS);
	for (uint32_t i = 0; i < n_rows * RANGE_OUT; i++) {
		const uint32_t r = i / RANGE_OUT, o = i % RANGE_OUT;
		const double room = room_of_range(kind, n_rows) * norm_of(w + o * COLS, COLS) *
				    norm_of(x + r * COLS, COLS);
		if (!(fabs(got[i] - e.sums[i]) <= room))
			fail_msg("%s, %u rows, row %u output %u: %g instead of %g",
				 source.tensors[0].name, n_rows, r, o, (double)got[i], e.sums[i]);
	}
	expected_finish(&e);
	free(got);
	free(x);
	free(w);
	source_finish(&source);
	sk_backend_close(backend);
}

/* An activation that is infinite makes its row's products infinite, beside numbers of any size, and no other row's. */
static void check_infinite(const struct kind *kind, uint32_t n_rows, float infinite)
{
	enum { COLS = 256, ROW = 4, AT = 77 };
	const uint32_t row = n_rows > ROW ? ROW : 0;
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip("cuda", 1, false, &shape);
	struct source source;
	struct sk_linear *linear;
	float *x = random_floats((size_t)RANGE_ROWS * COLS, 1);
	for (uint32_t c = 0; c < COLS; c++)
		x[row * COLS + c] *= c == AT ? infinite : powf(10, c % 32 - 16.f);
	x[row * COLS + AT] = infinite;
	source_init(&source, kind, RANGE_OUT, COLS);
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	assert_int_equal(
		sk_backend_pack_linear(backend, &source.matrix, NULL, kind->format, &linear), 0);
	float *w = decode(backend, linear, RANGE_OUT, COLS);
	float *got = multiply(backend, linear, pack_floats(backend, x, n_rows, COLS), NULL, 0,
			      n_rows, COLS, RANGE_OUT);
	for (uint32_t r = 0; r < n_rows; r++)
		for (uint32_t o = 0; o < RANGE_OUT; o++) {
			const float y = got[r * RANGE_OUT + o], weight = w[o * COLS + AT];
			if (r != row)
				assert_true(isfinite(y));
			else if (fabsf(weight) > 1e-6f)
				assert_true(y == (weight > 0 ? infinite : -infinite));
		}
	free(got);
	free(w);
	free(x);
	source_finish(&source);
	sk_backend_close(backend);
}

static void test_ranges(void **state)
{
	static const struct kind wanted[] = {
		{{SK_DTYPE_F16}, SK_WEIGHTS_AUTO, 0}, {{SK_DTYPE_BF16}, SK_WEIGHTS_AUTO, 0},
		{{SK_DTYPE_F32}, SK_WEIGHTS_AUTO, 0}, {{SK_DTYPE_F32}, SK_WEIGHTS_Q8, 0},
		{{SK_DTYPE_F32}, SK_WEIGHTS_Q4, 0},   {{SK_DTYPE_Q4_1}, SK_WEIGHTS_AUTO, 0}};
	need(*state);
	for (size_t k = 0; k < sizeof wanted / sizeof *wanted; k++) {
		check_range(&wanted[k]);
		check_largest(&wanted[k], 3);
		check_largest(&wanted[k], 9);
		for (int i = 0; i < 4; i++)
			check_infinite(&wanted[k], i < 2 ? 1 : 9, i % 2 ? INFINITY : -INFINITY);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KERNEL_TEST(test_products),
		KERNEL_TEST(test_small),
		KERNEL_TEST(test_agreement),
		KERNEL_TEST(test_planes),
		KERNEL_TEST(test_planes_of_four_bits),
		{"test_ranges cuda", test_ranges, NULL, NULL, "cuda"},
	};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
