/* The GGUF reader: both versions, every kind of value, alignment, and the sentence for every bad file. One long file, since the
 * builders of good files serve the bad ones. */
#include "model/gguf.h"

#include "make_files.h"
#include "sk_test.h"

#include <errno.h>

static const struct made_tensor tensors[] = {
	{"b.weight", {3, 4}, NULL},
	{"a.bias", {5}, NULL},
	{NULL, {0}, NULL},
};

/* Opens from a block of exactly the size, so that a sanitizer sees a byte too many. */
static int open_exact(const void *data, size_t n, struct sk_diag *diag)
{
	struct sk_gguf *gguf = NULL;
	void *exact = malloc(n ? n : 1);
	assert_non_null(exact);
	memcpy(exact, data, n);
	diag->text[0] = '\0';
	int r = sk_gguf_open_memory(exact, n, "bad.gguf", &gguf, diag);
	if (r == 0)
		sk_gguf_close(gguf);
	else
		assert_null(gguf); /* untouched */
	free(exact);
	return r;
}

static void sees_tensors_in_both_versions(void **state)
{
	(void)state;
	static const uint32_t alignments[] = {32, 8, 1, 4096};
	for (uint32_t version = 2; version <= 3; version++) {
		for (unsigned i = 0; i < 4; i++) {
			struct sk_gguf *gguf;
			struct sk_diag diag;
			struct bytes b = make_gguf(version, llama_pairs, tensors, alignments[i]);
			assert_int_equal(sk_gguf_open_memory(b.at, b.n, "good.gguf", &gguf, &diag),
					 0);
			assert_string_equal(sk_gguf_path(gguf), "good.gguf");
			assert_int_equal(sk_gguf_n_tensors(gguf), 2);
			const struct sk_tensor *t = sk_gguf_tensor(gguf, "b.weight");
			float row[4];
			assert_ptr_equal(t, sk_gguf_tensor_at(gguf, 0));
			assert_string_equal(t->name, "b.weight");
			assert_int_equal(t->n_rows, 3);
			assert_int_equal(t->n_cols, 4);
			sk_dtype_decode_row(t->dtype, (const char *)t->data + 32, 4, row);
			assert_true(row[0] == 2000 && row[3] == 2003);
			t = sk_gguf_tensor(gguf, "a.bias");
			assert_int_equal(t->n_rows, 5);
			assert_int_equal(t->n_cols, 1);
			sk_dtype_decode_row(t->dtype, (const char *)t->data + 16, 1, row);
			assert_true(row[0] == 4000);
			assert_null(sk_gguf_tensor(gguf, "a"));
			sk_gguf_close(gguf);
			bytes_free(&b);
		}
	}
	sk_gguf_close(NULL);
}

/* A file with one tensor after the given metadata. */
static struct bytes with_metadata(uint64_t n_pairs, const struct bytes *pairs)
{
	struct bytes b = {0};
	float zero = 0;
	bytes_put_text(&b, "GGUF");
	bytes_put_uint(&b, 3, 4);
	bytes_put_uint(&b, 1, 8);
	bytes_put_uint(&b, n_pairs, 8);
	bytes_put(&b, pairs->at, pairs->n);
	put_gguf_string(&b, "t");
	bytes_put_uint(&b, 1, 4);
	bytes_put_uint(&b, 1, 8);
	bytes_put_uint(&b, 0, 4);
	bytes_put_uint(&b, 0, 8);
	while (b.n % 32)
		bytes_put_uint(&b, 0, 1);
	bytes_put(&b, &zero, 4);
	return b;
}

static void put_value(struct bytes *b, const char *key, uint32_t type, uint64_t bits,
		      unsigned n_bytes)
{
	put_gguf_string(b, key);
	bytes_put_uint(b, type, 4);
	bytes_put_uint(b, bits, n_bytes);
}

