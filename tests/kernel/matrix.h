/* Shared by the tests of packed weights: random sources of every format, what they decode to, products with them and
 * how far these may be off. Included once in each test. */
#pragma once

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

static inline bool in_blocks(const struct kind *kind)
{
	if (kind->format == SK_WEIGHTS_AUTO)
		return sk_dtype_info(kind->dtypes[0])->block_elements > 1;
	return kind->format == SK_WEIGHTS_Q8 || kind->format == SK_WEIGHTS_Q4;
}

static inline bool has_four_bits(enum sk_dtype dtype)
{
	return dtype == SK_DTYPE_Q4_0 || dtype == SK_DTYPE_Q4_1 || dtype == SK_DTYPE_Q4_K;
}

/* Whether all rows are kept in four bits: those of Q6_K beside them make it eight. */
static inline bool in_four_bits(const struct kind *kind)
{
	if (kind->format == SK_WEIGHTS_AUTO)
		return has_four_bits(kind->dtypes[0]) &&
		       (kind->dtypes[1] == SK_DTYPE_F32 || has_four_bits(kind->dtypes[1]));
	return kind->format == SK_WEIGHTS_Q4;
}

/* What becomes of the activations. */
enum rounding { FLOATS, SIXTEEN_BITS, EIGHT_BITS, BFLOATS, HALVES }; /* HALVES: of weights, too */

static inline enum rounding rounding_of(const struct kind *kind, const char *instructions,
					bool exact)
{
	const bool bf16 = strcmp(instructions, "avx512-bf16") == 0,
		   vnni = bf16 || strcmp(instructions, "avx512-vnni") == 0,
		   bytes = vnni || (in_four_bits(kind) && strcmp(instructions, "scalar") != 0);
	const bool bfloats = kind->dtypes[0] == SK_DTYPE_BF16 || kind->format == SK_WEIGHTS_BF16;
	if (strcmp(instructions, "cuda") ==
	    0) { /* where there are many rows; few are not rounded */
		if (exact || (kind->dtypes[0] == SK_DTYPE_F32 && kind->format == SK_WEIGHTS_AUTO))
			return FLOATS;
		return bfloats ? BFLOATS : HALVES;
	}
	if (in_blocks(kind))
		return bytes && !exact ? EIGHT_BITS : SIXTEEN_BITS;
	return bf16 && !exact && bfloats ? BFLOATS : FLOATS;
}

/* Random data of any format: bytes for codes, sane halves where scales lie. */
static inline void *random_data(enum sk_dtype dtype, uint32_t n_rows, uint32_t n_cols)
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

static inline void source_init(struct source *source, const struct kind *kind, uint32_t n_rows,
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

static inline void source_finish(struct source *source)
{
	for (uint32_t i = 0; i < source->matrix.n_parts; i++)
		free((void *)source->tensors[i].data);
}

static inline bool has_rows_of(const struct kind *kind, uint32_t n_cols)
{
	return sk_dtype_row_bytes(kind->dtypes[0], n_cols) &&
	       sk_dtype_row_bytes(kind->dtypes[1], n_cols);
}

/* All rows of a packed matrix, as the backend decodes them: (n_rows, n_cols). */
static inline float *decode(struct sk_backend *backend, const struct sk_linear *linear,
			    uint32_t n_rows, uint32_t n_cols)
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
static inline float *multiply(struct sk_backend *backend, const struct sk_linear *linear,
			      const struct sk_linear *input, const struct sk_linear *start,
			      uint32_t row0, uint32_t n_rows, uint32_t n_cols, uint32_t n_out)
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
	for (uint32_t i = 0; i < n_rows; i++)
		memcpy(all + (size_t)i * n_out, sk_backend_read(backend, out, i),
		       n_out * sizeof *all);
	sk_backend_free(backend, in);
	sk_backend_free(backend, out);
	return all;
}

/* The largest magnitude of x's [from, from + n), cut off at n_cols. */
static inline double largest(const float *x, uint32_t from, uint32_t n, uint32_t n_cols)
{
	double most = 0;
	for (uint32_t i = from; i < from + n && i < n_cols; i++)
		most = fmax(most, fabs((double)x[i]));
	return most;
}

/* Each value near its source's: by `tolerance` of its block's largest, or of a thousandth where that is smaller still
 * (the steps between the least halves, which scales are, are no longer small beside such a block's). */
