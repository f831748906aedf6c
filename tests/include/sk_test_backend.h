/* Which backend a test of what lies above it runs on: the CPU, or with STREAMKV_TEST_BACKEND=cuda that device, real or
 * simulated (tests/cusim). */
#pragma once

#include "cpu/cpu.h"
#include "gpu/gpu.h"
#include "sk_test.h"

#include <stdlib.h>
#include <string.h>

/* Not there in a build without CUDA. */
extern const struct sk_backend_kind sk_gpu_backend __attribute__((weak));

static inline const struct sk_backend_kind *sk_test_backend(void)
{
	const char *wanted = getenv("STREAMKV_TEST_BACKEND");
	if (!wanted || strcmp(wanted, "cuda") != 0)
		return &sk_cpu_backend;
	if (!&sk_gpu_backend)
		fail_msg("this build has no backend cuda");
	return &sk_gpu_backend;
}
