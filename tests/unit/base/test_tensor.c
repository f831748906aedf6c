/* Element formats against vectors of the gguf package (tests/golden/make_blocks.py), bit for bit,
 * and rows of stacked matrices. */
#include "base/tensor.h"

#include "base/half.h"
#include "sk_test.h"

#include <string.h>

/* Decodes pairs of hexadecimal digits up to a space or the end; returns the bytes. */
static size_t unhex(const char **text, uint8_t *out, size_t room)
{
	size_t n = 0;
	for (; **text > ' ' && n < room; *text += 2) {
		unsigned byte;
		assert_int_equal(sscanf(*text, "%2x", &byte), 1);
		out[n++] = (uint8_t)byte;
	}
	if (**text == ' ')
		(*text)++;
	return n;
}

static void decodes_every_format_as_the_reference(void **state)
{
	(void)state;
	static char line[1 << 15];
	static uint8_t blocks[1 << 12], wanted[1 << 13], unaligned[(1 << 12) + 1];
	static float got[1 << 11];
	unsigned n_formats = 0;
	FILE *file = fopen(sk_test_golden("blocks.txt"), "r");
	assert_non_null(file);

	while (fgets(line, sizeof line, file)) {
		const char *text = strchr(line, ' ') + 1;
		size_t n_bytes = unhex(&text, blocks, sizeof blocks);
		size_t n = unhex(&text, wanted, sizeof wanted) / sizeof(float);
		unsigned dtype = 0;
		while (strncmp(sk_dtype_info(dtype)->name, line, strcspn(line, " ")) != 0 ||
		       strlen(sk_dtype_info(dtype)->name) != strcspn(line, " "))
			assert_true(++dtype < SK_N_DTYPES);
		assert_int_equal(sk_dtype_row_bytes(dtype, n), n_bytes);
		memcpy(unaligned + 1, blocks, n_bytes);
		sk_dtype_decode_row(dtype, unaligned + 1, n, got);
		assert_memory_equal(got, wanted, n * sizeof(float));
		n_formats++;
	}
	fclose(file);
	assert_int_equal(n_formats, SK_N_DTYPES - 1); /* all but F32 */
}

static void row_bytes_counts_whole_blocks(void **state)
{
	(void)state;
	assert_int_equal(sk_dtype_row_bytes(SK_DTYPE_F32, 7), 28);
	assert_int_equal(sk_dtype_row_bytes(SK_DTYPE_BF16, 7), 14);
	assert_int_equal(sk_dtype_row_bytes(SK_DTYPE_Q4_1, 64), 40);
	assert_int_equal(sk_dtype_row_bytes(SK_DTYPE_Q6_K, 512), 420);
	assert_int_equal(sk_dtype_row_bytes(SK_DTYPE_Q4_0, 33), 0);
	assert_int_equal(sk_dtype_row_bytes(SK_DTYPE_Q4_K, 128), 0);
	assert_int_equal(sk_dtype_row_bytes(SK_DTYPE_F32, UINT64_MAX / 2), 0); /* no overflow */
}

/* Three parts of different formats, the middle one with its rows reversed. */
static void matrix_rows_come_from_their_part(void **state)
{
	(void)state;
	float first[2][2] = {{1, 2}, {3, 4}};
	uint16_t second[3][2], third[1][2];
	static const uint32_t reversed[] = {2, 1, 0};
	for (unsigned i = 0; i < 6; i++)
		second[i / 2][i % 2] = sk_half_from_float((float)(10 + i));
	third[0][0] = sk_bf16_from_float(-1);
	third[0][1] = sk_bf16_from_float(-2);
	struct sk_tensor tensors[] = {
		{"a", SK_DTYPE_F32, 2, 2, first},
		{"b", SK_DTYPE_F16, 3, 2, second},
		{"c", SK_DTYPE_BF16, 1, 2, third},
	};
	struct sk_matrix m = {
		6,
		2,
		3,
		{{&tensors[0], NULL, 2}, {&tensors[1], reversed, 3}, {&tensors[2], NULL, 1}},
	};
	static const float wanted[6][2] = {{1, 2}, {3, 4}, {14, 15}, {12, 13}, {10, 11}, {-1, -2}};

	for (uint32_t row = 0; row < m.n_rows; row++) {
		float got[2];
		sk_matrix_decode_row(&m, row, got);
		assert_memory_equal(got, wanted[row], sizeof got);
	}
	enum sk_dtype dtype;
	assert_ptr_equal(sk_matrix_row(&m, 2, &dtype), second[2]);
	assert_int_equal(dtype, SK_DTYPE_F16);
	assert_false(sk_matrix_is_absent(&m));
	assert_true(sk_matrix_is_absent(&(struct sk_matrix){0}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decodes_every_format_as_the_reference),
		cmocka_unit_test(row_bytes_counts_whole_blocks),
		cmocka_unit_test(matrix_rows_come_from_their_part),
	};
	return sk_test_run(tests, NULL, NULL);
}
