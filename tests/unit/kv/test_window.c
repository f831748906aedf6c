/* The window's arithmetic against the rule written out: a plain list of live entries, one token at
 * a time. */
#include "kv/window.h"
#include "sk_test.h"

#include <string.h>

#define MOST 4096

/* The rule of the design, section 2, on a list. */
struct brute {
	struct sk_policy policy;
	uint64_t live[MOST];
	uint64_t n_live, next;
	bool has_dropped;
	uint64_t n_sink; /* live ones, once something was dropped */
};

static uint64_t brute_step(struct brute *b)
{
	uint64_t sinks = b->policy.mode == SK_MODE_WINDOW ? 0 : b->policy.sink;
	uint64_t capacity = sinks + b->policy.window, n_evicted = 0;

	b->live[b->n_live++] = b->next++;
	if (!b->has_dropped)
		b->n_sink = sinks < b->next ? sinks : b->next;
	if (b->policy.mode == SK_MODE_DENSE || b->n_live <= capacity + b->policy.slack)
		return 0;
	while (b->n_live > capacity) {
		memmove(b->live + b->n_sink, b->live + b->n_sink + 1,
			(b->n_live - b->n_sink - 1) * sizeof *b->live);
		b->n_live--;
		n_evicted++;
	}
	b->has_dropped = true;
	return n_evicted;
}

static void check_view(const struct brute *b, const struct sk_view *view)
{
	assert_int_equal(view->entry, b->next);
	assert_int_equal(view->live, b->n_live);
	assert_int_equal(view->live, view->n_sink + view->entry - view->first);
	assert_true(view->n_sink <= view->first);
	for (uint64_t i = 0; i < b->n_live; i++) {
		uint64_t entry = i < view->n_sink ? i : view->first + (i - view->n_sink);
		if (entry != b->live[i])
			fail_msg("place %llu holds entry %llu, should hold %llu",
				 (unsigned long long)i, (unsigned long long)entry,
				 (unsigned long long)b->live[i]);
	}
}

static void run(struct sk_window *window, struct brute *b, unsigned n)
{
	while (n--) {
		struct sk_view view;
		sk_window_step(window, &view);
		check_view(b, &view);
		assert_int_equal(view.n_evicted, brute_step(b));
		assert_int_equal(sk_window_live(window), b->n_live);
	}
}

static void test_equals_the_rule(void **state)
{
	(void)state;
	static struct brute b;
	const uint32_t sinks[] = {0, 1, 4, 8, 33}, windows[] = {1, 2, 31, 248},
		       slacks[] = {0, 1, 64};
	for (int mode = SK_MODE_STREAMING; mode <= SK_MODE_DENSE; mode++) {
		for (unsigned i = 0; i < 5; i++) {
			for (unsigned j = 0; j < 4; j++) {
				for (unsigned k = 0; k < 3; k++) {
					struct sk_policy policy = {(enum sk_mode)mode, sinks[i],
								   windows[j], slacks[k]};
					struct sk_window window;
					memset(&b, 0, sizeof b);
					b.policy = policy;
					sk_window_init(&window, &policy);
					run(&window, &b, 1200);
				}
			}
		}
	}
}

static void test_the_reference_users_numbers(void **state)
{
	(void)state;
	struct sk_policy policy = {SK_MODE_STREAMING, 8, 248, 64};
	struct sk_window window;
	struct sk_view view;
	uint64_t least = UINT64_MAX, most = 0, n_evictions = 0;

	sk_window_init(&window, &policy);
	for (int i = 0; i < 1000; i++) {
		sk_window_step(&window, &view);
		if (i >= 320) {
			least = view.live < least ? view.live : least;
			most = view.live > most ? view.live : most;
		}
		n_evictions += view.n_evicted > 0;
		assert_true(view.n_evicted == 0 || view.n_evicted == 65);
	}
	assert_int_equal(most, 8 + 248 + 64);
	assert_int_equal(least, 256);
	assert_int_equal(n_evictions, 1 + (1000 - 321) / 65);
}

static void test_slack_zero_sees_capacity_plus_itself(void **state)
{
	(void)state;
	struct sk_policy policy = {SK_MODE_STREAMING, 4, 252, 0};
	struct sk_window window;
	struct sk_view view;
	sk_window_init(&window, &policy);
	for (int i = 0; i < 2000; i++)
		sk_window_step(&window, &view);
	assert_int_equal(view.live, 256); /* C entries and itself: C + 1 scores */
	assert_int_equal(view.n_sink, 4);
	assert_int_equal(view.entry - view.first, 252);
}

