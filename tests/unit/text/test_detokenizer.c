/* The detokenizer: whatever the tokens, its output never ends within a UTF-8 sequence that could still become whole,
 * and nothing is lost, doubled or put in another order. */
#include "sk_test.h"
#include "text/detokenizer.h"
#include "text/tokenizer_impl.h"

#include <string.h>
#include <utf8proc.h>

/* Ids 0 to 255 are the bytes, 256 is special, 257 not, 258 is longer than the buffer, 259 is a gap, 260 a mark. */
enum { SPECIAL = 256, ADDED, LONG, GAP, LAST, LONG_BYTES = 2 * SK_DETOKENIZER_MOST + 2 };

static struct sk_tokenizer *tokenizer;

static int open_tokenizer(void **state)
{
	(void)state;
	static char text[40000];
	char *end = stpcpy(
		text,
		"{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"use_regex\":false},"
		"\"added_tokens\":[{\"id\":256,\"content\":\"<s>\",\"special\":true},"
		"{\"id\":257,\"content\":\"<\xc3\xa9>\"},{\"id\":260,\"content\":\"\xe2\x82\xac\"},"
		"{\"id\":258,\"content\":\"");
	for (int i = 0; i < LONG_BYTES / 2; i++)
		end = stpcpy(end, "\xc3\xa9");
	end = stpcpy(end, "\"}],\"model\":{\"merges\":[],\"vocab\":{");
	for (int byte = 0, others = 0; byte < 256; byte++) {
		bool is_plain = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
		end += sprintf(end, "%s\"\\u%04x\":%d", byte ? "," : "",
			       is_plain ? byte : 0x100 + others, byte);
		others += !is_plain;
	}
	end = stpcpy(end, "}}}");

	struct sk_diag diag = {""};
	int err = sk_tokenizer_open_json_memory(text, (size_t)(end - text), "bytes", &tokenizer,
						&diag);
	if (err < 0)
		print_error("%s\n", diag.text);
	return err;
}

static int close_tokenizer(void **state)
{
	(void)state;
	sk_tokenizer_close(tokenizer);
	return 0;
}

/* Whether more bytes could make a character of what is here: tried, not reasoned. */
static bool could_go_on(const uint8_t *bytes, size_t n_bytes)
{
	static const uint8_t seconds[] = {0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf};
	utf8proc_int32_t character;
	if (n_bytes == 0 || n_bytes > 3)
		return false;
	for (size_t i = 0; i < sizeof seconds; i++) {
		uint8_t whole[4] = {0x80, 0x80, 0x80, 0x80};
		memcpy(whole, bytes, n_bytes);
		whole[n_bytes] = seconds[i];
		if (utf8proc_iterate(whole, 4, &character) > (utf8proc_ssize_t)n_bytes)
			return true;
	}
	return false;
}

/* How many bytes at the end of a text must wait. */
static size_t must_wait(const uint8_t *text, size_t n_bytes)
{
	for (size_t n = n_bytes < 3 ? n_bytes : 3; n; n--) {
		if (could_go_on(text + n_bytes - n, n))
			return n;
	}
	return 0;
}

/* Pushes ids; after each, all that came out must be all that went in less what has to wait. */
static void check_stream(const int32_t *ids, size_t n_ids, bool show_special)
{
	static uint8_t in[32768], out[32768];
	uint8_t piece[SK_DETOKENIZER_MOST];
	struct sk_detokenizer detokenizer;
	size_t n_in = 0, n_out = 0;

	sk_detokenizer_init(&detokenizer, tokenizer, show_special);
	for (size_t i = 0; i < n_ids; i++) {
		size_t n_bytes;
		const uint8_t *bytes = sk_tokenizer_bytes(tokenizer, ids[i], &n_bytes);
		if (show_special || !sk_tokenizer_is_special(tokenizer, ids[i])) {
			if (n_bytes)
				memcpy(in + n_in, bytes, n_bytes);
			n_in += n_bytes;
		}
		size_t n = sk_detokenizer_push(&detokenizer, ids[i], piece);
		assert_true(n <= sizeof piece && n_out + n <= n_in);
		memcpy(out + n_out, piece, n);
		n_out += n;
		assert_int_equal(n_out, n_in - must_wait(in, n_in));
		assert_memory_equal(out, in, n_out);
	}
	size_t n = sk_detokenizer_flush(&detokenizer, piece);
	assert_int_equal(n_out + n, n_in);
	assert_memory_equal(piece, in + n_out, n);
	assert_int_equal(sk_detokenizer_flush(&detokenizer, piece), 0); /* it waits no more */
}

static void check_bytes(const char *text)
{
	int32_t ids[256];
	size_t n = strlen(text);
	for (size_t i = 0; i < n; i++)
		ids[i] = (uint8_t)text[i];
	check_stream(ids, n, false);
}

static void test_valid_text_byte_by_byte(void **state)
{
	(void)state;
	check_bytes("plain");
	check_bytes("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"
		    "a");
	check_bytes("\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf"
		    "\xbf\xc2\x80\xdf\xbf");
}

