#include "engine/scheduler.h"
#include "sk_test.h"

#include <stdbool.h>
#include <stdlib.h>

static void test_limits_hold_and_work_is_conserved(void **state)
{
	(void)state;
	srand(1);
	for (int round = 0; round < 20000; round++) {
		struct sk_want wants[40];
		uint32_t n = (uint32_t)rand() % 40;
		struct sk_schedule_limits limits = {.max_sessions = 1 + (uint32_t)rand() % 16};
		limits.max_tokens = limits.max_sessions + (uint32_t)rand() % 64;
		limits.chunk_tokens = 1 + (uint32_t)rand() % 64;
		bool wanted = false;
		for (uint32_t i = 0; i < n; i++) {
			int kind = rand() % 3;
			wants[i].n_tokens = kind == 0   ? 0
					    : kind == 1 ? 1
							: 2 + (uint64_t)rand() % 200;
			wanted |= wants[i].n_tokens > 0;
		}
		uint32_t total = sk_schedule(wants, n, (uint64_t)rand(), &limits), sum = 0,
			 n_sessions = 0;
		for (uint32_t i = 0; i < n; i++) {
			assert_true(wants[i].n_granted <= wants[i].n_tokens);
			assert_true(wants[i].n_granted <= limits.chunk_tokens);
			sum += wants[i].n_granted;
			n_sessions += wants[i].n_granted > 0;
		}
		assert_int_equal(total, sum);
		assert_true(n_sessions <= limits.max_sessions);
		assert_true(sum <= limits.max_tokens);
		assert_int_equal(total > 0, wanted);
	}
}

static void test_a_long_prompt_does_not_stall_streams(void **state)
{
	(void)state;
	struct sk_schedule_limits limits = {
		.max_sessions = 8, .max_tokens = 64, .chunk_tokens = 64};
	struct sk_want wants[4] = {
		{.n_tokens = 1000000}, {.n_tokens = 1}, {.n_tokens = 1}, {.n_tokens = 500}};
	for (uint64_t turn = 0; turn < 8; turn++) {
		sk_schedule(wants, 4, turn, &limits);
		assert_int_equal(wants[1].n_granted, 1);
		assert_int_equal(wants[2].n_granted, 1);
		assert_int_equal(wants[0].n_granted + wants[3].n_granted, 62);
	}
}

static void test_nobody_starves(void **state)
{
	(void)state;
	struct sk_schedule_limits limits = {
		.max_sessions = 4, .max_tokens = 16, .chunk_tokens = 16};
	struct sk_want wants[12];
	uint64_t granted[12] = {0};
	for (uint64_t turn = 0; turn < 1200; turn++) {
		for (int i = 0; i < 12; i++)
			wants[i].n_tokens = i < 8 ? 1 : 100;
		sk_schedule(wants, 12, turn, &limits);
		for (int i = 0; i < 12; i++)
			granted[i] += wants[i].n_granted;
	}
	for (int i = 0; i < 12; i++)
		assert_true(granted[i] >= 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits_hold_and_work_is_conserved),
		cmocka_unit_test(test_a_long_prompt_does_not_stall_streams),
		cmocka_unit_test(test_nobody_starves),
	};
	return sk_test_run(tests, NULL, NULL);
}
