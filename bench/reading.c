#include "bench/bench.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_WORDS ((size_t)1 << 17) /* 1 MB */
#define N_CHUNKS    (BENCH_MANY_BYTES / 8 / CHUNK_WORDS)

int reading_init(struct reading *reading, uint32_t n_threads)
{
	*reading = (struct reading){.sums = calloc(N_CHUNKS, sizeof *reading->sums)};
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
	const uint64_t *words = (const uint64_t *)reading->memory.data + chunk * CHUNK_WORDS;
	uint64_t sums[8] = {0};
	(void)thread;
	for (size_t i = 0; i < CHUNK_WORDS; i += 8) {
		__builtin_prefetch(words + i + 256, 0, 2);
		for (int j = 0; j < 8; j++)
			sums[j] += words[i + (size_t)j];
	}
	for (int j = 0; j < 8; j++)
		reading->sums[chunk] += sums[j];
}

double reading_gb_per_s(struct reading *reading)
{
	uint64_t start = sk_clock_ns();
	sk_cpu_pool_run(reading->pool, N_CHUNKS, read_chunk, reading);
	return (double)BENCH_MANY_BYTES / (double)(sk_clock_ns() - start);
}
