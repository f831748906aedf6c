/* A session's page table: the pages of its live entries, by entry number.
 *
 * Entry e lives in page number e / SK_PAGE_TOKENS, slot e % SK_PAGE_TOKENS. Held are the pages of
 * the sinks, [0, n_sink), and those of the window, from the page of `first` on. A page that holds
 * both is held twice and counted by the pool. Eviction is moving an index: pages that fall out of
 * the window are released, nothing is copied.
 *
 *     sinks:  [0][1]      window:  [41][42][43] ... [49]        page0 = 41
 *
 * Engine thread only.
 */
#pragma once

#include "kv/pool.h"

struct sk_pages {
	struct sk_pool *pool;
	uid_t owner;
	uint32_t *sinks;
	uint32_t n_sinks, sinks_allocated;
	uint32_t *window; /* begins at window + window_at */
	uint32_t n_window, window_at, window_allocated;
	uint64_t page0; /* number of the window's first page */
};

void sk_pages_init(struct sk_pages *pages, struct sk_pool *pool, uid_t owner);
void sk_pages_finish(struct sk_pages *pages); /* releases all */

/* Pages that a session can come to hold between steps while at most `most_live` entries, of which
 * n_sink sinks, are live: what must be reserved for it. A step of n rows borrows up to n /
 * SK_PAGE_TOKENS + 1 more. */
uint32_t sk_pages_needed(uint64_t n_sink, uint64_t most_live);

/* Holds exactly the pages of the entries [0, n_sink) and [first, end): releases what is outside,
 * acquires what is new at the window's end. New sinks must lie in pages that the window holds.
 * -ENOMEM, -ENOSPC (more than was reserved): then what is held still covers what it did, and nothing
 * new is held. */
int sk_pages_cover(struct sk_pages *pages, uint64_t n_sink, uint64_t first, uint64_t end);

/* Page references held: a page of both sinks and window counts twice, as the pool counts it. */
uint32_t sk_pages_count(const struct sk_pages *pages);
/* Pages held, each once: the memory of the cache. */
uint32_t sk_pages_distinct(const struct sk_pages *pages);
