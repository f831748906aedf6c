/* The page table and the pool, checked between operations: every live entry has a page of its own,
 * every page is counted right, nothing leaks, and no user's page reaches another uncleared. The
 * backend is a stand-in that only notes which pages are cleared. */
#include "backend/impl.h"
#include "kv/pages.h"
#include "kv/window.h"
#include "sk_test.h"

#include <errno.h>
#include <string.h>

#define N_PAGES 256

static uint32_t n_cleared;
static bool is_dirty[N_PAGES];

static int reserve_pages(struct sk_backend *backend, uint32_t n_pages)
{
	(void)backend;
	assert_true(n_pages <= N_PAGES);
	return 0;
}

static void clear_pages(struct sk_backend *backend, const uint32_t *pages, uint32_t n_pages)
{
	(void)backend;
	n_cleared += n_pages;
	for (uint32_t i = 0; i < n_pages; i++)
		is_dirty[pages[i]] = false;
}

static const struct sk_backend_ops ops = {.reserve_pages = reserve_pages,
					  .clear_pages = clear_pages};
static struct sk_backend backend = {.ops = &ops};

/* All of it promised, as to one holder. */
static void open_pool(struct sk_pool *pool, uint32_t n_pages)
{
	assert_int_equal(sk_pool_init(pool, &backend, n_pages), 0);
	assert_int_equal(sk_pool_promise(pool, n_pages), 0);
}

static void check(const struct sk_pool *pool, struct sk_pages *const *tables, unsigned n_tables)
{
	uint32_t refs[N_PAGES] = {0};
	for (unsigned t = 0; t < n_tables; t++) {
		const struct sk_pages *pages = tables[t];
		for (uint32_t i = 0; i < pages->n_sinks; i++)
			refs[pages->sinks[i]]++;
		for (uint32_t i = 0; i < pages->n_window; i++)
			refs[pages->window[pages->window_at + i]]++;
		uint32_t n_distinct = 0;
		for (uint32_t i = 0; n_tables == 1 && i < pool->n_pages; i++)
			n_distinct += refs[i] > 0;
		if (n_tables == 1)
			assert_int_equal(sk_pages_distinct(pages), n_distinct);
	}
	uint32_t n_used = 0;
	for (uint32_t i = 0; i < pool->n_pages; i++) {
		assert_int_equal(refs[i], pool->n_refs[i]);
		n_used += refs[i] > 0;
	}
	assert_int_equal(pool->n_free, pool->n_pages - n_used);
}

static uint32_t page_of(const struct sk_pages *pages, uint64_t entry, uint64_t n_sink)
{
	uint64_t number = entry / SK_PAGE_TOKENS;
	if (entry < n_sink) {
		assert_true(number < pages->n_sinks);
		return pages->sinks[number];
	}
	assert_true(number >= pages->page0 && number < pages->page0 + pages->n_window);
	return pages->window[pages->window_at + number - pages->page0];
}

/* Streams tokens in chunks under a policy, remembering which page each entry was written to. */
static void stream(const struct sk_policy *policy, uint32_t chunk)
{
	struct sk_pool pool;
	struct sk_pages pages, *tables[] = {&pages};
	struct sk_window window;
	static uint32_t written[20000];
	const uint32_t n_tokens = 3000;
	uint32_t most = 0;

	open_pool(&pool, N_PAGES);
	sk_pages_init(&pages, &pool, 1000);
	sk_window_init(&window, policy);
	for (uint32_t done = 0; done < n_tokens;) {
		uint32_t n = chunk < n_tokens - done ? chunk : n_tokens - done;
		struct sk_view first, last;
		sk_window_step(&window, &first);
		last = first;
		for (uint32_t i = 1; i < n; i++)
			sk_window_step(&window, &last);
		assert_int_equal(sk_pages_cover(&pages, last.n_sink, first.first, window.next), 0);
		check(&pool, tables, 1);
		for (uint64_t e = first.entry; e <= last.entry; e++)
			written[e] = page_of(&pages, e, 0);
		for (uint64_t e = 0; e < last.n_sink; e++)
			assert_int_equal(page_of(&pages, e, last.n_sink), written[e]);
		for (uint64_t e = first.first; e <= last.entry; e++)
			assert_int_equal(page_of(&pages, e, 0), written[e]);
		assert_int_equal(sk_pages_cover(&pages, window.n_sink, window.first, window.next),
				 0);
		check(&pool, tables, 1);
		most = sk_pages_count(&pages) > most ? sk_pages_count(&pages) : most;
		done += n;
	}
	/* Between steps, what was promised is enough. */
	assert_true(most <= sk_pages_needed(sk_policy_sinks(policy),
					    sk_policy_most_live(policy, n_tokens)));
	sk_pages_finish(&pages);
	assert_int_equal(pool.n_free, N_PAGES);
	sk_pool_finish(&pool);
}

