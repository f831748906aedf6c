/* tokenizer.json: what cannot be read is refused in one sentence that names the file. */
#include "sk_test.h"
#include "text/tokenizer_impl.h"

#include <errno.h>
#include <string.h>

/* Byte-level, with two merges, an added token, BOS and every part that a file may have. */
static const char small[] =
	"{\"version\": \"1.0\","
	"\"added_tokens\": [{\"id\": 8, \"content\": \"<s>\", \"special\": true, \"normalized\": "
	"false},"
	"{\"id\": 10, \"content\": \"<t>\", \"special\": false, \"normalized\": true}],"
	"\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}]},"
	"\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": ["
	"{\"type\": \"Split\", \"pattern\": {\"Regex\": \"-+\"}, \"behavior\": \"Isolated\", "
	"\"invert\": false}, {\"type\": \"Digits\", \"individual_digits\": true},"
	"{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}]},"
	"\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
	"[{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\"}}]},"
	"\"decoder\": {\"type\": \"ByteLevel\"},"
	"\"model\": {\"type\": \"BPE\", \"unk_token\": null, \"vocab\": {\"a\": 0, \"b\": 1, "
	"\"\\u0120\": 2, \"ab\": 3, \"\\u0120ab\": 4, \"-\": 5, \"1\": 6, \"\\u010a\": 7},"
	"\"merges\": [\"a b\", [\"\\u0120\", \"ab\"]]}}";

static struct sk_tokenizer *open_or_fail(const char *text)
{
	struct sk_tokenizer *tokenizer = NULL;
	struct sk_diag diag = {""};
	if (sk_tokenizer_open_json_memory(text, strlen(text), "x.json", &tokenizer, &diag) < 0)
		fail_msg("%s", diag.text);
	return tokenizer;
}

/* One sentence, with the file's name in front and without what a terminal must not see. */
static void check_sentence(const char *sentence, const char *name)
{
	size_t n = strlen(sentence);
	if (strncmp(sentence, name, strlen(name)) != 0 ||
	    strncmp(sentence + strlen(name), ": ", 2) != 0 || n < strlen(name) + 8 ||
	    strchr(sentence, '\n') || sentence[n - 1] == '.')
		fail_msg("'%s' is no sentence about %s", sentence, name);
}

/* `words` must be in the sentence. */
static void check_refused(const char *text, size_t n_bytes, int error, const char *words)
{
	struct sk_tokenizer *const untouched = (struct sk_tokenizer *)&small,
				   *tokenizer = untouched;
	struct sk_diag diag = {""};
	char *exact = malloc(n_bytes + 1); /* of its very size, for the sanitizer */
	memcpy(exact, text, n_bytes);
	int err = sk_tokenizer_open_json_memory(exact, n_bytes, "x.json", &tokenizer, &diag);
	free(exact);
	if (err != -error)
		fail_msg("%d instead of %d for %.*s (%s)", err, -error, (int)n_bytes, text,
			 diag.text);
	assert_ptr_equal(tokenizer, untouched);
	check_sentence(diag.text, "x.json");
	if (!strstr(diag.text, words))
		fail_msg("'%s' does not say '%s'", diag.text, words);
	assert_int_equal(sk_tokenizer_open_json_memory(text, n_bytes, "x.json", &tokenizer, NULL),
			 -error);
}

/* `small` with one stretch of it replaced. */
static char *replaced(const char *from, const char *to)
{
	const char *at = strstr(small, from);
	char *out;
	assert_non_null(at);
	assert_true(asprintf(&out, "%.*s%s%s", (int)(at - small), small, to, at + strlen(from)) >
		    0);
	return out;
}

static void test_the_small_file_itself(void **state)
{
	(void)state;
	static const int32_t expected[] = {8, 3, 4, 5, 5, 6, 6, 10, 0};
	struct sk_tokenizer *tokenizer = open_or_fail(small);
	struct sk_ids ids = {0};
	size_t n_bytes;

	assert_int_equal(sk_tokenizer_encode(tokenizer, "ab ab--11<t>a", 13, SK_ENCODE_BOS, &ids),
			 0);
	assert_int_equal(ids.n_ids, sizeof expected / sizeof *expected);
	assert_memory_equal(ids.ids, expected, sizeof expected);
	/* A byte without a token: refused, and nothing is left of the attempt. */
	assert_int_equal(sk_tokenizer_encode(tokenizer, "ab<s>z", 6, 0, &ids), -EILSEQ);
	assert_int_equal(ids.n_ids, sizeof expected / sizeof *expected);
	sk_ids_finish(&ids);

	assert_int_equal(sk_tokenizer_n_ids(tokenizer), 11);
	assert_int_equal(sk_tokenizer_bos(tokenizer), 8);
	assert_int_equal(sk_tokenizer_eos(tokenizer), -1);
	assert_true(sk_tokenizer_is_special(tokenizer, 8));
	assert_false(sk_tokenizer_is_special(tokenizer, 10));
	assert_int_equal(sk_tokenizer_find(tokenizer, "<t>"), 10);
	assert_int_equal(sk_tokenizer_find(tokenizer, "<u>"), -1);
	/* Id 9 is a gap, 11 and -1 are beyond the ends. */
	for (int32_t id = -1; id < 12; id += id < 9 ? 10 : 2) {
		sk_tokenizer_bytes(tokenizer, id, &n_bytes);
		assert_int_equal(n_bytes, 0);
		assert_false(sk_tokenizer_is_special(tokenizer, id));
	}
	assert_memory_equal(sk_tokenizer_bytes(tokenizer, 4, &n_bytes), " ab", 3);
	assert_int_equal(n_bytes, 3);
	sk_tokenizer_close(tokenizer);
}

static void test_cut_anywhere(void **state)
{
	(void)state;
	for (size_t n = 0; n < sizeof small - 1; n++)
		check_refused(small, n, EINVAL, "no JSON");
}

static void test_one_part_is_wrong(void **state)
{
	(void)state;
	static const struct {
		const char *from, *to;
		int error;
		const char *words;
	} cases[] = {
		{"[{\"id\": 8", "{\"a\": [{\"id\": 8", EINVAL, "no JSON"},
		/* parts that are missing, or of another kind */
		{"\"model\": {", "\"other\": {", EINVAL, "\"vocab\""},
		{"\"vocab\": {", "\"words\": {", EINVAL, "\"vocab\""},
		{"\"vocab\": {", "\"vocab\": [], \"words\": {", EINVAL, "\"vocab\""},
		{"\"vocab\": {", "\"vocab\": {}, \"words\": {", EINVAL, "\"vocab\""},
		{"\"merges\": [", "\"joins\": [", EINVAL, "\"merges\""},
		{"\"merges\": [", "\"merges\": {}, \"joins\": [", EINVAL, "\"merges\""},
		{"\"added_tokens\": [", "\"added_tokens\": \"<s>\", \"a\": [", EINVAL,
		 "\"added_tokens\""},
		{"{\"id\": 8,", "{", EINVAL, "\"added_tokens\""},
		{"\"id\": 8", "\"id\": \"8\"", EINVAL, "\"added_tokens\""},
		{"\"id\": 8", "\"id\": 8.5", EINVAL, "\"added_tokens\""},
		{"\"content\": \"<s>\"", "\"content\": 1", EINVAL, "\"added_tokens\""},
		{"{\"id\": 8, \"content\": \"<s>\", \"special\": true, \"normalized\": false}", "7",
		 EINVAL, "\"added_tokens\""},
		{"\"normalizers\": [", "\"normalizers\": 1, \"a\": [", EINVAL, "\"normalizer\""},
		{"\"normalizers\": [", "\"steps\": [", EINVAL, "\"normalizer\""},
		{"\"pretokenizers\": [", "\"pretokenizers\": {}, \"a\": [", EINVAL,
		 "\"pre_tokenizer\""},
		{"\"pattern\": {\"Regex\": \"-+\"}, ", "", EINVAL, "pattern"},
		{"{\"Regex\": \"-+\"}", "{\"Regex\": 7}", EINVAL, "pattern"},
		{"{\"Regex\": \"-+\"}", "{\"String\": \"\"}", EINVAL, "pattern"},
		{"{\"Regex\": \"-+\"}", "\"-+\"", EINVAL, "pattern"},
		/* ids */
		{"\"b\": 1", "\"b\": 0", EINVAL, "an id is given twice"},
		{"\"b\": 1", "\"b\": -1", EINVAL, "an id is negative"},
		{"\"b\": 1", "\"b\": 4194304", EINVAL, "an id is"},
		{"\"b\": 1", "\"b\": 9223372036854775807", EINVAL, "an id is"},
		{"\"b\": 1", "\"b\": 4294967295", EINVAL, "an id is"},
		{"\"b\": 1", "\"b\": \"1\"", EINVAL, "an id is no whole number"},
		{"\"b\": 1", "\"b\": null", EINVAL, "an id is no whole number"},
		{"\"id\": 8", "\"id\": -8", EINVAL, "\"added_tokens\": an id is"},
		{"\"id\": 8", "\"id\": 4294967304", EINVAL, "\"added_tokens\": an id is"},
		{"\"id\": 10", "\"id\": 8", EINVAL, "\"added_tokens\": an id is given twice"},
		/* merges */
		{"\"a b\"", "\"a c\"", EINVAL,
		 "merge 0 names a token that is not in the vocabulary"},
		{"\"\\u0120\", \"ab\"]", "\"\\u0120\", \"cab\"]", EINVAL, "merge 1 names a token"},
		{"\"a b\"", "\"b a\"", EINVAL, "merge 0 names a token"},
		{"\"a b\"", "\"\\u4f60 b\"", EINVAL, "merge 0 names a token"},
		{"\"a b\"", "\"ab\"", EINVAL, "a merge is not two tokens"},
		{"\"a b\"", "\"\"", EINVAL, "a merge is not two tokens"},
		{"\"a b\"", "7", EINVAL, "a merge is not two tokens"},
		{"\"a b\"", "[\"a\"]", EINVAL, "a merge is not two tokens"},
		{"\"a b\"", "[\"a\", \"b\", \"a\"]", EINVAL, "a merge is not two tokens"},
		{"\"a b\"", "[\"a\", 1]", EINVAL, "a merge is not two tokens"},
		/* patterns */
		{"\"-+\"", "\"(-+\"", EINVAL, "no regular expression"},
		{"\"-+\"", "\"[z-a]\"", EINVAL, "no regular expression"},
		{"\"-+\"", "\"*\"", EINVAL, "no regular expression"},
		{"\"-+\"", "\"\\\\C\"", EINVAL, "no regular expression"},
		/* kinds */
		{"\"NFC\"", "\"Lowercase\"", ENOTSUP,
		 "the normalizer 'Lowercase' is not supported"},
		{"\"NFC\"", "4", ENOTSUP, "the normalizer"},
		{"\"Digits\"", "\"BertPreTokenizer\"", ENOTSUP,
		 "the pre-tokenizer 'BertPreTokenizer' is not supported"},
		{"\"Digits\"", "\"Metaspace\"", ENOTSUP,
		 "the pre-tokenizer 'Metaspace' is not supported"},
		{"\"add_prefix_space\": false", "\"add_prefix_space\": true", ENOTSUP,
		 "the pre-tokenizer 'ByteLevel' is not supported with"},
		{"\"Isolated\"", "\"Scattered\"", ENOTSUP,
		 "the split behavior 'Scattered' is not supported"},
		{"\"BPE\"", "\"Unigram\"", ENOTSUP,
		 "the tokenizer model 'Unigram' is not supported"},
		{"\"unk_token\": null", "\"end_of_word_suffix\": \"</w>\"", EINVAL, "\"model\""},
		{"\"unk_token\": null", "\"continuing_subword_prefix\": \"##\"", EINVAL,
		 "\"model\""},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *text = replaced(cases[i].from, cases[i].to);
		check_refused(text, strlen(text), cases[i].error, cases[i].words);
		free(text);
	}
}

static void test_wholly_wrong(void **state)
{
	(void)state;
	static const char *const texts[] = {"[]", "\"a\"",           "7",    "null",
					    "{}", "{\"model\": []}", "\xff", "{\"a\": \"\xe4\"}"};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		check_refused(texts[i], strlen(texts[i]), EINVAL, "");
	check_refused("{}\0{}", 5, EINVAL, "no JSON");
}

static void test_too_many_steps(void **state)
{
	(void)state;
	char steps[2048] = "\"Digits\", \"individual_digits\": true}";
	for (int i = 0; i < SK_PRETOKENIZER_MOST_STEPS; i++)
		strcat(steps, ", {\"type\": \"Digits\"}");
	char *text = replaced("\"Digits\", \"individual_digits\": true}", steps);
	check_refused(text, strlen(text), E2BIG, "steps");
	free(text);
}

static void test_deep_nesting(void **state)
{
	(void)state;
	enum { DEPTH = 4000 };
	static const char open[] = "{\"type\": \"Sequence\", \"normalizers\": [";
	char *text = malloc(DEPTH * sizeof open + 64), *end = text;
	end = stpcpy(end, "{\"normalizer\": ");
	for (int i = 0; i < DEPTH; i++)
		end = stpcpy(end, open);
	check_refused(text, (size_t)(end - text), EINVAL, "no JSON");
	free(text);
}

static void test_files(void **state)
{
	(void)state;
	char path[] = "/tmp/streamkv-tokenizer-XXXXXX";
	struct sk_tokenizer *tokenizer = NULL;
	struct sk_diag diag = {""};
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, small, 100), 100);
	assert_int_equal(sk_tokenizer_open_json(path, &tokenizer, &diag), -EINVAL);
	check_sentence(diag.text, path);
	assert_int_equal(write(fd, small + 100, sizeof small - 101), sizeof small - 101);
	close(fd);
	assert_int_equal(sk_tokenizer_open_json(path, &tokenizer, &diag), 0);
	sk_tokenizer_close(tokenizer);
	unlink(path);
	assert_int_equal(sk_tokenizer_open_json(path, &tokenizer, &diag), -ENOENT);
	check_sentence(diag.text, path);
	assert_true(sk_tokenizer_open_json("/", &tokenizer, &diag) < 0);
	check_sentence(diag.text, "/");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_small_file_itself),
		cmocka_unit_test(test_cut_anywhere),
		cmocka_unit_test(test_one_part_is_wrong),
		cmocka_unit_test(test_wholly_wrong),
		cmocka_unit_test(test_too_many_steps),
		cmocka_unit_test(test_deep_nesting),
		cmocka_unit_test(test_files),
	};
	return sk_test_run(tests, NULL, NULL);
}
