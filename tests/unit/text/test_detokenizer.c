/* The detokenizer: whatever the tokens and wherever they end, its output is valid UTF-8 and what a decoder makes of all
 * their bytes together, with U+FFFD for what is no character. One long file, since the decoder that it is compared with serves
 * all of it. */
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

/* The rule: characters as they are; of anything else U+FFFD, for as many bytes as could still have become one, or for
 * one byte. As bytes.decode("utf-8", "replace") in Python. */
static size_t decode(const uint8_t *text, size_t n_bytes, uint8_t *out)
{
	size_t n_out = 0;
	for (size_t at = 0, n; at < n_bytes; at += n) {
		utf8proc_int32_t character;
		utf8proc_ssize_t whole =
			utf8proc_iterate(text + at, (utf8proc_ssize_t)(n_bytes - at), &character);
		n = whole > 0 ? (size_t)whole : n_bytes - at < 3 ? n_bytes - at : 3;
		while (whole <= 0 && n > 1 && !could_go_on(text + at, n))
			n--;
		const void *from = whole > 0 ? (const void *)(text + at) : "\xef\xbf\xbd";
		memcpy(out + n_out, from, whole > 0 ? n : 3);
		n_out += whole > 0 ? n : 3;
	}
	return n_out;
}

/* Pushes ids; after each, all that came out must be the decoding of all that went in less what has to wait, and with
 * the flush of all that went in. */
static void check_stream_of(const struct sk_tokenizer *of, const int32_t *ids, size_t n_ids,
			    bool show_special)
{
	static uint8_t in[32768], out[3 * sizeof in], wanted[3 * sizeof in];
	uint8_t piece[SK_DETOKENIZER_MOST];
	struct sk_detokenizer detokenizer;
	size_t n_in = 0, n_out = 0;

	sk_detokenizer_init(&detokenizer, of, show_special);
	for (size_t i = 0; i < n_ids; i++) {
		size_t n_bytes;
		const uint8_t *bytes = sk_tokenizer_bytes(of, ids[i], &n_bytes);
		if (show_special || !sk_tokenizer_is_special(of, ids[i])) {
			assert_true(n_in + n_bytes <= sizeof in);
			if (n_bytes)
				memcpy(in + n_in, bytes, n_bytes);
			n_in += n_bytes;
		}
		size_t n = sk_detokenizer_push(&detokenizer, ids[i], piece);
		assert_true(n <= sizeof piece);
		memcpy(out + n_out, piece, n);
		n_out += n;
		assert_int_equal(n_out, decode(in, n_in - must_wait(in, n_in), wanted));
		assert_memory_equal(out, wanted, n_out);

		struct sk_detokenizer ended = detokenizer;
		n = sk_detokenizer_flush(&ended, piece);
		assert_true(n <= 3);
		memcpy(out + n_out, piece, n);
		assert_int_equal(n_out + n, decode(in, n_in, wanted));
		assert_memory_equal(out, wanted, n_out + n);
		for (size_t at = 0, k; at < n_out + n; at += k) {
			utf8proc_int32_t character;
			k = (size_t)utf8proc_iterate(out + at, (utf8proc_ssize_t)(n_out + n - at),
						     &character);
			assert_in_range(k, 1, 4);
		}
		assert_int_equal(sk_detokenizer_flush(&ended, piece), 0); /* it waits no more */
	}
}

static void check_stream(const int32_t *ids, size_t n_ids, bool show_special)
{
	check_stream_of(tokenizer, ids, n_ids, show_special);
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

static void test_invalid_bytes(void **state)
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

static void check_text(const char *bytes, const char *text)
{
	uint8_t out[64];
	size_t n = decode((const uint8_t *)bytes, strlen(bytes), out);
	assert_int_equal(n, strlen(text));
	assert_memory_equal(out, text, n);
	check_bytes(bytes);
}

/* The examples of the Unicode standard, section 3.9 ("U+FFFD Substitution of Maximal Subparts"), hold for the rule of
 * this test, too. */
static void test_examples_of_the_standard(void **state)
{
	(void)state;
#define R "\xef\xbf\xbd"
	check_text("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", R R R R R R R R "A");
	check_text("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", R R R R R R R R "A");
	check_text("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", R R R R R "A" R R "B");
	check_text("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", R R R R "A");
	check_text("\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64",
		   "a" R R R "b" R "c" R R "d");
}

/* Ended in the midst of a character: one U+FFFD, and the next stream knows nothing of it. */
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
		assert_int_equal(sk_detokenizer_flush(&detokenizer, out), 3);
		assert_memory_equal(out, R, 3);
		assert_int_equal(sk_detokenizer_push(&detokenizer, 'a', out), 1);
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
		size_t n = sk_detokenizer_push(&detokenizer, LONG, out), at = n_waiting ? 3 : 0;
		assert_int_equal(n, SK_DETOKENIZER_MOST - at % 2);
		assert_memory_equal(out, R, at);
		for (size_t i = at; i < n; i += 2)
			assert_memory_equal(out + i, "\xc3\xa9", 2);
		assert_int_equal(sk_detokenizer_push(&detokenizer, 'a', out), 1);
	}
}