static void test_streams_in_constant_memory(void **state)
{
	(void)state;
	const uint32_t sinks[] = {0, 1, 4, 8, 32, 33, 70}, chunks[] = {1, 7, 64, 500};
	for (unsigned i = 0; i < 7; i++) {
		for (unsigned j = 0; j < 4; j++) {
			for (uint32_t slack = 0; slack <= 64; slack += 64) {
				struct sk_policy policy = {SK_MODE_STREAMING, sinks[i], 248, slack};
				stream(&policy, chunks[j]);
			}
		}
	}
	struct sk_policy dense = {SK_MODE_DENSE, 4, 1, 0};
	stream(&dense, 100);
}

/* Policies that change in mid-stream, sinks over several pages: what is live always has the page it was written to. */
static void test_policies_that_change(void **state)
{
	(void)state;
	static uint32_t written[40000];
	uint32_t random = 99;

	for (int round = 0; round < 300; round++) {
		struct sk_pool pool;
		struct sk_pages pages, *tables[] = {&pages};
		struct sk_policy policy = {SK_MODE_STREAMING, 40, 90, 0};
		struct sk_window window;
		open_pool(&pool, N_PAGES);
		sk_pages_init(&pages, &pool, 1);
		sk_window_init(&window, &policy);
		for (int step = 0; step < 40; step++) {
			struct sk_view first, last;
			random = random * 1664525u + 1013904223u;
			if (random >> 30 == 0) {
				policy.mode = random >> 28 & 1 ? SK_MODE_WINDOW : SK_MODE_STREAMING;
				policy.sink = (random >> 8) % 140;
				policy.window = 1 + (random >> 16) % 200;
				policy.slack = (random >> 4) % 3 * 30;
				sk_window_set_policy(&window, &policy);
			}
			uint32_t n = 1 + (random >> 12) % 50;
			sk_window_step(&window, &first);
			last = first;
			for (uint32_t i = 1; i < n; i++)
				sk_window_step(&window, &last);
			assert_int_equal(
				sk_pages_cover(&pages, last.n_sink, first.first, window.next), 0);
			check(&pool, tables, 1);
			for (uint64_t e = first.entry; e <= last.entry; e++)
				written[e] = page_of(&pages, e, 0);
			for (uint64_t e = 0; e < last.n_sink; e++)
				assert_int_equal(page_of(&pages, e, last.n_sink), written[e]);
			for (uint64_t e = first.first; e <= last.entry; e++)
				assert_int_equal(page_of(&pages, e, 0), written[e]);
			assert_int_equal(
				sk_pages_cover(&pages, window.n_sink, window.first, window.next),
				0);
		}
		sk_pages_finish(&pages);
		assert_int_equal(pool.n_free, N_PAGES);
		sk_pool_finish(&pool);
	}
}

