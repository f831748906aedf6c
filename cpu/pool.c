/* Claiming: `ticket` holds the job's number above the next chunk's, and a chunk is taken by compare and
 * swap of both. A worker that is late thus cannot take a chunk of a job that it has not read: its swap
 * fails, since the number has changed. While an unclaimed chunk is left the job cannot end, so a swap
 * that succeeds proves that the job's fields, read before it, belong to that number.
 */
#include "cpu/pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPINS 8000 /* tens of microseconds */

struct worker {
	struct sk_cpu_pool *pool;
	uint32_t index;
	pthread_t thread;
};

struct sk_cpu_pool {
	_Alignas(64) _Atomic uint64_t ticket; /* job number << 32 | next chunk */
	_Alignas(64) _Atomic uint32_t n_done;
	_Alignas(64) _Atomic uint32_t number; /* of the newest job; workers sleep on it */
	_Atomic uint32_t n_asleep;
	_Atomic bool caller_asleep; /* on n_done */
	_Atomic bool quit;
	_Atomic uint32_t n_chunks; /* the job; see the head */
	_Atomic(sk_cpu_pool_fn *) fn;
	_Atomic(void *) job;

	uint32_t n_threads, n_workers; /* wanted with the caller; started */
	struct worker workers[];
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Works on job `number` until none of its chunks is left to claim. */
static void work(struct sk_cpu_pool *pool, uint32_t number, uint32_t thread)
{
	uint32_t n_chunks = atomic_load_explicit(&pool->n_chunks, memory_order_acquire);
	sk_cpu_pool_fn *fn = atomic_load_explicit(&pool->fn, memory_order_acquire);
	void *job = atomic_load_explicit(&pool->job, memory_order_acquire);
	uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);

	while ((uint32_t)(ticket >> 32) == number && (uint32_t)ticket < n_chunks) {
		if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &ticket, ticket + 1,
							   memory_order_acq_rel,
							   memory_order_acquire))
			continue;
		fn(job, (uint32_t)ticket, thread);
		uint32_t n_done = atomic_fetch_add(&pool->n_done, 1) + 1;
		if (n_done == n_chunks && atomic_load(&pool->caller_asleep))
			futex_wake(&pool->n_done);
		ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
	}
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	struct sk_cpu_pool *pool = worker->pool;
	uint32_t seen = 0;

	for (;;) {
		uint32_t number = atomic_load_explicit(&pool->number, memory_order_acquire);
		for (int i = 0; number == seen && i < SPINS; i++) {
			relax();
			number = atomic_load_explicit(&pool->number, memory_order_acquire);
		}
		if (number == seen) {
			atomic_fetch_add(&pool->n_asleep, 1);
			while ((number = atomic_load(&pool->number)) == seen)
				futex_wait(&pool->number, seen);
			atomic_fetch_sub(&pool->n_asleep, 1);
		}
		if (atomic_load_explicit(&pool->quit, memory_order_relaxed))
			return NULL;
		seen = number;
		work(pool, number, worker->index);
	}
}

/* Makes job `number` the newest, and wakes those who sleep for one. */
static void announce(struct sk_cpu_pool *pool, uint32_t number)
{
	atomic_store(&pool->number, number);
	if (atomic_load(&pool->n_asleep))
		futex_wake(&pool->number);
}

void sk_cpu_pool_run(struct sk_cpu_pool *pool, uint32_t n_chunks, sk_cpu_pool_fn *fn, void *job)
{
	if (n_chunks <= 1 || pool->n_workers == 0) {
		for (uint32_t i = 0; i < n_chunks; i++)
			fn(job, i, 0);
		return;
	}

	uint32_t number = atomic_load_explicit(&pool->number, memory_order_relaxed) + 1;
	/* First the number, with no chunk to claim: whoever reads a new field then sees a new ticket. */
	atomic_store_explicit(&pool->ticket, (uint64_t)number << 32 | UINT32_MAX,
			      memory_order_release);
	atomic_store_explicit(&pool->n_chunks, n_chunks, memory_order_release);
	atomic_store_explicit(&pool->fn, fn, memory_order_release);
	atomic_store_explicit(&pool->job, job, memory_order_release);
	atomic_store_explicit(&pool->n_done, 0, memory_order_relaxed);
	atomic_store_explicit(&pool->ticket, (uint64_t)number << 32, memory_order_release);
	announce(pool, number);

	work(pool, number, 0);
	for (int i = 0; i < SPINS; i++) {
		if (atomic_load_explicit(&pool->n_done, memory_order_acquire) == n_chunks)
			return;
		relax();
	}
	atomic_store(&pool->caller_asleep, true);
	for (uint32_t n_done; (n_done = atomic_load(&pool->n_done)) != n_chunks;)
		futex_wait(&pool->n_done, n_done);
	atomic_store(&pool->caller_asleep, false);
}

int sk_cpu_pool_create(uint32_t n_threads, struct sk_cpu_pool **ret_pool)
{
	if (n_threads == 0) {
		cpu_set_t set;
		n_threads =
			sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
	}
	size_t size = sizeof(struct sk_cpu_pool) + (n_threads - 1) * sizeof(struct worker);
	struct sk_cpu_pool *pool = aligned_alloc(64, (size + 63) / 64 * 64);
	if (!pool)
		return -ENOMEM;
	*pool = (struct sk_cpu_pool){.n_threads = n_threads};
	for (uint32_t i = 0; i + 1 < n_threads; i++) {
		struct worker *worker = &pool->workers[i];
		*worker = (struct worker){.pool = pool, .index = i + 1};
		int error = pthread_create(&worker->thread, NULL, worker_main, worker);
		if (error) {
			sk_cpu_pool_destroy(pool);
			return -error;
		}
		char name[16];
		snprintf(name, sizeof name, "sk-cpu-%u", (i + 1) % 100000);
		pthread_setname_np(worker->thread, name);
		pool->n_workers++;
	}
	*ret_pool = pool;
	return 0;
}

void sk_cpu_pool_destroy(struct sk_cpu_pool *pool)
{
	if (!pool)
		return;
	atomic_store(&pool->quit, true);
	announce(pool, atomic_load(&pool->number) + 1);
	for (uint32_t i = 0; i < pool->n_workers; i++)
		pthread_join(pool->workers[i].thread, NULL);
	free(pool);
}

uint32_t sk_cpu_pool_n_threads(const struct sk_cpu_pool *pool)
{
	return pool->n_threads;
}
