/* The workers of the CPU backend. A job is a number of chunks; caller and workers claim them one at a
 * time from a counter, so that a core that stalls costs one chunk and not its share of the job.
 *
 * One thread calls sk_cpu_pool_run(), and works along. Workers wait for the next job spinning for a moment
 * (jobs follow each other within microseconds in a step), then asleep: an idle pool uses no CPU.
 */
#pragma once

#include <stdint.h>

struct sk_cpu_pool;

/* Called once for every chunk, in any order; `thread` < n_threads tells those that run at once apart. */
typedef void sk_cpu_pool_fn(void *job, uint32_t chunk, uint32_t thread);

/* n_threads counts the caller; 0 = one for each core that this process may use. -ENOMEM, -EAGAIN. */
int sk_cpu_pool_create(uint32_t n_threads, struct sk_cpu_pool **ret_pool);
void sk_cpu_pool_destroy(struct sk_cpu_pool *pool);
uint32_t sk_cpu_pool_n_threads(const struct sk_cpu_pool *pool);

/* Returns when all chunks are done; what they wrote is then visible to the caller. */
void sk_cpu_pool_run(struct sk_cpu_pool *pool, uint32_t n_chunks, sk_cpu_pool_fn *fn, void *job);
