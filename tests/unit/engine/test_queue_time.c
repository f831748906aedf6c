/* The queue for pages over time: what users have of the pool, and how long their requests wait. */
#include "simulated_time.h"

/* All want more than there is: each has its share by weight, whatever sizes its requests have and however long they run, and
 * nobody waits longer than its share and its own requests before it make it wait. */
static void test_shares(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 15; seed++) {
		begin(seed, 5 + (unsigned)rand() % 300);
		timeout_s = FOR_EVER_S;
		const uint32_t n = 2 + (uint32_t)rand() % 4, most = n_pool / 10 + 1;
		double off = 0, weights = 0;
		for (uint32_t u = 0; u < n; u++) {
			const uint32_t least = 1 + (uint32_t)rand() % most;
			add_clients(add_user(1 + (uint32_t)rand() % 4), 40, least, most,
				    between(0.5, 10), 0.2, between(0, 20));
			weights += users[u].tenant.weight;
		}
		simulate_after(100, 3000);
		for (uint32_t u = 0; u < n; u++) {
			const double share = n_pool * users[u].tenant.weight / weights,
				     need = 40 * (clients[40 * u].n_least + most) / 2.0 *
					    clients[40 * u].hold_s;
			off = greater(off, percent(u) / ideal_percent(u) - 1);
			off = greater(off, 1 - percent(u) / ideal_percent(u));
			assert_true(results[u].longest_s < 2 * need / share + PATIENCE_S);
		}
		print_message("%u users, %u pages: at most %.2f %% off\n", n, n_pool, 100 * off);
		assert_true(off < 0.02);
		end();
	}
	/* A share may be less than a request. */
	for (uint32_t pool = 1; pool <= 10; pool += 3)
		for (double hold_s = 1; hold_s <= 8; hold_s *= 2) {
			begin(31, pool);
			timeout_s = FOR_EVER_S;
			add_clients(add_user(3), 15, 1, 1, hold_s, 0.2, 0);
			add_clients(add_user(1), 15, 1, 1, hold_s, 0.2, 0);
			simulate_after(200, 5000);
			tell("a small pool", pool);
			assert_true(percent(1) > 24 && percent(1) < 26);
			end();
		}
}

static void test_one_beside_many(void **state)
{
	(void)state;
	for (uint32_t pool = 1; pool <= 10; pool += 3) {
		begin(2, pool);
		add_clients(add_user(1), 40, 1, 1, 3, 0.2, 0);
		add_clients(add_user(1), 1, 1, 1, 3, 0.2, 0);
		simulate_after(100, 3000);
		tell("one beside forty, pool", pool);
		assert_true(results[1].longest_s < 9); /* two of theirs */
		assert_true(pool > 1 || percent(1) > 48);
		end();
	}
}

/* Requests for which there never is room, one after another: others wait for one as long as the patience is, and their user
 * keeps no more of the pool empty than its share. */
static void test_what_cannot_be_served(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 10; seed++) {
		begin(seed, 100);
		add_clients(add_user(1), 1, 34, 34, FOR_EVER_S, 1, 0);
		struct sk_user *user = add_user(1);
		for (int i = 0; i < 6; i++)
			add_clients(user, 1, 90, 90, 5, 0, 1 + 10 * i);
		add_clients(add_user(1), 8, 5, 20, 4, 1, 2);
		add_clients(add_user(1), 1, 5, 20, 4, 1, 2);
		simulate(2000);
		tell("cannot be served", seed);
		assert_int_equal(results[1].n_begun, 0);
		assert_true(results[1].kept < 1.1 * results[1].ideal);
		for (uint32_t u = 2; u < 4; u++) {
			assert_int_equal(results[u].n_expired, 0);
			/* one behind another of one's own may meet two of them */
			assert_true(results[u].longest_s < (u == 2 ? 3 : 1.3) * PATIENCE_S);
		}
		end();
	}
}

/* One request needs most of the pool, of which others have many small ones: it is served as often as its share is. */
static void test_what_needs_much(void **state)
{
	(void)state;
	for (double hold_s = 1; hold_s <= 8; hold_s *= 2) {
		begin(4, 100);
		add_clients(add_user(1), 1, 80, 80, hold_s, 1, 0);
		add_clients(add_user(1), 20, 2, 10, hold_s, 1, 0);
		add_clients(add_user(1), 20, 2, 10, hold_s, 1, 0);
		simulate_after(100, 3000);
		tell("needs much, hold", hold_s);
		for (uint32_t u = 0; u < 3; u++) {
			assert_int_equal(results[u].n_expired, 0);
			assert_true(percent(u) > 32 && percent(u) < 35);
		}
		end();
	}
}

/* Who had nearly all does not go on so, nor is kept out for long for having had it. */
static void test_after_having_much(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 5; seed++) {
		begin(seed, 20);
		add_clients(add_user(1), 30, 1, 1, 5, 0.2, 0);
		for (int i = 0; i < 4; i++)
			add_clients(add_user(1), 8, 1, 1, 5, 0.2, 200);
		simulate_after(220, 1000);
		tell("after having much", seed);
		for (uint32_t u = 0; u < 5; u++) {
			assert_true(percent(u) > 19 && percent(u) < 21);
			assert_int_equal(results[u].n_expired, 0);
		}
		end();

		begin(seed, 20);
		spread = 0.01;
		add_clients(add_user(1), 18, 1, 1, 300, FOR_EVER_S, 0);
		add_clients(&users[0], 1, 1, 1, 5, 1, 305); /* when the others are over */
		for (int i = 0; i < 4; i++)
			add_clients(add_user(1), 8, 1, 1, 5, 0.2, 10);
		simulate_after(304, 1000);
		tell("after having much at others' cost", seed);
		assert_int_equal(results[0].n_expired, 0);
		assert_true(results[0].n_begun > 50);
		end();
	}
}

/* Nor has one who for long had little saved up more than others notice. */
static void test_after_having_little(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 5; seed++) {
		begin(seed, 20);
		struct sk_user *user = add_user(1);
		add_clients(user, 1, 1, 1, FOR_EVER_S, 1, 0);
		add_clients(user, 30, 1, 1, 5, 0.2, 500);
		for (int i = 0; i < 2; i++)
			add_clients(add_user(1), 15, 1, 1, 5, 0.2, 1);
		simulate_after(499, 60);
		tell("after having little", seed);
		for (uint32_t u = 0; u < 3; u++)
			assert_int_equal(results[u].n_expired, 0);
		assert_true(results[1].longest_s < 13 && results[2].longest_s < 13); /* else 7 */
		end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shares),
		cmocka_unit_test(test_one_beside_many),
		cmocka_unit_test(test_what_cannot_be_served),
		cmocka_unit_test(test_what_needs_much),
		cmocka_unit_test(test_after_having_much),
		cmocka_unit_test(test_after_having_little),
	};
	return sk_test_run(tests, NULL, NULL);
}
