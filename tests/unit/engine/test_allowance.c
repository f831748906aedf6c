/* Tokens a second, on a clock of the test's: the bucket against exact arithmetic, and whose turn it is. */
#include "engine/allowance.h"
#include "sk_test.h"

#include <stdbool.h>
#include <string.h>

#define SECOND_NS 1000000000u
#define N         8 /* sessions */

static struct sk_scheduler scheduler;
static struct sk_tenant limited, other;
static struct sk_share shares[N];
static struct sk_want wants[N];
static uint64_t had[N]; /* tokens */

static uint32_t below(uint32_t n)
{
	return (uint32_t)rand() % n;
}

/* Sessions [0, n_limited) are the limited user's, the others the other's. */
static void begin(unsigned seed, uint32_t n_limited)
{
	srand(seed);
	memset(&scheduler, 0, sizeof scheduler);
	memset(shares, 0, sizeof shares);
	memset(had, 0, sizeof had);
	limited = other = (struct sk_tenant){.weight = 1};
	for (uint32_t i = 0; i < N; i++)
		wants[i] = (struct sk_want){.tenant = i < n_limited ? &limited : &other,
					    .share = &shares[i]};
}

static void test_the_bucket(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < 200; seed++) {
		srand(seed);
		const uint64_t rate = seed < 20 ? 1 + seed : 1 + below(seed % 2 ? 100 : 1u << 30);
		struct sk_allowance allowance = {.per_second = rate};
		const unsigned __int128 full = (unsigned __int128)rate * SECOND_NS;
		unsigned __int128 level = full; /* in tokens / SECOND_NS */
		uint64_t now_ns = below(2) ? 0 : 1 + below(1u << 30), taken = 0, begun_ns = now_ns;
		for (int i = 0; i < 2000; i++) {
			uint64_t left = sk_allowance_left(&allowance, now_ns),
				 exact = (uint64_t)(level / SECOND_NS);
			assert_in_range(left, exact, exact + 1 + i * rate / SECOND_NS);
			uint64_t n = left ? 1 + below(left > 1000 ? 1000 : (uint32_t)left) : 0;
			wants[0] = (struct sk_want){
				.tenant = &limited, .share = &shares[0], .n_granted = (uint32_t)n};
			sk_allowance_take(&allowance, &limited, wants, 1, now_ns);
			taken += n;
			level -= (unsigned __int128)n * SECOND_NS > level
					 ? level
					 : (unsigned __int128)n * SECOND_NS;

			uint64_t wanted = 1 + below(rate > 1000 ? 1000 : (uint32_t)rate),
				 when_ns = sk_allowance_when(&allowance, wanted);
			assert_true(sk_allowance_left(&allowance, when_ns) >= wanted);
			if (when_ns > now_ns)
				assert_true(sk_allowance_left(&allowance, when_ns - 1) < wanted);
			uint64_t pass_ns =
				when_ns > now_ns && below(2) ? when_ns - now_ns : below(50000000);
			now_ns += pass_ns;
			level += (unsigned __int128)pass_ns * rate;
			level = level > full ? full : level;
		}
		/* No more than the rate and a second's worth to begin with. */
		unsigned __int128 most = full + (unsigned __int128)(now_ns - begun_ns) * rate;
		assert_true(taken <= most / SECOND_NS + 1);
	}
}

/* A step at that time, of 64 tokens. Returns how many ran. */
static uint32_t step(struct sk_allowance *allowance, const uint64_t *wanted, uint64_t now_ns,
		     uint64_t *ret_until_ns)
{
	const struct sk_schedule_limits limits = {
		.max_sessions = N, .max_tokens = 64, .chunk_tokens = 64, .free_tokens = N};
	for (uint32_t i = 0; i < N; i++)
		wants[i].n_tokens = wanted[i];
	*ret_until_ns = sk_allowance_cut(allowance, &limited, wants, N, 64, now_ns);
	uint32_t n = sk_schedule(&scheduler, wants, N, &limits);
	sk_allowance_take(allowance, &limited, wants, N, now_ns);
	for (uint32_t i = 0; i < N; i++)
		had[i] += wants[i].n_granted;
	return n;
}