static void test_used_pages_are_cleared(void **state)
{
	(void)state;
	struct sk_pool pool;
	open_pool(&pool, 4);
	n_cleared = 0;
	uint32_t page = sk_pool_acquire(&pool, 1);
	is_dirty[page] = true;
	sk_pool_release(&pool, page);
	assert_int_equal(n_cleared, 0); /* nobody's before */
	for (uid_t owner = 1; owner < 3; owner++) {
		assert_int_equal(sk_pool_acquire(&pool, owner), page);
		assert_int_equal(n_cleared, owner);
		assert_false(is_dirty[page]);
		is_dirty[page] = true;
		sk_pool_release(&pool, page);
	}
	sk_pool_finish(&pool);
}

static void test_promises_are_kept(void **state)
{
	(void)state;
	struct sk_pool pool;
	assert_int_equal(sk_pool_init(&pool, &backend, 10), 0);
	assert_int_equal(sk_pool_acquire(&pool, 1), SK_NO_PAGE);
	assert_int_equal(sk_pool_promise(&pool, 7), 0);
	assert_int_equal(sk_pool_promise(&pool, 4), -ENOSPC);
	assert_int_equal(sk_pool_promise(&pool, 3), 0);
	sk_pool_take_back(&pool, 7);
	assert_int_equal(sk_pool_promise(&pool, 8), -ENOSPC);
	assert_int_equal(sk_pool_promise(&pool, 7), 0);
	uint32_t page = sk_pool_acquire(&pool, 1);
	for (int i = 1; i < 10; i++)
		assert_int_not_equal(sk_pool_acquire(&pool, 1), SK_NO_PAGE);
	assert_int_equal(sk_pool_acquire(&pool, 1), SK_NO_PAGE);
	sk_pool_share(&pool, page);
	assert_false(sk_pool_release(&pool, page));
	assert_int_equal(sk_pool_promise(&pool, 1), -ENOSPC);
	assert_true(sk_pool_release(&pool, page));
	assert_int_equal(sk_pool_promise(&pool, 1), 0);
	sk_pool_finish(&pool);
}

static void test_a_full_pool_leaves_the_table_whole(void **state)
{
	(void)state;
	struct sk_pool pool;
	struct sk_pages pages, *tables[] = {&pages};
	open_pool(&pool, 3);
	sk_pages_init(&pages, &pool, 1);
	assert_int_equal(sk_pages_cover(&pages, 4, 4, 40), 0);
	uint32_t n_free = pool.n_free;
	assert_int_equal(sk_pages_cover(&pages, 4, 4, 400), -ENOSPC);
	assert_int_equal(pool.n_free, n_free);
	check(&pool, tables, 1);
	assert_int_not_equal(page_of(&pages, 39, 0), SK_NO_PAGE);
	sk_pages_finish(&pages);
	assert_int_equal(pool.n_free, 3);
	sk_pool_finish(&pool);
}

/* Sinks that become the window's oldest, at a place where the window has no page of its own. */
static void test_sinks_alone_come_back(void **state)
{
	(void)state;
	struct sk_pool pool;
	struct sk_pages pages, *tables[] = {&pages};
	open_pool(&pool, 8);
	sk_pages_init(&pages, &pool, 1);
	assert_int_equal(sk_pages_cover(&pages, 64, 64, 64), 0);
	uint32_t first = page_of(&pages, 0, 64), second = page_of(&pages, 40, 64);
	assert_int_equal(pages.n_window, 0);
	assert_int_equal(sk_pages_cover(&pages, 4, 4, 64), 0);
	check(&pool, tables, 1);
	assert_int_equal(page_of(&pages, 0, 4), first);
	assert_int_equal(page_of(&pages, 10, 0), first);
	assert_int_equal(page_of(&pages, 40, 0), second);
	sk_pages_finish(&pages);
	assert_int_equal(pool.n_free, 8);
	sk_pool_finish(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams_in_constant_memory),
		cmocka_unit_test(test_policies_that_change),
		cmocka_unit_test(test_used_pages_are_cleared),
		cmocka_unit_test(test_promises_are_kept),
		cmocka_unit_test(test_a_full_pool_leaves_the_table_whole),
		cmocka_unit_test(test_sinks_alone_come_back),
	};
	return sk_test_run(tests, NULL, NULL);
}
