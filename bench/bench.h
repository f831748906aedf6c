/* bench_kernels: every operation of a backend beside what bounds it, measured in turns with it. One thread calls.
 * What is printed goes to standard output, a table each. */
#pragma once

#include "backend/backend.h"
#include "cpu/pool.h"
#include "cpu/region.h"

#define BENCH_MANY_BYTES ((size_t)1 << 30) /* more than any cache holds */
#define BENCH_ROUNDS     5                 /* the best counts; of ratios, the median */
#define BENCH_ROWS       256

typedef uint64_t reading_sum(const void *chunk, size_t ahead_bytes);

/* Reads memory with all threads. */
struct reading {
	struct sk_cpu_pool *pool;
	struct sk_region memory;
	uint64_t *sums;   /* a chunk; so that reading has a result */
	reading_sum *sum; /* with the widest loads that the machine has */
	size_t ahead_bytes;
};

int reading_init(struct reading *reading, uint32_t n_threads); /* -ENOMEM */
void reading_finish(struct reading *reading);
double reading_gb_per_s(struct reading *reading); /* the best of several ways to read */

/* What is measured. */
struct bench {
	struct reading *reading;
	struct sk_backend_options options;
	const float *data; /* BENCH_WIDTH * BENCH_INNER random numbers */
	/* ret_ of bench_matrices(). The floor: reading, and products of 32-bit floats. */
	double gb_per_s, gflop_per_s;
	bool above_reading; /* a product was faster than reading, which then is no floor */
};

#define BENCH_WIDTH 2560 /* the shape of Pythia-2.8b */
#define BENCH_INNER 10240

/* Products with a (10240, 2560) matrix in every format, with 1, 8, 16, 32 and 256 rows. -ENODEV: the machine has no such
 * instructions. */
int bench_matrices(struct bench *bench);

/* All other operations with 1 and 256 rows. */
int bench_operations(struct bench *bench);

/* A span of n_rows rows with entries from `entry` on that see all before them, in pages 0, 1, ... */
struct bench_batch {
	struct sk_row rows[BENCH_ROWS];
	uint32_t pages[64];
	struct sk_span span;
	struct sk_batch batch;
};

void bench_batch_init(struct bench_batch *batch, uint32_t n_rows, uint32_t entry);
