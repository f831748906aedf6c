#include "kv/pool.h"

#include <errno.h>
#include <stdlib.h>

#define NOBODY   ((uid_t)-1)
#define SOMEBODY ((uid_t)-2) /* last owner of a page that an earlier process used, or not */

static int init(struct sk_pool *pool, struct sk_backend *backend, uint32_t n_pages, int fd)
{
	*pool = (struct sk_pool){.backend = backend, .n_pages = n_pages, .n_free = n_pages};
	pool->free_pages = calloc(n_pages, sizeof *pool->free_pages);
	pool->n_refs = calloc(n_pages, sizeof *pool->n_refs);
	pool->last_owner = calloc(n_pages, sizeof *pool->last_owner);
	if (!pool->free_pages || !pool->n_refs || !pool->last_owner) {
		sk_pool_finish(pool);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n_pages; i++) {
		pool->free_pages[i] =
			n_pages - 1 - i; /* low pages first: memory is touched from the bottom up */
		pool->last_owner[i] = NOBODY;
	}
	int err = fd < 0 ? sk_backend_reserve_pages(backend, n_pages)
			 : sk_backend_reserve_pages_in(backend, n_pages, fd);
	if (err < 0)
		sk_pool_finish(pool);
	return err;
}

int sk_pool_init(struct sk_pool *pool, struct sk_backend *backend, uint32_t n_pages)
{
	return init(pool, backend, n_pages, -1);
}

int sk_pool_init_in(struct sk_pool *pool, struct sk_backend *backend, uint32_t n_pages, int fd)
{
	return init(pool, backend, n_pages, fd);
}

void sk_pool_adopt(struct sk_pool *pool, uint32_t page, uid_t owner)
{
	pool->n_refs[page]++;
	pool->last_owner[page] = owner;
}

void sk_pool_adopted(struct sk_pool *pool)
{
	pool->n_free = 0;
	for (uint32_t page = pool->n_pages; page--;) {
		if (pool->n_refs[page])
			continue;
		pool->free_pages[pool->n_free++] = page;
		pool->last_owner[page] = SOMEBODY;
	}
}

void sk_pool_finish(struct sk_pool *pool)
{
	free(pool->free_pages);
	free(pool->n_refs);
	free(pool->last_owner);
	*pool = (struct sk_pool){0};
}

int sk_pool_promise(struct sk_pool *pool, uint32_t n_pages)
{
	if (pool->n_promised > pool->n_free || n_pages > pool->n_free - pool->n_promised)
		return -ENOSPC;
	pool->n_promised += n_pages;
	return 0;
}

void sk_pool_take_back(struct sk_pool *pool, uint32_t n_pages)
{
	pool->n_promised -= n_pages;
}

uint32_t sk_pool_acquire_used(struct sk_pool *pool, uid_t owner)
{
	if (!pool->n_promised)
		return SK_NO_PAGE;
	pool->n_promised--;
	uint32_t page = pool->free_pages[--pool->n_free];
	pool->last_owner[page] = owner;
	pool->n_refs[page] = 1;
	return page;
}

uint32_t sk_pool_acquire(struct sk_pool *pool, uid_t owner)
{
	if (!pool->n_promised)
		return SK_NO_PAGE;
	const uint32_t next = pool->free_pages[pool->n_free - 1];
	const bool is_used = pool->last_owner[next] != NOBODY;
	const uint32_t page = sk_pool_acquire_used(pool, owner);
	if (is_used) /* one's own as well: pages are saved whole */
		sk_backend_clear_pages(pool->backend, &page, 1);
	return page;
}

void sk_pool_share(struct sk_pool *pool, uint32_t page)
{
	pool->n_refs[page]++;
}

bool sk_pool_release(struct sk_pool *pool, uint32_t page)
{
	if (--pool->n_refs[page])
		return false;
	pool->free_pages[pool->n_free++] = page;
	return true;
}
