/* A stream of ids to a stream of bytes in which no UTF-8 sequence is ever cut: bytes that begin a
 * sequence wait for the token that ends it. Bytes that can never become UTF-8 pass through as they
 * are (a byte-level model may emit them; the reader gets what was generated).
 *
 * One detokenizer a generation, owned by its session; a value to embed, no heap.
 */
#pragma once

#include "text/tokenizer.h"

/* The longest output of one push: the longest token in any known vocabulary is far below. */
#define SK_DETOKENIZER_MOST 4096

struct sk_detokenizer {
	const struct sk_tokenizer *tokenizer;
	bool show_special; /* otherwise special tokens give no bytes */
	uint8_t waiting[4];
	uint8_t n_waiting;
};

void sk_detokenizer_init(struct sk_detokenizer *detokenizer, const struct sk_tokenizer *tokenizer,
			 bool show_special);

/* Writes to out[SK_DETOKENIZER_MOST] the bytes that are complete after `id`; returns how many (0
 * while a sequence is open). A token longer than the buffer's room is cut at a sequence's boundary.
 */
size_t sk_detokenizer_push(struct sk_detokenizer *detokenizer, int32_t id, uint8_t *out);

/* What still waits at the end of the stream, as it is (at most 3 bytes). */
size_t sk_detokenizer_flush(struct sk_detokenizer *detokenizer, uint8_t *out);
