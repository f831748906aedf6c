/* Small tokenizers made by hand give the ids that the `tokenizers` package gives (tests/golden/make_tokenizers.py), and any
 * number of threads the same. */
#include "sk_test.h"
#include "text/tokenizer_impl.h"

#include <jansson.h>
#include <pthread.h>
#include <string.h>

static json_t *load_references(void)
{
	json_error_t error;
	json_t *root = json_load_file(sk_test_golden("tokenizers.json"), 0, &error);
	if (!root)
		fail_msg("tokenizers.json: %s in line %d", error.text, error.line);
	return root;
}

static struct sk_tokenizer *open_reference(const json_t *root, const json_t *test)
{
	json_t *whole = json_copy(json_object_get(test, "tokenizer"));
	json_int_t model = json_integer_value(json_object_get(whole, "model"));
	json_object_set(whole, "model",
			json_array_get(json_object_get(root, "models"), (size_t)model));
	char *text = json_dumps(whole, JSON_COMPACT);
	struct sk_tokenizer *tokenizer = NULL;
	struct sk_diag diag = {""};
	if (sk_tokenizer_open_json_memory(text, strlen(text), "x.json", &tokenizer, &diag) < 0)
		fail_msg("%s", diag.text);
	free(text);
	json_decref(whole);
	return tokenizer;
}

static bool is_as_expected(const struct sk_ids *ids, const json_t *expected)
{
	size_t n = json_array_size(expected);
	for (size_t i = 0; i < n && i < ids->n_ids; i++) {
		if (ids->ids[i] != json_integer_value(json_array_get(expected, i)))
			return false;
	}
	return ids->n_ids == n;
}

static void print_difference(const char *name, const json_t *pair, const struct sk_ids *ids)
{
	char *words = json_dumps(pair, JSON_COMPACT);
	fprintf(stderr, "%s: %s, here", name, words);
	for (size_t i = 0; i < ids->n_ids; i++)
		fprintf(stderr, " %d", (int)ids->ids[i]);
	fprintf(stderr, "\n");
	free(words);
}

static void test_ids_of_the_package(void **state)
{
	(void)state;
	json_t *root = load_references();
	const json_t *test, *pair;
	unsigned n_cases = 0, n_different = 0;
	size_t i, k;

	json_array_foreach (json_object_get(root, "tests"), i, test) {
		const char *name = json_string_value(json_object_get(test, "name"));
		struct sk_tokenizer *tokenizer = open_reference(root, test);
		json_array_foreach (json_object_get(test, "cases"), k, pair) {
			const json_t *text = json_array_get(pair, 0);
			struct sk_ids ids = {0};
			int err = sk_tokenizer_encode(tokenizer, json_string_value(text),
						      json_string_length(text), 0, &ids);
			if (err < 0 || !is_as_expected(&ids, json_array_get(pair, 1))) {
				print_difference(name, pair, &ids);
				n_different++;
			}
			n_cases++;
			sk_ids_finish(&ids);
		}
		sk_tokenizer_close(tokenizer);
	}
	json_decref(root);
	assert_true(n_cases > 1000);
	assert_int_equal(n_different, 0);
}

enum { N_THREADS = 6, N_ROUNDS = 20, N_TEXTS = 64 };

struct crowd {
	const struct sk_tokenizer *tokenizer;
	struct {
		char text[512];
		size_t n_bytes;
		struct sk_ids ids;
	} texts[N_TEXTS];
	pthread_barrier_t start;
};

static void *encode_everything(void *context)
{
	struct crowd *crowd = context;
	uintptr_t n_different = 0;

	pthread_barrier_wait(&crowd->start);
	for (int i = 0; i < N_ROUNDS * N_TEXTS; i++) {
		struct sk_ids ids = {0};
		const struct sk_ids *expected = &crowd->texts[i % N_TEXTS].ids;
		int err = sk_tokenizer_encode(crowd->tokenizer, crowd->texts[i % N_TEXTS].text,
					      crowd->texts[i % N_TEXTS].n_bytes, 0, &ids);
		n_different += err < 0 || ids.n_ids != expected->n_ids ||
			       memcmp(ids.ids, expected->ids, ids.n_ids * sizeof *ids.ids) != 0;
		sk_ids_finish(&ids);
	}
	return (void *)n_different;
}

static void test_threads_agree(void **state)
{
	(void)state;
	static const char *const words[] = {
		"the ",         "  ",       "\n\n",      "house",
		"1234",         "\xc3\xa9", "e\xcc\x81", "<|endoftext|>",
		"\xe4\xbd\xa0", "\xf0\x9f", "don't",     "!?"};
	static struct crowd crowd;
	struct sk_tokenizer *tokenizer;
	struct sk_diag diag;
	pthread_t threads[N_THREADS];
	uint32_t random = 1;

	assert_int_equal(sk_tokenizer_open_json(sk_test_model("pythia-books/tokenizer.json"),
						&tokenizer, &diag),
			 0);
	crowd.tokenizer = tokenizer;
	for (int i = 0; i < N_TEXTS; i++) {
		char *end = crowd.texts[i].text;
		for (int k = 0; k < 4 + i / 2; k++) {
			random = random * 1664525u + 1013904223u;
			end = stpcpy(end, words[(random >> 16) % 12]);
		}
		crowd.texts[i].n_bytes = (size_t)(end - crowd.texts[i].text);
		assert_int_equal(sk_tokenizer_encode(tokenizer, crowd.texts[i].text,
						     crowd.texts[i].n_bytes, 0,
						     &crowd.texts[i].ids),
				 0);
		assert_true(crowd.texts[i].ids.n_ids > 0);
	}
	assert_int_equal(pthread_barrier_init(&crowd.start, NULL, N_THREADS), 0);
	for (int i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, encode_everything, &crowd), 0);
	for (int i = 0; i < N_THREADS; i++) {
		void *n_different;
		assert_int_equal(pthread_join(threads[i], &n_different), 0);
		assert_null(n_different);
	}
	pthread_barrier_destroy(&crowd.start);
	for (int i = 0; i < N_TEXTS; i++)
		sk_ids_finish(&crowd.texts[i].ids);
	sk_tokenizer_close(tokenizer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids_of_the_package),
		cmocka_unit_test(test_threads_agree),
	};
	return sk_test_run(tests, NULL, NULL);
}
