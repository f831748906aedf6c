/* Added tokens: strings that are tokens wherever they stand in a text, before anything else is done
 * with it (special marks, the NeoX runs of spaces). Leftmost first, of those the longest.
 */
#pragma once

#include "text/cancel.h"
#include "text/vocab.h"

struct sk_added_token {
	int32_t id;
	const char *content; /* heap, the table's; normalised where the text is */
	uint32_t n_bytes;
	bool is_special;
	bool is_normalized; /* looked for in the normalised text, else in the text as it came */
	bool strips_left, strips_right; /* takes the white space beside it along */
	bool is_single_word;            /* only where no word character stands beside it */
};

struct sk_added_tokens {
	struct sk_added_token *tokens; /* by first byte, longest first, once indexed */
	uint32_t n_tokens, n_allocated;
	uint32_t begins[257]; /* tokens that begin with byte b: [begins[b], begins[b + 1]) */
};

void sk_added_tokens_finish(struct sk_added_tokens *added);
/* Copies the content; empty ones are passed over. */
int sk_added_tokens_add(struct sk_added_tokens *added, const struct sk_added_token *token);
void sk_added_tokens_index(struct sk_added_tokens *added);

struct sk_added_match {
	size_t begin, end; /* with the white space that it takes along */
	int32_t id;
};
/* The first match at or after `at` among the tokens of one kind; specials are left out where
 * `plain`. False, too, where it was cancelled. */
bool sk_added_tokens_find(const struct sk_added_tokens *added, const uint8_t *text, size_t n_bytes,
			  size_t at, bool normalized, bool plain, const atomic_bool *is_cancelled,
			  struct sk_added_match *ret_match);
