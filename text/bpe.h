/* Byte-pair encoding of one piece of text: symbols merged by rank, lowest first, leftmost of
 * equals. O(n log n) in the piece's length, so a piece may be megabytes long.
 */
#pragma once

#include "text/cancel.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

struct sk_bpe_symbol {
	int32_t id;         /* -1: merged into the one before */
	int32_t prev, next; /* indexes, -1 none */
};

struct sk_bpe_pair {
	uint32_t rank;
	int32_t left;                  /* index of the left symbol */
	int32_t left_id, right_id, id; /* as they were when the pair was found */
};

/* Scratch of one thread, grown as needed. Zero it to begin. */
struct sk_bpe {
	const struct sk_vocab *vocab;
	const atomic_bool *is_cancelled; /* or NULL */
	struct sk_bpe_symbol *symbols;
	size_t symbols_allocated;
	struct sk_bpe_pair *heap;
	size_t n_heap, heap_allocated;
};

void sk_bpe_finish(struct sk_bpe *bpe);
/* Appends the piece's ids. 0, -ENOMEM, -ECANCELED (some ids may be there), or -EILSEQ where the vocabulary has no token for a byte of it. */
int sk_bpe_encode(struct sk_bpe *bpe, const uint8_t *piece, size_t n_bytes, struct sk_ids *ids);
