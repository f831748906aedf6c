/* A vocabulary: what each id stands for, in raw bytes, and how pairs merge. Filled by vocab_json.c
 * or vocab_gguf.c, then immutable.
 *
 * Files of byte-level models spell bytes as printable characters (the GPT-2 table); here they are
 * bytes again. Model entries and added tokens are kept apart: two ids may stand for the same bytes,
 * and only model entries take part in merging.
 */
#pragma once

#include "base/diag.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SK_VOCAB_MOST_IDS (4u << 20)

struct sk_vocab_token {
	uint32_t at, n_bytes; /* in `bytes`; n_bytes 0: an id that is not used */
	float score;          /* of score-merged vocabularies */
	bool is_special;
	bool is_model; /* takes part in merging */
};

struct sk_vocab_merge {
	int32_t left, right; /* left -1: an empty slot */
	uint32_t rank;
	int32_t id;
};

struct sk_vocab {
	struct sk_vocab_token *tokens;
	uint32_t n_tokens, tokens_allocated;
	uint8_t *bytes;
	size_t n_bytes, bytes_allocated;

	int32_t *by_bytes; /* hash of model entries: ids, -1 empty; a power of two */
	uint32_t n_by_bytes;
	struct sk_vocab_merge *merges; /* hash by pair; a power of two */
	uint32_t n_merges, merges_allocated;

	bool merges_by_score;  /* any pair whose join is a token merges, highest score first */
	bool is_byte_level;    /* every byte is a token; else characters, with byte_fallback */
	bool ignore_merges;    /* a piece that is a token is that token */
	int32_t byte_ids[256]; /* -1: none */
	int32_t unk_id;        /* -1: none */
	bool fuse_unk;
};

void sk_vocab_init(struct sk_vocab *vocab);
void sk_vocab_finish(struct sk_vocab *vocab);

/* Sets id's bytes (copied). -ENOMEM, -ERANGE (id out of bounds), -EEXIST (it has bytes already, as
 * a model entry). */
int sk_vocab_set(struct sk_vocab *vocab, int64_t id, const void *bytes, size_t n_bytes,
		 bool is_model);
/* After all model entries are set, before merges: builds the look-up by bytes. */
int sk_vocab_index(struct sk_vocab *vocab);
/* -ENOENT where the join is no token, -EINVAL for an id that is none; a pair given twice keeps its
 * first rank. */
int sk_vocab_add_merge(struct sk_vocab *vocab, int32_t left, int32_t right, uint32_t rank);

/* The model entry with these bytes, or -1. */
int32_t sk_vocab_find(const struct sk_vocab *vocab, const void *bytes, size_t n_bytes);
/* What left and right merge into: the id, or -1; *ret_rank orders merges, lowest first. */
int32_t sk_vocab_merged(const struct sk_vocab *vocab, int32_t left, int32_t right,
			uint32_t *ret_rank);

/* "<0xAB>": the byte, or -1. */
int sk_vocab_byte_name(const char *text, size_t n_bytes);
/* GPT-2's spelling back to bytes, in place; false where a character is none of the table's. */
bool sk_vocab_unspell(uint8_t *text, size_t *n_bytes);
/* The mark U+2581 that character vocabularies write for a space, back to a space, in place. */
void sk_vocab_unmark(uint8_t *text, size_t *n_bytes);