static void put_array(struct bytes *b, const char *key, uint32_t item_type, uint64_t n_items)
{
	put_gguf_string(b, key);
	bytes_put_uint(b, GGUF_ARRAY, 4);
	bytes_put_uint(b, item_type, 4);
	bytes_put_uint(b, n_items, 8);
}

static void reads_every_kind_of_value(void **state)
{
	(void)state;
	struct bytes p = {0};
	put_value(&p, "u8", 0, 200, 1);
	put_value(&p, "i8", 1, 0xfe, 1);
	put_value(&p, "u16", 2, 60000, 2);
	put_value(&p, "i16", 3, 77, 2);
	put_value(&p, "u32", 4, 0xffffffff, 4);
	put_value(&p, "i32", 5, 0xffffffff, 4);
	put_value(&p, "f32", 6, 0x3fc00000, 4);
	put_value(&p, "yes", 7, 1, 1);
	put_value(&p, "odd", 7, 2, 1);
	put_gguf_text(&p, "text", "words");
	put_value(&p, "u64", 10, UINT64_MAX, 8);
	put_value(&p, "i64", 11, 5, 8);
	put_value(&p, "f64", 12, 0x4004000000000000, 8);
	put_array(&p, "strings", GGUF_STRING, 2);
	put_gguf_string(&p, "");
	put_gguf_string(&p, "xy");
	put_array(&p, "ints", GGUF_I32, 2);
	bytes_put_uint(&p, 7, 4);
	bytes_put_uint(&p, 0xfffffffe, 4);
	put_array(&p, "floats", GGUF_F32, 1);
	bytes_put_uint(&p, 0xbf800000, 4);
	put_array(&p, "large", GGUF_U64, 1);
	bytes_put_uint(&p, UINT64_MAX, 8);
	put_array(&p, "none", GGUF_U32, 0);
	struct bytes b = with_metadata(18, &p);
	struct sk_gguf *gguf;
	struct sk_diag diag;
	assert_int_equal(sk_gguf_open_memory(b.at, b.n, "good.gguf", &gguf, &diag), 0);

	static const struct {
		const char *key;
		int r;
		uint64_t value;
	} uints[] = {{"u8", 0, 200},         {"i8", -EINVAL, 0},     {"u16", 0, 60000},
		     {"i16", 0, 77},         {"u32", 0, 0xffffffff}, {"i32", -EINVAL, 0},
		     {"u64", 0, UINT64_MAX}, {"i64", 0, 5},          {"f32", -EINVAL, 0},
		     {"text", -EINVAL, 0},   {"yes", -EINVAL, 0},    {"ints", -EINVAL, 0},
		     {"absent", -ENOENT, 0}, {"u", -ENOENT, 0},      {"u8x", -ENOENT, 0}};
	for (size_t i = 0; i < sizeof uints / sizeof uints[0]; i++) {
		uint64_t value = 0;
		assert_int_equal(sk_gguf_get_uint(gguf, uints[i].key, &value), uints[i].r);
		assert_true(value == uints[i].value);
	}
	double real = 0;
	assert_int_equal(sk_gguf_get_float(gguf, "f32", &real), 0);
	assert_true(real == 1.5);
	assert_int_equal(sk_gguf_get_float(gguf, "f64", &real), 0);
	assert_true(real == 2.5);
	assert_int_equal(sk_gguf_get_float(gguf, "u32", &real), -EINVAL);
	assert_int_equal(sk_gguf_get_float(gguf, "absent", &real), -ENOENT);
	bool truth = false;
	assert_int_equal(sk_gguf_get_bool(gguf, "yes", &truth), 0);
	assert_true(truth);
	assert_int_equal(sk_gguf_get_bool(gguf, "odd", &truth), -EINVAL);
	assert_int_equal(sk_gguf_get_bool(gguf, "u8", &truth), -EINVAL);
	struct sk_gguf_string string;
	assert_int_equal(sk_gguf_get_string(gguf, "text", &string), 0);
	assert_int_equal(string.n_bytes, 5);
	assert_memory_equal(string.text, "words", 5);
	assert_int_equal(sk_gguf_get_string(gguf, "u8", &string), -EINVAL);

	struct sk_gguf_array array;
	int64_t item;
	assert_int_equal(sk_gguf_get_array(gguf, "text", &array), -EINVAL);
	assert_int_equal(sk_gguf_get_array(gguf, "strings", &array), 0);
	assert_int_equal(array.n_items, 2);
	assert_int_equal(sk_gguf_next_int(&array, &item), -EINVAL);
	assert_int_equal(sk_gguf_next_float(&array, &real), -EINVAL);
	assert_int_equal(sk_gguf_next_string(&array, &string), 0);
	assert_int_equal(string.n_bytes, 0);
	assert_int_equal(sk_gguf_next_string(&array, &string), 0);
	assert_memory_equal(string.text, "xy", 2);
	assert_int_equal(sk_gguf_next_string(&array, &string), -ENODATA);
	assert_int_equal(sk_gguf_get_array(gguf, "ints", &array), 0);
	assert_int_equal(sk_gguf_next_string(&array, &string), -EINVAL);
	assert_int_equal(sk_gguf_next_int(&array, &item), 0);
	assert_true(item == 7);
	assert_int_equal(sk_gguf_next_int(&array, &item), 0);
	assert_true(item == -2);
	assert_int_equal(sk_gguf_next_int(&array, &item), -ENODATA);
	assert_int_equal(sk_gguf_get_array(gguf, "floats", &array), 0);
	assert_int_equal(sk_gguf_next_int(&array, &item), -EINVAL);
	assert_int_equal(sk_gguf_next_float(&array, &real), 0);
	assert_true(real == -1);
	assert_int_equal(sk_gguf_next_float(&array, &real), -ENODATA);
	assert_int_equal(sk_gguf_get_array(gguf, "large", &array), 0);
	assert_int_equal(sk_gguf_next_int(&array, &item), -EINVAL);
	assert_int_equal(sk_gguf_get_array(gguf, "none", &array), 0);
	assert_int_equal(sk_gguf_next_int(&array, &item), -ENODATA);
	sk_gguf_close(gguf);
	bytes_free(&b);
	bytes_free(&p);
}

