/* Token ids of whole texts, against digests of what the `tokenizers` package says (make_tokens.py),
 * the public test cases of the NeoX tokenizer, and every byte back again. */
#include "sk_test.h"
#include "text/tokenizer.h"

#include "model/gguf.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#define BLOCK 10000

static char *slurp(const char *path, size_t *ret_n_bytes)
{
	FILE *file = fopen(path, "rb");
	if (!file)
		return NULL;
	fseek(file, 0, SEEK_END);
	size_t n = (size_t)ftell(file);
	rewind(file);
	char *bytes = malloc(n + 1);
	assert_int_equal(fread(bytes, 1, n, file), n);
	fclose(file);
	bytes[n] = '\0';
	*ret_n_bytes = n;
	return bytes;
}

static const char *smollm2_path(void)
{
	static char path[PATH_MAX];
	const char *named = getenv("STREAMKV_SMOLLM2"), *cache = getenv("XDG_CACHE_HOME"),
		   *home = getenv("HOME");
	static const char file[] = "streamkv/models/SmolLM2-135M-Instruct.Q4_1.gguf";
	if (named)
		return named;
	if (cache && cache[0])
		snprintf(path, sizeof path, "%s/%s", cache, file);
	else
		snprintf(path, sizeof path, "%s/.cache/%s", home ? home : "", file);
	return path;
}

/* NULL where its file is not here. */
static struct sk_tokenizer *open_tokenizer(const char *name)
{
	struct sk_tokenizer *tokenizer;
	struct sk_gguf *gguf = NULL;
	struct sk_diag diag = {""};
	int err;

	if (strcmp(name, "smollm2") == 0) {
		if (access(smollm2_path(), R_OK) != 0)
			return NULL;
		err = sk_gguf_open(smollm2_path(), &gguf, &diag);
		if (!err)
			err = sk_tokenizer_open_gguf(gguf, &tokenizer, &diag);
	} else {
		const char *path = strcmp(name, "neox") == 0
					   ? sk_test_data("tokenizer/20B_tokenizer.json")
					   : sk_test_model("pythia-books/tokenizer.json");
		if (access(path, R_OK) != 0)
			return NULL;
		err = sk_tokenizer_open_json(path, &tokenizer, &diag);
	}
	if (err < 0)
		fail_msg("%s", diag.text);
	sk_gguf_close(gguf);
	return tokenizer;
}

