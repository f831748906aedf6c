#include "text/vocab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void sk_vocab_init(struct sk_vocab *vocab)
{
	*vocab = (struct sk_vocab){.unk_id = -1};
	for (int i = 0; i < 256; i++)
		vocab->byte_ids[i] = -1;
}

void sk_vocab_finish(struct sk_vocab *vocab)
{
	free(vocab->tokens);
	free(vocab->bytes);
	free(vocab->by_bytes);
	free(vocab->merges);
	sk_vocab_init(vocab);
}

static int grow_tokens(struct sk_vocab *vocab, uint32_t n)
{
	if (n <= vocab->tokens_allocated)
		return 0;
	uint32_t wanted = n + n / 2 + 1024;
	struct sk_vocab_token *tokens = realloc(vocab->tokens, wanted * sizeof *tokens);
	if (!tokens)
		return -ENOMEM;
	memset(tokens + vocab->tokens_allocated, 0,
	       (wanted - vocab->tokens_allocated) * sizeof *tokens);
	vocab->tokens = tokens;
	vocab->tokens_allocated = wanted;
	return 0;
}

int sk_vocab_set(struct sk_vocab *vocab, int64_t id, const void *bytes, size_t n_bytes,
		 bool is_model)
{
	if (id < 0 || id >= SK_VOCAB_MOST_IDS || n_bytes > UINT32_MAX / 2)
		return -ERANGE;
	int err = grow_tokens(vocab, (uint32_t)id + 1);
	if (err < 0)
		return err;
	struct sk_vocab_token *token = &vocab->tokens[id];
	if (is_model && token->is_model)
		return -EEXIST;
	if (vocab->n_bytes + n_bytes > vocab->bytes_allocated) {
		size_t wanted = 2 * (vocab->n_bytes + n_bytes) + 65536;
		uint8_t *grown = wanted > UINT32_MAX ? NULL : realloc(vocab->bytes, wanted);
		if (!grown)
			return -ENOMEM;
		vocab->bytes = grown;
		vocab->bytes_allocated = wanted;
	}
	if (n_bytes)
		memcpy(vocab->bytes + vocab->n_bytes, bytes, n_bytes);
	token->at = (uint32_t)vocab->n_bytes;
	token->n_bytes = (uint32_t)n_bytes;
	token->is_model |= is_model;
	vocab->n_bytes += n_bytes;
	if (vocab->n_tokens <= (uint32_t)id)
		vocab->n_tokens = (uint32_t)id + 1;
	return 0;
}

/* --- Look-up by bytes
 * ------------------------------------------------------------------------------ */

