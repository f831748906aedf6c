/* The scheduler against what it promises, on made-up loads with a clock of steps. */
#define MOST_USERS    6
#define MOST_SESSIONS 40
#include "scheduled.h"

static void test_limits_hold_and_work_is_conserved(void **state)
{
	(void)state;
	begin(1);
	for (int round = 0; round < 20000; round++) {
		uint32_t n = below(MOST_SESSIONS + 1);
		struct sk_schedule_limits limits = {.max_sessions = 1 + below(16),
						    .free_tokens = below(20)};
		limits.max_tokens = limits.max_sessions + below(64);
		limits.chunk_tokens = 1 + below(64);
		uint64_t most = 0;
		uint32_t n_decoding = 0, n_prompts = 0, decoding = 0;
		for (uint32_t i = 0; i < n; i++) {
			uint32_t kind = below(3);
			wants[i].tenant = &users[below(MOST_USERS)];
			wants[i].n_tokens = kind < 2 ? kind : 2 + below(200);
			n_decoding += kind == 1;
			n_prompts += kind == 2;
		}
		uint32_t total = sk_schedule(&scheduler, wants, n, &limits), sum = 0,
			 n_sessions = 0;
		for (uint32_t i = 0; i < n; i++) {
			assert_true(wants[i].n_granted <= wants[i].n_tokens);
			assert_true(wants[i].n_granted <= limits.chunk_tokens);
			sum += wants[i].n_granted;
			n_sessions += wants[i].n_granted > 0;
			decoding += wants[i].n_tokens == 1 && wants[i].n_granted;
			if (wants[i].n_granted && wants[i].n_tokens > 1)
				most += wants[i].n_tokens < limits.chunk_tokens
						? wants[i].n_tokens
						: limits.chunk_tokens;
		}
		assert_int_equal(total, sum);
		assert_true(n_sessions <= limits.max_sessions);
		assert_true(sum <= limits.max_tokens);
		/* Where tokens are left, no place is empty that anybody wants, and those in their places have all they want. */
		const uint32_t n_wanted = n_decoding + n_prompts;
		if (total < limits.max_tokens) {
			assert_int_equal(n_sessions, n_wanted < limits.max_sessions
							     ? n_wanted
							     : limits.max_sessions);
			assert_int_equal(sum - decoding, most);
		}
		if (!n_prompts)
			assert_int_equal(decoding, n_sessions);
	}
}

static void test_a_long_prompt_does_not_stall_streams(void **state)
{
	(void)state;
	begin(2);
	struct sk_schedule_limits limits = {
		.max_sessions = 8, .max_tokens = 64, .chunk_tokens = 64, .free_tokens = 64};
	const uint64_t n_tokens[4] = {1000000, 1, 1, 500};
	for (int turn = 0; turn < 8; turn++) {
		for (int i = 0; i < 4; i++)
			wants[i].n_tokens = n_tokens[i];
		sk_schedule(&scheduler, wants, 4, &limits);
		assert_int_equal(wants[1].n_granted, 1);
		assert_int_equal(wants[2].n_granted, 1);
		assert_int_equal(wants[0].n_granted + wants[3].n_granted, 62);
	}
}

/* Neither sessions of one user nor users, whose own streams make steps long: everybody's streams and prompts go on, at one
 * place too: eight streams of a user, who is one of five. */
static void test_nobody_starves(void **state)
{
	(void)state;
	for (uint32_t places = 1; places <= 13; places += 3)
		for (uint32_t n_users = 1; n_users <= 6; n_users++) {
			begin(3);
			struct sk_schedule_limits limits = {.max_sessions = places,
							    .max_tokens = 16,
							    .chunk_tokens = 16,
							    .free_tokens = 2};
			uint64_t granted[12] = {0};
			for (uint32_t i = 0; i < 12; i++) /* the first has all that decode */
				wants[i].tenant = &users[i < 8 ? 0 : i % n_users];
			for (int turn = 0; turn < 12000; turn++) {
				for (int i = 0; i < 12; i++)
					wants[i].n_tokens = i < 8 ? 1 : 100;
				sk_schedule(&scheduler, wants, 12, &limits);
				for (int i = 0; i < 12; i++)
					granted[i] += wants[i].n_granted;
			}
			for (int i = 0; i < 12; i++)
				assert_true(granted[i] >= (places > 1 ? 700 : 12000 / 5 / 8 - 1));
		}
}

/* Prompts come and go at random; against one that hands out a step token by token, each to a user who has had least of
 * this step by weight (which needs no memory of earlier ones: so it gives no credit), and to none who wants nothing. */
