/* Products with packed weights: every format against what it decodes to, in double precision; and that a
 * row's result is the same bits in any batch, on any number of threads. */
#include "kernel.h"

/* What is packed, how, and how far its values may be from the source's (a share of a block's largest). */
struct kind {
	enum sk_dtype dtypes[2]; /* the second of the lower rows, where it is not F32 */
	enum sk_weight_format format;
	double tolerance;
};

static const struct kind kinds[] = {
	{{SK_DTYPE_F32}, SK_WEIGHTS_AUTO, 0},
	{{SK_DTYPE_F16}, SK_WEIGHTS_AUTO, 0},
	{{SK_DTYPE_BF16}, SK_WEIGHTS_AUTO, 0},
	{{SK_DTYPE_Q8_0}, SK_WEIGHTS_AUTO, 0},
	{{SK_DTYPE_Q4_0}, SK_WEIGHTS_AUTO, 0},
	{{SK_DTYPE_Q4_1}, SK_WEIGHTS_AUTO, 1e-7},
	{{SK_DTYPE_Q5_0}, SK_WEIGHTS_AUTO, 0},
	{{SK_DTYPE_Q5_1}, SK_WEIGHTS_AUTO, 1e-7},
	{{SK_DTYPE_Q4_K}, SK_WEIGHTS_AUTO, 2e-3},
	{{SK_DTYPE_Q5_K}, SK_WEIGHTS_AUTO, 2e-3},
	{{SK_DTYPE_Q6_K}, SK_WEIGHTS_AUTO, 0},
	{{SK_DTYPE_F32}, SK_WEIGHTS_BF16, 4e-3},
	{{SK_DTYPE_F32}, SK_WEIGHTS_Q8, 5e-3},
	{{SK_DTYPE_F32}, SK_WEIGHTS_Q4, 0.13},
	{{SK_DTYPE_F16}, SK_WEIGHTS_Q8, 5e-3},
	{{SK_DTYPE_Q4_K}, SK_WEIGHTS_Q8, 2e-3},
	{{SK_DTYPE_Q4_1}, SK_WEIGHTS_Q8, 1e-7},
	{{SK_DTYPE_Q8_0}, SK_WEIGHTS_F32, 0},
	{{SK_DTYPE_Q6_K}, SK_WEIGHTS_F32, 0},
	{{SK_DTYPE_Q8_0}, SK_WEIGHTS_Q8, 0},
	{{SK_DTYPE_Q4_1}, SK_WEIGHTS_Q4, 1e-7},
	{{SK_DTYPE_Q4_0}, SK_WEIGHTS_Q8, 0},
	{{SK_DTYPE_Q5_1}, SK_WEIGHTS_Q4, 0.13},
	{{SK_DTYPE_Q6_K}, SK_WEIGHTS_Q8, 0},
	{{SK_DTYPE_Q6_K}, SK_WEIGHTS_Q4, 0.13},
	/* a scale for half a block beside one for all of it, and beside minima */
	{{SK_DTYPE_Q6_K, SK_DTYPE_Q8_0}, SK_WEIGHTS_AUTO, 0},
	{{SK_DTYPE_Q4_0, SK_DTYPE_Q6_K}, SK_WEIGHTS_AUTO, 0},
	{{SK_DTYPE_Q6_K, SK_DTYPE_Q5_1}, SK_WEIGHTS_AUTO, 1e-7},
	{{SK_DTYPE_Q4_K, SK_DTYPE_Q6_K}, SK_WEIGHTS_AUTO, 2e-3},
};
#define N_KINDS (sizeof kinds / sizeof *kinds)

static bool in_blocks(const struct kind *kind)
{
	if (kind->format == SK_WEIGHTS_AUTO)
		return sk_dtype_info(kind->dtypes[0])->block_elements > 1;
	return kind->format == SK_WEIGHTS_Q8 || kind->format == SK_WEIGHTS_Q4;
}

/* What becomes of the activations. */
enum rounding { FLOATS, SIXTEEN_BITS, EIGHT_BITS, BFLOATS };

static enum rounding rounding_of(const struct kind *kind, const char *instructions, bool exact)
{
	const bool bf16 = strcmp(instructions, "avx512-bf16") == 0,
		   bytes = bf16 || strcmp(instructions, "avx512-vnni") == 0;
	if (in_blocks(kind))
		return bytes && !exact ? EIGHT_BITS : SIXTEEN_BITS;
	return bf16 && !exact &&
			       (kind->dtypes[0] == SK_DTYPE_BF16 || kind->format == SK_WEIGHTS_BF16)
		       ? BFLOATS
		       : FLOATS;
}

static const uint32_t shapes[][2] = {{16, 32},   {7, 256},  {40, 576},  {33, 1024},
				     {19, 1280}, {61, 100}, {17, 1037}, {3, 1}};
