/* Durations as people write and read them. */
#include "sk_test.h"

#include "base/duration.h"

#include <string.h>

#define S UINT64_C(1000000000)

static void what_is_read(void **state)
{
	static const struct {
		const char *text;
		uint64_t ns;
	} good[] = {{"0", 0},           {"90", 90 * S},     {"90s", 90 * S},
		    {"0.5", S / 2},     {"250ms", S / 4},   {"10m", 600 * S},
		    {"1.5h", 5400 * S}, {"7d", 604800 * S}, {"36500d", SK_DURATION_MOST_NS}};
	static const char *const bad[] = {"",     "s",    "-1s",    "+1s",     " 1s",      "1 s",
					  "1s ",  "1S",   "1w",     "1e3",     "0x10s",    "1.2.3s",
					  "1,5s", "inf",  "nan",    ".5s",     ".",        "1h30m",
					  "1sx",  "1mss", "36501d", "999999d", "1e999999d"};
	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		uint64_t ns = 1;
		if (!sk_duration_parse(good[i].text, &ns) || ns != good[i].ns)
			fail_msg("'%s' is %llu", good[i].text, (unsigned long long)ns);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		uint64_t ns = 77;
		if (sk_duration_parse(bad[i], &ns))
			fail_msg("'%s' was taken", bad[i]);
		assert_int_equal(ns, 77);
	}
}

static void what_is_shown(void **state)
{
	static const struct {
		uint64_t ns;
		const char *text;
	} cases[] = {{0, "0.0s"},
		     {S / 4, "0.2s"},
		     {10 * S - 1, "9.9s"},
		     {10 * S, "10s"},
		     {120 * S - 1, "119s"},
		     {120 * S, "2m"},
		     {7200 * S - 1, "119m"},
		     {7200 * S, "2h"},
		     {48 * 3600 * S - 1, "47h"},
		     {7 * 86400 * S, "7d"},
		     {UINT64_MAX, "213503d"}};
	char text[SK_DURATION_BYTES];
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_ptr_equal(sk_duration_print(cases[i].ns, text), text);
		assert_string_equal(text, cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_read),
		cmocka_unit_test(what_is_shown),
	};
	return sk_test_run(tests, NULL, NULL);
}