static uint64_t fnv(const int32_t *ids, size_t n)
{
	uint64_t hash = 0xcbf29ce484222325u;
	const uint8_t *bytes = (const uint8_t *)ids;
	for (size_t i = 0; i < n * sizeof *ids; i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3u;
	return hash;
}

/* One line of tokens.txt. False: a part is not here. */
static bool check_line(char *line)
{
	char *rest, *name = strtok_r(line, " \n", &rest), *text = strtok_r(NULL, " \n", &rest);
	size_t n_ids = strtoul(strtok_r(NULL, " \n", &rest), NULL, 10), n_bytes;
	char in_data[256];
	struct sk_ids ids = {0};

	snprintf(in_data, sizeof in_data, "text/%s", text);
	char *bytes = slurp(sk_test_golden(text), &n_bytes);
	if (!bytes)
		bytes = slurp(sk_test_data(in_data), &n_bytes);
	struct sk_tokenizer *tokenizer = open_tokenizer(name);
	bool is_here = bytes && tokenizer;
	if (is_here) {
		assert_int_equal(sk_tokenizer_encode(tokenizer, bytes, n_bytes, 0, &ids), 0);
		for (size_t at = 0; at < ids.n_ids; at += BLOCK) {
			char *hash = strtok_r(NULL, " \n", &rest);
			size_t n = ids.n_ids - at < BLOCK ? ids.n_ids - at : BLOCK;
			if (!hash || fnv(ids.ids + at, n) != strtoull(hash, NULL, 16))
				fail_msg("%s, %s: ids %zu to %zu are not those of the tokenizers "
					 "package",
					 name, text, at, at + n);
		}
		assert_int_equal(ids.n_ids, n_ids);
	} else {
		fprintf(stderr, "SKIP test_whole_texts: %s with the tokenizer %s is not here\n",
			text, name);
	}
	sk_ids_finish(&ids);
	sk_tokenizer_close(tokenizer);
	free(bytes);
	return is_here;
}

static void test_whole_texts(void **state)
{
	(void)state;
	char line[8192];
	unsigned n_checked = 0;
	FILE *file = fopen(sk_test_golden("tokens.txt"), "r");
	assert_non_null(file);
	while (fgets(line, sizeof line, file)) {
		bool is_own = strncmp(line, "pythia-books ", 13) == 0,
		     is_checked = check_line(line);
		assert_true(is_checked || !is_own);
		n_checked += is_checked;
	}
	fclose(file);
	assert_true(n_checked >= 2);
}

static void check_case(const struct sk_tokenizer *tokenizer, const char *text, size_t n_bytes,
		       const int32_t *expected, size_t n_expected)
{
	struct sk_ids ids = {0};
	assert_int_equal(sk_tokenizer_encode(tokenizer, text, n_bytes, 0, &ids), 0);
	if (ids.n_ids != n_expected ||
	    (n_expected && memcmp(ids.ids, expected, n_expected * sizeof *expected) != 0))
		fail_msg("the ids of \"%.*s\" are not as they should be", (int)n_bytes, text);
	sk_ids_finish(&ids);
}

static void test_cases_with_arrows(void **state)
{
	(void)state;
	sk_test_need(sk_test_data("tokenizer/ggml-prompts-gpt-neox.txt"));
	struct sk_tokenizer *tokenizer = open_tokenizer("neox");
	size_t n_bytes;
	char *text = slurp(sk_test_data("tokenizer/ggml-prompts-gpt-neox.txt"), &n_bytes);
	unsigned n_cases = 0;

	for (char *line = text; *line;) {
		char *end = strchr(line, '\n');
		if (end)
			*end = '\0';
		char *arrow = strstr(line, " => ");
		assert_non_null(arrow);
		int32_t expected[1024];
		size_t n = 0;
		for (char *at = arrow + 4; *at; at += *at == ',')
			expected[n++] = (int32_t)strtol(at, &at, 10);
		check_case(tokenizer, line, (size_t)(arrow - line), expected, n);
		n_cases++;
		line = end ? end + 1 : arrow + strlen(arrow);
	}
	assert_int_equal(n_cases, 100);
	free(text);
	sk_tokenizer_close(tokenizer);
}

static void test_cases_in_json(void **state)
{
	(void)state;
	sk_test_need(sk_test_data("tokenizer/neox.inp.out.jsonl"));
	struct sk_tokenizer *tokenizer = open_tokenizer("neox");
	FILE *file = fopen(sk_test_data("tokenizer/neox.inp.out.jsonl"), "r");
	unsigned n_cases = 0;
	json_t *object;

	while ((object = json_loadf(file, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, NULL))) {
		const json_t *text = json_object_get(object, "text"),
			     *list = json_object_get(object, "ids");
		int32_t expected[1024];
		size_t n = json_array_size(list);
		for (size_t i = 0; i < n; i++)
			expected[i] = (int32_t)json_integer_value(json_array_get(list, i));
		check_case(tokenizer, json_string_value(text), json_string_length(text), expected,
			   n);
		n_cases++;
		json_decref(object);
	}
	fclose(file);
	assert_int_equal(n_cases, 47);
	sk_tokenizer_close(tokenizer);
}

/* Bytes that no normalisation touches: anything, but for what could be a composable character. */
static size_t random_bytes(uint32_t *random, uint8_t *bytes, size_t most)
{
	static const char *const pieces[] = {
		" ",        "  ",       "\n",   "the",      "\xe4\xbd\xa0",  "\xf0\x9f\x98\x80",
		"\xe4\xbd", "\xf0\x9f", "\xc3", "\xe2\x82", "<|endoftext|>", "1234"};
	size_t n = 0, wanted = (*random >> 8) % most;
	if (*random >> 30 == 0)
		bytes[n++] = 0xff; /* in UTF-8 never */
	while (n + 16 < wanted) {
		*random = *random * 1664525u + 1013904223u;
		uint32_t r = *random >> 16;
		if (r % 3 == 0) {
			const char *piece = pieces[(r >> 4) % 12];
			memcpy(bytes + n, piece, strlen(piece));
			n += strlen(piece);
		} else if (r % 3 == 1) {
			bytes[n++] = (uint8_t)(r >> 4) & 0x7f; /* NUL and control characters too */
		} else {
			/* No sequence begins so: what is UTF-8 by chance may be normalised, as it should be. */
			bytes[n++] = r & 8 ? (uint8_t)(0x80 | (r >> 4 & 0x3f))
					   : (uint8_t)(0xf5 + (r >> 4) % 11);
		}
	}
	return n;
}

static void check_round_trips(const char *name)
{
	struct sk_tokenizer *tokenizer = open_tokenizer(name);
	uint8_t bytes[512], out[4096];
	uint32_t random = 7;
	bool has_byte[256] = {false}; /* the vocabulary of GPT-NeoX has no 0xff, for one */
	unsigned n_refused = 0;

	if (!tokenizer) {
		fprintf(stderr, "SKIP test_every_byte_comes_back: the tokenizer %s is not here\n",
			name);
		return;
	}
	for (int32_t id = 0; id < (int32_t)sk_tokenizer_n_ids(tokenizer); id++) {
		size_t k;
		const uint8_t *token = sk_tokenizer_bytes(tokenizer, id, &k);
		if (k == 1)
			has_byte[token[0]] = true;
	}
	for (int round = 0; round < 5000; round++) {
		struct sk_ids ids = {0};
		size_t n = random_bytes(&random, bytes, sizeof bytes), n_out = 0;

		random = random * 1664525u + 1013904223u;
		bool is_known = true;
		for (size_t i = 0; i < n; i++) {
			if (!has_byte[bytes[i]] && round % 10)
				bytes[i] = 'x';
			is_known &= has_byte[bytes[i]];
		}
		int err = sk_tokenizer_encode(tokenizer, bytes, n, 0, &ids);
		assert_int_equal(err, is_known ? 0 : -EILSEQ);
		n_refused += !is_known;
		if (!is_known) {
			assert_int_equal(ids.n_ids, 0);
			sk_ids_finish(&ids);
			continue;
		}
		for (size_t i = 0; i < ids.n_ids; i++) {
			size_t k;
			const uint8_t *token = sk_tokenizer_bytes(tokenizer, ids.ids[i], &k);
			assert_true(n_out + k <= sizeof out);
			memcpy(out + n_out, token, k);
			n_out += k;
		}
		assert_int_equal(n_out, n);
		if (n)
			assert_memory_equal(out, bytes, n);
		sk_ids_finish(&ids);
	}
	print_message("  %s: %u of 5000 texts had bytes without a token\n", name, n_refused);
	assert_true(n_refused <= 500);
	sk_tokenizer_close(tokenizer);
}

static void test_every_byte_comes_back(void **state)
{
	(void)state;
	check_round_trips("pythia-books");
	check_round_trips("neox");
	check_round_trips("smollm2");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_texts),
		cmocka_unit_test(test_cases_with_arrows),
		cmocka_unit_test(test_cases_in_json),
		cmocka_unit_test(test_every_byte_comes_back),
	};
	return sk_test_run(tests, NULL, NULL);
}