#define N_SHAPES (sizeof shapes / sizeof *shapes)
static const uint32_t row_counts[] = {1, 2, 3, 5, 8, 17, 64};

/* Random data of any format: bytes for codes, sane halves where scales lie. */
static void *random_data(enum sk_dtype dtype, uint32_t n_rows, uint32_t n_cols)
{
	const struct sk_dtype_info *info = sk_dtype_info(dtype);
	size_t n_blocks = (size_t)n_rows * n_cols / info->block_elements;
	uint8_t *data = malloc(n_blocks * info->block_bytes);
	assert_non_null(data);
	for (size_t i = 0; i < n_blocks * info->block_bytes; i++)
		data[i] = (uint8_t)random_bits();
	for (size_t i = 0; i < n_blocks; i++) {
		uint8_t *block = data + i * info->block_bytes;
		float f = random_float();
		/* a block of 256 has it times a factor, so that files have tiny ones */
		float tiny = dtype == SK_DTYPE_Q6_K && random_below(2) ? 0.01f : 1;
		uint16_t scale = sk_half_from_float(random_float() * 0.01f * tiny),
			 more = sk_half_from_float(f * 0.05f);
		if (dtype == SK_DTYPE_F32)
			memcpy(block, &f, 4);
		else if (dtype == SK_DTYPE_F16)
			memcpy(block, &more, 2);
		else if (dtype == SK_DTYPE_BF16)
			memcpy(block, &(uint16_t){sk_bf16_from_float(f)}, 2);
		else
			memcpy(block + (dtype == SK_DTYPE_Q6_K ? info->block_bytes - 2 : 0), &scale,
			       2);
		if (dtype == SK_DTYPE_Q4_1 || dtype == SK_DTYPE_Q5_1 || dtype == SK_DTYPE_Q4_K ||
		    dtype == SK_DTYPE_Q5_K)
			memcpy(block + 2, &more, 2);
	}
	return data;
}

/* Random rows of a kind. */
struct source {
	struct sk_tensor tensors[2];
	struct sk_matrix matrix;
};

static void source_init(struct source *source, const struct kind *kind, uint32_t n_rows,
			uint32_t n_cols)
{
	const uint32_t n_below = kind->dtypes[1] != SK_DTYPE_F32 ? n_rows / 2 : 0;
	*source = (struct source){.matrix = {.n_rows = n_rows, .n_cols = n_cols}};
	for (int i = 0; i < (n_below ? 2 : 1); i++) {
		uint32_t n = i ? n_below : n_rows - n_below;
		enum sk_dtype dtype = kind->dtypes[i];
		source->tensors[i] = (struct sk_tensor){sk_dtype_info(dtype)->name, dtype, n,
							n_cols, random_data(dtype, n, n_cols)};
		source->matrix.parts[source->matrix.n_parts++] =
			(struct sk_matrix_part){&source->tensors[i], NULL, n};
	}
}

static void source_finish(struct source *source)
{
	for (uint32_t i = 0; i < source->matrix.n_parts; i++)
		free((void *)source->tensors[i].data);
}

static bool has_rows_of(const struct kind *kind, uint32_t n_cols)
{
	return sk_dtype_row_bytes(kind->dtypes[0], n_cols) &&
	       sk_dtype_row_bytes(kind->dtypes[1], n_cols);
}

/* All rows of a packed matrix, as the backend decodes them: (n_rows, n_cols). */
static float *decode(struct sk_backend *backend, const struct sk_linear *linear, uint32_t n_rows,
		     uint32_t n_cols)
{
	struct sk_buffer *buffer = buffer_of(backend, n_rows, n_cols);
	struct plain_batch plain;
	begin_plain(backend, &plain, n_rows, 0);
	sk_backend_embed(backend, buffer, linear);
	assert_int_equal(sk_backend_end_step(backend), 0);
	float *all = malloc((size_t)n_rows * n_cols * sizeof *all);
	assert_non_null(all);
	for (uint32_t i = 0; i < n_rows; i++)
		memcpy(all + (size_t)i * n_cols, sk_backend_read(backend, buffer, i),
		       n_cols * sizeof *all);
	sk_backend_free(backend, buffer);
	return all;
}

