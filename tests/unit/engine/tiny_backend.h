/* The CPU backend in the least shape there is, for tests of what a session holds. */
#pragma once

#include "cpu/cpu.h"
#include "sk_test.h"

static inline int open_tiny_backend(struct sk_backend **ret_backend)
{
	struct sk_backend_options options = {.n_threads = 1};
	struct sk_backend_shape shape = {.n_layers = 1,
					 .n_heads = 1,
					 .n_kv_heads = 1,
					 .head_dim = 8,
					 .n_rot = 8,
					 .rope_base = 10000,
					 .max_rows = 64};
	struct sk_diag diag;
	return sk_backend_open(&sk_cpu_backend, &options, &shape, ret_backend, &diag);
}
