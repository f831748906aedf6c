/* What every test program needs: cmocka with its prerequisites, where the data is, and skipping. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* "VARIABLE/file" in a static buffer (one a call site's thread; copy it to keep it). */
static inline const char *sk_test_path(const char *variable, const char *file)
{
	static __thread char path[PATH_MAX];
	const char *folder = getenv(variable);
	snprintf(path, sizeof path, "%s/%s", folder ? folder : ".", file);
	return path;
}

#define sk_test_data(file)                                                                         \
	sk_test_path("STREAMKV_TEST_DATA", file) /* ../shared/data: may be absent */
#define sk_test_model(file)  sk_test_path("STREAMKV_TEST_MODELS", file) /* tests/models */
#define sk_test_golden(file) sk_test_path("STREAMKV_TEST_GOLDEN", file) /* tests/golden */

/* Ends the test as skipped, by name, unless the file is there. */
#define sk_test_need(path)                                                                         \
	do {                                                                                       \
		if (access((path), R_OK) != 0) {                                                   \
			fprintf(stderr, "SKIP %s: %s is not here\n", __func__, (path));            \
			skip();                                                                    \
		}                                                                                  \
	} while (0)
