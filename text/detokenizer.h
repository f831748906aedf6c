/* A stream of ids to a stream of text that is always valid UTF-8: bytes that begin a character wait
 * for the token that ends it, and what can no longer become one is told as U+FFFD, one for each
 * maximal subpart of an ill-formed sequence (Unicode, section 3.9), as decoders do it. So what comes
 * out, the flush included, is the decoding of all bytes together, however tokens divide them. (The
 * bytes themselves: sk_tokenizer_bytes().)
 *
 * One detokenizer a generation, owned by its session; a value to embed, no heap.
 */
#pragma once

#include "text/tokenizer.h"

/* The longest output of one push. The longest token in any known vocabulary is far below, also where
 * each of its bytes becomes the three of U+FFFD. */
#define SK_DETOKENIZER_MOST 4096

struct sk_detokenizer {
	const struct sk_tokenizer *tokenizer;
	bool show_special; /* otherwise special tokens give no bytes */
	uint8_t waiting[4];
	uint8_t n_waiting; /* at most 3: the beginning of a character */
};

void sk_detokenizer_init(struct sk_detokenizer *detokenizer, const struct sk_tokenizer *tokenizer,
			 bool show_special);

/* Writes to out[SK_DETOKENIZER_MOST] the characters that are complete after `id`; returns how many
 * bytes (0 while one is open). A token that is longer is cut between two characters, and its rest is
 * gone. */
size_t sk_detokenizer_push(struct sk_detokenizer *detokenizer, int32_t id, uint8_t *out);

/* The stream ends: U+FFFD where a character was open (at most 3 bytes). Then it may begin anew. */
size_t sk_detokenizer_flush(struct sk_detokenizer *detokenizer, uint8_t *out);
