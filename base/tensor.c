/* Element formats: their sizes, rows decoded to floats, and rows of stacked matrices. */
#include "base/tensor.h"

#include "base/blocks.h"
#include "base/half.h"

#include <string.h>

static const struct sk_dtype_info dtypes[SK_N_DTYPES] = {
	[SK_DTYPE_F32] = {"F32", 1, 4},       [SK_DTYPE_F16] = {"F16", 1, 2},
	[SK_DTYPE_BF16] = {"BF16", 1, 2},     [SK_DTYPE_Q8_0] = {"Q8_0", 32, 34},
	[SK_DTYPE_Q4_0] = {"Q4_0", 32, 18},   [SK_DTYPE_Q4_1] = {"Q4_1", 32, 20},
	[SK_DTYPE_Q5_0] = {"Q5_0", 32, 22},   [SK_DTYPE_Q5_1] = {"Q5_1", 32, 24},
	[SK_DTYPE_Q4_K] = {"Q4_K", 256, 144}, [SK_DTYPE_Q5_K] = {"Q5_K", 256, 176},
	[SK_DTYPE_Q6_K] = {"Q6_K", 256, 210},
};

const struct sk_dtype_info *sk_dtype_info(enum sk_dtype dtype)
{
	return &dtypes[dtype];
}

size_t sk_dtype_row_bytes(enum sk_dtype dtype, uint64_t n_cols)
{
	const struct sk_dtype_info *info = &dtypes[dtype];
	size_t n_bytes;
	if (n_cols % info->block_elements != 0 ||
	    __builtin_mul_overflow(n_cols / info->block_elements, info->block_bytes, &n_bytes))
		return 0;
	return n_bytes;
}

void sk_dtype_decode_row(enum sk_dtype dtype, const void *row, uint64_t n_cols, float *out)
{
	const uint8_t *bytes = row;
	uint16_t bits;

	switch (dtype) {
	case SK_DTYPE_F32:
		memcpy(out, bytes, n_cols * sizeof *out);
		return;
	case SK_DTYPE_F16:
		for (uint64_t i = 0; i < n_cols; i++) {
			memcpy(&bits, bytes + i * sizeof bits, sizeof bits);
			out[i] = sk_half_to_float(bits);
		}
		return;
	case SK_DTYPE_BF16:
		for (uint64_t i = 0; i < n_cols; i++) {
			memcpy(&bits, bytes + i * sizeof bits, sizeof bits);
			out[i] = sk_bf16_to_float(bits);
		}
		return;
	default:
		break;
	}

	sk_block_decode_fn *decode = sk_block_decoder(dtype);
	const struct sk_dtype_info *info = &dtypes[dtype];
	for (uint64_t n = n_cols / info->block_elements; n; n--) {
		decode(bytes, out);
		bytes += info->block_bytes;
		out += info->block_elements;
	}
}

const void *sk_matrix_row(const struct sk_matrix *m, uint32_t row, enum sk_dtype *ret_dtype)
{
	const struct sk_matrix_part *part = m->parts;
	while (row >= part->n_rows) {
		row -= part->n_rows;
		part++;
	}
	const struct sk_tensor *tensor = part->tensor;
	size_t file_row = part->rows ? part->rows[row] : row;
	*ret_dtype = tensor->dtype;
	return (const uint8_t *)tensor->data +
	       file_row * sk_dtype_row_bytes(tensor->dtype, tensor->n_cols);
}

void sk_matrix_decode_row(const struct sk_matrix *m, uint32_t row, float *out)
{
	enum sk_dtype dtype;
	const void *bytes = sk_matrix_row(m, row, &dtype);
	sk_dtype_decode_row(dtype, bytes, m->n_cols, out);
}
