/* How lengths are spread, and the random numbers behind it. */
#include "client/distribution.h"
#include "sk_test.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define N 200000

static struct sk_distribution of(const char *text)
{
	struct sk_distribution d;
	struct sk_diag diag;
	if (sk_distribution_parse(text, &d, &diag) < 0)
		fail_msg("%s", diag.text);
	return d;
}

struct moments {
	double mean, deviation, least, most, median_share; /* below or at `median` */
};

static struct moments measure(const char *text, double median)
{
	struct sk_distribution d = of(text);
	struct sk_random random = {7};
	struct moments m = {.least = INFINITY};
	double sum = 0, squares = 0;
	unsigned n_below = 0;

	for (int i = 0; i < N; i++) {
		double x = (double)sk_distribution_draw(&d, &random);
		sum += x;
		squares += x * x;
		m.least = fmin(m.least, x);
		m.most = fmax(m.most, x);
		n_below += x <= median;
	}
	m.mean = sum / N;
	m.deviation = sqrt(squares / N - m.mean * m.mean);
	m.median_share = (double)n_below / N;
	return m;
}

static void assert_near(double value, double wanted, double part)
{
	if (fabs(value - wanted) > part * wanted)
		fail_msg("%g is not near %g", value, wanted);
}

static void test_shapes(void **state)
{
	(void)state;
	struct moments m = measure("128", 128);
	assert_true(m.least == 128 && m.most == 128);
	m = measure("uniform:3-6", 4);
	assert_true(m.least == 3 && m.most == 6);
	assert_near(m.mean, 4.5, 0.01);
	assert_near(m.median_share, 0.5, 0.01);
	m = measure("uniform:5-5", 5);
	assert_true(m.least == 5 && m.most == 5);
	m = measure("normal:1000,50", 1000);
	assert_near(m.mean, 1000, 0.002);
	assert_near(m.deviation, 50, 0.02);
	m = measure("lognormal:400,0.5", 400);
	assert_near(m.median_share, 0.5, 0.01);
	assert_near(m.mean, 400 * exp(0.125), 0.01);
	m = measure("exp:1000", 1000 * log(2));
	assert_near(m.mean, 1000, 0.01);
	assert_near(m.deviation, 1000, 0.02);
	assert_near(m.median_share, 0.5, 0.01);
}

/* What is drawn is at least a token, and no more than any cache holds. */
static void test_bounds(void **state)
{
	(void)state;
	assert_true(measure("normal:1,100", 0).least == 1);
	assert_true(measure("exp:1", 0).least == 1);
	assert_true(measure("lognormal:16000000,9", 0).most == SK_DISTRIBUTION_MOST);
}

static void test_what_is_none(void **state)
{
	static const char *const bad[] = {"",
					  "0",
					  "-1",
					  "1.5",
					  "nan",
					  "inf",
					  "0x10",
					  "1e3",
					  " 5",
					  "5 ",
					  "5x",
					  "99999999999",
					  "uniform:",
					  "uniform:5",
					  "uniform:6-5",
					  "uniform:0-5",
					  "uniform:1.5-5",
					  "uniform:1,5",
					  "uniform:1-5-6",
					  "normal:5",
					  "normal:5,",
					  "normal:,5",
					  "normal:0,5",
					  "normal:5,-1",
					  "lognormal:5",
					  "exp:",
					  "exp:0",
					  "exp:5,5",
					  "exp:1..5",
					  "poisson:5",
					  "uniform"};
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct sk_distribution d;
		struct sk_diag diag = {""};
		if (sk_distribution_parse(bad[i], &d, &diag) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
		assert_non_null(strstr(diag.text, "uniform:32-512"));
	}
}

static void test_random(void **state)
{
	struct sk_random a = {3}, b = {3}, c = {4};
	unsigned n_different = 0, counts[3] = {0};
	(void)state;

	for (int i = 0; i < 100; i++) {
		uint64_t x = sk_random_next(&a);
		assert_int_equal(x, sk_random_next(&b));
		n_different += x != sk_random_next(&c);
	}
	assert_int_equal(n_different, 100);
	for (int i = 0; i < 30000; i++)
		counts[sk_random_below(&a, 3)]++;
	for (int i = 0; i < 3; i++)
		assert_near(counts[i], 10000, 0.05);
}

/* Its mean is its shape, and so is its variance. */
static void test_gamma(void **state)
{
	static const double shapes[] = {0.2, 0.7, 1, 3, 50};
	(void)state;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		struct sk_random random = {11};
		double sum = 0, squares = 0, shape = shapes[i];
		for (int j = 0; j < N; j++) {
			double x = sk_random_gamma(&random, shape);
			assert_true(x >= 0 && isfinite(x));
			sum += x;
			squares += x * x;
		}
		assert_near(sum / N, shape, 0.02);
		assert_near(squares / N - sum / N * (sum / N), shape, 0.04);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes),       cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_what_is_none), cmocka_unit_test(test_random),
		cmocka_unit_test(test_gamma),
	};
	return sk_test_run(tests, NULL, NULL);
}
