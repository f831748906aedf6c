/* The pool of KV pages: which are free, who shares them, and how many are promised.
 *
 * A page is SK_PAGE_TOKENS entries in every layer (backend/backend.h holds the bytes, this holds
 * the books). Pages are counted by reference, so that forks and sinks can share them. A page that
 * another user held last is cleared before it is given out.
 *
 * Promises: a running stream must never fail for memory, so its pages are reserved before it
 * starts; acquiring then cannot fail. Engine thread only.
 */
#pragma once

#include "backend/backend.h"

#include <sys/types.h>

struct sk_pool {
	struct sk_backend *backend;
	uint32_t n_pages;
	uint32_t n_free;
	uint32_t n_reserved;  /* promised to somebody, whether acquired yet or not */
	uint32_t *free_pages; /* a stack of n_free pages */
	uint32_t *n_refs;     /* by page */
	uid_t *last_owner;    /* by page; (uid_t)-1: never used */
};

/* Reserves n_pages in the backend. -ENOMEM. */
int sk_pool_init(struct sk_pool *pool, struct sk_backend *backend, uint32_t n_pages);
void sk_pool_finish(struct sk_pool *pool);

/* 0 or -ENOSPC, all or nothing. */
int sk_pool_reserve(struct sk_pool *pool, uint32_t n_pages);
void sk_pool_unreserve(struct sk_pool *pool, uint32_t n_pages);

/* A page with one reference, clear of other users' entries; SK_NO_PAGE only if more are taken than
 * were reserved. */
uint32_t sk_pool_acquire(struct sk_pool *pool, uid_t owner);
void sk_pool_share(struct sk_pool *pool, uint32_t page);
void sk_pool_release(struct sk_pool *pool, uint32_t page);