static void test_invalid_bytes_pass(void **state)
{
	(void)state;
	check_bytes("\x80\xbf\xc0\x80\xc1\xbf\xf5\x80\xff\xfe");
	check_bytes("\xe0\x80\x80\xed\xa0\x80\xf0\x80\x80\x80\xf4\x90\x80\x80");
	check_bytes("\xe4"
		    "a\xe4\xbd"
		    "a\xf0\x9f\x98"
		    "a\xc3\xc3\xa9\xf0\x9f\xe2\x82\xac");
	check_bytes("\xc3\xa9\x80\xe2\x82\xac\x80\x80");
}

/* Every two bytes, and every three and four of those at the ranges' ends. */
static void test_all_short_streams(void **state)
{
	(void)state;
	static const uint8_t edges[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
					0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
					0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
	enum { N = sizeof edges };
	for (int32_t i = 0; i < 65536; i++)
		check_stream((const int32_t[]){i >> 8, i & 0xff}, 2, true);
	for (int i = 0; i < N * N * N * N; i++) {
		const int32_t ids[] = {edges[i % N], edges[i / N % N], edges[i / N / N % N],
				       edges[i / N / N / N]};
		check_stream(ids, 4, true);
	}
}

static void test_special_tokens(void **state)
{
	(void)state;
	static const int32_t ids[] = {SPECIAL, 0xe4,    SPECIAL, 0xbd, ADDED, 0xe4,
				      0xbd,    SPECIAL, 0xa0,    LAST, 0xf0,  SPECIAL};
	uint8_t out[SK_DETOKENIZER_MOST];
	struct sk_detokenizer detokenizer;

	check_stream(ids, sizeof ids / sizeof *ids, false);
	check_stream(ids, sizeof ids / sizeof *ids, true);
	/* A special token that gives no bytes does not come between those of a character. */
	sk_detokenizer_init(&detokenizer, tokenizer, false);
	assert_int_equal(sk_detokenizer_push(&detokenizer, 0xc3, out), 0);
	assert_int_equal(sk_detokenizer_push(&detokenizer, SPECIAL, out), 0);
	assert_int_equal(sk_detokenizer_push(&detokenizer, 0xa9, out), 2);
	assert_memory_equal(out, "\xc3\xa9", 2);
}

static void test_ids_without_bytes(void **state)
{
	(void)state;
	static const int32_t ids[] = {0xe2,      -1,   0x82,     GAP,       0xac,
				      INT32_MAX, 0x61, LAST + 1, INT32_MIN, 0xc3};
	check_stream(ids, sizeof ids / sizeof *ids, false);
}

/* Ended in the midst of a character: what waited comes as it is, and the next stream knows nothing of it. */
static void test_flush(void **state)
{
	(void)state;
	uint8_t out[SK_DETOKENIZER_MOST];
	struct sk_detokenizer detokenizer;
	static const int32_t open[] = {0xf0, 0x9f, 0x98};

	sk_detokenizer_init(&detokenizer, tokenizer, false);
	assert_int_equal(sk_detokenizer_flush(&detokenizer, out), 0);
	for (size_t n = 1; n <= 3; n++) {
		for (size_t i = 0; i < n; i++)
			assert_int_equal(sk_detokenizer_push(&detokenizer, open[i], out), 0);
		assert_int_equal(sk_detokenizer_flush(&detokenizer, out), n);
		assert_memory_equal(out, "\xf0\x9f\x98", n);
		assert_int_equal(sk_detokenizer_push(&detokenizer, 0x80, out), 1);
	}
	sk_detokenizer_push(&detokenizer, 0xe4, out);
	sk_detokenizer_init(&detokenizer, tokenizer, false);
	assert_int_equal(sk_detokenizer_push(&detokenizer, 'a', out), 1);
	assert_int_equal(out[0], 'a');
}

/* A token beyond the buffer is cut, at a character's end, and nothing of it stays behind. */
static void test_long_tokens(void **state)
{
	(void)state;
	static uint8_t out[SK_DETOKENIZER_MOST];
	for (size_t n_waiting = 0; n_waiting <= 3; n_waiting++) {
		static const int32_t open[] = {0xf0, 0x9f, 0x98};
		struct sk_detokenizer detokenizer;
		sk_detokenizer_init(&detokenizer, tokenizer, false);
		for (size_t i = 0; i < n_waiting; i++)
			assert_int_equal(sk_detokenizer_push(&detokenizer, open[i], out), 0);
		size_t n = sk_detokenizer_push(&detokenizer, LONG, out);
		assert_int_equal(n, SK_DETOKENIZER_MOST - n_waiting % 2);
		assert_memory_equal(out, "\xf0\x9f\x98", n_waiting);
		for (size_t i = n_waiting; i < n; i += 2)
			assert_memory_equal(out + i, "\xc3\xa9", 2);
		assert_int_equal(sk_detokenizer_push(&detokenizer, 'a', out), 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_valid_text_byte_by_byte),
		cmocka_unit_test(test_invalid_bytes_pass),
		cmocka_unit_test(test_all_short_streams),
		cmocka_unit_test(test_special_tokens),
		cmocka_unit_test(test_ids_without_bytes),
		cmocka_unit_test(test_flush),
		cmocka_unit_test(test_long_tokens),
	};
	return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
