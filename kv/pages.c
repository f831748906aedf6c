#include "kv/pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t n_pages_of(uint64_t n_entries)
{
	return (n_entries + SK_PAGE_TOKENS - 1) / SK_PAGE_TOKENS;
}

void sk_pages_init(struct sk_pages *pages, struct sk_pool *pool, uid_t owner)
{
	*pages = (struct sk_pages){.pool = pool, .owner = owner};
}

static uint32_t *window_of(const struct sk_pages *pages)
{
	return pages->window + pages->window_at;
}

static void drop_sinks(struct sk_pages *pages, uint64_t n_keep)
{
	while (pages->n_sinks > n_keep)
		sk_pool_release(pages->pool, pages->sinks[--pages->n_sinks]);
}

static void drop_window(struct sk_pages *pages, uint64_t page0)
{
	while (pages->n_window && pages->page0 < page0) {
		sk_pool_release(pages->pool, pages->window[pages->window_at++]);
		pages->n_window--;
		pages->page0++;
	}
	if (!pages->n_window)
		pages->page0 = page0;
}

void sk_pages_finish(struct sk_pages *pages)
{
	drop_sinks(pages, 0);
	drop_window(pages, UINT64_MAX);
	free(pages->sinks);
	free(pages->window);
	*pages = (struct sk_pages){0};
}

uint32_t sk_pages_needed(uint64_t n_sink, uint64_t most_live)
{
	/* The window's first and last page are partly used at worst, and after a step one entry
	 * more is live. */
	return (uint32_t)(n_pages_of(n_sink) + n_pages_of(most_live + 1 - n_sink) + 1);
}

/* Room for n more pages at the window's end; moves the window to the array's start first. */
static int make_room(struct sk_pages *pages, uint64_t n)
{
	if (pages->window_at + pages->n_window + n <= pages->window_allocated)
		return 0;
	if (pages->window_at) {
		memmove(pages->window, window_of(pages), pages->n_window * sizeof *pages->window);
		pages->window_at = 0;
	}
	uint64_t wanted = pages->n_window + n;
	if (wanted <= pages->window_allocated)
		return 0;
	wanted += wanted / 2; /* so that the window moves to the start seldom */
	uint32_t *grown =
		wanted > UINT32_MAX ? NULL : realloc(pages->window, wanted * sizeof *grown);
	if (!grown)
		return -ENOMEM;
	pages->window = grown;
	pages->window_allocated = (uint32_t)wanted;
	return 0;
}

static int take_sinks(struct sk_pages *pages, uint64_t n_sinks)
{
	if (n_sinks <= pages->n_sinks)
		return 0;
	if (n_sinks > pages->page0 + pages->n_window || pages->page0 > pages->n_sinks)
		return -EINVAL;
	if (n_sinks > pages->sinks_allocated) {
		uint32_t *grown = realloc(pages->sinks, n_sinks * sizeof *grown);
		if (!grown)
			return -ENOMEM;
		pages->sinks = grown;
		pages->sinks_allocated = (uint32_t)n_sinks;
	}
	while (pages->n_sinks < n_sinks) {
		uint32_t page = window_of(pages)[pages->n_sinks - pages->page0];
		sk_pool_share(pages->pool, page);
		pages->sinks[pages->n_sinks++] = page;
	}
	return 0;
}

/* Where sinks become the window's oldest (fewer are wanted, and nothing has been dropped behind them), their pages go
 * before the window's. */
static int take_back(struct sk_pages *pages, uint64_t page0)
{
	if (!pages->n_window || page0 >= pages->page0)
		return 0;
	uint64_t n = pages->page0 - page0;
	if (pages->n_sinks < pages->page0)
		return -EINVAL;
	int err = make_room(pages, n);
	if (err < 0)
		return err;
	memmove(window_of(pages) + n, window_of(pages), pages->n_window * sizeof *pages->window);
	for (uint64_t i = 0; i < n; i++) {
		window_of(pages)[i] = pages->sinks[page0 + i];
		sk_pool_share(pages->pool, pages->sinks[page0 + i]);
	}
	pages->n_window += (uint32_t)n;
	pages->page0 = page0;
	return 0;
}

int sk_pages_cover(struct sk_pages *pages, uint64_t n_sink, uint64_t first, uint64_t end)
{
	uint64_t wanted_end = n_pages_of(end);
	uint64_t held_end = pages->page0 + pages->n_window;

	if (wanted_end > held_end) {
		uint64_t n_new = wanted_end - held_end;
		int err = make_room(pages, n_new);
		if (err < 0)
			return err;
		uint32_t n_before = pages->n_window;
		while (n_new--) {
			uint32_t page = sk_pool_acquire(pages->pool, pages->owner);
			if (page == SK_NO_PAGE) {
				while (pages->n_window > n_before)
					sk_pool_release(pages->pool,
							window_of(pages)[--pages->n_window]);
				return -ENOSPC;
			}
			window_of(pages)[pages->n_window++] = page;
		}
	}
	int err = take_back(pages, first / SK_PAGE_TOKENS);
	if (err < 0)
		return err;
	err = take_sinks(pages, n_pages_of(n_sink));
	if (err < 0)
		return err;
	drop_sinks(pages, n_pages_of(n_sink));
	drop_window(pages, first / SK_PAGE_TOKENS);
	return 0;
}

uint32_t sk_pages_count(const struct sk_pages *pages)
{
	return pages->n_sinks + pages->n_window;
}

uint32_t sk_pages_distinct(const struct sk_pages *pages)
{
	uint64_t n_alone =
		pages->n_window && pages->page0 < pages->n_sinks ? pages->page0 : pages->n_sinks;
	return (uint32_t)n_alone + pages->n_window;
}