/* Sleeps as it is told to and never runs for nothing; gets what the rate says, to the token. */
static void test_alone_it_runs_at_its_rate(void **state)
{
	(void)state;
	const uint64_t rates[] = {1, 7, 31, 32, 33, 100, 1000, 6000};
	for (size_t r = 0; r < sizeof rates / sizeof *rates; r++) {
		begin(1, N);
		struct sk_allowance allowance = {.per_second = rates[r]};
		const uint64_t wanted[N] = {1000000, 1, 1};
		uint64_t now_ns = 5, until_ns, n_steps = 0;
		while (now_ns < 20ull * SECOND_NS) {
			if (step(&allowance, wanted, now_ns, &until_ns)) {
				assert_int_equal(until_ns, 0);
				n_steps++;
				now_ns += 10000000;
			} else {
				assert_true(until_ns > now_ns);
				now_ns = until_ns;
			}
		}
		uint64_t all = had[0] + had[1] + had[2], piece = rates[r] < 32 ? rates[r] : 32;
		assert_in_range(all, 20 * rates[r], 21 * rates[r]);
		/* Each has its part, whatever it wants at once; the prompt in pieces. */
		if (rates[r] <= 100) {
			uint64_t off = rates[r] + piece; /* a prompt has more of the first second */
			for (int i = 0; i < 3; i++)
				assert_in_range(had[i] + off, all / 3, all / 3 + 2 * off);
			assert_true(n_steps <= had[1] + had[2] + had[0] / piece + 1);
		}
	}
}

/* Nothing is kept from those whom the limit is not about, nor from those who stay below it. */
static void test_others_are_not_touched(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < 50; seed++) {
		begin(seed, 4);
		struct sk_allowance allowance = {.per_second = 1 + below(300)};
		uint64_t now_ns = 0, until_ns, limits_had = 0;
		for (int i = 0; i < 5000; i++) {
			uint64_t wanted[N], own = 0;
			for (uint32_t s = 0; s < N; s++) {
				uint32_t kind = below(4);
				wanted[s] = kind < 3 ? kind % 2 : 2 + below(60);
				own += s < 4 ? wanted[s] : 0;
			}
			uint64_t left = sk_allowance_left(&allowance, now_ns), got = 0;
			step(&allowance, wanted, now_ns, &until_ns);
			uint64_t fits = own <= left;
			for (uint32_t s = 0; s < N; s++) {
				got += s < 4 ? wants[s].n_granted : 0;
				assert_true(wants[s].n_tokens <= wanted[s]);
				if (s >= 4 || fits) /* a step may be too short for all */
					assert_int_equal(wants[s].n_tokens, wanted[s]);
			}
			assert_true(got <= left);
			limits_had += got;
			now_ns += 1 + below(20000000);
		}
		assert_true(limits_had <= allowance.per_second * (now_ns / SECOND_NS + 2));
	}
	begin(0, 4);
	struct sk_allowance none = {.per_second = 0};
	const uint64_t wanted[N] = {1, 1, 500, 0, 1, 0, 0, 300};
	uint64_t until_ns;
	assert_int_equal(step(&none, wanted, 1, &until_ns), 64);
	assert_int_equal(until_ns, 0);
	assert_int_equal(had[0] + had[1] + had[4], 3);
}

/* Who was away comes next, but not for as long as it was. */
static void test_no_credit_is_saved_up(void **state)
{
	(void)state;
	begin(3, N);
	struct sk_allowance allowance = {.per_second = 100};
	uint64_t now_ns = 0, until_ns;
	uint64_t wanted[N] = {1, 0};
	for (int i = 0; i < 6000; i++, now_ns += 10000000)
		step(&allowance, wanted, now_ns, &until_ns);
	assert_in_range(had[0], 5900, 6100);
	wanted[1] = 1000000;
	uint64_t before = had[0];
	for (int i = 0; i < 6000; i++, now_ns += 10000000)
		step(&allowance, wanted, now_ns, &until_ns);
	assert_in_range(had[0] - before, 2900, 3200);
	assert_in_range(had[1], 2900, 3200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_bucket),
		cmocka_unit_test(test_alone_it_runs_at_its_rate),
		cmocka_unit_test(test_others_are_not_touched),
		cmocka_unit_test(test_no_credit_is_saved_up),
	};
	return sk_test_run(tests, NULL, NULL);
}
