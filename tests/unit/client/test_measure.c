/* What several runs come to. */
#include "client/measure.h"
#include "sk_test.h"

#include <math.h>

static struct sk_subject subject = {.n_prompt = 3, .n_generate = 5, .has_speed = true};

static double of(const struct sk_measure *measure, enum sk_quantity quantity,
		 enum sk_statistic statistic)
{
	return sk_measure_value(measure, &subject, quantity, statistic);
}

static void test_medians(void **state)
{
	(void)state;
	struct sk_measure measure = {.n_timed = 3, .ttft_ms = {9, 1, 4}, .tpot_ms = {5, 20, 10}};
	assert_true(of(&measure, SK_TTFT_MS, SK_MEDIAN) == 4);
	assert_true(of(&measure, SK_TTFT_MS, SK_LEAST) == 1);
	assert_true(of(&measure, SK_TTFT_MS, SK_MOST) == 9);
	assert_true(of(&measure, SK_TPOT_MS, SK_MEDIAN) == 10);
	assert_true(of(&measure, SK_TOKENS_PER_S, SK_MEDIAN) == 100);
	assert_true(of(&measure, SK_TOKENS_PER_S, SK_LEAST) == 50);
	assert_true(of(&measure, SK_TOKENS_PER_S, SK_MOST) == 200);
	measure.n_timed = 2;
	assert_true(of(&measure, SK_TTFT_MS, SK_MEDIAN) == 5);
	measure.n_timed = 1;
	assert_true(of(&measure, SK_TTFT_MS, SK_MEDIAN) == 9);
	measure.n_timed = 0;
	assert_true(isnan(of(&measure, SK_TTFT_MS, SK_MEDIAN)));
	assert_true(isnan(of(&measure, SK_TOKENS_PER_S, SK_MEDIAN)));
}

/* A prompt of 3, then 5 drawn, of which 4 run: after 3, 4, 5, 6 entries; with 1+3 after 3, 4, 4, 4. */
static void test_entries(void **state)
{
	(void)state;
	struct sk_measure dense = {.policy = {STREAMKV_DENSE, 0, 0, 0}},
			  streaming = {.policy = {STREAMKV_STREAMING, 1, 3, 0}},
			  slack = {.policy = {STREAMKV_STREAMING, 1, 2, 2}};
	subject.model = (struct streamkv_model){
		.layers = 2, .heads = 3, .head_dim = 5, .matrix_parameters = 1000};
	assert_true(of(&dense, SK_MEAN_LIVE, SK_MEDIAN) == 4.5);
	assert_true(of(&streaming, SK_MEAN_LIVE, SK_MEDIAN) == 3.75);
	assert_true(of(&slack, SK_MEAN_LIVE, SK_MEDIAN) == 3.75); /* 3, 4, 5, then cut to 3 */
	assert_true(of(&dense, SK_FLOPS_PER_TOKEN, SK_MEDIAN) == 2000 + 4 * 2 * 3 * 5 * 5.5);
	assert_true(fabs(sk_measure_change(&streaming, &dense, &subject, SK_MEAN_LIVE) + 100. / 6) <
		    1e-9);
}

static void test_attention(void **state)
{
	(void)state;
	struct sk_measure measure = {.n_profiled_steps = 4, .attention_ns = 2000000};
	assert_true(of(&measure, SK_ATTENTION_MS, SK_MEDIAN) == 0.5);
	measure.n_profiled_steps = 0;
	assert_true(isnan(of(&measure, SK_ATTENTION_MS, SK_MEDIAN)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_medians),
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_attention),
	};
	return sk_test_run(tests, NULL, NULL);
}