static void refuses_every_truncation(void **state)
{
	(void)state;
	struct bytes b = make_gguf(3, llama_pairs, tensors, 32);
	struct sk_diag diag;
	assert_int_equal(open_exact(b.at, b.n, &diag), 0);
	for (size_t n = 0; n < b.n; n++) {
		assert_true(open_exact(b.at, n, &diag) < 0);
		assert_int_equal(strncmp(diag.text, "bad.gguf: ", 10), 0);
	}
	bytes_free(&b);
}

static void expect(struct bytes b, int error, const char *words, const char *more)
{
	struct sk_diag diag;
	int r = open_exact(b.at, b.n, &diag);
	bytes_free(&b);
	if (r != -error || strncmp(diag.text, "bad.gguf: ", 10) != 0 || !strstr(diag.text, words) ||
	    !strstr(diag.text, more))
		fail_msg("wanted '%s' and '%s', got %d: %s", words, more, r, diag.text);
}

static struct bytes head(uint32_t version, uint64_t n_tensors, uint64_t n_pairs)
{
	struct bytes b = {0};
	bytes_put_text(&b, "GGUF");
	bytes_put_uint(&b, version, 4);
	bytes_put_uint(&b, n_tensors, 8);
	bytes_put_uint(&b, n_pairs, 8);
	for (unsigned i = 0; i < 64; i++)
		bytes_put_uint(&b, 0, 1);
	return b;
}

