/* Chat templates by name: how a conversation becomes tokens. The Jinja text in a model file is not
 * run; it is recognised by its marks and mapped to one of these names.
 */
#pragma once

#include "text/tokenizer.h"

struct sk_chat_template; /* a row of a static table */

struct sk_chat_message {
	const char *role; /* "system", "user", "assistant" */
	const char *content;
	size_t n_bytes;
};

/* NULL where no template has that name. */
const struct sk_chat_template *sk_chat_by_name(const char *name);
/* The template that the model's Jinja text stands for, or NULL where it has none or is not known.
 */
const struct sk_chat_template *sk_chat_of(const struct sk_tokenizer *tokenizer);
const char *sk_chat_name(const struct sk_chat_template *chat);
/* The names, NULL-ended, for messages and --help. */
const char *const *sk_chat_names(void);

/* How the conversation stands that the messages go on with. */
enum sk_chat_place {
	SK_CHAT_BEGINS,  /* nothing has been said: BOS and the default system message come first */
	SK_CHAT_IS_OPEN, /* the assistant's turn was cut (a limit, a cancel): it is closed first */
	SK_CHAT_IS_ENDED, /* the assistant's turn has its end-of-turn token, and only what follows that is put */
};

/* Appends the ids of the messages, and of the words that open the assistant's turn. Marks become
 * special tokens; contents never do (SK_ENCODE_PLAIN), so a user cannot speak for the system. Where
 * the model's own template puts a default system message first, so does this. -ENOMEM, -EINVAL
 * (a role that the template has not), -EILSEQ (sk_tokenizer_encode); then *ids is as it was. */
int sk_chat_encode(const struct sk_chat_template *chat, const struct sk_tokenizer *tokenizer,
		   const struct sk_chat_message *messages, size_t n_messages, struct sk_ids *ids);
/* The same for messages that go on with a conversation. */
int sk_chat_encode_at(const struct sk_chat_template *chat, const struct sk_tokenizer *tokenizer,
		      enum sk_chat_place place, const struct sk_chat_message *messages,
		      size_t n_messages, struct sk_ids *ids);
/* The same, but -ECANCELED soon after the flag is set. */
int sk_chat_encode_unless(const atomic_bool *is_cancelled, const struct sk_chat_template *chat,
			  const struct sk_tokenizer *tokenizer, enum sk_chat_place place,
			  const struct sk_chat_message *messages, size_t n_messages,
			  struct sk_ids *ids);