/* Rows [row0, row0 + n_rows) of `input` through the matrix; added to themselves' number where `add`. */
static float *multiply(struct sk_backend *backend, const struct sk_linear *linear,
		       const struct sk_linear *input, const struct sk_linear *start, uint32_t row0,
		       uint32_t n_rows, uint32_t n_cols, uint32_t n_out)
{
	struct sk_buffer *in = buffer_of(backend, n_rows, n_cols),
			 *out = buffer_of(backend, n_rows, n_out);
	struct plain_batch plain;
	begin_plain(backend, &plain, n_rows, (int32_t)row0);
	sk_backend_embed(backend, in, input);
	if (start) {
		sk_backend_embed(backend, out, start);
		sk_backend_matmul_add(backend, out, in, linear);
	} else {
		sk_backend_matmul(backend, out, in, linear);
	}
	assert_int_equal(sk_backend_end_step(backend), 0);
	float *all = malloc((size_t)n_rows * n_out * sizeof *all);
	assert_non_null(all);
	memcpy(all, sk_backend_read(backend, out, 0), (size_t)n_rows * n_out * sizeof *all);
	sk_backend_free(backend, in);
	sk_backend_free(backend, out);
	return all;
}

static void check_decoded(const struct sk_matrix *matrix, const float *decoded, double tolerance)
{
	float *row = malloc(matrix->n_cols * sizeof *row);
	assert_non_null(row);
	/* of 256 columns in K formats, whose values may be small differences of large products */
	const uint32_t block = sk_dtype_info(matrix->parts[0].tensor->dtype)->block_elements,
		       span = block > 32 ? block : 32;
	for (uint32_t i = 0; i < matrix->n_rows; i++) {
		sk_matrix_decode_row(matrix, i, row);
		for (uint32_t c = 0; c < matrix->n_cols; c++) {
			double most = 0;
			for (uint32_t j = c / span * span;
			     j < c / span * span + span && j < matrix->n_cols; j++)
				most = fmax(most, fabs((double)row[j]));
			float got = decoded[(size_t)i * matrix->n_cols + c];
			if (!(fabs((double)row[c] - got) <= tolerance * most))
				fail_msg("%s row %u column %u: %g is kept as %g, largest %g",
					 matrix->parts[0].tensor->name, i, c, row[c], got, most);
		}
	}
	free(row);
}

/* How far a product may be off: float sums by a millionth of the norms, and six deviations of the rounding
 * of activations. Integers of 16 bits are 32639 steps to a block's largest, and of 8 bits 127, but where the
 * largest is above four times the row's root mean square there are 16 (a hair above: nobody knows). */
static double room_for(const float *w, const float *x, uint32_t n_cols, enum rounding rounding)
{
	double squares = 0, rms = norm_of(x, n_cols) / sqrt(n_cols);
	for (uint32_t c = 0; rounding != FLOATS && c < n_cols; c += 32) {
		double most = 0, norm = 0, share = 0;
		for (uint32_t i = c; i < c + 32 && i < n_cols; i++) {
			most = fmax(most, fabs((double)x[i]));
			norm += (double)w[i] * w[i];
			share += (double)w[i] * w[i] * x[i] * x[i];
		}
		double steps = rounding == EIGHT_BITS && most < 4.0001 * rms ? 32639. / 256 : 32639;
		squares += rounding == BFLOATS ? share / 256 / 256 / 3
					       : norm * most * most / steps / steps / 12;
	}
	return 6 * sqrt(squares) + 1e-6 * norm_of(w, n_cols) * norm_of(x, n_cols);
}

static void check_product(const char *name, const float *got, const float *w, const float *x,
			  const float *bias, const float *start, uint32_t n_rows, uint32_t n_cols,
			  uint32_t n_out, enum rounding rounding)
{
	for (uint32_t r = 0; r < n_rows; r++)
		for (uint32_t o = 0; o < n_out; o++) {
			const float *wo = w + (size_t)o * n_cols, *xr = x + (size_t)r * n_cols;
			double sum =
				(bias ? bias[o] : 0) + (start ? start[(size_t)r * n_out + o] : 0.0);
			for (uint32_t c = 0; c < n_cols; c++)
				sum += (double)wo[c] * xr[c];
			double off = fabs(got[(size_t)r * n_out + o] - sum),
			       room = room_for(wo, xr, n_cols, rounding);
			if (!(off <= room + 4e-7 * (fabs(sum) + 4)))
				fail_msg("%s (%u, %u) row %u output %u: %g is off by %g, more than "
					 "%g",
					 name, n_out, n_cols, r, o, sum, off, room);
		}
}

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
	const char *name = source.tensors[0].name;
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
	x[random_below(n_cols)] = 30; /* an outlier, as activations have them */
	struct sk_linear *input = pack_floats(backend, x, MAX_ROWS, n_cols);
	struct sk_linear *begin = pack_floats(backend, start, MAX_ROWS, n_out);

	float *whole = multiply(backend, plain, input, NULL, 0, MAX_ROWS, n_cols, n_out);
	check_product(name, whole, w, x, NULL, NULL, MAX_ROWS, n_cols, n_out, rounding);
	for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++) {
		uint32_t n = row_counts[i], row0 = random_below(MAX_ROWS - n + 1);
		float *part = multiply(backend, plain, input, NULL, row0, n, n_cols, n_out);
		assert_memory_equal(part, whole + (size_t)row0 * n_out, n * n_out * sizeof *part);
		free(part);
		part = multiply(backend, biased, input, begin, row0, n, n_cols, n_out);
		check_product(name, part, w, x + (size_t)row0 * n_cols, bias,
			      start + (size_t)row0 * n_out, n, n_cols, n_out, rounding);
		free(part);
	}
	free(whole);
	free(start);
	free(x);
	free(w);
	free(bias);
	source_finish(&source);
	sk_backend_close(backend);
}

