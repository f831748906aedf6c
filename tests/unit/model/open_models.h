/* What the tests of whole models share: a folder for each test, lists of tensors to change, and
 * opening with the sentence checked.
 */
#pragma once

#include "make_files.h"
#include "model/model.h"
#include "sk_test.h"

#include <errno.h>

static struct made_dir dir;

static inline int create_dir(void **state)
{
	(void)state;
	made_dir_create(&dir);
	return 0;
}

static inline int remove_dir(void **state)
{
	(void)state;
	made_dir_remove(&dir);
	return 0;
}

/* A value of row `row`: in a made file, 1000 times its row there, plus the column. */
static inline float value(const struct sk_matrix *m, uint32_t row, uint32_t col)
{
	float *out = malloc(m->n_cols * sizeof *out), v;
	assert_non_null(out);
	assert_true(row < m->n_rows);
	sk_matrix_decode_row(m, row, out);
	v = out[col];
	free(out);
	return v;
}

static inline void assert_shape(const struct sk_matrix *m, uint32_t n_rows, uint32_t n_cols)
{
	assert_int_equal(m->n_rows, n_rows);
	assert_int_equal(m->n_cols, n_cols);
	uint32_t sum = 0;
	for (uint32_t i = 0; i < m->n_parts; i++)
		sum += m->parts[i].n_rows;
	assert_int_equal(sum, n_rows);
}

static inline struct sk_model *open_good(const char *path)
{
	struct sk_model *model = NULL;
	struct sk_diag diag = {""};
	if (sk_model_open(path, &model, &diag) < 0)
		fail_msg("%s", diag.text);
	return model;
}

static inline void open_fails(const char *path, int error, const char *words, const char *more)
{
	struct sk_model *model = NULL;
	struct sk_diag diag = {""};
	int r = sk_model_open(path, &model, &diag);
	assert_null(model);
	if (r != -error || strncmp(diag.text, path, strlen(path)) != 0 ||
	    !strstr(diag.text, words) || !strstr(diag.text, more))
		fail_msg("wanted %d '%s' '%s', got %d: %s", -error, words, more, r, diag.text);
}

/* A copy of a list of tensors, for a test to change. */
struct tensors {
	struct made_tensor list[MAX_MADE];
};

static inline struct tensors copy(const struct made_tensor *tensors)
{
	struct tensors t;
	memcpy(t.list, tensors, sizeof t.list);
	return t;
}

static inline struct made_tensor *named(struct tensors *t, const char *name)
{
	for (unsigned i = 0; i < MAX_MADE && t->list[i].name; i++) {
		if (strcmp(t->list[i].name, name) == 0)
			return &t->list[i];
	}
	fail_msg("no '%s'", name);
	return NULL;
}

static inline void add(struct tensors *t, const char *name, uint64_t n_rows, uint64_t n_cols,
		       const char *dtype)
{
	unsigned i = 0;
	while (t->list[i].name)
		i++;
	assert_true(i + 1 < MAX_MADE);
	t->list[i] = (struct made_tensor){name, {n_rows, n_cols}, dtype};
}

#define test_in_dir(function) cmocka_unit_test_setup_teardown(function, create_dir, remove_dir)
