/* What measurements come to: percentiles, fairness, goodput, and the figures of a load. */
#include "client/serving.h"
#include "sk_test.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static void assert_close(double value, double wanted)
{
	if (!(fabs(value - wanted) <= 1e-6 * fmax(1, fabs(wanted))))
		fail_msg("%.9g is not %.9g", value, wanted);
}

static void test_percentiles(void **state)
{
	struct sk_sample s = {0};
	(void)state;
	assert_true(isnan(sk_sample_mean(&s)) && isnan(sk_sample_percentile(&s, 50)));
	sk_sample_add(&s, 7);
	for (int p = 0; p <= 100; p += 25)
		assert_close(sk_sample_percentile(&s, p), 7);
	sk_sample_finish(&s);
	for (int i = 100; i >= 0; i--) /* 0 to 100, backwards */
		assert_int_equal(sk_sample_add(&s, i), 0);
	assert_close(sk_sample_percentile(&s, 0), 0);
	assert_close(sk_sample_percentile(&s, 50), 50);
	assert_close(sk_sample_percentile(&s, 90), 90);
	assert_close(sk_sample_percentile(&s, 99.5), 99.5);
	assert_close(sk_sample_percentile(&s, 100), 100);
	assert_close(sk_sample_mean(&s), 50);
	sk_sample_add(&s, -1000); /* after it was sorted */
	assert_close(sk_sample_percentile(&s, 0), -1000);
	assert_close(sk_sample_percentile(&s, 100), 100);
	sk_sample_finish(&s);
	sk_sample_add(&s, 10);
	sk_sample_add(&s, 20);
	assert_close(sk_sample_percentile(&s, 50), 15);
	assert_close(sk_sample_percentile(&s, 90), 19);
	sk_sample_finish(&s);
}

static void test_jain(void **state)
{
	(void)state;
	assert_close(sk_jain((double[]){5, 5, 5, 5}, 4), 1);
	assert_close(sk_jain((double[]){0, 0, 9, 0}, 4), 0.25);
	assert_close(sk_jain((double[]){1, 2, 3}, 3), 36. / 42);
	assert_close(sk_jain((double[]){8}, 1), 1);
	assert_true(isnan(sk_jain((double[]){0, 0}, 2)) && isnan(sk_jain(NULL, 0)));
}

static void test_goodput(void **state)
{
	static const char *const bad[] = {
		"",           "ttft",    "ttft:", "ttft:x",   "ttft:-5",       "ttft:5,",
		",ttft:5",    "ttft:5 ", "itl:5", "ttft:inf", "ttft:5,ttft:6", "ttft:5;tpot:6",
		"ttft:1.2.3", "ttft:0x5"};
	struct sk_goodput g;
	struct sk_diag diag;
	(void)state;
	assert_int_equal(sk_goodput_parse("ttft:500,tpot:40", &g, &diag), 0);
	assert_true(sk_goodput_is_met(&g, 500, 40, 1e9));
	assert_false(sk_goodput_is_met(&g, 500.1, 40, 1));
	assert_false(sk_goodput_is_met(&g, 500, 40.1, 1));
	assert_true(sk_goodput_is_met(&g, 1, NAN, 1)); /* an answer of one token */
	assert_int_equal(sk_goodput_parse("e2e:1.5", &g, &diag), 0);
	assert_true(sk_goodput_is_met(&g, 1e9, 1e9, 1.5));
	assert_false(sk_goodput_is_met(&g, 0, 0, 1.6));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		if (sk_goodput_parse(bad[i], &g, &diag) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
	}
}

/* A request of so many tokens, `first_s` after it was due, then one every gap_s. */
static void add(struct sk_records *records, struct sk_record record, double first_s, double gap_s,
		uint64_t n_tokens)
{
	record.first_s = record.last_s = NAN;
	record.prompt_tokens = record.evaluated_tokens = record.prompt_asked;
	record.generated_tokens = n_tokens;
	record.output_asked = record.output_asked ? record.output_asked : n_tokens;
	for (uint64_t i = 0; i < n_tokens; i++)
		assert_int_equal(
			sk_record_token(&record, record.due_s + first_s + gap_s * (double)i, 7e-6),
			0);
	assert_int_equal(sk_records_add(records, &record), 0);
}