static void test_prompts_against_brute_force(void **state)
{
	(void)state;
	for (unsigned seed = 10; seed < 30; seed++) {
		begin(seed);
		const uint32_t n_users = 2 + below(MOST_USERS - 1);
		struct sk_schedule_limits limits = {.max_sessions = MOST_SESSIONS,
						    .max_tokens = 64 + below(448),
						    .chunk_tokens = 512,
						    .free_tokens = MOST_SESSIONS};
		uint64_t queue[MOST_SESSIONS] = {0}; /* as scheduled */
		double fluid[MOST_USERS] = {0}, had[MOST_USERS] = {0}, ideal[MOST_USERS] = {0};
		double total = 0, off = 0;
		for (uint32_t u = 0; u < n_users; u++)
			users[u].weight = 1 + below(5);
		for (uint32_t i = 0; i < MOST_SESSIONS; i++)
			wants[i].tenant = &users[below(n_users)];
		for (int step = 0; step < 4000; step++) {
			for (uint32_t i = 0; i < MOST_SESSIONS;
			     i++) /* load: about as much as fits */
				if (!queue[i] && below(60) == 0) {
					queue[i] = 2 + below(2 * limits.max_tokens);
					fluid[wants[i].tenant - users] += (double)queue[i];
				}
			for (uint32_t i = 0; i < MOST_SESSIONS; i++)
				wants[i].n_tokens =
					queue[i] == 1 ? 0 : queue[i]; /* a rest of 1 decodes */
			total += sk_schedule(&scheduler, wants, MOST_SESSIONS, &limits);
			for (uint32_t i = 0; i < MOST_SESSIONS; i++) {
				had[wants[i].tenant - users] += wants[i].n_granted;
				queue[i] -= wants[i].n_granted;
				if (queue[i] == 1) {
					fluid[wants[i].tenant - users] -= 1;
					queue[i] = 0;
				}
			}
			double step_had[MOST_USERS] = {0};
			for (uint32_t left = limits.max_tokens; left; left--) {
				uint32_t next = n_users;
				for (uint32_t u = 0; u < n_users; u++)
					if (fluid[u] >= 1 &&
					    (next == n_users ||
					     step_had[u] / users[u].weight <
						     step_had[next] / users[next].weight))
						next = u;
				if (next == n_users)
					break;
				fluid[next]--;
				step_had[next]++;
				ideal[next]++;
			}
			for (uint32_t u = 0; u < n_users; u++)
				off = had[u] - ideal[u] > off   ? had[u] - ideal[u]
				      : ideal[u] - had[u] > off ? ideal[u] - had[u]
								: off;
		}
		print_message("seed %u: %u users, %.0f tokens, at most %.0f off\n", seed, n_users,
			      total, off);
		/* the credits of the others, and pieces */
		assert_true(off <= 2 * limits.max_tokens * (n_users - 1) + 32 * (n_users + 1));
	}
}

/* All want as much as they can get: shares are as weights, within a hundredth, of the users and of a user's sessions. */
static void test_weights(void **state)
{
	(void)state;
	for (unsigned seed = 40; seed < 60; seed++) {
		begin(seed);
		const uint32_t n_users = 2 + below(MOST_USERS - 1);
		struct sk_schedule_limits limits = {.max_sessions = 4 + below(60),
						    .max_tokens = 64 + below(448),
						    .chunk_tokens = 512,
						    .free_tokens = 64};
		double had[MOST_USERS] = {0}, sessions[MOST_SESSIONS] = {0}, weights = 0, total = 0;
		uint32_t n_sessions[MOST_USERS] = {0};
		for (uint32_t u = 0; u < n_users; u++)
			weights += users[u].weight = 1 + below(9);
		for (uint32_t i = 0; i < MOST_SESSIONS; i++) {
			uint32_t u = i < n_users ? i : below(n_users);
			wants[i].tenant = &users[u];
			n_sessions[u]++;
		}
		for (int step = 0; step < 20000; step++) {
			for (uint32_t i = 0; i < MOST_SESSIONS; i++)
				wants[i].n_tokens = 1000000;
			total += sk_schedule(&scheduler, wants, MOST_SESSIONS, &limits);
			for (uint32_t i = 0; i < MOST_SESSIONS; i++) {
				had[wants[i].tenant - users] += wants[i].n_granted;
				sessions[i] += wants[i].n_granted;
			}
		}
		for (uint32_t u = 0; u < n_users; u++) {
			double share = had[u] / total * weights / users[u].weight;
			assert_true(share > 0.99 && share < 1.01);
		}
		for (uint32_t i = 0; i < MOST_SESSIONS; i++) {
			uint32_t u = (uint32_t)(wants[i].tenant - users);
			double share = sessions[i] / had[u] * n_sessions[u];
			assert_true(share > 0.99 && share < 1.01);
		}
	}
}