/* A token of nothing but broken bytes, three times as long when told: the bound holds for it, too. */
static void check_long_broken_token(uint8_t byte, bool stays_open)
{
	static uint8_t out[SK_DETOKENIZER_MOST + 1];
	enum { MOST = SK_DETOKENIZER_MOST / 3 };
	struct sk_vocab_token *token = &tokenizer->vocab.tokens[LONG];
	struct sk_detokenizer detokenizer;

	memset(tokenizer->vocab.bytes + token->at, byte, LONG_BYTES);
	for (uint32_t n_bytes = MOST - 2; n_bytes <= LONG_BYTES; n_bytes++) {
		uint32_t n_told = n_bytes + !stays_open; /* and what waits before it */
		bool is_cut = n_told > MOST;
		token->n_bytes = n_bytes;
		sk_detokenizer_init(&detokenizer, tokenizer, false);
		assert_int_equal(sk_detokenizer_push(&detokenizer, 0xf0, out), 0);
		out[SK_DETOKENIZER_MOST] = 7;
		size_t n = sk_detokenizer_push(&detokenizer, LONG, out);
		assert_int_equal(n, 3 * (is_cut ? MOST : n_told));
		assert_int_equal(out[SK_DETOKENIZER_MOST], 7);
		n = sk_detokenizer_flush(&detokenizer, out);
		assert_int_equal(n, stays_open && !is_cut ? 3 : 0);
	}
	token->n_bytes = LONG_BYTES;
	for (int i = 0; i < LONG_BYTES; i += 2)
		memcpy(tokenizer->vocab.bytes + token->at + i, "\xc3\xa9", 2);
}

static void test_long_broken_tokens(void **state)
{
	(void)state;
	check_long_broken_token(0xff, false);
	check_long_broken_token(0xc3, true);
}

/* Ids as no model would draw them: any, or those that are no whole characters more often than not. */
static void check_random_ids(const struct sk_tokenizer *of)
{
	enum { N_IDS = 24, ROUNDS = 3000, MOST = 1 << 16 };
	static int32_t all[MOST], broken[MOST];
	uint32_t n_all = 0, n_broken = 0, random = 1;

	for (int32_t id = 0; id < (int32_t)sk_tokenizer_n_ids(of) && n_all < MOST; id++) {
		uint8_t out[3 * 1024];
		size_t n_bytes;
		const uint8_t *bytes = sk_tokenizer_bytes(of, id, &n_bytes);
		if (n_bytes > sizeof out / 3)
			continue; /* LONG, which is cut */
		all[n_all++] = id;
		if (decode(bytes, n_bytes, out) != n_bytes || memcmp(out, bytes, n_bytes) != 0)
			broken[n_broken++] = id;
	}
	assert_true(n_broken >= 100);
	for (int round = 0; round < ROUNDS; round++) {
		int32_t ids[N_IDS];
		for (int i = 0; i < N_IDS; i++) {
			random = random * 1664525u + 1013904223u;
			uint32_t r = random >> 8;
			ids[i] = r % 4 ? broken[r / 4 % n_broken] : all[r / 4 % n_all];
		}
		check_stream_of(of, ids, N_IDS, round % 2);
	}
}

static void check_random_ids_of_json(const char *path)
{
	struct sk_diag diag = {""};
	struct sk_tokenizer *of;
	if (sk_tokenizer_open_json(path, &of, &diag) < 0)
		fail_msg("%s", diag.text);
	check_random_ids(of);
	sk_tokenizer_close(of);
}

static void test_random_bytes(void **state)
{
	(void)state;
	check_random_ids(tokenizer);
}

static void test_random_ids_of_pythia_books(void **state)
{
	(void)state;
	check_random_ids_of_json(sk_test_model("pythia-books/tokenizer.json"));
}

static void test_random_ids_of_tiny_llama(void **state)
{
	(void)state;
	check_random_ids_of_json(sk_test_model("tiny-llama/tokenizer.json"));
}

static void test_random_ids_of_neox(void **state)
{
	(void)state;
	sk_test_need(sk_test_data("tokenizer/20B_tokenizer.json"));
	check_random_ids_of_json(sk_test_data("tokenizer/20B_tokenizer.json"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_valid_text_byte_by_byte),
		cmocka_unit_test(test_invalid_bytes),
		cmocka_unit_test(test_all_short_streams),
		cmocka_unit_test(test_special_tokens),
		cmocka_unit_test(test_ids_without_bytes),
		cmocka_unit_test(test_flush),
		cmocka_unit_test(test_examples_of_the_standard),
		cmocka_unit_test(test_long_tokens),
		cmocka_unit_test(test_long_broken_tokens),
		cmocka_unit_test(test_random_bytes),
		cmocka_unit_test(test_random_ids_of_pythia_books),
		cmocka_unit_test(test_random_ids_of_tiny_llama),
		cmocka_unit_test(test_random_ids_of_neox),
	};
	return sk_test_run(tests, open_tokenizer, close_tokenizer);
}
