/* Stop strings found in text that comes in any portions: always as if it had come at once. */
#include "engine/stops.h"
#include "sk_test.h"

#include <string.h>

static struct sk_stop stop(const char *text)
{
	struct sk_stop s = {.n_bytes = (uint32_t)strlen(text)};
	memcpy(s.bytes, text, s.n_bytes);
	return s;
}

/* Feeds `text` in pieces of `portion` bytes; returns the match and leaves what was delivered in
 * out. */
static int feed(const struct sk_stop *list, uint32_t n, const char *text, size_t portion, char *out)
{
	struct sk_stops stops;
	uint8_t piece[SK_STOPS_MOST_OUT];
	size_t n_text = strlen(text), n_out = 0;
	int matched = -1;

	sk_stops_init(&stops, list, n);
	for (size_t at = 0; at < n_text && matched < 0; at += portion) {
		size_t k = portion < n_text - at ? portion : n_text - at;
		size_t got = sk_stops_push(&stops, (const uint8_t *)text + at, k, piece, &matched);
		memcpy(out + n_out, piece, got);
		n_out += got;
	}
	if (matched < 0) {
		size_t got = sk_stops_flush(&stops, piece);
		memcpy(out + n_out, piece, got);
		n_out += got;
	}
	out[n_out] = '\0';
	return matched;
}

static void test_every_portion(void **state)
{
	(void)state;
	struct sk_stop list[] = {stop("###"), stop("\n\nUser:"), stop("aab")};
	const struct {
		const char *text, *delivered;
		int matched;
	} cases[] = {
		{"plain text", "plain text", -1},
		{"one ## two", "one ## two", -1},
		{"one ### two", "one ", 0},
		{"ends with ##", "ends with ##", -1},
		{"hello\n\nUser: me", "hello", 1},
		{"hello\n\nUse", "hello\n\nUse", -1},
		{"aaaaab", "aaa", 2},
		{"\n\nU##\n\nUser:", "\n\nU##", 1},
		{"###", "", 0},
		{"an aab, then ###", "an ", 2},
		{"an ### then aab", "an ", 0},
		{"", "", -1},
	};
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		for (size_t portion = 1; portion <= 32; portion += portion < 8 ? 1 : 24) {
			char out[256];
			assert_int_equal(feed(list, 3, cases[i].text, portion, out),
					 cases[i].matched);
			assert_string_equal(out, cases[i].delivered);
		}
	}
}

static void test_without_stops_nothing_is_held(void **state)
{
	(void)state;
	struct sk_stops stops;
	uint8_t out[SK_STOPS_MOST_OUT];
	int matched;
	sk_stops_init(&stops, NULL, 0);
	assert_int_equal(sk_stops_push(&stops, (const uint8_t *)"abc", 3, out, &matched), 3);
	assert_int_equal(matched, -1);
	assert_int_equal(sk_stops_flush(&stops, out), 0);
}

static void test_the_longest_token_and_stop_fit(void **state)
{
	(void)state;
	static struct sk_stop longest = {.n_bytes = SK_STOP_MOST_BYTES};
	static uint8_t token[SK_DETOKENIZER_MOST], out[SK_STOPS_MOST_OUT];
	struct sk_stops stops;
	int matched;
	memset(longest.bytes, 'x', SK_STOP_MOST_BYTES);
	memset(token, 'y', sizeof token);
	memset(token + sizeof token - (SK_STOP_MOST_BYTES - 1), 'x', SK_STOP_MOST_BYTES - 1);
	sk_stops_init(&stops, &longest, 1);
	assert_int_equal(sk_stops_push(&stops, token, sizeof token, out, &matched),
			 sizeof token - 255);
	token[0] = 'y';
	assert_int_equal(sk_stops_push(&stops, token, sizeof token, out, &matched), sizeof token);
	assert_int_equal(matched, -1);
	assert_int_equal(sk_stops_push(&stops, (const uint8_t *)"x", 1, out, &matched), 0);
	assert_int_equal(matched, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_portion),
		cmocka_unit_test(test_without_stops_nothing_is_held),
		cmocka_unit_test(test_the_longest_token_and_stop_fit),
	};
	return sk_test_run(tests, NULL, NULL);
}
