/* Which requests come, and when: open loops, closed ones, traces, conversations. */
#include "client/workload.h"
#include "sk_test.h"

#include <math.h>
#include <string.h>

static struct sk_workload of(uint64_t seed)
{
	return (struct sk_workload){
		.prompt = {SK_UNIFORM, 10, 500},
		.output = {SK_UNIFORM, 1, 90},
		.speedup = 1,
		.burstiness = 1,
		.most_s = INFINITY,
		.random = {seed},
		.gaps = {~seed},
	};
}

static void assert_near(double value, double wanted, double part)
{
	if (fabs(value - wanted) > part * wanted)
		fail_msg("%g is not near %g", value, wanted);
}

/* The gaps' mean and deviation are those of a gamma distribution; Poisson's where the burstiness is 1. */
static void test_open(void **state)
{
	static const double burstinesses[] = {0.25, 1, 16};
	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct sk_workload w = of(5);
		struct sk_planned planned;
		double last_s = 0, sum = 0, squares = 0;
		const int n = 100000;
		w.is_open = true;
		w.rate = 40;
		w.burstiness = burstinesses[i];
		assert_true(sk_workload_next(&w, 0, &planned));
		assert_true(planned.due_s == 0); /* the first is not waited for */
		for (int j = 0; j < n; j++) {
			assert_true(sk_workload_next(&w, 1e6 * j, &planned)); /* late or not */
			double gap_s = planned.due_s - last_s;
			assert_true(gap_s >= 0);
			last_s = planned.due_s;
			sum += gap_s;
			squares += gap_s * gap_s;
		}
		assert_near(sum / n, 1. / 40, 0.03);
		assert_near(sqrt(squares / n - sum / n * (sum / n)),
			    1 / (40 * sqrt(burstinesses[i])), 0.03);
	}
}

static void test_all_at_once(void **state)
{
	struct sk_workload w = of(5);
	struct sk_planned planned;
	(void)state;
	w.is_open = true;
	w.rate = INFINITY;
	w.most = 50;
	assert_int_equal(sk_workload_total(&w), 50);
	for (int i = 0; i < 50; i++) {
		assert_true(sk_workload_next(&w, 3, &planned));
		assert_true(planned.due_s == 0);
	}
	assert_false(sk_workload_next(&w, 3, &planned));
}

static void test_closed(void **state)
{
	struct sk_workload w = of(5);
	struct sk_planned planned;
	(void)state;
	w.most_s = 10;
	assert_int_equal(sk_workload_total(&w), 0);
	assert_true(sk_workload_next(&w, 9.9, &planned));
	assert_true(planned.due_s == 9.9 && planned.cancel_at == -1);
	assert_in_range(planned.n_prompt, 10, 500);
	assert_in_range(planned.n_output, 1, 90);
	assert_false(sk_workload_next(&w, 10, &planned));
}

/* The same seed makes the same requests, in whatever loop; another one others. */
static void test_seeds(void **state)
{
	struct sk_workload a = of(5), b = of(5), c = of(6);
	unsigned n_same = 0;
	(void)state;
	b.is_open = true;
	b.rate = 3;
	for (int i = 0; i < 1000; i++) {
		struct sk_planned x, y, z;
		assert_true(sk_workload_next(&a, i, &x) && sk_workload_next(&b, 0, &y) &&
			    sk_workload_next(&c, i, &z));
		assert_true(x.n_prompt == y.n_prompt && x.n_output == y.n_output &&
			    x.seed == y.seed);
		n_same += x.n_prompt == z.n_prompt;
	}
	assert_in_range(n_same, 0, 20);
}

static void test_trace(void **state)
{
	struct sk_arrival items[] = {{0, 100, 5}, {4, 200, 6}, {4, 300, 7}, {30, 400, 8}};
	struct sk_arrivals trace = {items, 4};
	struct sk_workload w = of(5);
	struct sk_planned planned;
	(void)state;
	w.is_open = true;
	w.trace = &trace;
	w.speedup = 2;
	assert_int_equal(sk_workload_total(&w), 4);
	for (int i = 0; i < 4; i++) {
		assert_true(sk_workload_next(&w, 100, &planned));
		assert_true(planned.due_s == items[i].at_s / 2);
		assert_int_equal(planned.n_prompt, items[i].prompt_tokens);
		assert_int_equal(planned.n_output, items[i].output_tokens);
	}
	assert_false(sk_workload_next(&w, 100, &planned));

	w = of(5); /* its first requests, or its first seconds */
	w.trace = &trace, w.is_open = true, w.most = 3;
	assert_int_equal(sk_workload_total(&w), 3);
	for (int i = 0; i < 3; i++)
		assert_true(sk_workload_next(&w, 0, &planned));
	assert_false(sk_workload_next(&w, 0, &planned));
	w = of(5);
	w.trace = &trace, w.is_open = true, w.most_s = 4;
	assert_true(sk_workload_next(&w, 0, &planned));
	assert_false(sk_workload_next(&w, 0, &planned));
}

static void test_cancels(void **state)
{
	struct sk_workload w = of(5);
	unsigned n_cancelled = 0, n_before_first = 0;
	(void)state;
	w.cancel_rate = 0.3;
	for (int i = 0; i < 20000; i++) {
		struct sk_planned planned;
		assert_true(sk_workload_next(&w, 0, &planned));
		if (planned.cancel_at < 0)
			continue;
		assert_true((uint64_t)planned.cancel_at < planned.n_output);
		n_cancelled++;
		n_before_first += planned.cancel_at == 0;
	}
	assert_near(n_cancelled, 6000, 0.05);
	assert_in_range(n_before_first, 100, 600);
}

/* Turns are requests too, and are due when the last one was answered. */
static void test_turns(void **state)
{
	struct sk_workload w = of(5);
	struct sk_planned planned;
	(void)state;
	w.is_open = true;
	w.rate = 1;
	w.most = 3;
	assert_true(sk_workload_next(&w, 0, &planned));
	assert_true(sk_workload_turn(&w, 7.5, &planned));
	assert_true(planned.due_s == 7.5);
	assert_true(sk_workload_next(&w, 0, &planned));
	assert_true(planned.due_s < 7.5);
	assert_false(sk_workload_turn(&w, 8, &planned));
	assert_false(sk_workload_next(&w, 8, &planned));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),   cmocka_unit_test(test_all_at_once),
		cmocka_unit_test(test_closed), cmocka_unit_test(test_seeds),
		cmocka_unit_test(test_trace),  cmocka_unit_test(test_cancels),
		cmocka_unit_test(test_turns),
	};
	return sk_test_run(tests, NULL, NULL);
}
