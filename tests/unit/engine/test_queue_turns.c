/* The queue for pages where streams never end: what is left for others, and who gives way to whom. */
#include "simulated_time.h"

/* Streams that never end, more than the pool holds, beside short requests. What is free while nobody else waits is theirs,
 * and then for ever; but not more. */
static void test_streams_without_end(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 10; seed++) {
		begin(seed, 10);
		add_clients(add_user(1), 5, 1, 1, 2, 0.1, 0);
		add_clients(add_user(1), 12, 1, 1, FOR_EVER_S, 0.1, seed % 2 ? 0 : 10);
		simulate(600);
		tell("without end", seed);
		assert_int_equal(results[0].n_expired, 0);
		assert_true(results[0].longest_s < 9);
		assert_true(percent(0) > 18);
		end();
	}
}

/* Streams without end that were there first, and hold all: they make room for who comes later, and run in turn. */
static void test_streams_that_give_way(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 10; seed++) { /* short requests of others */
		begin(seed, 10);
		preempts = true;
		add_clients(add_user(1), 12, 1, 1, FOR_EVER_S, 0.1, 0);
		add_clients(add_user(1), 5, 1, 1, 2, 0.1, 100);
		simulate_after(150, 1000);
		tell("giving way to short ones", seed);
		assert_int_equal(results[1].n_expired, 0);
		assert_true(results[1].longest_s < 2 * PATIENCE_S);
		assert_true(percent(1) > 0.5 * ideal_percent(1));
		end();
	}
	for (uint32_t n = 1; n <= 4;
	     n++) { /* as many streams of others; one stream alone; a large one */
		begin(n, 10);
		preempts = true;
		add_clients(add_user(1), 14, 1, 1, FOR_EVER_S, 0.1, 0);
		add_clients(add_user(1), n, 1, 1, FOR_EVER_S, 0.1, 100);
		add_clients(add_user(2), 1, 4, 4, FOR_EVER_S, 0.1, 200);
		simulate_after(400, 4000);
		tell("giving way to streams", n);
		for (uint32_t u = 0; u < 3; u++) {
			assert_int_equal(results[u].n_expired, 0);
			assert_true(results[u].had > 0.8 * results[u].ideal);
		}
		end();
	}
	for (uint32_t pool = 1; pool <= 4; pool++) { /* of one user too: each has its turn */
		begin(pool, pool);
		preempts = true;
		add_clients(add_user(1), 6, 1, 1, FOR_EVER_S, 0.1, 0);
		simulate(1000);
		/* As many at a turn as wait, or as there is room for; and no more. */
		const double n = 1000 / PATIENCE_S * fewer(pool, 6 - pool);
		assert_true(results[0].n_given > 0.85 * n && results[0].n_given <= n);
		for (uint32_t i = 0; i < n_clients; i++)
			assert_true(clients[i].since_s > 1000 - 6 * 2 * PATIENCE_S);
		end();
	}
}

/* Streams of one user that take turns among themselves, whose turns end at any time, and one of another that needs nearly
 * all: it has its turn as well, and so have they, however long it takes to go out and to come back. */
static void test_large_behind_a_rotation(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 12; seed++) {
		begin(seed, 12);
		preempts = true;
		timeout_s = 60;
		move_s = (seed % 3) * 0.7;
		const uint32_t n_small = 2 + seed % 4;
		struct sk_user *user = add_user(1);
		for (uint32_t i = 0; i < n_small; i++)
			add_clients(user, 1, 6, 6, FOR_EVER_S, 0.1, between(0, 20));
		add_clients(add_user(1), 1, 11, 11, FOR_EVER_S, 0.1, between(30, 60));
		simulate(1000);
		tell("a large one behind a rotation", seed);
		for (uint32_t u = 0; u < 2; u++) {
			assert_int_equal(results[u].n_expired, 0);
			assert_true(results[u].had > 0.35 * 900 * (u ? 11 : 12));
		}
		assert_true(results[1].longest_s < 4 * PATIENCE_S);
		for (uint32_t i = 0; i < n_clients; i++)
			assert_true(clients[i].since_s > 1000 - 3 * n_clients * PATIENCE_S);
		end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams_without_end),
		cmocka_unit_test(test_streams_that_give_way),
		cmocka_unit_test(test_large_behind_a_rotation),
	};
	return sk_test_run(tests, NULL, NULL);
}
