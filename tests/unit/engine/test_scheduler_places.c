/* The scheduler where more want a place than a step has: sessions come and go by a clock of steps, against what each user
 * would have if places could be cut. */
#define MOST_USERS    8
#define MOST_SESSIONS 300
#include "scheduled.h"

static double greater(double a, double b)
{
	return a > b ? a : b;
}

static double off_percent(double had, double ideal)
{
	return ideal > 0 ? 100 * (had > ideal ? had - ideal : ideal - had) / ideal : 0;
}

static uint32_t user_of(uint32_t i)
{
	return (uint32_t)(wants[i].tenant - users);
}

static const struct sk_schedule_limits usual = {
	.max_sessions = 64, .max_tokens = 256, .chunk_tokens = 256, .free_tokens = 8};

/* 63 streams, a long prompt, and short ones one after another: of three users, of two, or all of one. However the places
 * go, the steps are full, and the long prompt is read. */
static void test_steps_are_full(void **state)
{
	(void)state;
	for (uint32_t n_users = 1; n_users <= 3; n_users++)
		for (uint32_t n_streams = 63; n_streams <= 200; n_streams += 137) {
			begin(1);
			const uint32_t n = n_streams + 2, a = n_streams, b = a + 1;
			uint64_t total = 0, n_in = 0, streams = 0;
			wants[a].tenant = &users[n_users > 1];
			wants[b].tenant = &users[n_users > 2 ? 2 : 0];
			for (int step = 0; step < 2000; step++) {
				for (uint32_t i = 0; i < n; i++)
					wants[i].n_tokens = i == a ? 100000 : i == b ? 20 : 1;
				total += sk_schedule(&scheduler, wants, n, &usual);
				n_in += wants[a].n_granted > 0;
				for (uint32_t i = 0; i < n_streams; i++)
					streams += wants[i].n_granted;
			}
			print_message("%u users, %u streams: %.1f tokens a step, of which %.1f "
				      "streams; the long prompt in %.1f %%\n",
				      n_users, n_streams, (double)total / 2000,
				      (double)streams / 2000, (double)n_in / 20);
			assert_int_equal(total, 2000 * 256);
			assert_int_equal(n_in, 2000);
			assert_true(streams >= 2000 * 61);
		}
}

/* Seven users send short prompts as fast as they are read; one has streams enough for all places. Each of the seven has as
 * much of the places as its share is, or as it wants. */
static void test_short_prompts_beside_many_streams(void **state)
{
	(void)state;
	for (uint32_t n_each = 1; n_each <= 20; n_each += 19) {
		begin(2);
		uint64_t n_in[MOST_USERS] = {0};
		const uint32_t n = 100 + 7 * n_each;
		for (uint32_t i = 100; i < n; i++)
			wants[i].tenant = &users[1 + i % 7];
		for (int step = 0; step < 2000; step++) {
			for (uint32_t i = 0; i < n; i++)
				wants[i].n_tokens = i < 100 ? 1 : 2;
			sk_schedule(&scheduler, wants, n, &usual);
			for (uint32_t i = 0; i < n; i++)
				n_in[user_of(i)] += wants[i].n_granted > 0;
		}
		const double share = 2000 * (n_each < 8 ? n_each : 8); /* an eighth of 64 */
		for (uint32_t u = 1; u < MOST_USERS; u++)
			assert_true((double)n_in[u] > 0.95 * share &&
				    (double)n_in[u] < 1.05 * share);
		assert_true((double)n_in[0] > 0.95 * (64 * 2000 - 7 * share));
	}
}

/* What every user would have of `n` places where they could be cut: by weight, and none more than it wants. */
static void fluid(const double *wanted, uint32_t n_users, double n, double *ret_had)
{
	bool is_full[MOST_USERS] = {false};
	for (uint32_t u = 0; u < n_users; u++)
		ret_had[u] = 0;
	for (bool again = true; again;) {
		double weights = 0, left = n;
		again = false;
		for (uint32_t u = 0; u < n_users; u++) {
			weights += is_full[u] ? 0 : users[u].weight;
			left -= is_full[u] ? wanted[u] : 0;
		}
		for (uint32_t u = 0; u < n_users; u++) {
			if (is_full[u])
				continue;
			ret_had[u] = left * users[u].weight / weights;
			if (ret_had[u] > wanted[u]) {
				ret_had[u] = wanted[u];
				is_full[u] = again = true;
			}
		}
	}
}

/* Streams come and go, more than there are places: every user has within a twentieth of what a fluid would give it, and
 * none of its streams waits longer than its turn can take. */
