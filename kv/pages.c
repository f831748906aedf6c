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

/* A page that nobody holds any more is promised to whoever let go of it, while it may come to need it. */
static void release(struct sk_pages *pages, uint32_t page)
{
	if (!sk_pool_release(pages->pool, page) || !pages->n_most)
		return;
	pages->pool->n_promised++;
	pages->n_promised++;
}

static uint32_t acquire(struct sk_pages *pages)
{
	uint32_t page = sk_pool_acquire(pages->pool, pages->owner);
	pages->n_promised -= page != SK_NO_PAGE;
	return page;
}

static uint32_t acquire_used(struct sk_pages *pages)
{
	uint32_t page = sk_pool_acquire_used(pages->pool, pages->owner);
	pages->n_promised -= page != SK_NO_PAGE;
	return page;
}

static void drop_sinks(struct sk_pages *pages, uint64_t n_keep)
{
	while (pages->n_sinks > n_keep)
		release(pages, pages->sinks[--pages->n_sinks]);
}

static void drop_window(struct sk_pages *pages, uint64_t page0)
{
	while (pages->n_window && pages->page0 < page0) {
		release(pages, pages->window[pages->window_at++]);
		pages->n_window--;
		pages->page0++;
	}
	if (!pages->n_window)
		pages->page0 = page0;
}

