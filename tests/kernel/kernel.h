/* What the kernel tests share: a backend for each instruction set, random numbers, and a way to get
 * floats into a buffer (an embedding table of 32-bit floats holds them; rows are looked up by number).
 */
#pragma once

#include "sk_test.h"

#include "backend/backend.h"
#include "base/half.h"
#include "cpu/cpu.h"
#include "gpu/gpu.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_ROWS 64

/* One test for each set; those that this machine lacks are skipped by name. */
#define KERNEL_TEST(f)                                                                             \
	{#f " scalar", f, NULL, NULL, "scalar"}, {#f " avx2", f, NULL, NULL, "avx2"},              \
		{#f " avx512", f, NULL, NULL, "avx512"},                                           \
		{#f " avx512-vnni", f, NULL, NULL, "avx512-vnni"},                                 \
		{#f " avx512-bf16", f, NULL, NULL, "avx512-bf16"},                                 \
	{                                                                                          \
#f " cuda", f, NULL, NULL, "cuda"                                                  \
	}

static uint64_t random_state = 88172645463325252u;

/* Other numbers and shapes in every run; STREAMKV_SEED=N repeats one. */
static inline void random_begin(void)
{
	const char *wanted = getenv("STREAMKV_SEED");
	uint64_t seed = wanted ? strtoull(wanted, NULL, 10)
			       : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid() % 1000;
	print_message("random numbers from STREAMKV_SEED=%llu\n", (unsigned long long)seed);
	random_state ^= seed * 0x9e3779b97f4a7c15u;
	if (random_state == 0)
		random_state = 1;
}

static inline uint32_t random_bits(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 32);
}

static inline uint32_t random_below(uint32_t n)
{
	return random_bits() % n;
}

/* About normal: mean 0, deviation 1. */
static inline float random_float(void)
{
	float sum = -6;
	for (int i = 0; i < 12; i++)
		sum += (float)random_bits() * 0x1p-32f;
	return sum;
}

static inline float *random_floats(size_t n, float scale)
{
	float *x = malloc((n ? n : 1) * sizeof *x);
	assert_non_null(x);
	for (size_t i = 0; i < n; i++)
		x[i] = random_float() * scale;
	return x;
}

static inline struct sk_backend_shape default_shape(void)
{
	return (struct sk_backend_shape){.n_layers = 1,
					 .n_heads = 1,
					 .n_kv_heads = 1,
					 .head_dim = 16,
					 .n_rot = 16,
					 .rope_base = 10000,
					 .kv_format = SK_KV_F32,
					 .max_rows = MAX_ROWS};
}

/* Not there in a build without CUDA. */
extern const struct sk_backend_kind sk_gpu_backend __attribute__((weak));

/* NULL where this machine has no such instructions, or no such device. */
static inline struct sk_backend *try_open(const char *instructions, uint32_t n_threads, bool exact,
					  const struct sk_backend_shape *shape)
{
	struct sk_backend_options options = {
		.n_threads = n_threads, .instructions = instructions, .exact = exact};
	struct sk_backend *backend = NULL;
	struct sk_diag diag;
	const bool cuda = instructions && strcmp(instructions, "cuda") == 0;
	if (cuda && !&sk_gpu_backend)
		return NULL;
	int r = sk_backend_open(cuda ? &sk_gpu_backend : &sk_cpu_backend, &options, shape, &backend,
				&diag);
	if (r == -ENODEV)
		return NULL;
	assert_int_equal(r, 0);
	return backend;
}

static inline struct sk_backend *open_or_skip(const char *instructions, uint32_t n_threads,
					      bool exact, const struct sk_backend_shape *shape)
{
	struct sk_backend *backend = try_open(instructions, n_threads, exact, shape);
	if (!backend)
		sk_test_skip("this machine has no %s", instructions);
	return backend;
}

/* To be asked before a test holds anything: a skipped one frees nothing. */
static inline void need(const char *instructions)
{
	struct sk_backend_shape shape = default_shape();
	sk_backend_close(open_or_skip(instructions, 1, false, &shape));
}

static inline struct sk_matrix matrix_of(const struct sk_tensor *tensor)
{
	return (struct sk_matrix){
		.n_rows = (uint32_t)tensor->n_rows,
		.n_cols = (uint32_t)tensor->n_cols,
		.n_parts = 1,
		.parts = {{.tensor = tensor, .n_rows = (uint32_t)tensor->n_rows}},
	};
}

static inline struct sk_tensor float_tensor(const float *data, uint32_t n_rows, uint32_t n_cols)
{
	return (struct sk_tensor){"floats", SK_DTYPE_F32, n_rows, n_cols, data};
}

/* A table whose rows can be looked up as they are. */
static inline struct sk_linear *pack_floats(struct sk_backend *backend, const float *data,
					    uint32_t n_rows, uint32_t n_cols)
{
	struct sk_tensor tensor = float_tensor(data, n_rows, n_cols);
	struct sk_matrix matrix = matrix_of(&tensor);
	struct sk_linear *linear = NULL;
	assert_int_equal(sk_backend_pack_linear(backend, &matrix, NULL, SK_WEIGHTS_F32, &linear),
			 0);
	return linear;
}

static inline struct sk_buffer *buffer_of(struct sk_backend *backend, uint32_t n_rows,
					  uint32_t width)
{
	struct sk_buffer *buffer = NULL;
	assert_int_equal(sk_backend_alloc(backend, n_rows, width, &buffer), 0);
	return buffer;
}

/* A batch for operations that look at no cache: one session, ids id0, id0 + 1, ... Wants two pages. */
struct plain_batch {
	struct sk_row rows[MAX_ROWS];
	struct sk_span span;
	struct sk_batch batch;
};

static const uint32_t plain_pages[] = {0, 1};

static inline void begin_plain(struct sk_backend *backend, struct plain_batch *plain,
			       uint32_t n_rows, int32_t id0)
{
	assert_in_range(n_rows, 1, MAX_ROWS);
	for (uint32_t i = 0; i < n_rows; i++)
		plain->rows[i] = (struct sk_row){.entry = i, .id = id0 + (int32_t)i};
	plain->span = (struct sk_span){.n_rows = n_rows, .pages = plain_pages, .n_pages = 2};
	plain->batch = (struct sk_batch){n_rows, 1, plain->rows, &plain->span};
	assert_int_equal(sk_backend_begin_step(backend, &plain->batch), 0);
}

/* What a cache of that format has of x. */
static inline float kept(enum sk_kv_format format, float x)
{
	return format == SK_KV_F16    ? sk_half_to_float(sk_half_from_float(x))
	       : format == SK_KV_BF16 ? sk_bf16_to_float(sk_bf16_from_float(x))
				      : x;
}

static inline double norm_of(const float *x, size_t n)
{
	double sum = 0;
	for (size_t i = 0; i < n; i++)
		sum += (double)x[i] * x[i];
	return sqrt(sum);
}
