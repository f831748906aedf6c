/* The scheduler where streams decode beside prompts: what tokens that are generated cost, and whom. */
#define MOST_USERS    6
#define MOST_SESSIONS 40
#include "scheduled.h"

/* What one has generated while nobody wanted more is not held against one's prompts later. */
static void test_decoding_alone_costs_nothing(void **state)
{
	(void)state;
	begin(7);
	struct sk_schedule_limits limits = {
		.max_sessions = 40, .max_tokens = 64, .chunk_tokens = 64, .free_tokens = 8};
	uint64_t had[2] = {0};
	for (int i = 0; i < 22; i++)
		wants[i].tenant = &users[i < 21];
	for (int step = 0; step < 1200; step++) {
		for (int i = 0; i < 22; i++)
			wants[i].n_tokens = i < 20 ? 1 : step < 1000 ? 0 : 1000;
		if (step >= 1000)
			for (int i = 0; i < 16; i++)
				wants[i].n_tokens = 0; /* few go on */
		sk_schedule(&scheduler, wants, 22, &limits);
		had[0] += wants[20].n_granted;
		had[1] += wants[21].n_granted;
	}
	assert_in_range(had[0], 200 * 30 - 32, 200 * 30 + 32);
	assert_in_range(had[1], 200 * 30 - 32, 200 * 30 + 32);
}

/* Where steps are bound by arithmetic, tokens that are generated count as well. */
static void test_decoding_counts_where_it_costs(void **state)
{
	(void)state;
	for (int costs = 0; costs < 2; costs++) {
		begin(6);
		struct sk_schedule_limits limits = {.max_sessions = 40,
						    .max_tokens = 64,
						    .chunk_tokens = 64,
						    .free_tokens = costs ? 8 : 64};
		uint64_t had = 0, all = 0;
		for (int i = 0; i < 22; i++)
			wants[i].tenant = &users[i < 21];
		for (int step = 0; step < 1000; step++) {
			for (int i = 0; i < 22; i++)
				wants[i].n_tokens =
					i < 20 ? 1 : 1000; /* 20 streams and a prompt; a prompt */
			all += sk_schedule(&scheduler, wants, 22, &limits);
			had += wants[21].n_granted;
		}
		/* of 64 a step: half of what prompts get, or half of all */
		if (costs)
			assert_in_range(had, 31500, 32500);
		else
			assert_in_range(had, 21500, 22500);
		assert_int_equal(all, 64000);
	}
}

/* A session that decodes while another user's prompts want the step has no debt with its own user's from that. */
static void test_decoding_is_no_debt_of_the_session(void **state)
{
	(void)state;
	begin(8);
	struct sk_schedule_limits limits = {
		.max_sessions = 64, .max_tokens = 256, .chunk_tokens = 256, .free_tokens = 8};
	for (int i = 34; i < 38; i++)
		wants[i].tenant = &users[1];
	for (int step = 0; step < 3000; step++) {
		for (int i = 0; i < 38; i++)
			wants[i].n_tokens = i < 34 ? 1 : 1000;
		sk_schedule(&scheduler, wants, 38, &limits);
	}
	/* The stream has ended, and its session sends a short prompt; a new one, a long prompt. */
	int n_steps = 0;
	for (uint32_t left = 20; left > 1; n_steps++) {
		for (int i = 0; i < 39; i++)
			wants[i].n_tokens = i < 33 ? 1 : i < 34 ? left : 100000;
		sk_schedule(&scheduler, wants, 39, &limits);
		left -= wants[33].n_granted;
	}
	assert_in_range(n_steps, 1, 2);
}

/* Each user counts by weight, however many sessions are whose. */
static void test_part_of_those_with_prompts(void **state)
{
	(void)state;
	begin(9);
	assert_true(sk_schedule_part_of_prompts(wants, 0) == 0);
	for (int i = 0; i < 33; i++) {
		wants[i].tenant = &users[i == 32];
		wants[i].n_tokens = i < 8 ? 100 : 1;
	}
	users[0].weight = users[1].weight = 1;
	assert_float_equal(sk_schedule_part_of_prompts(wants, 32), 0.25, 1e-9);
	assert_float_equal(sk_schedule_part_of_prompts(wants, 33), 0.125, 1e-9);
	wants[32].n_tokens = 5000;
	assert_float_equal(sk_schedule_part_of_prompts(wants, 33), 0.625, 1e-9);
	users[1].weight = 3;
	assert_float_equal(sk_schedule_part_of_prompts(wants, 33), (0.25 + 3) / 4, 1e-9);
	for (int i = 0; i < 24; i++)
		wants[8 + i].n_tokens = 0; /* they wait for something else */
	assert_float_equal(sk_schedule_part_of_prompts(wants, 33), 1, 1e-9);
	for (int i = 0; i < 33; i++)
		wants[i].n_tokens = 0;
	assert_true(sk_schedule_part_of_prompts(wants, 33) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decoding_alone_costs_nothing),
		cmocka_unit_test(test_decoding_counts_where_it_costs),
		cmocka_unit_test(test_decoding_is_no_debt_of_the_session),
		cmocka_unit_test(test_part_of_those_with_prompts),
	};
	return sk_test_run(tests, NULL, NULL);
}
