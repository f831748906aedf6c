/* Tensors as they lie in model files: the element formats, a checked view, and a matrix made of one
 * or more views stacked by rows. model/ fills them, backends read them while they pack.
 *
 * A view owns nothing: it points into a mapped file, which its `struct sk_model` keeps open.
 * Block formats are those of the GGUF specification (ggml block layouts); a block lies within a
 * row.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sk_dtype {
	SK_DTYPE_F32,
	SK_DTYPE_F16,
	SK_DTYPE_BF16,
	SK_DTYPE_Q8_0, /* 32 elements: half scale, 32 signed bytes */
	SK_DTYPE_Q4_0, /* 32 elements: half scale, 16 bytes of nibbles, value (q - 8) * d */
	SK_DTYPE_Q4_1, /* 32 elements: half scale, half minimum, nibbles, value q * d + m */
	SK_DTYPE_Q5_0,
	SK_DTYPE_Q5_1,
	SK_DTYPE_Q4_K, /* 256 elements: 8 blocks of 32 with 6-bit scales and minima */
	SK_DTYPE_Q5_K,
	SK_DTYPE_Q6_K, /* 256 elements: 16 blocks of 16 with 8-bit scales */
	SK_N_DTYPES,
};

struct sk_dtype_info {
	const char *name;        /* "F32", "Q4_K", ... */
	uint32_t block_elements; /* elements a block; 1 for the plain formats */
	uint32_t block_bytes;
};

const struct sk_dtype_info *sk_dtype_info(enum sk_dtype dtype);

/* Bytes of one row of n_cols elements; 0 if n_cols is no whole number of blocks. */
size_t sk_dtype_row_bytes(enum sk_dtype dtype, uint64_t n_cols);

/* Decodes n_cols elements (whole blocks) at `row`, which may be unaligned, to floats. */
void sk_dtype_decode_row(enum sk_dtype dtype, const void *row, uint64_t n_cols, float *out);

/* A matrix (n_rows, n_cols), row-major, each row whole blocks; a vector is (n, 1) and never in
 * blocks. The file reader has checked that `data` holds n_rows * sk_dtype_row_bytes() bytes. */
struct sk_tensor {
	const char *name; /* as in the file, for messages */
	enum sk_dtype dtype;
	uint64_t n_rows, n_cols;
	const void *data;
};

/* Rows of one tensor in the order wanted: row i is file row rows[i], or row i where rows is NULL.
 */
struct sk_matrix_part {
	const struct sk_tensor *tensor;
	const uint32_t *rows; /* n_rows entries, each < tensor->n_rows; owned by the model */
	uint32_t n_rows;
};

/* Parts stacked by rows: Q over K over V, gate over up. n_rows == 0: the model has no such matrix.
 */
struct sk_matrix {
	uint32_t n_rows, n_cols, n_parts;
	struct sk_matrix_part parts[3];
};

static inline bool sk_matrix_is_absent(const struct sk_matrix *m)
{
	return m->n_rows == 0;
}

/* Finds row `row` (< n_rows) of the stack: its bytes, and its format in *ret_dtype. */
const void *sk_matrix_row(const struct sk_matrix *m, uint32_t row, enum sk_dtype *ret_dtype);

/* Row `row` as n_cols floats. */
void sk_matrix_decode_row(const struct sk_matrix *m, uint32_t row, float *out);
