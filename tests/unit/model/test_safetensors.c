/* The safetensors reader: what it sees in a good file, and the sentence for every bad one. */
#include "model/safetensors.h"

#include "make_files.h"
#include "sk_test.h"

#include <errno.h>

static const struct made_tensor good[] = {
	{"a.weight", {3, 4}, NULL},
	{"a.bias", {5}, NULL},
	{"deep", {2, 3, 2}, NULL},
	{NULL, {0}, NULL},
};

static const struct sk_tensor *find(const struct sk_safetensors *file, const char *name)
{
	for (size_t i = 0; i < sk_safetensors_n_tensors(file); i++) {
		if (strcmp(sk_safetensors_tensor_at(file, i)->name, name) == 0)
			return sk_safetensors_tensor_at(file, i);
	}
	return NULL;
}

static void sees_shapes_and_values(void **state)
{
	(void)state;
	struct made_dir dir;
	struct sk_safetensors *file;
	struct sk_diag diag;
	made_dir_create(&dir);
	made_dir_write_bytes(&dir, "m.safetensors", make_safetensors(good));
	assert_int_equal(
		sk_safetensors_open(made_dir_file(&dir, "m.safetensors"), NULL, &file, &diag), 0);
	assert_int_equal(sk_safetensors_n_tensors(file), 3);
	assert_string_equal(sk_safetensors_path(file), made_dir_file(&dir, "m.safetensors"));

	const struct sk_tensor *t = find(file, "a.weight");
	float row[4];
	assert_non_null(t);
	assert_int_equal(t->dtype, SK_DTYPE_F32);
	assert_int_equal(t->n_rows, 3);
	assert_int_equal(t->n_cols, 4);
	sk_dtype_decode_row(t->dtype, (const char *)t->data + 2 * sk_dtype_row_bytes(t->dtype, 4),
			    4, row);
	assert_true(row[0] == 2000 && row[3] == 2003);
	t = find(file, "a.bias");
	assert_int_equal(t->n_rows, 5);
	assert_int_equal(t->n_cols, 1);
	t = find(file, "deep");
	assert_int_equal(t->n_rows, 6);
	assert_int_equal(t->n_cols, 2);
	sk_safetensors_close(file);
	sk_safetensors_close(NULL);
	made_dir_remove(&dir);
}

/* Opens from a block of exactly the size, so that a sanitizer sees a byte too many. */
static int open_exact(const void *data, size_t n, sk_tensor_wanted_fn *wanted, struct sk_diag *diag)
{
	struct sk_safetensors *file = NULL;
	void *exact = malloc(n ? n : 1);
	assert_non_null(exact);
	memcpy(exact, data, n);
	diag->text[0] = '\0';
	int r = sk_safetensors_open_memory(exact, n, "bad.file", wanted, &file, diag);
	if (r == 0)
		sk_safetensors_close(file);
	else
		assert_null(file); /* untouched */
	free(exact);
	return r;
}

static bool starts_with_source(const struct sk_diag *diag)
{
	return strncmp(diag->text, "bad.file: ", 10) == 0;
}

static void refuses_every_truncation(void **state)
{
	(void)state;
	struct bytes b = make_safetensors(good);
	struct sk_diag diag;
	assert_int_equal(open_exact(b.at, b.n, NULL, &diag), 0);
	for (size_t n = 0; n < b.n; n++) {
		assert_true(open_exact(b.at, n, NULL, &diag) < 0);
		assert_true(starts_with_source(&diag));
	}
	bytes_free(&b);
}

static void says_what_is_wrong(void **state)
{
	(void)state;
	static const struct {
		const char *header;
		size_t n_data;
		int error;
		const char *tensor; /* named in the sentence, or NULL */
		const char *reason;
	} cases[] = {
		{"", 0, EINVAL, NULL, "malformed"},
		{"[]", 0, EINVAL, NULL, "not an object"},
		{"{}", 0, EINVAL, NULL, "no tensors"},
		{"{\"t\":", 4, EINVAL, NULL, "malformed"},
		{"{\"t\":7}", 4, EINVAL, "'t'", "lacks"},
		{"{\"t\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, EINVAL, "'t'", "lacks"},
		{"{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, EINVAL, "'t'", "lacks"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, EINVAL, "'t'", "lacks"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, EINVAL, "'t'",
		 "lacks"},
		{"{\"t\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, ENOTSUP,
		 "'t'", "F64"},
		{"{\"t\":{\"dtype\":\"\\u001b[1mX\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
		 ENOTSUP, "'t'", "?[1mX"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, EINVAL,
		 "'t'", "not whole numbers"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, EINVAL,
		 "'t'", "not whole numbers"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[\"1\"],\"data_offsets\":[0,4]}}", 4, EINVAL,
		 "'t'", "not whole numbers"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}",
		 4, ENOTSUP, "'t'", "9 dimensions"},
		/* 2^62 * 4 elements overflow; so do 2^62 elements of 32 bits; so would bytes alone.
		 */
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,"
		 "4]}}",
		 4, EINVAL, "'t'", "impossible"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}"
		 "}",
		 0, EINVAL, "'t'", "impossible"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]"
		 "}}",
		 4, EINVAL, NULL, "malformed"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[0,0]}}", 0, EINVAL,
		 "'t'", "no elements"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, EINVAL,
		 "'t'", "malformed data_offsets"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, EINVAL,
		 "'t'", "malformed data_offsets"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, EINVAL,
		 "'t'", "cut short"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9223372036854775803,"
		 "9223372036854775807]}}",
		 4, EINVAL, "'t'", "cut short"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, EINVAL,
		 "'t'", "needs 8"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
		 "\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
		 4, EINVAL, NULL, "malformed"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
		 "\"u\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
		 4, EINVAL, "'u'", "overlaps"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, EINVAL,
		 "'t'", "hole"},
		{"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5, EINVAL,
		 NULL, "1 bytes after the last"},
		{"{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, EINVAL, "''",
		 "cannot be"},
		{"{\"t\\n\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, EINVAL,
		 "'t?'", "cannot be"},
	};
	static const uint8_t zeros[16];
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sk_diag diag;
		struct bytes b = wrap_safetensors(cases[i].header, zeros, cases[i].n_data);
		int r = open_exact(b.at, b.n, NULL, &diag);
		bytes_free(&b);
		if (r != -cases[i].error || !starts_with_source(&diag) ||
		    !strstr(diag.text, cases[i].reason) ||
		    (cases[i].tensor && !strstr(diag.text, cases[i].tensor)))
			fail_msg("%s: %d, %s", cases[i].header, r, diag.text);
	}
}