/* Times count from when a request was due, however late it was sent. */
static void test_times(void **state)
{
	struct sk_records records = {0};
	(void)state;
	add(&records, (struct sk_record){.due_s = 2, .sent_s = 2.9}, 1, 0.05, 11);
	add(&records, (struct sk_record){.due_s = 2}, 1, 0, 1);
	add(&records, (struct sk_record){.due_s = 2}, 0, 0, 0);
	const struct sk_record *r = records.items;
	assert_close(sk_record_ttft_ms(r), 1000);
	assert_close(sk_record_tpot_ms(r), 50);
	assert_close(sk_record_e2e_ms(r), 1500);
	assert_close(sk_record_ttft_ms(r + 1), 1000);
	assert_true(isnan(sk_record_tpot_ms(r + 1)));
	assert_true(isnan(sk_record_ttft_ms(r + 2)) && isnan(sk_record_e2e_ms(r + 2)));
	sk_records_finish(&records);
}

static void test_serving(void **state)
{
	struct sk_goodput goodput;
	struct sk_records records = {0};
	struct sk_serving s;
	(void)state;
	assert_int_equal(sk_goodput_parse("ttft:150", &goodput, NULL), 0);
	add(&records,
	    (struct sk_record){.outcome = SK_OUTCOME_DONE, .client = 1, .prompt_asked = 10}, 0.1,
	    0.01, 21);
	add(&records,
	    (struct sk_record){.outcome = SK_OUTCOME_DONE, .client = 2, .prompt_asked = 20}, 0.2,
	    0.03, 11);
	add(&records,
	    (struct sk_record){
		    .outcome = SK_OUTCOME_DONE, .client = 0, .is_slow = true, .prompt_asked = 5},
	    9, 9, 4);
	add(&records,
	    (struct sk_record){.outcome = SK_OUTCOME_CANCELLED, .client = 2, .prompt_asked = 7}, 5,
	    5, 3);
	add(&records, (struct sk_record){.outcome = SK_OUTCOME_REFUSED}, 0, 0, 0);
	add(&records, (struct sk_record){.outcome = SK_OUTCOME_FAILED, .output_asked = 9}, 8, 8, 2);
	records.items[1].prompt_tokens = 22; /* other than asked */
	records.items[1].output_asked = 12;
	records.items[0].queue_ns = 4000000;
	assert_int_equal(sk_serving_init(&records, 4, 1, 10, &goodput, &s), 0);
	assert_int_equal(s.n_outcomes[SK_OUTCOME_DONE], 3);
	assert_int_equal(s.n_outcomes[SK_OUTCOME_CANCELLED], 1);
	assert_int_equal(s.n_outcomes[SK_OUTCOME_REFUSED], 1);
	assert_int_equal(s.n_outcomes[SK_OUTCOME_FAILED], 1);
	assert_int_equal(s.n_slow, 1);
	assert_int_equal(s.n_good, 1);
	assert_int_equal(s.n_short, 1);
	assert_int_equal(s.n_off, 1);
	assert_int_equal(s.most_off, 2);
	assert_int_equal(s.output_tokens, 21 + 11 + 4 + 3 + 2); /* of all */
	assert_int_equal(s.prompt_tokens, 10 + 20 + 5 + 7);
	assert_int_equal(s.latencies[SK_TTFT].n,
			 2); /* of what was answered whole, and read at once */
	assert_close(sk_sample_mean(&s.latencies[SK_TTFT]), 150);
	assert_close(sk_sample_mean(&s.latencies[SK_TPOT]), 20);
	assert_close(sk_sample_percentile(&s.latencies[SK_E2E], 100), 500);
	assert_close(sk_sample_percentile(&s.latencies[SK_QUEUE], 100), 4);
	assert_int_equal(s.latencies[SK_ITL].n, 30);
	assert_true(fabs(sk_sample_mean(&s.latencies[SK_ITL]) - (20 * 10 + 10 * 30) / 30.) < 1e-3);
	assert_int_equal(s.latencies[SK_HANDOVER].n, 32);
	assert_true(fabs(sk_sample_percentile(&s.latencies[SK_HANDOVER], 50) - 7) < 1e-3);
	assert_close(s.jain, sk_jain((double[]){21, 14, 0}, 3)); /* the first one is slow */
	sk_serving_finish(&s);
	sk_records_finish(&records);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_percentiles), cmocka_unit_test(test_jain),
		cmocka_unit_test(test_goodput),     cmocka_unit_test(test_times),
		cmocka_unit_test(test_serving),
	};
	return sk_test_run(tests, NULL, NULL);
}
