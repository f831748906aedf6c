/* The pace of prompts beside streams, on machines of the test's: a step takes base + rows * token, once the base's reading
 * of weights is dear, once arithmetic is. */
#include "engine/pace.h"
#include "sk_test.h"

#include <stdlib.h>

struct machine {
	double base_ns, decode_ns, prompt_ns; /* a step, and what a row of each kind adds */
};

static const struct machine machines[] = {
	{60e6, 8e6, 10e6},     /* a large model on few cores */
	{2e6, 1e6, 0.8e6},     /* a small one */
	{5e6, 0.05e6, 0.02e6}, /* a GPU */
};

static double noise(double most)
{
	return 1 + most * ((double)rand() / RAND_MAX * 2 - 1);
}

static double step_ns(const struct machine *m, uint32_t n_decoding, uint32_t n_prompt)
{
	return m->base_ns + m->decode_ns * n_decoding + m->prompt_ns * n_prompt;
}

/* A step with prompts that want all that they can get. Returns their tokens. */
static double asked; /* by those who have prompts */

static uint32_t step(struct sk_pace *pace, const struct machine *m, uint32_t n, double most_noise)
{
	uint32_t n_prompt = sk_pace_most(pace, n, asked);
	sk_pace_learn(pace, n, n_prompt, (uint64_t)(step_ns(m, n, n_prompt) * noise(most_noise)));
	return n_prompt;
}

/* Where nothing was known before, and the number of streams stays: the share is kept, and prompts get it. */
static void test_share_is_kept(void **state)
{
	(void)state;
	static const double shares[] = {0.2, 0.5, 0.8};
	for (size_t i = 0; i < sizeof machines / sizeof *machines; i++)
		for (size_t s = 0; s < 3; s++)
			for (uint32_t n = 1; n <= 64; n = n * 3 + 1) {
				const struct machine *m = &machines[i];
				struct sk_pace pace;
				srand((unsigned)n);
				assert_int_equal(sk_pace_init(&pace, shares[s], 64), 0);
				double prompts_ns = 0, all_ns = 0;
				uint32_t n_without = 0;
				for (int t = 0; t < 2000; t++) {
					uint32_t n_prompt = step(&pace, m, n, 0.05);
					if (t < 200)
						continue;
					n_without += !n_prompt;
					prompts_ns += m->prompt_ns * n_prompt;
					all_ns += step_ns(m, n, n_prompt);
					/* none is a tenth longer than it may be, but for one token more */
					assert_true(step_ns(m, n, n_prompt) <=
						    1.1 * step_ns(m, n, 0) / (1 - shares[s]) +
							    m->prompt_ns);
				}
				assert_true(prompts_ns / all_ns > 0.8 * shares[s] ||
					    m->prompt_ns > step_ns(m, n, 0) * shares[s]);
				assert_in_range(n_without, 1, 1800 / 50);
				sk_pace_finish(&pace);
			}
}

/* Streams come and go at every step: prompts go on, and few steps are without any. */
static void test_streams_come_and_go(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
		const struct machine *m = &machines[i];
		struct sk_pace pace;
		srand(7);
		assert_int_equal(sk_pace_init(&pace, 0.5, 64), 0);
		uint32_t n_without = 0;
		for (int t = 0; t < 20000; t++) {
			uint32_t n = 1 + (uint32_t)rand() % 64, n_prompt = step(&pace, m, n, 0.05);
			n_without += !n_prompt;
			if (t > 5000)
				assert_true(m->prompt_ns * n_prompt <=
					    1.4 * step_ns(m, n, 0) + m->prompt_ns);
		}
		assert_true(n_without < 20000 / 12);
		sk_pace_finish(&pace);
	}
}

/* A machine that becomes three times as slow, or fast, is followed. */
static void test_change_is_followed(void **state)
{
	(void)state;
	for (int faster = 0; faster < 2; faster++) {
		struct machine m = machines[1];
		struct sk_pace pace;
		assert_int_equal(sk_pace_init(&pace, 0.5, 8), 0);
		for (int t = 0; t < 500; t++)
			step(&pace, &m, 8, 0);
		const double factor = faster ? 1. / 3 : 3;
		m.prompt_ns *= factor; /* prompts alone: their texts are long now */
		for (int t = 0; t < 300; t++)
			step(&pace, &m, 8, 0);
		const double wanted = step_ns(&m, 8, 0) / m.prompt_ns;
		uint32_t n = step(&pace, &m, 8, 0);
		assert_true(n >= wanted * 0.9 - 1 && n <= wanted * 1.1);
		sk_pace_finish(&pace);
	}
}