static void test_products(void **state)
{
	for (size_t k = 0; k < N_KINDS; k++)
		for (size_t s = 0; s < N_SHAPES; s++)
			if (has_rows_of(&kinds[k], shapes[s][1]))
				for (int exact = 0; exact < 2; exact++)
					check_kind(*state, &kinds[k], exact, shapes[s][0],
						   shapes[s][1]);
}

/* The same product on other threads (the same bits) and other instructions (close, if exact). */
static void test_agreement(void **state)
{
	struct sk_backend_shape shape = default_shape();
	sk_backend_close(open_or_skip(*state, 1, false, &shape));
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
				double room = room_for(w, x + (size_t)r * n_cols, n_cols, FLOATS),
				       off = (double)results[2][r * n_out + o] -
					     results[4][r * n_out + o];
				assert_true(fabs(off) <= 2 * room);
			}
		}
		for (int i = 0; i < 5; i++)
			free(results[i]);
		free(w);
		free(x);
		source_finish(&source);
	}
}

/* Parts of several formats stacked, with rows in another order. */
static void test_stacks(void **state)
{
	static const struct {
		enum sk_dtype dtypes[3];
		double tolerance;
	} stacks[] = {
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
	static const uint32_t order[5] = {4, 0, 3, 3, 1};
	struct sk_backend_shape shape = default_shape();
	for (size_t s = 0; s < sizeof stacks / sizeof *stacks; s++) {
		struct sk_backend *backend = open_or_skip(*state, 2, false, &shape);
		const uint32_t n_cols = 512;
		struct sk_tensor tensors[3];
		struct sk_matrix matrix = {.n_cols = n_cols, .n_parts = 3};
		struct sk_linear *linear;
		assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
		for (int i = 0; i < 3; i++) {
			uint32_t n_rows = i == 1 ? 5 : 13;
			tensors[i] = (struct sk_tensor){
				sk_dtype_info(stacks[s].dtypes[i])->name, stacks[s].dtypes[i],
				n_rows, n_cols, random_data(stacks[s].dtypes[i], n_rows, n_cols)};
			matrix.parts[i] =
				(struct sk_matrix_part){&tensors[i], i == 1 ? order : NULL, n_rows};
			matrix.n_rows += n_rows;
		}
		assert_int_equal(
			sk_backend_pack_linear(backend, &matrix, NULL, SK_WEIGHTS_AUTO, &linear),
			0);
		float *w = decode(backend, linear, matrix.n_rows, n_cols);
		check_decoded(&matrix, w, stacks[s].tolerance);
		free(w);
		for (int i = 0; i < 3; i++)
			free((void *)tensors[i].data);
		sk_backend_close(backend);
	}
}

/* What is no number must not become one on its way through integers. */
static void test_not_a_number(void **state)
{
	struct sk_backend_shape shape = default_shape();
	const uint32_t n_cols = 256, n_out = 16;
	for (size_t k = 0; k < N_KINDS; k++) {
		if (!has_rows_of(&kinds[k], n_cols))
			continue;
		struct sk_backend *backend = open_or_skip(*state, 1, false, &shape);
		struct source source;
		source_init(&source, &kinds[k], n_out, n_cols);
		float *x = random_floats(3 * n_cols, 1);
		x[n_cols + 40] = NAN;
		x[2 * n_cols + 7] = INFINITY;
		struct sk_linear *linear;
		assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
		assert_int_equal(sk_backend_pack_linear(backend, &source.matrix, NULL,
							kinds[k].format, &linear),
				 0);
		float *y = multiply(backend, linear, pack_floats(backend, x, 3, n_cols), NULL, 0, 3,
				    n_cols, n_out);
		for (uint32_t i = 0; i < n_out; i++) {
			assert_true(isfinite(y[i]));
			assert_true(isnan(y[n_out + i]));
			assert_false(isfinite(y[2 * n_out + i]));
		}
		free(y);
		free(x);
		source_finish(&source);
		sk_backend_close(backend);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KERNEL_TEST(test_products),
		KERNEL_TEST(test_agreement),
		KERNEL_TEST(test_stacks),
		KERNEL_TEST(test_not_a_number),
	};
	return sk_test_run(tests, NULL, NULL);
}