static inline void check_decoded(const struct sk_matrix *matrix, const float *decoded,
				 double tolerance)
{
	float *row = malloc(matrix->n_cols * sizeof *row);
	assert_non_null(row);
	uint32_t i = 0;
	for (uint32_t p = 0; p < matrix->n_parts; p++) {
		/* of 256 columns in K formats, whose values may be small differences of large products */
		const struct sk_tensor *tensor = matrix->parts[p].tensor;
		const uint32_t block = sk_dtype_info(tensor->dtype)->block_elements,
			       span = block > 32 ? block : 32;
		for (uint32_t end = i + matrix->parts[p].n_rows; i < end; i++) {
			sk_matrix_decode_row(matrix, i, row);
			double most = 0;
			for (uint32_t c = 0; c < matrix->n_cols; c++) {
				if (c % span == 0)
					most = largest(row, c, span, matrix->n_cols);
				const float got = decoded[(size_t)i * matrix->n_cols + c];
				const double room = tolerance * fmax(most, 1e-3);
				if (!(fabs((double)row[c] - got) <= room))
					fail_msg(
						"%s row %u column %u: %g is kept as %g, largest %g",
						tensor->name, i, c, row[c], got, most);
			}
		}
	}
	free(row);
}

/* What products ought to be, of each row of `x` and each of `w`: (n_rows, n_out), and how far they may be off. */
struct expected {
	double *sums, *rooms;
	uint32_t n_out;
};

/* The variance of each activation's rounding. Integers of 16 bits are 32639 steps to a block's largest, and of 8 bits
 * 127, but where the largest is above four times the row's root mean square there are 16 (a hair above: nobody knows). */
static inline void variances_of(const float *x, uint32_t n_cols, enum rounding rounding,
				double *out)
{
	const double rms = norm_of(x, n_cols) / sqrt(n_cols);
	double most = 0;
	for (uint32_t c = 0; c < n_cols; c++) {
		if (c % 32 == 0)
			most = largest(x, c, 32, n_cols);
		const double steps =
			rounding == EIGHT_BITS && most < 4.0001 * rms ? 32639. / 256 : 32639;
		out[c] = rounding == FLOATS    ? 0
			 : rounding == BFLOATS ? (double)x[c] * x[c] / 256 / 256 / 3
			 : rounding == HALVES  ? (double)x[c] * x[c] / 2048 / 2048 * 2 / 3
					       : most * most / steps / steps / 12;
	}
}

/* A product may be off by a millionth of the norms, for the sums of floats, and by eight deviations of the rounding
 * of activations. */
static inline struct expected expect(const float *w, const float *x, uint32_t n_rows,
				     uint32_t n_cols, uint32_t n_out, enum rounding rounding)
{
	const size_t n = (size_t)n_rows * n_out;
	struct expected e = {calloc(n, sizeof(double)), calloc(n, sizeof(double)), n_out};
	double *variances = malloc(n_cols * sizeof *variances);
	assert_non_null(e.sums);
	assert_non_null(e.rooms);
	assert_non_null(variances);
	for (uint32_t r = 0; r < n_rows; r++) {
		const float *xr = x + (size_t)r * n_cols;
		const double norm = norm_of(xr, n_cols);
		variances_of(xr, n_cols, rounding, variances);
		for (uint32_t o = 0; o < n_out; o++) {
			const float *wo = w + (size_t)o * n_cols;
			double sum = 0, squares = 0, variance = 0;
			for (uint32_t c = 0; c < n_cols; c++) {
				const double square = (double)wo[c] * wo[c];
				sum += (double)wo[c] * xr[c];
				squares += square;
				variance += square * variances[c];
			}
			e.sums[r * n_out + o] = sum;
			e.rooms[r * n_out + o] = 8 * sqrt(variance) + 1e-6 * sqrt(squares) * norm;
		}
	}
	free(variances);
	return e;
}

static inline void expected_finish(struct expected *e)
{
	free(e->sums);
	free(e->rooms);
}

/* Rows [row0, row0 + n_rows). */
static inline void check_product(const char *name, const float *got, const struct expected *e,
				 const float *bias, const float *start, uint32_t row0,
				 uint32_t n_rows)
{
	for (uint32_t r = row0; r < row0 + n_rows; r++)
		for (uint32_t o = 0; o < e->n_out; o++) {
			const size_t at = (size_t)r * e->n_out + o;
			double sum = e->sums[at] + (bias ? bias[o] : 0) + (start ? start[at] : 0.0),
			       off = fabs((double)got[at - (size_t)row0 * e->n_out] - sum);
			if (!(off <= e->rooms[at] + 4e-7 * (fabs(sum) + 4)))
				fail_msg("%s row %u output %u: %g is off by %g, more than %g", name,
					 r, o, sum, off, e->rooms[at]);
		}
}

/* Outliers, as activations have them, in every third row: anywhere, and in the last block. */
static inline void add_outliers(float *x, uint32_t n_rows, uint32_t n_cols)
{
	for (uint32_t i = 0; i < n_rows; i += 3) {
		x[(size_t)i * n_cols + random_below(n_cols)] = 30;
		x[(size_t)i * n_cols + n_cols - 1 - random_below(n_cols < 32 ? n_cols : 32)] = -20;
	}
}