/* Short prompts that come now and then have three steps' worth at once; where they come all the time, the share is kept. */
static void test_short_prompts(void **state)
{
	(void)state;
	const struct machine *m = &machines[1];
	const uint32_t n = 8;
	const double step_worth = step_ns(m, n, 0) / m->prompt_ns; /* 12.5 tokens */
	for (uint32_t every = 1; every <= 20; every++) {
		struct sk_pace pace;
		srand(every);
		assert_int_equal(sk_pace_init(&pace, 0.5, 8), 0);
		double prompts_ns = 0, all_ns = 0;
		uint32_t left = 0, most_given = 0;
		for (int t = 0; t < 4000; t++) {
			if (t % (int)every == 0 && !left)
				left = 37;
			uint32_t most = left ? sk_pace_most(&pace, n, 0) : 0,
				 given = most < left ? most : left;
			const double ns = step_ns(m, n, given);
			sk_pace_learn(&pace, n, given, (uint64_t)(ns * noise(0.02)));
			left -= given;
			if (t < 500)
				continue;
			most_given = given > most_given ? given : most_given;
			prompts_ns += m->prompt_ns * given;
			all_ns += ns;
		}
		assert_true(prompts_ns / all_ns < 0.53);
		assert_true(most_given <= 3.2 * step_worth);
		if (every >= 4)
			assert_in_range(most_given, 2.7 * step_worth, 37);
		sk_pace_finish(&pace);
	}
}

/* What prompts alone have shown is enough for the first step beside a stream; one bad measure does not do harm. */
static void test_first_steps(void **state)
{
	(void)state;
	const struct machine *m = &machines[0];
	struct sk_pace pace;
	assert_int_equal(sk_pace_init(&pace, 0.5, 8), 0);
	sk_pace_learn(&pace, 0, 256, (uint64_t)step_ns(m, 0, 256));
	sk_pace_learn(&pace, 1, 0, (uint64_t)step_ns(m, 1, 0));
	assert_in_range(sk_pace_most(&pace, 1, 0), 5, 7); /* 68 ms, of which a token takes 10 */
	sk_pace_learn(&pace, 1, 6, 60000000000);          /* the machine slept */
	sk_pace_learn(&pace, 1, 6, 1);
	assert_in_range(sk_pace_most(&pace, 1, 0), 4, 9);
	sk_pace_finish(&pace);

	assert_int_equal(sk_pace_init(&pace, 0.5, 8), 0);
	assert_int_equal(sk_pace_most(&pace, 3, 0), 0); /* nothing is known: a step without */
	sk_pace_learn(&pace, 3, 0, 1000000);
	assert_in_range(sk_pace_most(&pace, 3, 0), 1, 16);
	sk_pace_finish(&pace);
}

/* The part of those who have prompts, if it is more than what was configured, and up to three quarters. */
static void test_share_follows_what_is_asked(void **state)
{
	(void)state;
	static const double cases[][2] = {
		{0, 0.4}, {0.11, 0.4}, {0.5, 0.5}, {0.7, 0.7}, {0.97, 0.75}};
	const struct machine *m = &machines[2];
	struct sk_pace pace;

	assert_int_equal(sk_pace_init(&pace, 0.4, 8), 0);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		double prompts_ns = 0, all_ns = 0;
		asked = cases[i][0];
		for (int t = 0; t < 2000; t++) {
			uint32_t n_prompt = step(&pace, m, 4, 0.05);
			if (t < 100)
				continue;
			prompts_ns += m->prompt_ns * n_prompt;
			all_ns += step_ns(m, 4, n_prompt);
		}
		const double share = prompts_ns / all_ns;
		if (share < 0.9 * cases[i][1] || share > 1.05 * cases[i][1])
			fail_msg("asked %g: %g, not %g", asked, share, cases[i][1]);
	}
	asked = 0;
	sk_pace_finish(&pace);
}

static void test_no_bound(void **state)
{
	(void)state;
	struct sk_pace pace;
	assert_int_equal(sk_pace_init(&pace, 1, 8), 0);
	for (int t = 0; t < 1000; t++) {
		assert_int_equal(sk_pace_most(&pace, 8, 0), UINT32_MAX);
		sk_pace_learn(&pace, 8, 248, 1000000);
	}
	sk_pace_finish(&pace);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_share_is_kept),
		cmocka_unit_test(test_streams_come_and_go),
		cmocka_unit_test(test_change_is_followed),
		cmocka_unit_test(test_first_steps),
		cmocka_unit_test(test_short_prompts),
		cmocka_unit_test(test_share_follows_what_is_asked),
		cmocka_unit_test(test_no_bound),
	};
	return sk_test_run(tests, NULL, NULL);
}
