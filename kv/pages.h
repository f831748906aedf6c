/* A session's page table: the pages of its live entries, by entry number.
 *
 * Entry e lives in page number e / SK_PAGE_TOKENS, slot e % SK_PAGE_TOKENS. Held are the pages of
 * the sinks, [0, n_sink), and those of the window, from the page of `first` on. A page that holds
 * both is held twice and counted by the pool. Eviction is moving an index: pages that fall out of
 * the window are released, nothing is copied.
 *
 *     sinks:  [0][1]      window:  [41][42][43] ... [49]        page0 = 41
 *
 * Tables share pages (a fork): a page that another table holds too is never written. Whoever is about to
 * write to one makes it its own first, by a copy (sk_pages_own).
 *
 * Promises (kv/pool.h): what a table may come to hold at once, less the pages that it holds alone, since
 * these become free when it lets go of them. Engine thread only.
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
	uint64_t page0;     /* number of the window's first page */
	int64_t n_promised; /* pages that it may still take; inside a step it may be behind */
	uint32_t n_most;    /* that it was promised to hold at once */
	bool has_shared;    /* perhaps, some page together with another table */
};

void sk_pages_init(struct sk_pages *pages, struct sk_pool *pool, uid_t owner);
void sk_pages_finish(struct sk_pages *pages); /* releases all, and gives its promise back */

/* Pages that a session can come to hold between steps while at most `most_live` entries, of which
 * n_sink sinks, are live: what must be promised to it. A step of n rows borrows up to n /
 * SK_PAGE_TOKENS + 1 more. */
uint32_t sk_pages_needed(uint64_t n_sink, uint64_t most_live);
/* That a table holds of the entries [0, n_sink) and [first, next), each once. */
uint64_t sk_pages_wanted(uint64_t n_sink, uint64_t first, uint64_t next);
/* Promises that it may hold n_most pages at once; 0: no more than it holds now, and then its promise is given
 * back. 0 or -ENOSPC. */
int sk_pages_promise(struct sk_pages *pages, uint32_t n_most);

/* Holds exactly the pages of the entries [0, n_sink) and [first, end): releases what is outside (at the
 * end too, where a session is rolled back), acquires what is new at the window's end. New sinks must lie in pages that the window holds.
 * -ENOMEM, -ENOSPC (more than was reserved): then what is held still covers what it did, and nothing
 * new is held. */
int sk_pages_cover(struct sk_pages *pages, uint64_t n_sink, uint64_t first, uint64_t end);

/* Before entry `entry` is written: the page that it goes to is held by nobody else, if it is held at all.
 * -ENOSPC (more than was promised). */
int sk_pages_own(struct sk_pages *pages, uint64_t entry);

/* `fork`, which holds nothing, comes to hold the same pages. They must be of one pool and owner. -ENOMEM. */
int sk_pages_fork(struct sk_pages *fork, struct sk_pages *pages);

/* A table that holds nothing comes to hold the pages of the entries [0, n_sink) and [first, next), all of them
 * its own, and what was promised is less by so many. -ENOMEM, -ENOSPC: it holds nothing. */
int sk_pages_restore(struct sk_pages *pages, uint64_t n_sink, uint64_t first, uint64_t next);
/* A table that holds nothing comes to hold these pages, as an earlier process' table did (sk_pool_adopt()): those of the
 * sinks, and those of the window, the first of which has the number page0. -ENOMEM. */
int sk_pages_adopt(struct sk_pages *pages, const uint32_t *sinks, uint32_t n_sinks,
		   const uint32_t *window, uint32_t n_window, uint64_t page0);
/* Holds nothing any more. */
void sk_pages_drop(struct sk_pages *pages);
/* The pages held, each once: the sinks' that are not the window's, then the window's. list has room for
 * sk_pages_distinct(). */
void sk_pages_list(const struct sk_pages *pages, uint32_t *list);

/* A table that holds nothing comes to hold the first n_pages of another, which holds them all. What was promised to
 * that one grows by as many, since they are not its alone any more. -ENOMEM, -ENOSPC: nothing has changed. */
int sk_pages_share_first(struct sk_pages *pages, struct sk_pages *from, uint32_t n_pages);

/* Page references held: a page of both sinks and window counts twice, as the pool counts it. */
uint32_t sk_pages_count(const struct sk_pages *pages);
/* Pages held, each once: the memory of the cache. */
uint32_t sk_pages_distinct(const struct sk_pages *pages);
/* Of those, held by no other table. */
uint32_t sk_pages_alone(const struct sk_pages *pages);
