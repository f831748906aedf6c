#include "bench/bench.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_LINES ((size_t)1 << 15) /* 2 MB, a huge page */
#define N_CHUNKS    (BENCH_MANY_BYTES / 64 / CHUNK_LINES)

typedef uint64_t line __attribute__((vector_size(64)));

/* How far ahead of a load its line is asked for, in bytes; 0: the machine's own prefetching alone. The others are those
 * of the products (cpu/kernel_tile.h). */
static const size_t distances[] = {0, 2048, 8192};
#define N_DISTANCES (sizeof distances / sizeof *distances)

static inline __attribute__((always_inline)) uint64_t sum(const line *lines, size_t ahead)
{
	line sums[4] = {0};
	for (size_t i = 0; i < CHUNK_LINES; i += 4)
		for (size_t j = 0; j < 4; j++) {
			if (ahead)
				__builtin_prefetch((const char *)(lines + i + j) + ahead, 0, 2);
			sums[j] += lines[i + j];
		}
	sums[0] += sums[1] + sums[2] + sums[3];
	uint64_t all = 0;
	for (int i = 0; i < 8; i++)
		all += sums[0][i];
	return all;
}

/* The same with the loads of several instruction sets. */
static uint64_t sum_plain(const void *chunk, size_t ahead)
{
	return sum(chunk, ahead);
}

#if defined(__x86_64__)
static __attribute__((target("avx2"))) uint64_t sum_avx2(const void *chunk, size_t ahead)
{
	return sum(chunk, ahead);
}

static __attribute__((target("avx512f"))) uint64_t sum_avx512(const void *chunk, size_t ahead)
{
	return sum(chunk, ahead);
}
#endif

static reading_sum *widest(void)
{
#if defined(__x86_64__)
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx512f"))
		return sum_avx512;
	if (__builtin_cpu_supports("avx2"))
		return sum_avx2;
#endif
	return sum_plain;
}

int reading_init(struct reading *reading, uint32_t n_threads)
{
	*reading =
		(struct reading){.sums = calloc(N_CHUNKS, sizeof *reading->sums), .sum = widest()};
	if (!reading->sums || sk_region_init(&reading->memory, BENCH_MANY_BYTES) < 0 ||
	    sk_cpu_pool_create(n_threads, &reading->pool) < 0) {
		reading_finish(reading);
		return -ENOMEM;
	}
	memset(reading->memory.data, 1, BENCH_MANY_BYTES);
	return 0;
}

void reading_finish(struct reading *reading)
{
	sk_cpu_pool_destroy(reading->pool);
	sk_region_finish(&reading->memory);
	free(reading->sums);
	*reading = (struct reading){0};
}

static void read_chunk(void *job, uint32_t chunk, uint32_t thread)
{
	struct reading *reading = job;
	const line *lines = (const line *)reading->memory.data + chunk * CHUNK_LINES;
	(void)thread;
	reading->sums[chunk] += reading->sum(lines, reading->ahead_bytes);
}

double reading_gb_per_s(struct reading *reading)
{
	double best = 0;
	for (size_t i = 0; i < N_DISTANCES; i++) {
		reading->ahead_bytes = distances[i];
		uint64_t start = sk_clock_ns();
		sk_cpu_pool_run(reading->pool, N_CHUNKS, read_chunk, reading);
		double speed = (double)BENCH_MANY_BYTES / (double)(sk_clock_ns() - start);
		best = speed > best ? speed : best;
	}
	return best;
}
