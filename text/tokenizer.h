/* Text to token ids and back, by byte-level BPE as the `tokenizers` package does it: added tokens
 * are cut out first, the rest is normalised (NFC where the file asks), split by the pre-tokenizer's
 * regular expression, and each piece merged by rank.
 *
 * Any bytes are accepted: NUL is a byte like another, and bytes that are no UTF-8 are carried
 * through byte by byte, so decode(encode(x)) == x wherever normalisation changes nothing.
 *
 * Immutable after opening; one tokenizer serves any number of threads at once.
 */
#pragma once

#include "base/diag.h"
#include "model/model.h"
#include "text/cancel.h"

#include <stddef.h>
#include <stdint.h>

struct sk_tokenizer;

/* A growing array of ids. Zero it to begin, sk_ids_finish() to end; `ids` belongs to it. */
struct sk_ids {
	int32_t *ids;
	size_t n_ids, n_allocated;
};
int sk_ids_append(struct sk_ids *ids, int32_t id); /* 0 or -ENOMEM */
void sk_ids_finish(struct sk_ids *ids);

/* The tokenizer that belongs to a model: tokenizer.json of its directory, or its GGUF metadata. */
int sk_tokenizer_open(const struct sk_model *model, struct sk_tokenizer **ret_tokenizer,
		      struct sk_diag *diag);
int sk_tokenizer_open_json(const char *path, struct sk_tokenizer **ret_tokenizer,
			   struct sk_diag *diag);
int sk_tokenizer_open_gguf(const struct sk_gguf *gguf, struct sk_tokenizer **ret_tokenizer,
			   struct sk_diag *diag);
void sk_tokenizer_close(struct sk_tokenizer *tokenizer);

enum sk_encode_flags {
	SK_ENCODE_PLAIN = 1 << 0,   /* special tokens spelt out in the text are plain text (a user's
				     words in a chat) */
	SK_ENCODE_BOS = 1 << 1,     /* begin with BOS where the file says that a sequence does */
	SK_ENCODE_GOES_ON = 1 << 2, /* goes on with another text: no space before the first word */
};

/* Appends the ids of text[0..n_bytes) to *ids. -ENOMEM; -EOVERFLOW past 2^31 bytes; -EILSEQ
 * where the vocabulary has no token for a byte (GPT-NeoX has none for bytes that never occur in UTF-8, such as 0xff): nothing is
 * left out silently. Then *ids is as it was. */
int sk_tokenizer_encode(const struct sk_tokenizer *tokenizer, const void *text, size_t n_bytes,
			unsigned flags, struct sk_ids *ids);
/* The same, but -ECANCELED soon after the flag is set. */
int sk_tokenizer_encode_unless(const atomic_bool *is_cancelled,
			       const struct sk_tokenizer *tokenizer, const void *text,
			       size_t n_bytes, unsigned flags, struct sk_ids *ids);

uint32_t sk_tokenizer_n_ids(const struct sk_tokenizer *tokenizer); /* largest id + 1 */
int32_t sk_tokenizer_bos(const struct sk_tokenizer *tokenizer);    /* -1: none */
int32_t sk_tokenizer_eos(const struct sk_tokenizer *tokenizer);    /* -1: none */
/* Whether a generation ends at this id: EOS, and end-of-turn tokens such as <|im_end|>. */
bool sk_tokenizer_is_end(const struct sk_tokenizer *tokenizer, int32_t id);
bool sk_tokenizer_is_special(const struct sk_tokenizer *tokenizer, int32_t id);
/* Id of an exact token such as "<|im_start|>", or -1. */
int32_t sk_tokenizer_find(const struct sk_tokenizer *tokenizer, const char *token);

/* The bytes that an id stands for (not NUL-ended; they may be half a UTF-8 sequence). An id outside
 * the vocabulary has none. Special tokens give their own name. */
const uint8_t *sk_tokenizer_bytes(const struct sk_tokenizer *tokenizer, int32_t id,
				  size_t *ret_n_bytes);

/* The model's chat template as the file has it (Jinja), or NULL; see text/chat.h. */
const char *sk_tokenizer_chat_template(const struct sk_tokenizer *tokenizer);