static uint64_t hash_bytes(const uint8_t *bytes, size_t n)
{
	uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
	for (size_t i = 0; i < n; i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3u;
	return hash ^ hash >> 29;
}

static uint32_t power_of_two_above(uint32_t n)
{
	uint32_t power = 16;
	while (power < n)
		power *= 2;
	return power;
}

int sk_vocab_index(struct sk_vocab *vocab)
{
	uint32_t n = power_of_two_above(2 * vocab->n_tokens);
	int32_t *table = malloc(n * sizeof *table);
	if (!table)
		return -ENOMEM;
	memset(table, 0xff, n * sizeof *table);
	free(vocab->by_bytes);
	vocab->by_bytes = table;
	vocab->n_by_bytes = n;
	for (uint32_t id = 0; id < vocab->n_tokens; id++) {
		const struct sk_vocab_token *token = &vocab->tokens[id];
		const uint8_t *bytes = vocab->bytes + token->at;
		if (!token->is_model || !token->n_bytes ||
		    sk_vocab_find(vocab, bytes, token->n_bytes) >= 0)
			continue;
		uint64_t at = hash_bytes(bytes, token->n_bytes) & (n - 1);
		while (table[at] >= 0)
			at = (at + 1) & (n - 1);
		table[at] = (int32_t)id;
	}
	return 0;
}

int32_t sk_vocab_find(const struct sk_vocab *vocab, const void *bytes, size_t n_bytes)
{
	if (!vocab->n_by_bytes)
		return -1;
	uint32_t mask = vocab->n_by_bytes - 1;
	for (uint64_t at = hash_bytes(bytes, n_bytes) & mask;; at = (at + 1) & mask) {
		int32_t id = vocab->by_bytes[at];
		if (id < 0)
			return -1;
		const struct sk_vocab_token *token = &vocab->tokens[id];
		if (token->n_bytes == n_bytes &&
		    memcmp(vocab->bytes + token->at, bytes, n_bytes) == 0)
			return id;
	}
}

/* --- Merges
 * ---------------------------------------------------------------------------------------- */

static uint64_t hash_pair(int32_t left, int32_t right)
{
	uint64_t x = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
	return x ^ x >> 32;
}

static struct sk_vocab_merge *merge_slot(struct sk_vocab_merge *table, uint32_t n, int32_t left,
					 int32_t right)
{
	uint64_t at = hash_pair(left, right) & (n - 1);
	while (table[at].left >= 0 && (table[at].left != left || table[at].right != right))
		at = (at + 1) & (n - 1);
	return &table[at];
}

static int grow_merges(struct sk_vocab *vocab)
{
	if (2 * (vocab->n_merges + 1) <= vocab->merges_allocated)
		return 0;
	uint32_t n = vocab->merges_allocated ? 2 * vocab->merges_allocated : 4096;
	struct sk_vocab_merge *table = malloc(n * sizeof *table);
	if (!table)
		return -ENOMEM;
	memset(table, 0xff, n * sizeof *table);
	for (uint32_t i = 0; i < vocab->merges_allocated; i++) {
		const struct sk_vocab_merge *merge = &vocab->merges[i];
		if (merge->left >= 0)
			*merge_slot(table, n, merge->left, merge->right) = *merge;
	}
	free(vocab->merges);
	vocab->merges = table;
	vocab->merges_allocated = n;
	return 0;
}

/* Joins two tokens' bytes and looks the join up. */
static int32_t joined(const struct sk_vocab *vocab, int32_t left, int32_t right)
{
	const struct sk_vocab_token *a = &vocab->tokens[left], *b = &vocab->tokens[right];
	uint8_t join[512], *bytes = join;
	size_t n = (size_t)a->n_bytes + b->n_bytes;

	if (n > sizeof join && !(bytes = malloc(n)))
		return -1;
	memcpy(bytes, vocab->bytes + a->at, a->n_bytes);
	memcpy(bytes + a->n_bytes, vocab->bytes + b->at, b->n_bytes);
	int32_t id = sk_vocab_find(vocab, bytes, n);
	if (bytes != join)
		free(bytes);
	return id;
}

int sk_vocab_add_merge(struct sk_vocab *vocab, int32_t left, int32_t right, uint32_t rank)
{
	if (left < 0 || right < 0 || (uint32_t)left >= vocab->n_tokens ||
	    (uint32_t)right >= vocab->n_tokens)
		return -EINVAL;
	int32_t id = joined(vocab, left, right);
	if (id < 0)
		return -ENOENT;
	int err = grow_merges(vocab);
	if (err < 0)
		return err;
	struct sk_vocab_merge *slot =
		merge_slot(vocab->merges, vocab->merges_allocated, left, right);
	if (slot->left >= 0)
		return 0;
	*slot = (struct sk_vocab_merge){.left = left, .right = right, .rank = rank, .id = id};
	vocab->n_merges++;
	return 0;
}

/* Orders floats as unsigned integers, highest first. */
static uint32_t rank_of_score(float score)
{
	uint32_t bits;
	memcpy(&bits, &score, sizeof bits);
	bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
	return ~bits;
}

int32_t sk_vocab_merged(const struct sk_vocab *vocab, int32_t left, int32_t right,
			uint32_t *ret_rank)
{
	if (vocab->merges_by_score) {
		int32_t id = joined(vocab, left, right);
		if (id >= 0)
			*ret_rank = rank_of_score(vocab->tokens[id].score);
		return id;
	}
	if (!vocab->merges_allocated)
		return -1;
	const struct sk_vocab_merge *slot =
		merge_slot(vocab->merges, vocab->merges_allocated, left, right);
	if (slot->left < 0)
		return -1;
	*ret_rank = slot->rank;
	return slot->id;
}

/* --- Spellings
 * ------------------------------------------------------------------------------------- */

int sk_vocab_byte_name(const char *text, size_t n_bytes)
{
	static const char digits[] = "0123456789ABCDEF";
	if (n_bytes != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>' || !text[3] || !text[4])
		return -1;
	const char *high = strchr(digits, text[3]), *low = strchr(digits, text[4]);
	return high && low ? (int)((high - digits) * 16 + (low - digits)) : -1;
}

/* The byte that GPT-2's table spells as this character: printable Latin-1 stands for itself, the 68
 * others, in order, for U+0100 upwards. */
static int byte_of_character(int32_t character)
{
	if ((character >= 0x21 && character <= 0x7e) || (character >= 0xa1 && character <= 0xac) ||
	    (character >= 0xae && character <= 0xff))
		return character;
	int32_t n = character - 0x100;
	if (n < 0 || n > 67)
		return -1;
	if (n <= 0x20)
		return n;
	return n == 67 ? 0xad : 0x7f + n - 0x21;
}

bool sk_vocab_unspell(uint8_t *text, size_t *n_bytes)
{
	size_t n_out = 0;
	for (size_t at = 0; at < *n_bytes;) {
		utf8proc_int32_t character;
		utf8proc_ssize_t n =
			utf8proc_iterate(text + at, (utf8proc_ssize_t)(*n_bytes - at), &character);
		int byte = n > 0 ? byte_of_character(character) : -1;
		if (byte < 0)
			return false;
		text[n_out++] = (uint8_t)byte; /* a character is at least as long as its byte */
		at += (size_t)n;
	}
	*n_bytes = n_out;
	return true;
}

void sk_vocab_unmark(uint8_t *text, size_t *n_bytes)
{
	size_t n_out = 0;
	for (size_t at = 0; at < *n_bytes; n_out++) {
		bool is_mark = *n_bytes - at >= 3 && memcmp(text + at, "\xe2\x96\x81", 3) == 0;
		text[n_out] = is_mark ? ' ' : text[at];
		at += is_mark ? 3 : 1;
	}
	*n_bytes = n_out;
}
