/* What every test program needs: cmocka with its prerequisites, where the data is, and skipping. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fnmatch.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "VARIABLE/file" in a static buffer (one a call site's thread; copy it to keep it). */
static inline const char *sk_test_path(const char *variable, const char *file)
{
	static __thread char path[PATH_MAX];
	const char *folder = getenv(variable);
	snprintf(path, sizeof path, "%s/%s", folder ? folder : ".", file);
	return path;
}

/* The user's STREAMKV_TEST_DATA, else ../shared/data, which may be absent. */
#define sk_test_data(file)                                                                         \
	sk_test_path(getenv("STREAMKV_TEST_DATA") ? "STREAMKV_TEST_DATA"                           \
						  : "STREAMKV_TEST_DATA_DEFAULT",                  \
		     file)
#define sk_test_model(file)  sk_test_path("STREAMKV_TEST_MODELS", file) /* tests/models */
#define sk_test_golden(file) sk_test_path("STREAMKV_TEST_GOLDEN", file) /* tests/golden */

/* What cannot run here is skipped by name and with the reason, on a line of its own that tools/test
 * repeats in its summary. A program of whose tests none ran, be it that all were skipped or that the filter
 * leaves none, ends with 77. */
static unsigned sk_test_n_skipped;

#define sk_test_skip(...)                                                                          \
	do {                                                                                       \
		fprintf(stderr, "SKIP %s: ", __func__);                                            \
		fprintf(stderr, __VA_ARGS__);                                                      \
		fputc('\n', stderr);                                                               \
		sk_test_n_skipped++;                                                               \
		skip();                                                                            \
	} while (0)

/* Skips the test unless the file is there. */
#define sk_test_need(path)                                                                         \
	do {                                                                                       \
		if (access((path), R_OK) != 0)                                                     \
			sk_test_skip("%s is not here", (path));                                    \
	} while (0)

/* What main() returns. */
#define sk_test_run(tests, setup, teardown)                                                        \
	sk_test_outcome((sk_test_filter(), cmocka_run_group_tests(tests, setup, teardown)),        \
			sk_test_n_wanted(tests, sizeof(tests) / sizeof *(tests)))

/* STREAMKV_TEST_FILTER='test_gather*' runs some of a program's tests alone. */
static inline void sk_test_filter(void)
{
	const char *pattern = getenv("STREAMKV_TEST_FILTER");
	if (pattern)
		cmocka_set_test_filter(pattern);
}

static inline size_t sk_test_n_wanted(const struct CMUnitTest *tests, size_t n_tests)
{
	const char *pattern = getenv("STREAMKV_TEST_FILTER");
	size_t n_wanted = 0;
	for (size_t i = 0; i < n_tests; i++)
		n_wanted +=
			!pattern || (!strpbrk(pattern, "[\\") && /* cmocka knows * and ? alone */
				     fnmatch(pattern, tests[i].name, 0) == 0);
	if (n_wanted == 0)
		fprintf(stderr, "SKIP all: no test here is called %s\n",
			pattern ? pattern : "anything");
	return n_wanted;
}

/* Where CUDA is simulated (tests/cusim): the faults that it has seen. */
long cusim_n_errors(void) __attribute__((weak));

/* A simulated device is slow: how much of something is enough there. */
static inline unsigned sk_test_some(unsigned all, unsigned simulated)
{
	return cusim_n_errors ? simulated : all;
}

/* Where it is, a part of all cases is enough, but for the long tests (tools/test --nightly). */
static inline bool sk_test_is_short(void)
{
	return cusim_n_errors && !getenv("STREAMKV_NIGHTLY");
}

static inline int sk_test_outcome(int n_failed, size_t n_wanted)
{
	if (cusim_n_errors && cusim_n_errors()) {
		fprintf(stderr, "%ld faults of kernels or of the runtime's use, see above\n",
			cusim_n_errors());
		return 1;
	}
	return n_failed ? 1 : sk_test_n_skipped == n_wanted ? 77 : 0;
}
