#include "text/chat.h"

#include "text/tokenizer_impl.h"

#include <errno.h>
#include <string.h>

/* What stands before and after a message of each role. Special tokens are spelt out; "%b" is BOS,
 * "%e" EOS. A template without a system turn puts that text at the beginning of the first user's
 * (joined by system_joins), or has none at all (NULL). */
struct sk_chat_template {
	const char *name;
	const char *mark; /* a piece of the model's Jinja text that tells it */
	const char *begin;
	const char *system[2], *user[2], *assistant[2];
	const char *system_joins;
	const char *opens; /* the assistant's turn, to be written by the model */
};

static const struct sk_chat_template templates[] = {
	{"chatml",
	 "<|im_start|>",
	 "",
	 {"<|im_start|>system\n", "<|im_end|>\n"},
	 {"<|im_start|>user\n", "<|im_end|>\n"},
	 {"<|im_start|>assistant\n", "<|im_end|>\n"},
	 NULL,
	 "<|im_start|>assistant\n"},
	{"llama3",
	 "<|start_header_id|>",
	 "%b",
	 {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
	 {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
	 {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
	 NULL,
	 "<|start_header_id|>assistant<|end_header_id|>\n\n"},
	{"llama2",
	 "<<SYS>>",
	 "",
	 {"<<SYS>>\n", "\n<</SYS>>\n\n"},
	 {"%b[INST] ", " [/INST]"},
	 {" ", " %e"},
	 "",
	 ""},
	{"phi3",
	 "<|end|>",
	 "",
	 {"<|system|>\n", "<|end|>\n"},
	 {"<|user|>\n", "<|end|>\n"},
	 {"<|assistant|>\n", "<|end|>\n"},
	 NULL,
	 "<|assistant|>\n"},
	{"zephyr",
	 "<|assistant|>",
	 "",
	 {"<|system|>\n", "%e\n"},
	 {"<|user|>\n", "%e\n"},
	 {"<|assistant|>\n", "%e\n"},
	 NULL,
	 "<|assistant|>\n"},
	{"gemma",
	 "<start_of_turn>",
	 "%b",
	 {"", "\n\n"},
	 {"<start_of_turn>user\n", "<end_of_turn>\n"},
	 {"<start_of_turn>model\n", "<end_of_turn>\n"},
	 "",
	 "<start_of_turn>model\n"},
	{"mistral", "[INST]", "%b", {"", "\n\n"}, {"[INST] ", " [/INST]"}, {" ", "%e"}, "", ""},
	{"vicuna",
	 "ASSISTANT:",
	 "%b",
	 {"", " "},
	 {"USER: ", " "},
	 {"ASSISTANT: ", "%e"},
	 NULL,
	 "ASSISTANT:"},
	{"alpaca",
	 "### Instruction:",
	 "",
	 {"", "\n\n"},
	 {"### Instruction:\n", "\n\n"},
	 {"### Response:\n", "\n\n"},
	 NULL,
	 "### Response:\n"},
};
#define N_TEMPLATES (sizeof templates / sizeof *templates)

const struct sk_chat_template *sk_chat_by_name(const char *name)
{
	for (unsigned i = 0; i < N_TEMPLATES; i++) {
		if (strcmp(templates[i].name, name) == 0)
			return &templates[i];
	}
	return NULL;
}

const struct sk_chat_template *sk_chat_of(const struct sk_tokenizer *tokenizer)
{
	const char *jinja = sk_tokenizer_chat_template(tokenizer);
	for (unsigned i = 0; jinja && i < N_TEMPLATES; i++) {
		if (strstr(jinja, templates[i].mark))
			return &templates[i];
	}
	return NULL;
}

const char *sk_chat_name(const struct sk_chat_template *chat)
{
	return chat->name;
}

const char *const *sk_chat_names(void)
{
	static const char *const names[] = {"chatml", "llama3",  "llama2", "phi3",   "zephyr",
					    "gemma",  "mistral", "vicuna", "alpaca", NULL};
	_Static_assert(sizeof names / sizeof *names == N_TEMPLATES + 1, "a name for each template");
	return names;
}

/* --- Rendering
 * ------------------------------------------------------------------------------------- */

struct renderer {
	const struct sk_tokenizer *tokenizer;
	struct sk_ids *ids;
	const atomic_bool *is_cancelled;
	struct sk_bytes words; /* marks and contents that no special token divides: one text */
	bool goes_on;          /* words or tokens came before */
};

static int put_waiting_words(struct renderer *renderer)
{
	unsigned flags = SK_ENCODE_PLAIN | (renderer->goes_on ? SK_ENCODE_GOES_ON : 0);
	size_t n_bytes = renderer->words.n_bytes;

	if (!n_bytes)
		return 0;
	renderer->goes_on = true;
	renderer->words.n_bytes = 0;
	return sk_tokenizer_encode_unless(renderer->is_cancelled, renderer->tokenizer,
					  renderer->words.bytes, n_bytes, flags, renderer->ids);
}

static int put_special(struct renderer *renderer, int32_t id)
{
	int err = put_waiting_words(renderer);
	renderer->goes_on = true;
	return err ? err : sk_ids_append(renderer->ids, id);
}

/* The first special token spelt out in a mark at or after `at`. */
static bool find_special(const struct sk_tokenizer *tokenizer, const char *text, size_t n_bytes,
			 size_t at, struct sk_added_match *ret_match)
{
	bool has_found = false;
	for (int normalized = 0; normalized < 2; normalized++) {
		struct sk_added_match match = {.end = at};
		bool is_special = false;
		while (!is_special &&
		       sk_added_tokens_find(&tokenizer->added, (const uint8_t *)text, n_bytes,
					    match.end, normalized, false, NULL, &match))
			is_special = sk_tokenizer_is_special(tokenizer, match.id);
		if (is_special && (!has_found || match.begin < ret_match->begin)) {
			*ret_match = match;
			has_found = true;
		}
	}
	return has_found;
}

/* Marks: special tokens in them are special tokens. */
static int put_marks(struct renderer *renderer, const char *text)
{
	int err = 0;
	while (*text && !err) {
		const char *percent = strchr(text, '%');
		size_t n = percent ? (size_t)(percent - text) : strlen(text), at = 0;
		struct sk_added_match match = {0};
		while (!err && find_special(renderer->tokenizer, text, n, at, &match)) {
			err = sk_bytes_append(&renderer->words, text + at, match.begin - at);
			if (!err)
				err = put_special(renderer, match.id);
			at = match.end;
		}
		if (!err)
			err = sk_bytes_append(&renderer->words, text + at, n - at);
		text += n;
		if (percent && !err) {
			int32_t id = percent[1] == 'b' ? sk_tokenizer_bos(renderer->tokenizer)
						       : sk_tokenizer_eos(renderer->tokenizer);
			if (id >= 0)
				err = put_special(renderer, id);
			text += 2;
		}
	}
	return err;
}

static int put_words(struct renderer *renderer, const struct sk_chat_message *message)
{
	return sk_bytes_append(&renderer->words, message->content, message->n_bytes);
}

/* The system message that the model's own template puts where none is given: the text between its
 * system mark and the closing one. */
static struct sk_chat_message default_system(const struct sk_chat_template *chat,
					     const struct sk_tokenizer *tokenizer)
{
	struct sk_chat_message none = {"system", NULL, 0};
	const char *jinja = sk_tokenizer_chat_template(tokenizer);
	if (!jinja || strcmp(chat->name, "chatml") != 0)
		return none;
	const char *guard = strstr(jinja, "messages[0]['role'] != 'system'");
	const char *begin = guard ? strstr(guard, "<|im_start|>system") : NULL;
	const char *end = begin ? strstr(begin, "<|im_end|>") : NULL;
	if (!end)
		return none;
	begin += strlen("<|im_start|>system");
	begin += *begin == '\n' ? 1 : strncmp(begin, "\\n", 2) == 0 ? 2 : 0;
	if (memchr(begin, '{', (size_t)(end - begin)) || memchr(begin, '\'', (size_t)(end - begin)))
		return none; /* something computed */
	return (struct sk_chat_message){"system", begin, (size_t)(end - begin)};
}

static const char *const *marks_of(const struct sk_chat_template *chat, const char *role)
{
	if (strcmp(role, "system") == 0)
		return chat->system;
	if (strcmp(role, "user") == 0)
		return chat->user;
	return strcmp(role, "assistant") == 0 ? chat->assistant : NULL;
}

static int put_message(struct renderer *renderer, const char *const marks[2],
		       const struct sk_chat_message *message)
{
	int err = put_marks(renderer, marks[0]);
	if (!err)
		err = put_words(renderer, message);
	return err ? err : put_marks(renderer, marks[1]);
}

/* What ends the assistant's turn; where the model has written the end-of-turn token, what follows
 * it. */
static int close_turn(struct renderer *renderer, const struct sk_chat_template *chat,
		      enum sk_chat_place place)
{
	struct sk_ids *ids = renderer->ids;
	size_t n_before = ids->n_ids;
	int err = put_marks(renderer, chat->assistant[1]);
	/* Words behind the last special token still wait, so an end is the last id. */
	if (!err && place == SK_CHAT_IS_ENDED && ids->n_ids > n_before &&
	    sk_tokenizer_is_end(renderer->tokenizer, ids->ids[ids->n_ids - 1]))
		ids->n_ids = n_before;
	return err;
}

int sk_chat_encode_unless(const atomic_bool *is_cancelled, const struct sk_chat_template *chat,
			  const struct sk_tokenizer *tokenizer, enum sk_chat_place place,
			  const struct sk_chat_message *messages, size_t n_messages,
			  struct sk_ids *ids)
{
	struct renderer renderer = {.tokenizer = tokenizer,
				    .ids = ids,
				    .is_cancelled = is_cancelled,
				    .goes_on = place != SK_CHAT_BEGINS};
	const struct sk_chat_message *joined = NULL;
	size_t n_before = ids->n_ids;

	for (size_t i = 0; i < n_messages; i++) {
		if (!marks_of(chat, messages[i].role))
			return -EINVAL;
	}
	int err = place == SK_CHAT_BEGINS ? put_marks(&renderer, chat->begin)
					  : close_turn(&renderer, chat, place);
	struct sk_chat_message system = default_system(chat, tokenizer);
	if (!err && place == SK_CHAT_BEGINS && system.content && n_messages &&
	    strcmp(messages[0].role, "system") != 0)
		err = put_message(&renderer, chat->system, &system);
	for (size_t i = 0; i < n_messages && !err; i++) {
		const struct sk_chat_message *message = &messages[i];
		const char *const *marks = marks_of(chat, message->role);
		if (chat->system_joins && marks == chat->system) {
			joined = message; /* into the next user's turn */
			continue;
		}
		if (joined && marks == chat->user) {
			err = put_marks(&renderer, marks[0]);
			if (!err)
				err = put_message(&renderer, chat->system, joined);
			if (!err)
				err = put_words(&renderer, message);
			if (!err)
				err = put_marks(&renderer, marks[1]);
			joined = NULL;
			continue;
		}
		err = put_message(&renderer, marks, message);
	}
	if (!err)
		err = put_marks(&renderer, chat->opens);
	if (!err)
		err = put_waiting_words(&renderer);
	sk_bytes_finish(&renderer.words);
	if (err)
		ids->n_ids = n_before;
	return err;
}

int sk_chat_encode_at(const struct sk_chat_template *chat, const struct sk_tokenizer *tokenizer,
		      enum sk_chat_place place, const struct sk_chat_message *messages,
		      size_t n_messages, struct sk_ids *ids)
{
	return sk_chat_encode_unless(NULL, chat, tokenizer, place, messages, n_messages, ids);
}

int sk_chat_encode(const struct sk_chat_template *chat, const struct sk_tokenizer *tokenizer,
		   const struct sk_chat_message *messages, size_t n_messages, struct sk_ids *ids)
{
	return sk_chat_encode_at(chat, tokenizer, SK_CHAT_BEGINS, messages, n_messages, ids);
}