static void refuses_bad_beginnings(void **state)
{
	(void)state;
	struct bytes b = {0};
	bytes_put_text(&b, "PK\003\004 and so on");
	expect(b, EINVAL, "not a GGUF file", "");
	expect(head(1, 0, 0), ENOTSUP, "version 1", "2 and 3");
	expect(head(4, 0, 0), ENOTSUP, "version 4", "2 and 3");
	expect(head(0x03000000, 0, 0), ENOTSUP, "big-endian", "");
	expect(head(3, 0, 0), EINVAL, "no tensors", "");
	expect(head(3, UINT64_MAX, 0), EINVAL, "18446744073709551615 tensors", "");
	expect(head(3, 1, UINT64_MAX), EINVAL, "18446744073709551615 metadata", "");
	expect(head(3, 1, 1 << 20), EINVAL, "1048576 metadata", "");
	expect(head(3, 100, 0), EINVAL, "100 tensors", "");
	expect(head(3, 1, 100), EINVAL, "100 metadata", "");
}

static void refuses_bad_metadata(void **state)
{
	(void)state;
	static const struct {
		uint32_t type, item_type;
		uint64_t n;
		const char *reason;
	} cases[] = {
		{13, 0, 0, "unknown type, 13"},
		{UINT32_MAX, 0, 0, "unknown type"},
		{GGUF_STRING, 0, UINT64_MAX, "past the end"},
		{GGUF_STRING, 0, UINT64_MAX - 7, "past the end"},
		{GGUF_ARRAY, GGUF_ARRAY, 1, "items that cannot be"},
		{GGUF_ARRAY, 13, 1, "items that cannot be"},
		{GGUF_ARRAY, GGUF_U32, 1ull << 62, "past the end"}, /* times 4 is 0 */
		{GGUF_ARRAY, GGUF_U64, (1ull << 61) + 1, "past the end"},
		{GGUF_ARRAY, GGUF_STRING, UINT64_MAX, "past the end"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct bytes p = {0};
		put_gguf_string(&p, "the.key");
		bytes_put_uint(&p, cases[i].type, 4);
		if (cases[i].type == GGUF_ARRAY)
			bytes_put_uint(&p, cases[i].item_type, 4);
		bytes_put_uint(&p, cases[i].n, 8);
		expect(with_metadata(1, &p), EINVAL, "'the.key'", cases[i].reason);
		bytes_free(&p);
	}

	struct bytes p = {0};
	put_gguf_uint(&p, "twice", 1);
	put_gguf_uint(&p, "other", 1);
	put_gguf_bool(&p, "twice", true);
	expect(with_metadata(3, &p), EINVAL, "'twice'", "there twice");
	bytes_free(&p);

	static const uint32_t alignments[] = {0, 3, 24, 1u << 21, 1u << 31};
	for (unsigned i = 0; i < 5; i++) {
		struct bytes q = {0};
		put_gguf_uint(&q, "general.alignment", alignments[i]);
		expect(with_metadata(1, &q), EINVAL, "'general.alignment'", "power of two");
		bytes_free(&q);
	}
	put_gguf_float(&p, "general.alignment", 32);
	expect(with_metadata(1, &p), EINVAL, "'general.alignment'", "power of two");
	bytes_free(&p);
}

/* One tensor of the given description, with 64 bytes of data. */
static struct bytes one_tensor(const char *name, uint32_t n_dims, const uint64_t *dims,
			       uint32_t format, uint64_t offset)
{
	struct bytes b = {0};
	bytes_put_text(&b, "GGUF");
	bytes_put_uint(&b, 3, 4);
	bytes_put_uint(&b, 1, 8);
	bytes_put_uint(&b, 0, 8);
	put_gguf_string(&b, name);
	bytes_put_uint(&b, n_dims, 4);
	for (uint32_t i = 0; i < n_dims && i < 8; i++)
		bytes_put_uint(&b, dims[i], 8);
	bytes_put_uint(&b, format, 4);
	bytes_put_uint(&b, offset, 8);
	while (b.n % 32)
		bytes_put_uint(&b, 0, 1);
	for (unsigned i = 0; i < 64; i++)
		bytes_put_uint(&b, 0, 1);
	return b;
}

static void refuses_bad_tensors(void **state)
{
	(void)state;
	static const struct {
		uint32_t n_dims;
		uint64_t dims[4];
		uint32_t format;
		uint64_t offset;
		int error;
		const char *reason;
	} cases[] = {
		{0, {0}, 0, 0, EINVAL, "0 dimensions"},
		{5, {1, 1, 1, 1}, 0, 0, EINVAL, "5 dimensions"},
		{UINT32_MAX, {1, 1, 1, 1}, 0, 0, EINVAL, "dimensions"},
		{2, {4, 0}, 0, 0, EINVAL, "impossible shape"},
		{1, {0}, 0, 0, EINVAL, "impossible shape"},
		{3, {4, 1ull << 32, 1ull << 32}, 0, 0, EINVAL, "impossible shape"},
		{2, {1ull << 62, 4}, 0, 0, EINVAL, "not whole"},    /* a row overflows */
		{2, {1ull << 61, 4}, 0, 0, EINVAL, "past the end"}, /* all rows overflow to 0 bytes
								     */
		{2, {4, 1ull << 60}, 0, 0, EINVAL, "past the end"},
		{2, {17, 1}, 0, 0, EINVAL, "past the end"},
		{2, {16, 1}, 0, 32, EINVAL, "past the end"},
		{2, {1, 1}, 0, UINT64_MAX - 31, EINVAL, "past the end"},
		{2, {16, 1}, 0, UINT64_MAX - 31, EINVAL, "past the end"}, /* end wraps to 32 */
		{2, {1, 1}, 0, 4, EINVAL, "alignment of 32"},
		{2, {33, 1}, 2, 0, EINVAL, "33 elements, not whole Q4_0"},
		{1, {32}, 8, 0, EINVAL, "not whole Q8_0"}, /* a vector is never in blocks */
		{2, {128, 1}, 12, 0, EINVAL, "not whole Q4_K"},
		{2, {32, 1}, 4, 0, ENOTSUP, "format unknown (4)"},
		{2, {256, 1}, 10, 0, ENOTSUP, "format Q2_K (10)"},
		{2, {256, 1}, 23, 0, ENOTSUP, "format IQ4_XS"},
		{2, {32, 1}, 40, 0, ENOTSUP, "format unknown (40)"},
		{2, {32, 1}, UINT32_MAX, 0, ENOTSUP, "format unknown"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		expect(one_tensor("the.name", cases[i].n_dims, cases[i].dims, cases[i].format,
				  cases[i].offset),
		       cases[i].error, "'the.name'", cases[i].reason);

	static const uint64_t dims[] = {1, 1};
	char long_name[300] = "";
	memset(long_name, 'n', 256);
	expect(one_tensor(long_name, 2, dims, 0, 0), EINVAL, "'nnn", "cannot be");
	expect(one_tensor("", 2, dims, 0, 0), EINVAL, "''", "cannot be");
	expect(one_tensor("esc\033[2J", 2, dims, 0, 0), EINVAL, "'esc?[2J'", "cannot be");

	static const struct made_tensor twice[] = {
		{"x", {2, 2}, NULL}, {"y", {2, 2}, NULL}, {"x", {4}, NULL}, {NULL, {0}, NULL}};
	expect(make_gguf(3, llama_pairs, twice, 32), EINVAL, "'x'", "there twice");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sees_tensors_in_both_versions),
		cmocka_unit_test(reads_every_kind_of_value),
		cmocka_unit_test(refuses_every_truncation),
		cmocka_unit_test(refuses_bad_beginnings),
		cmocka_unit_test(refuses_bad_metadata),
		cmocka_unit_test(refuses_bad_tensors),
	};
	return sk_test_run(tests, NULL, NULL);
}
