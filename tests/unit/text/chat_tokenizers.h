/* Tokenizers of chats.json (tests/golden/make_chats.py), with a chat template beside them or none. */
#pragma once

#include "sk_test.h"
#include "text/chat.h"
#include "text/tokenizer_impl.h"

#include <jansson.h>
#include <string.h>

static json_t *references;

static inline int load_references(void **state)
{
	(void)state;
	json_error_t error;
	references = json_load_file(sk_test_golden("chats.json"), 0, &error);
	if (!references)
		print_error("chats.json: %s in line %d\n", error.text, error.line);
	return references ? 0 : -1;
}

static inline int drop_references(void **state)
{
	(void)state;
	json_decref(references);
	return 0;
}

/* With BOS, EOS and a chat template beside it, as in a model's folder. */
static inline struct sk_tokenizer *open_tokenizer(const char *kind, const char *jinja)
{
	char *text =
		json_dumps(json_object_get(json_object_get(references, "tokenizers"), kind), 0);
	char folder[] = "/tmp/streamkv-chat-XXXXXX", path[64];
	struct sk_tokenizer *tokenizer;
	struct sk_diag diag = {""};

	assert_non_null(text);
	if (sk_tokenizer_open_json_memory(text, strlen(text), kind, &tokenizer, &diag) < 0)
		fail_msg("%s", diag.text);
	free(text);
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
	json_t *config = json_pack("{s:s, s:{s:s}, s:s*}", "bos_token", "<s>", "eos_token",
				   "content", "</s>", "chat_template", jinja);
	assert_non_null(config);
	assert_int_equal(json_dump_file(config, path, 0), 0);
	json_decref(config);
	assert_int_equal(sk_tokenizer_read_directory(tokenizer, folder, &diag), 0);
	unlink(path);
	rmdir(folder);
	return tokenizer;
}

static inline bool are_same(const struct sk_ids *a, const struct sk_ids *b)
{
	return a->n_ids == b->n_ids && memcmp(a->ids, b->ids, a->n_ids * sizeof *a->ids) == 0;
}