void sk_pages_finish(struct sk_pages *pages)
{
	sk_pages_drop(pages);
	if (pages->pool)
		(void)sk_pages_promise(pages, 0);
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

uint64_t sk_pages_wanted(uint64_t n_sink, uint64_t first, uint64_t next)
{
	uint64_t page0 = first / SK_PAGE_TOKENS, end = n_pages_of(next);
	uint64_t n_sinks = n_pages_of(n_sink), n_window = end > page0 ? end - page0 : 0;
	return n_window + (n_window && n_sinks > page0 ? page0 : n_sinks);
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
	if (page0 >= pages->page0)
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

/* References to a page that are the table's own. */
static uint32_t n_own(const struct sk_pages *pages, uint64_t number)
{
	bool is_sink = number < pages->n_sinks;
	bool is_window = number >= pages->page0 && number - pages->page0 < pages->n_window;
	return is_sink + is_window;
}

uint32_t sk_pages_alone(const struct sk_pages *pages)
{
	const uint32_t *n_refs = pages->pool->n_refs;
	uint32_t n = 0;

	if (!pages->has_shared)
		return sk_pages_distinct(pages);
	for (uint32_t i = 0; i < pages->n_window; i++)
		n += n_refs[window_of(pages)[i]] == n_own(pages, pages->page0 + i);
	for (uint32_t i = 0; i < pages->n_sinks; i++)
		n += n_own(pages, i) == 1 && n_refs[pages->sinks[i]] == 1;
	return n;
}

int sk_pages_promise(struct sk_pages *pages, uint32_t n_most)
{
	const uint32_t n_alone = sk_pages_alone(pages);
	const int64_t wanted = n_most > n_alone ? n_most - n_alone : 0;

	if (wanted > pages->n_promised) {
		int err = sk_pool_promise(pages->pool, (uint32_t)(wanted - pages->n_promised));
		if (err < 0)
			return err;
	} else {
		sk_pool_take_back(pages->pool, (uint32_t)(pages->n_promised - wanted));
	}
	pages->n_promised = wanted;
	pages->n_most = n_most;
	return 0;
}

/* Pages that others let go of count for the table now, and its promise may be larger than need be. */
static void settle(struct sk_pages *pages)
{
	const int64_t n_held = sk_pages_alone(pages);
	if (pages->n_promised > 0 && n_held + pages->n_promised > pages->n_most)
		(void)sk_pages_promise(pages, pages->n_most);
	pages->has_shared = n_held < sk_pages_distinct(pages);
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
			uint32_t page = acquire(pages);
			if (page == SK_NO_PAGE) {
				while (pages->n_window > n_before)
					release(pages, window_of(pages)[--pages->n_window]);
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
	while (pages->n_window && pages->page0 + pages->n_window > wanted_end)
		release(pages, window_of(pages)[--pages->n_window]);
	if (pages->has_shared)
		settle(pages);
	return 0;
}

static uint32_t *page_numbers(uint64_t n)
{
	return n < UINT32_MAX ? calloc(n + 1, sizeof(uint32_t)) : NULL;
}

/* Takes both arrays over, each with room for one more than it holds (page_numbers()). */
static void set_tables(struct sk_pages *pages, uint32_t *sinks, uint32_t n_sinks, uint32_t *window,
		       uint32_t n_window, uint64_t page0)
{
	free(pages->sinks);
	free(pages->window);
	pages->sinks = sinks;
	pages->n_sinks = n_sinks;
	pages->sinks_allocated = n_sinks + 1;
	pages->window = window;
	pages->n_window = n_window;
	pages->window_at = 0;
	pages->window_allocated = n_window + 1;
	pages->page0 = page0;
}

int sk_pages_restore(struct sk_pages *pages, uint64_t n_sink, uint64_t first, uint64_t next)
{
	const uint64_t page0 = first / SK_PAGE_TOKENS, end = n_pages_of(next);
	const uint64_t n_sinks = n_pages_of(n_sink), n_window = end > page0 ? end - page0 : 0;
	const uint64_t n_alone = n_window && n_sinks > page0 ? page0 : n_sinks;

	if ((int64_t)(n_alone + n_window) > pages->n_promised)
		return -ENOSPC;
	uint32_t *sinks = page_numbers(n_sinks), *window = page_numbers(n_window);
	if (!sinks || !window) {
		free(sinks);
		free(window);
		return -ENOMEM;
	}
	for (uint64_t i = 0; i < n_alone; i++)
		sinks[i] = acquire_used(pages); /* the file has all of each */
	for (uint64_t i = 0; i < n_window; i++)
		window[i] = acquire_used(pages);
	for (uint64_t i = n_alone; i < n_sinks; i++)
		sk_pool_share(pages->pool, sinks[i] = window[i - page0]);
	set_tables(pages, sinks, (uint32_t)n_sinks, window, (uint32_t)n_window, page0);
	return 0;
}

int sk_pages_adopt(struct sk_pages *pages, const uint32_t *sinks, uint32_t n_sinks,
		   const uint32_t *window, uint32_t n_window, uint64_t page0)
{
	uint32_t *own_sinks = page_numbers(n_sinks), *own_window = page_numbers(n_window);
	if (!own_sinks || !own_window) {
		free(own_sinks);
		free(own_window);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n_sinks; i++)
		sk_pool_adopt(pages->pool, own_sinks[i] = sinks[i], pages->owner);
	for (uint32_t i = 0; i < n_window; i++)
		sk_pool_adopt(pages->pool, own_window[i] = window[i], pages->owner);
	set_tables(pages, own_sinks, n_sinks, own_window, n_window, page0);
	pages->has_shared = true; /* perhaps */
	return 0;
}

void sk_pages_drop(struct sk_pages *pages)
{
	drop_sinks(pages, 0);
	drop_window(pages, UINT64_MAX);
	pages->page0 = 0;
	pages->has_shared = false;
}

void sk_pages_list(const struct sk_pages *pages, uint32_t *list)
{
	uint32_t n_alone = sk_pages_distinct(pages) - pages->n_window;
	for (uint32_t i = 0; i < n_alone; i++)
		list[i] = pages->sinks[i];
	for (uint32_t i = 0; i < pages->n_window; i++)
		list[n_alone + i] = window_of(pages)[i];
}

int sk_pages_own(struct sk_pages *pages, uint64_t entry)
{
	const uint64_t number = entry / SK_PAGE_TOKENS;
	if (!pages->has_shared || number < pages->page0 || number - pages->page0 >= pages->n_window)
		return 0;
	uint32_t *at = &window_of(pages)[number - pages->page0], shared = *at;
	if (pages->pool->n_refs[shared] == n_own(pages, number))
		return 0;
	uint32_t page = acquire_used(pages);
	if (page == SK_NO_PAGE)
		return -ENOSPC;
	sk_backend_copy_page(pages->pool->backend, shared, page);
	*at = page;
	release(pages, shared);
	if (number < pages->n_sinks) {
		sk_pool_share(pages->pool, page);
		pages->sinks[number] = page;
		release(pages, shared);
	}
	return 0;
}

int sk_pages_share_first(struct sk_pages *pages, struct sk_pages *from, uint32_t n_pages)
{
	uint32_t *window = page_numbers(n_pages);
	if (!window)
		return -ENOMEM;
	from->has_shared = pages->has_shared = true;
	for (uint32_t i = 0; i < n_pages; i++) {
		window[i] = i < from->page0 ? from->sinks[i] : window_of(from)[i - from->page0];
		sk_pool_share(pages->pool, window[i]);
	}
	int err = from->n_most ? sk_pages_promise(from, from->n_most) : 0;
	if (err < 0) {
		while (n_pages)
			(void)sk_pool_release(pages->pool, window[--n_pages]);
		free(window);
		return err;
	}
	free(pages->window);
	pages->window = window;
	pages->n_window = pages->window_allocated = n_pages;
	pages->window_at = 0;
	pages->page0 = 0;
	return 0;
}

int sk_pages_fork(struct sk_pages *fork, struct sk_pages *pages)
{
	uint32_t *sinks = calloc(pages->n_sinks + 1u, sizeof *sinks);
	uint32_t *window = calloc(pages->n_window + 1u, sizeof *window);
	if (!sinks || !window) {
		free(sinks);
		free(window);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < pages->n_sinks; i++)
		sk_pool_share(pages->pool, sinks[i] = pages->sinks[i]);
	for (uint32_t i = 0; i < pages->n_window; i++)
		sk_pool_share(pages->pool, window[i] = window_of(pages)[i]);
	set_tables(fork, sinks, pages->n_sinks, window, pages->n_window, pages->page0);
	fork->has_shared = pages->has_shared = true;
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
