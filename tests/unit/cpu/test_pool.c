/* The pool: every chunk once, all done on return, for many jobs in a row and with pauses between them. */
#include "sk_test.h"

#include "cpu/pool.h"

#include <stdatomic.h>
#include <string.h>

#define MAX_CHUNKS 300

struct job {
	struct sk_cpu_pool *pool;
	uint32_t counts
		[MAX_CHUNKS]; /* plain: a chunk is one thread's, and its result the caller's afterwards */
	atomic_uint n_faults; /* counted: a worker must not leave by an assertion */
	atomic_uint busy[16]; /* by thread */
};

static void count(void *arg, uint32_t chunk, uint32_t thread)
{
	struct job *job = arg;
	if (thread >= sk_cpu_pool_n_threads(job->pool) || thread >= 16) {
		atomic_fetch_add(&job->n_faults, 1);
		return;
	}
	if (atomic_fetch_add(&job->busy[thread], 1) != 0) /* a number has one user at a time */
		atomic_fetch_add(&job->n_faults, 1);
	job->counts[chunk]++;
	atomic_fetch_sub(&job->busy[thread], 1);
}

static void run_jobs(uint32_t n_threads, uint32_t n_jobs)
{
	struct job job = {0};
	uint32_t sizes[] = {1, 2, 3, 7, 64, MAX_CHUNKS, 0};
	assert_int_equal(sk_cpu_pool_create(n_threads, &job.pool), 0);
	if (n_threads)
		assert_int_equal(sk_cpu_pool_n_threads(job.pool), n_threads);
	for (uint32_t i = 0; i < n_jobs; i++) {
		uint32_t n = sizes[i % 7];
		memset(job.counts, 0, sizeof job.counts);
		sk_cpu_pool_run(job.pool, n, count, &job);
		for (uint32_t c = 0; c < MAX_CHUNKS; c++)
			assert_int_equal(job.counts[c], c < n);
		if (i % 500 == 0)
			usleep(2000); /* long enough for workers to fall asleep: they must wake up */
	}
	assert_int_equal(atomic_load(&job.n_faults), 0);
	sk_cpu_pool_destroy(job.pool);
}

static void test_jobs(void **state)
{
	(void)state;
	run_jobs(1, 100);
	run_jobs(2, 5000);
	run_jobs(5, 3000);
}

static void test_unused(void **state)
{
	struct sk_cpu_pool *pool = NULL;
	(void)state;
	for (int i = 0; i < 50; i++) {
		assert_int_equal(sk_cpu_pool_create(4, &pool), 0);
		sk_cpu_pool_destroy(pool);
	}
	sk_cpu_pool_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_jobs),
					   cmocka_unit_test(test_unused)};
	return sk_test_run(tests, NULL, NULL);
}