/* One user with many sessions beside one with one: prompts, and places where those that decode are too many. */
static void test_one_beside_many(void **state)
{
	(void)state;
	begin(4);
	struct sk_schedule_limits limits = {
		.max_sessions = 8, .max_tokens = 128, .chunk_tokens = 128, .free_tokens = 8};
	uint64_t had[33] = {0}, all = 0;
	for (int i = 0; i < 33; i++)
		wants[i].tenant = &users[i < 32];
	for (int step = 0; step < 1000; step++) {
		for (int i = 0; i < 33; i++)
			wants[i].n_tokens = 3000;
		all += sk_schedule(&scheduler, wants, 33, &limits);
		had[32] += wants[32].n_granted;
	}
	assert_true(had[32] * 100 >= all * 49);

	memset(had, 0, sizeof had);
	for (int step = 0; step < 320; step++) {
		for (int i = 0; i < 33; i++)
			wants[i].n_tokens = 1;
		sk_schedule(&scheduler, wants, 33, &limits);
		for (int i = 0; i < 33; i++)
			had[i] += wants[i].n_granted;
	}
	assert_true(had[32] >= 319);
	for (int i = 0; i < 32; i++)
		assert_in_range(had[i], 69, 71);
}

/* Who was away has no credit from it but for two steps: beside one who was not it gets its half, and not much more. The
 * second time round each has had something before, in the first nothing. */
static void test_credit_is_not_saved(void **state)
{
	(void)state;
	begin(5);
	struct sk_schedule_limits limits = {
		.max_sessions = 8, .max_tokens = 128, .chunk_tokens = 128, .free_tokens = 8};
	wants[1].tenant = &users[1];
	for (int round = 0; round < 2; round++) {
		uint64_t had[2] = {0};
		for (int step = 0; step < 1100; step++) {
			wants[0].n_tokens = 5000;
			wants[1].n_tokens = step < 1000 ? 0 : 5000;
			sk_schedule(&scheduler, wants, 2, &limits);
			for (int i = 0; i < 2; i++)
				had[i] += step < 1000 ? 0 : wants[i].n_granted;
		}
		const uint64_t credit = round * 128; /* half of which would have been the other's */
		assert_in_range(had[1], 100 * 64 + credit - 32, 100 * 64 + credit + 32);
	}
}

/* One who has its next prompt ready a step or two after its answer, beside 32 sessions of another's that always have one:
 * half of the tokens, or as many as it can ask for in its time. */
static void test_who_misses_a_step(void **state)
{
	(void)state;
	const uint32_t lengths[] = {64, 128, 200, 256, 300, 512, 700, 1000, 2048, 5000};
	struct sk_schedule_limits limits = {
		.max_sessions = 64, .max_tokens = 256, .chunk_tokens = 256, .free_tokens = 8};
	for (uint32_t n_missed = 1; n_missed <= 2; n_missed++)
		for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
			begin(9);
			const uint32_t length = lengths[l],
				       n_steps = (length + 255) / 256 + n_missed;
			uint64_t own = 0, all = 0;
			uint32_t left = 0, away = 1;
			for (int i = 0; i < 32; i++)
				wants[i].tenant = &users[1];
			for (int step = 0; step < 20000; step++) {
				if (!left && !away--) {
					left = length;
					away = n_missed;
				}
				for (int i = 0; i < 32; i++)
					wants[i].n_tokens = 1000;
				wants[32].n_tokens = left;
				all += sk_schedule(&scheduler, wants, 33, &limits);
				own += wants[32].n_granted;
				left -= wants[32].n_granted;
				if (left == 1)
					left = 0;
			}
			double most = (double)length / (256 * n_steps),
			       share = (double)own / (double)all;
			print_message(
				"prompts of %u, %u missed: %.1f %% (of %.1f %% that it could)\n",
				length, n_missed, 100 * share, 100 * most);
			assert_true(share > (most < 0.47 ? 0.95 * most : 0.45) && share < 0.55);
		}
}

/* A session that is new has no credit: it would have it with every request. */
static void test_new_sessions_have_no_credit(void **state)
{
	(void)state;
	begin(10);
	struct sk_schedule_limits limits = {
		.max_sessions = 64, .max_tokens = 256, .chunk_tokens = 256, .free_tokens = 8};
	uint64_t had = 0, all = 0;
	for (int i = 1; i < MOST_SESSIONS;
	     i++) { /* a new one in every step beside one that has long */
		for (int j = 0; j < MOST_SESSIONS; j++)
			wants[j].n_tokens = j == 0 ? 100000 : j == i ? 200 : 0;
		all += sk_schedule(&scheduler, wants, MOST_SESSIONS, &limits);
		had += wants[0].n_granted;
	}
	assert_true(had * 100 > all * 45);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits_hold_and_work_is_conserved),
		cmocka_unit_test(test_a_long_prompt_does_not_stall_streams),
		cmocka_unit_test(test_nobody_starves),
		cmocka_unit_test(test_prompts_against_brute_force),
		cmocka_unit_test(test_weights),
		cmocka_unit_test(test_one_beside_many),
		cmocka_unit_test(test_credit_is_not_saved),
		cmocka_unit_test(test_who_misses_a_step),
		cmocka_unit_test(test_new_sessions_have_no_credit),
	};
	return sk_test_run(tests, NULL, NULL);
}