static void test_streams_against_a_fluid(void **state)
{
	(void)state;
	for (unsigned seed = 10; seed < 22; seed++) {
		begin(seed);
		const uint32_t n_users = 2 + below(MOST_USERS - 1), places = 1 + below(24),
			       n_sessions = 2 * places + below(60);
		struct sk_schedule_limits limits = {.max_sessions = places,
						    .max_tokens = 256,
						    .chunk_tokens = 256,
						    .free_tokens = 8};
		uint32_t left[MOST_SESSIONS] = {0}, waited[MOST_SESSIONS] = {0}, longest = 0,
			 weights = 0;
		double had[MOST_USERS] = {0}, ideal[MOST_USERS] = {0}, off = 0;
		for (uint32_t u = 0; u < n_users; u++)
			weights += users[u].weight = 1 + below(4);
		for (uint32_t i = 0; i < n_sessions; i++)
			wants[i].tenant = &users[below(n_users)];
		for (int step = 0; step < 8000; step++) {
			double wanted[MOST_USERS] = {0}, now[MOST_USERS];
			for (uint32_t i = 0; i < n_sessions; i++) {
				if (!left[i] && below(100) == 0)
					left[i] = 1 + below(200);
				wants[i].n_tokens = left[i] > 0;
				wanted[user_of(i)] += left[i] > 0;
			}
			fluid(wanted, n_users, places, now);
			uint32_t total = sk_schedule(&scheduler, wants, n_sessions, &limits), n = 0;
			for (uint32_t i = 0; i < n_sessions; i++) {
				n += left[i] > 0;
				had[user_of(i)] += wants[i].n_granted;
				left[i] -= wants[i].n_granted;
				waited[i] = wants[i].n_granted || !wants[i].n_tokens
						    ? 0
						    : waited[i] + 1;
				longest = waited[i] > longest ? waited[i] : longest;
			}
			assert_int_equal(total, n < places ? n : places);
			for (uint32_t u = 0; u < n_users; u++)
				ideal[u] += now[u];
		}
		for (uint32_t u = 0; u < n_users; u++) {
			off = greater(off, off_percent(had[u], ideal[u]));
		}
		print_message(
			"seed %u: %u users, %u places: %.1f %% off; the longest wait %u steps\n",
			seed, n_users, places, off, longest);
		assert_true(off < 5);
		/* all others of its user before it, at the share of the user that has least weight */
		assert_true(longest <= n_sessions * weights / places + 2);
	}
}

/* Every user has streams and short turns that come and go, and long prompts: no place is empty that anybody wants while
 * there are tokens, nobody waits for long, and places and tokens go by weight. */
static void test_all_kinds_where_places_bind(void **state)
{
	(void)state;
	for (unsigned seed = 40; seed < 52; seed++) {
		begin(seed);
		const uint32_t n_users = 2 + below(4), places = 4 + below(12), n_sessions = 120;
		struct sk_schedule_limits limits = {.max_sessions = places,
						    .max_tokens = 20 * places + below(200),
						    .chunk_tokens = 512,
						    .free_tokens = places};
		uint64_t left[MOST_SESSIONS] = {0}, tokens = 0;
		uint32_t waited[MOST_SESSIONS] = {0}, longest = 0, weights = 0;
		double n_in[MOST_USERS] = {0}, all_in = 0, read[MOST_USERS] = {0}, all_read = 0;
		for (uint32_t u = 0; u < n_users; u++)
			weights += users[u].weight = 1 + below(3);
		for (uint32_t i = 0; i < n_sessions; i++)
			wants[i].tenant = &users[i % n_users];
		for (int step = 0; step < 8000; step++) {
			uint32_t n_running = 0, n_wanted = 0;
			for (uint32_t i = 0; i < n_sessions; i++) {
				const bool is_reader = i < 3 * n_users;
				if (!left[i] && (is_reader || below(3)))
					left[i] = is_reader   ? 1000 + below(9000)
						  : below(10) ? 1
							      : 2 + below(4);
				wants[i].n_tokens = left[i];
				n_wanted += left[i] > 0;
			}
			uint32_t total = sk_schedule(&scheduler, wants, n_sessions, &limits);
			bool is_more = false;
			for (uint32_t i = 0; i < n_sessions; i++) {
				const uint32_t n = wants[i].n_granted;
				n_running += n > 0;
				is_more |= n && n < wants[i].n_tokens;
				n_in[user_of(i)] += n > 0;
				read[user_of(i)] += left[i] > 1 ? n : 0;
				all_read += left[i] > 1 ? n : 0;
				all_in += n > 0;
				waited[i] = n || !left[i] ? 0 : waited[i] + 1;
				longest = waited[i] > longest ? waited[i] : longest;
				left[i] -= n;
			}
			assert_true(n_running <= places && total <= limits.max_tokens);
			if (total < limits.max_tokens) {
				assert_int_equal(n_running, n_wanted < places ? n_wanted : places);
				assert_false(is_more);
			}
			tokens += total;
		}
		double off_in = 0, off_read = 0;
		for (uint32_t u = 0; u < n_users; u++) {
			const double share = (double)users[u].weight / weights;
			off_in = greater(off_in, off_percent(n_in[u], all_in * share));
			off_read = greater(off_read, off_percent(read[u], all_read * share));
		}
		print_message(
			"seed %u: %u users, %u places: places %.1f %% off, tokens %.1f %%; steps "
			"%.0f %% full; the longest wait %u steps\n",
			seed, n_users, places, off_in, off_read,
			(double)tokens / 80 / limits.max_tokens, longest);
		assert_true(off_in < 5 && off_read < 5);
		assert_true((double)tokens >= 8000 * 0.9 * limits.max_tokens);
		assert_true(longest <= 2 * n_sessions / n_users * weights);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_steps_are_full),
		cmocka_unit_test(test_short_prompts_beside_many_streams),
		cmocka_unit_test(test_streams_against_a_fluid),
		cmocka_unit_test(test_all_kinds_where_places_bind),
	};
	return sk_test_run(tests, NULL, NULL);
}