static void test_policy_changes(void **state)
{
	(void)state;
	struct sk_window window;
	struct sk_view view;
	struct sk_policy wide = {SK_MODE_STREAMING, 4, 100, 0},
			 narrow = {SK_MODE_STREAMING, 4, 10, 0};
	struct sk_policy more = {SK_MODE_STREAMING, 8, 100, 0}, none = {SK_MODE_WINDOW, 4, 50, 0};
	struct sk_policy dense = {SK_MODE_DENSE, 4, 100, 0};

	/* Before anything is dropped every change is free, and more sinks are to be had. */
	sk_window_init(&window, &wide);
	for (int i = 0; i < 50; i++)
		sk_window_step(&window, &view);
	sk_window_set_policy(&window, &more);
	assert_int_equal(window.n_sink, 8);
	assert_int_equal(sk_window_live(&window), 50);
	sk_window_set_policy(&window, &none);
	assert_int_equal(window.n_sink, 0);
	assert_int_equal(sk_window_live(&window), 50);
	sk_window_set_policy(&window, &wide);
	assert_int_equal(window.n_sink, 4);

	/* Narrower: the next token still sees all, then the cache is cut. */
	sk_window_set_policy(&window, &narrow);
	sk_window_step(&window, &view);
	assert_int_equal(view.live, 50);
	assert_int_equal(view.n_evicted, 51 - 14);
	assert_int_equal(sk_window_live(&window), 14);

	/* What is gone stays gone: 4 sinks, and a window that makes up for the missing. */
	sk_window_set_policy(&window, &more);
	assert_int_equal(window.n_sink, 4);
	for (int i = 0; i < 500; i++)
		sk_window_step(&window, &view);
	assert_int_equal(view.n_sink, 4);
	assert_int_equal(view.live, 108);

	/* Dense from here on: nothing more is dropped. */
	uint64_t first = window.first;
	sk_window_set_policy(&window, &dense);
	for (int i = 0; i < 500; i++)
		sk_window_step(&window, &view);
	assert_int_equal(window.first, first);
	assert_int_equal(sk_window_live(&window), 108 + 500);

	/* Without sinks they go at once, having a gap behind them. */
	sk_window_set_policy(&window, &none);
	assert_int_equal(window.n_sink, 0);
	assert_int_equal(sk_window_live(&window), 104 + 500);
	sk_window_step(&window, &view);
	assert_int_equal(sk_window_live(&window), 50);
}

static void test_changed_takes_only_what_is_given(void **state)
{
	(void)state;
	struct sk_policy policy = {SK_MODE_STREAMING, 4, 100, 7};
	struct sk_policy_change change = {.has_window = true, .to = {SK_MODE_DENSE, 1, 20, 3}};
	policy = sk_policy_changed(policy, &change);
	assert_int_equal(policy.mode, SK_MODE_STREAMING);
	assert_int_equal(policy.sink, 4);
	assert_int_equal(policy.window, 20);
	assert_int_equal(policy.slack, 7);
}

/* Blocks of sink + window tokens, however they are divided; slack means nothing here. */
static void test_recompute_drops_whole_blocks(void **state)
{
	(void)state;
	const uint32_t sinks[] = {0, 1, 4, 33}, windows[] = {1, 2, 31, 56};
	for (unsigned i = 0; i < 4; i++) {
		for (unsigned j = 0; j < 4; j++) {
			struct sk_policy policy = {SK_MODE_RECOMPUTE, sinks[i], windows[j], 64};
			uint64_t capacity = sinks[i] + windows[j];
			struct sk_window window;
			struct sk_view view;

			sk_window_init(&window, &policy);
			for (uint64_t entry = 0; entry < 10 * capacity; entry++) {
				uint64_t place = entry % capacity;
				bool is_last = place == capacity - 1;

				sk_window_step(&window, &view);
				assert_int_equal(view.entry, entry);
				assert_int_equal(view.live, place);
				assert_int_equal(view.n_sink, 0);
				assert_int_equal(view.first, entry - place);
				assert_int_equal(view.n_evicted, is_last ? capacity : 0);
				assert_int_equal(window.first, is_last ? entry + 1 : entry - place);
				assert_int_equal(window.n_sink, 0);
				assert_int_equal(sk_window_live(&window), is_last ? 0 : place + 1);
			}
		}
	}
}

static void test_what_a_policy_comes_to(void **state)
{
	(void)state;
	struct sk_policy policy = {SK_MODE_STREAMING, 8, 248, 64};
	assert_int_equal(sk_policy_capacity(&policy), 256);
	assert_int_equal(sk_policy_sinks(&policy), 8);
	assert_int_equal(sk_policy_most_live(&policy, 1000), 320);

	policy.mode = SK_MODE_WINDOW; /* its sinks are no part of it */
	assert_int_equal(sk_policy_capacity(&policy), 248);
	assert_int_equal(sk_policy_sinks(&policy), 0);
	assert_int_equal(sk_policy_most_live(&policy, 1000), 312);

	policy.mode = SK_MODE_RECOMPUTE; /* as many as streaming, none of them a sink, no slack */
	assert_int_equal(sk_policy_capacity(&policy), 256);
	assert_int_equal(sk_policy_sinks(&policy), 0);
	assert_int_equal(sk_policy_most_live(&policy, 1000), 256);

	policy.mode = SK_MODE_DENSE;
	assert_int_equal(sk_policy_most_live(&policy, 1000), 1000);

	/* Beyond 32 bits. */
	policy = (struct sk_policy){SK_MODE_STREAMING, UINT32_MAX, UINT32_MAX, UINT32_MAX};
	assert_int_equal(sk_policy_capacity(&policy), 2ull * UINT32_MAX);
	assert_int_equal(sk_policy_most_live(&policy, 0), 3ull * UINT32_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equals_the_rule),
		cmocka_unit_test(test_the_reference_users_numbers),
		cmocka_unit_test(test_slack_zero_sees_capacity_plus_itself),
		cmocka_unit_test(test_policy_changes),
		cmocka_unit_test(test_changed_takes_only_what_is_given),
		cmocka_unit_test(test_recompute_drops_whole_blocks),
		cmocka_unit_test(test_what_a_policy_comes_to),
	};
	return sk_test_run(tests, NULL, NULL);
}
