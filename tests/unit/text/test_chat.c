/* Chat templates against transformers' apply_chat_template, and chats that go on. */
#include "chat_tokenizers.h"

enum { MOST_MESSAGES = 8 };

struct conversation {
	struct sk_chat_message messages[MOST_MESSAGES];
	size_t n_messages;
};

static struct conversation conversation_of(const json_t *messages)
{
	struct conversation out = {.n_messages = json_array_size(messages)};
	assert_true(out.n_messages <= MOST_MESSAGES);
	for (size_t i = 0; i < out.n_messages; i++) {
		const json_t *message = json_array_get(messages, i),
			     *content = json_object_get(message, "content");
		out.messages[i] = (struct sk_chat_message){
			json_string_value(json_object_get(message, "role")),
			json_string_value(content), json_string_length(content)};
	}
	return out;
}

static void print_ids(const struct sk_tokenizer *tokenizer, const char *name,
		      const struct sk_ids *ids)
{
	fprintf(stderr, "%s:", name);
	for (size_t i = 0; i < ids->n_ids; i++) {
		size_t n_bytes;
		const uint8_t *bytes = sk_tokenizer_bytes(tokenizer, ids->ids[i], &n_bytes);
		fprintf(stderr, " %d '%.*s'", (int)ids->ids[i], (int)n_bytes, (const char *)bytes);
	}
	fprintf(stderr, "\n");
}

/* The template of a reference, found by its name and by the Jinja text. */
static const struct sk_chat_template *template_of(const struct sk_tokenizer *tokenizer,
						  const json_t *test)
{
	const char *name = json_string_value(json_object_get(test, "name"));
	const struct sk_chat_template *chat = sk_chat_by_name(name);
	assert_non_null(chat);
	assert_string_equal(sk_chat_name(chat), name);
	assert_string_equal(sk_tokenizer_chat_template(tokenizer),
			    json_string_value(json_object_get(test, "jinja")));
	assert_ptr_equal(sk_chat_of(tokenizer), chat);
	return chat;
}

static struct sk_tokenizer *tokenizer_of(const json_t *test)
{
	return open_tokenizer(json_string_value(json_object_get(test, "tokenizer")),
			      json_string_value(json_object_get(test, "jinja")));
}

static void test_ids_of_transformers(void **state)
{
	(void)state;
	const json_t *test, *reference;
	unsigned n_cases = 0, n_different = 0;
	size_t i, k, m;

	json_array_foreach (json_object_get(references, "templates"), i, test) {
		struct sk_tokenizer *tokenizer = tokenizer_of(test);
		const struct sk_chat_template *chat = template_of(tokenizer, test);
		json_array_foreach (json_object_get(test, "chats"), k, reference) {
			struct conversation c =
				conversation_of(json_object_get(reference, "messages"));
			struct sk_ids ids = {0}, expected = {0};
			json_t *id;
			json_array_foreach (json_object_get(reference, "ids"), m, id)
				assert_int_equal(
					sk_ids_append(&expected, (int32_t)json_integer_value(id)),
					0);
			assert_int_equal(
				sk_chat_encode(chat, tokenizer, c.messages, c.n_messages, &ids), 0);
			if (!are_same(&ids, &expected)) {
				fprintf(stderr, "%s with %s, chat %zu\n", sk_chat_name(chat),
					json_string_value(json_object_get(test, "tokenizer")), k);
				print_ids(tokenizer, "here        ", &ids);
				print_ids(tokenizer, "transformers", &expected);
				n_different++;
			}
			n_cases++;
			sk_ids_finish(&ids);
			sk_ids_finish(&expected);
		}
		sk_tokenizer_close(tokenizer);
	}
	assert_true(n_cases >= 100);
	assert_int_equal(n_different, 0);
}

/* What the model writes: the answer, tokenised behind what opened its turn, and the token that ends the turn. */
static void append_answer(const struct sk_tokenizer *tokenizer,
			  const struct sk_chat_message *answer, int32_t end, struct sk_ids *ids)
{
	assert_int_equal(sk_tokenizer_encode(tokenizer, answer->content, answer->n_bytes,
					     SK_ENCODE_PLAIN | SK_ENCODE_GOES_ON, ids),
			 0);
	if (end >= 0)
		assert_int_equal(sk_ids_append(ids, end), 0);
}

static void check_going_on(const struct sk_chat_template *chat,
			   const struct sk_tokenizer *tokenizer, int32_t end,
			   const struct conversation *c)
{
	struct sk_ids whole = {0}, parts = {0};
	enum sk_chat_place place = SK_CHAT_BEGINS;
	size_t done = 0;

	assert_int_equal(sk_chat_encode(chat, tokenizer, c->messages, c->n_messages, &whole), 0);
	for (size_t i = 0; i < c->n_messages; i++) {
		if (strcmp(c->messages[i].role, "assistant") != 0)
			continue;
		assert_int_equal(sk_chat_encode_at(chat, tokenizer, place, c->messages + done,
						   i - done, &parts),
				 0);
		append_answer(tokenizer, &c->messages[i], end, &parts);
		place = end < 0 ? SK_CHAT_IS_OPEN : SK_CHAT_IS_ENDED;
		done = i + 1;
	}
	assert_int_equal(sk_chat_encode_at(chat, tokenizer, place, c->messages + done,
					   c->n_messages - done, &parts),
			 0);
	if (!are_same(&whole, &parts)) {
		print_ids(tokenizer, "at once    ", &whole);
		print_ids(tokenizer, "in portions", &parts);
		fail_msg("%s: a chat that goes on has other ids", sk_chat_name(chat));
	}
	sk_ids_finish(&whole);
	sk_ids_finish(&parts);
}

/* Templates whose turns end in a special token, so that nothing joins over a turn's ends. The others put a space before the
 * assistant's words, which the model writes itself. */
static void test_going_on_is_the_whole_chat(void **state)
{
	(void)state;
	static const struct {
		const char *name, *end;
	} ends[] = {{"chatml", "<|im_end|>"},
		    {"llama3", "<|eot_id|>"},
		    {"phi3", "<|end|>"},
		    {"zephyr", "</s>"},
		    {"gemma", "<end_of_turn>"}};
	const json_t *test, *reference;
	unsigned n_checked = 0;
	size_t i, k;

	json_array_foreach (json_object_get(references, "templates"), i, test) {
		struct sk_tokenizer *tokenizer = tokenizer_of(test);
		const struct sk_chat_template *chat = template_of(tokenizer, test);
		for (size_t e = 0; e < sizeof ends / sizeof *ends; e++) {
			if (strcmp(sk_chat_name(chat), ends[e].name) != 0)
				continue;
			int32_t end = sk_tokenizer_find(tokenizer, ends[e].end);
			assert_true(end >= 0 && sk_tokenizer_is_end(tokenizer, end));
			json_array_foreach (json_object_get(test, "chats"), k, reference) {
				struct conversation c =
					conversation_of(json_object_get(reference, "messages"));
				check_going_on(chat, tokenizer, end, &c);
				check_going_on(chat, tokenizer, -1, &c);
				n_checked++;
			}
		}
		sk_tokenizer_close(tokenizer);
	}
	assert_true(n_checked >= 40);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids_of_transformers),
		cmocka_unit_test(test_going_on_is_the_whole_chat),
	};
	return sk_test_run(tests, load_references, drop_references);
}
