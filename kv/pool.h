/* The pool of KV pages: which are free, who shares them, and how many are promised.
 *
 * A page is SK_PAGE_TOKENS entries in every layer (backend/backend.h holds the bytes, this holds
 * the books). Pages are counted by reference, so that forks and sinks can share them. A page that
 * anybody held before is cleared when it is given out: no session sees another's entries, nor does a file that one of them
 * is saved in, which has whole pages.
 *
 * Promises: a running stream must never fail for memory, so the pages that it may come to take are
 * promised before it starts; acquiring then cannot fail. Promised are free pages: whoever takes one
 * takes it off the promise (kv/pages.c keeps each holder's). Engine thread only.
 */
#pragma once

#include "backend/backend.h"

#include <sys/types.h>

struct sk_pool {
	struct sk_backend *backend;
	uint32_t n_pages;
	uint32_t n_free;
	uint32_t n_promised;  /* of the free ones */
	uint32_t *free_pages; /* a stack of n_free pages */
	uint32_t *n_refs;     /* by page */
	uid_t *last_owner;    /* by page; (uid_t)-1: never used */
};

/* Reserves n_pages in the backend. -ENOMEM. */
int sk_pool_init(struct sk_pool *pool, struct sk_backend *backend, uint32_t n_pages);
/* With the pages in a file (sk_backend_reserve_pages_in()), which may hold entries already. -ENOMEM, -ENOTSUP. */
int sk_pool_init_in(struct sk_pool *pool, struct sk_backend *backend, uint32_t n_pages, int fd);
void sk_pool_finish(struct sk_pool *pool);

/* Of pages that an earlier process left in that file: a reference to one, before any is given out; and the end of
 * that: all others are free, and are cleared before their first use. */
void sk_pool_adopt(struct sk_pool *pool, uint32_t page, uid_t owner);
void sk_pool_adopted(struct sk_pool *pool);

/* 0 or -ENOSPC, all or nothing. */
int sk_pool_promise(struct sk_pool *pool, uint32_t n_pages);
void sk_pool_take_back(struct sk_pool *pool, uint32_t n_pages);

/* A promised page, with one reference, clear; SK_NO_PAGE only if more are taken than were promised. owner: whose it is. */
uint32_t sk_pool_acquire(struct sk_pool *pool, uid_t owner);
/* The same, as it was left: for who writes all of it at once. */
uint32_t sk_pool_acquire_used(struct sk_pool *pool, uid_t owner);
void sk_pool_share(struct sk_pool *pool, uint32_t page);
/* True: that was the last reference, and the page is free. */
bool sk_pool_release(struct sk_pool *pool, uint32_t page);