static void refuses_impossible_headers(void **state)
{
	(void)state;
	static const uint64_t lengths[] = {17,         100 << 20,  (100 << 20) + 1, 1ull << 32,
					   1ull << 63, UINT64_MAX, UINT64_MAX - 7};
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		struct bytes b = {0};
		struct sk_diag diag;
		bytes_put_uint(&b, lengths[i], 8);
		bytes_put_text(&b, "{\"t\":1}         ");
		assert_int_equal(open_exact(b.at, b.n, NULL, &diag), -EINVAL);
		assert_non_null(strstr(diag.text, "header"));
		bytes_free(&b);
	}

	/* Brackets that would nest deep, or grow into very many values. */
	static const char openings[] = {'[', ','};
	for (unsigned i = 0; i < 2; i++) {
		size_t n = 5 << 20;
		struct bytes b = {0};
		struct sk_diag diag;
		char *text = malloc(n + 1);
		assert_non_null(text);
		memset(text, openings[i], n);
		text[n] = '\0';
		bytes_put_uint(&b, n, 8);
		bytes_put_text(&b, text);
		assert_int_equal(open_exact(b.at, b.n, NULL, &diag), -EINVAL);
		assert_non_null(strstr(diag.text, "values"));
		bytes_free(&b);
		b = wrap_safetensors("", NULL, 0);
		text[100000] = '\0';
		bytes_free(&b);
		b = wrap_safetensors(text, NULL, 0);
		assert_int_equal(open_exact(b.at, b.n, NULL, &diag), -EINVAL);
		bytes_free(&b);
		free(text);
	}
}

static bool wants_t(const char *name)
{
	return strcmp(name, "t") == 0;
}

/* Of any format, but still within the file. */
static void unwanted_tensors_are_only_bounds_checked(void **state)
{
	(void)state;
	static const uint8_t zeros[16];
	struct sk_diag diag;
	struct bytes b =
		wrap_safetensors("{\"t\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
				 "\"mask\":{\"dtype\":\"BOOL\",\"shape\":[1,1,2,2],"
				 "\"data_offsets\":[4,8]}}",
				 zeros, 8);
	assert_int_equal(open_exact(b.at, b.n, wants_t, &diag), 0);
	assert_int_equal(open_exact(b.at, b.n, NULL, &diag), -ENOTSUP);
	assert_non_null(strstr(diag.text, "'mask'"));
	assert_int_equal(open_exact(b.at, b.n - 1, wants_t, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "'mask'"));
	bytes_free(&b);
}

static void refuses_what_is_no_file(void **state)
{
	(void)state;
	struct made_dir dir;
	struct sk_safetensors *file;
	struct sk_diag diag;
	made_dir_create(&dir);
	made_dir_write(&dir, "empty", "", 0);
	assert_int_equal(mkfifo(made_dir_file(&dir, "pipe"), 0600), 0);
	assert_int_equal(sk_safetensors_open(made_dir_file(&dir, "absent"), NULL, &file, &diag),
			 -ENOENT);
	assert_non_null(strstr(diag.text, "absent: cannot be opened"));
	assert_int_equal(sk_safetensors_open(made_dir_file(&dir, "empty"), NULL, &file, &diag),
			 -EINVAL);
	assert_non_null(strstr(diag.text, "empty: the file is empty"));
	assert_int_equal(sk_safetensors_open(made_dir_file(&dir, "pipe"), NULL, &file, &diag),
			 -EINVAL);
	assert_non_null(strstr(diag.text, "not a regular file"));
	assert_int_equal(sk_safetensors_open(dir.path, NULL, &file, &diag), -EISDIR);
	assert_non_null(strstr(diag.text, "is a directory"));
	made_dir_remove(&dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sees_shapes_and_values),
		cmocka_unit_test(refuses_every_truncation),
		cmocka_unit_test(says_what_is_wrong),
		cmocka_unit_test(refuses_impossible_headers),
		cmocka_unit_test(unwanted_tensors_are_only_bounds_checked),
		cmocka_unit_test(refuses_what_is_no_file),
	};
	return sk_test_run(tests, NULL, NULL);
}
