#include "text/bpe.h"

#include <errno.h>
#include <stdlib.h>
#include <utf8proc.h>

void sk_bpe_finish(struct sk_bpe *bpe)
{
	free(bpe->symbols);
	free(bpe->heap);
	*bpe = (struct sk_bpe){0};
}

/* --- A heap of pairs
 * ------------------------------------------------------------------------------- */

static bool is_before(const struct sk_bpe_pair *a, const struct sk_bpe_pair *b)
{
	return a->rank < b->rank || (a->rank == b->rank && a->left < b->left);
}

static void push(struct sk_bpe *bpe, struct sk_bpe_pair pair)
{
	size_t at = bpe->n_heap++;
	while (at && is_before(&pair, &bpe->heap[(at - 1) / 2])) {
		bpe->heap[at] = bpe->heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	bpe->heap[at] = pair;
}

static struct sk_bpe_pair pop(struct sk_bpe *bpe)
{
	struct sk_bpe_pair top = bpe->heap[0], moved = bpe->heap[--bpe->n_heap];
	size_t at = 0;
	for (;;) {
		size_t child = 2 * at + 1;
		if (child >= bpe->n_heap)
			break;
		if (child + 1 < bpe->n_heap && is_before(&bpe->heap[child + 1], &bpe->heap[child]))
			child++;
		if (!is_before(&bpe->heap[child], &moved))
			break;
		bpe->heap[at] = bpe->heap[child];
		at = child;
	}
	bpe->heap[at] = moved;
	return top;
}

static void consider(struct sk_bpe *bpe, int32_t left)
{
	int32_t right = left < 0 ? -1 : bpe->symbols[left].next;
	if (right < 0)
		return;
	struct sk_bpe_pair pair = {
		.left = left, .left_id = bpe->symbols[left].id, .right_id = bpe->symbols[right].id};
	pair.id = sk_vocab_merged(bpe->vocab, pair.left_id, pair.right_id, &pair.rank);
	if (pair.id >= 0)
		push(bpe, pair);
}

/* --- Symbols
 * --------------------------------------------------------------------------------------- */

static int make_room(struct sk_bpe *bpe, size_t n)
{
	if (n > bpe->symbols_allocated) {
		struct sk_bpe_symbol *grown = realloc(bpe->symbols, (n + n / 2) * sizeof *grown);
		if (!grown)
			return -ENOMEM;
		bpe->symbols = grown;
		bpe->symbols_allocated = n + n / 2;
	}
	/* One pair a neighbourhood at first, two more a merge, and there are fewer merges than
	 * symbols. */
	if (3 * n > bpe->heap_allocated) {
		struct sk_bpe_pair *grown = realloc(bpe->heap, (3 * n + n) * sizeof *grown);
		if (!grown)
			return -ENOMEM;
		bpe->heap = grown;
		bpe->heap_allocated = 4 * n;
	}
	return 0;
}

static size_t add_symbol(struct sk_bpe *bpe, size_t n, int32_t id)
{
	if (id == bpe->vocab->unk_id && bpe->vocab->fuse_unk && n && bpe->symbols[n - 1].id == id)
		return n;
	bpe->symbols[n] =
		(struct sk_bpe_symbol){.id = id, .prev = (int32_t)n - 1, .next = (int32_t)n + 1};
	return n + 1;
}

/* Bytes, or characters that fall back to bytes, or the unknown token. -EILSEQ for what is none of them: some
 * byte-level vocabularies have no token for bytes that never occur in UTF-8. */
static int split(struct sk_bpe *bpe, const uint8_t *piece, size_t n_bytes, size_t *ret_n)
{
	const struct sk_vocab *vocab = bpe->vocab;
	size_t n = 0;

	for (size_t at = 0, k; at < n_bytes; at += k) {
		if (sk_is_cancelled(bpe->is_cancelled))
			return -ECANCELED;
		utf8proc_int32_t character;
		utf8proc_ssize_t length = -1;
		if (!vocab->is_byte_level)
			length = utf8proc_iterate(piece + at, (utf8proc_ssize_t)(n_bytes - at),
						  &character);
		k = length > 0 ? (size_t)length : 1;
		int32_t id = length > 0 ? sk_vocab_find(vocab, piece + at, k) : -1;
		bool has_bytes = true;
		for (size_t i = 0; i < k; i++)
			has_bytes &= vocab->byte_ids[piece[at + i]] >= 0;
		if (id < 0 && !has_bytes)
			id = vocab->unk_id;
		if (id < 0 && !has_bytes)
			return -EILSEQ;
		if (id >= 0) {
			n = add_symbol(bpe, n, id);
			continue;
		}
		for (size_t i = 0; i < k; i++)
			n = add_symbol(bpe, n, vocab->byte_ids[piece[at + i]]);
	}
	*ret_n = n;
	return 0;
}

int sk_bpe_encode(struct sk_bpe *bpe, const uint8_t *piece, size_t n_bytes, struct sk_ids *ids)
{
	if (!n_bytes)
		return 0;
	if (sk_is_cancelled(bpe->is_cancelled))
		return -ECANCELED; /* before a long piece is hashed, or memory taken for it */
	if (bpe->vocab->ignore_merges || n_bytes == 1) {
		int32_t id = sk_vocab_find(bpe->vocab, piece, n_bytes);
		if (id >= 0)
			return sk_ids_append(ids, id);
	}
	if (make_room(bpe, n_bytes) < 0)
		return -ENOMEM;
	size_t n;
	int err = split(bpe, piece, n_bytes, &n);
	if (err < 0)
		return err;
	bpe->symbols[n - 1].next = -1;
	bpe->n_heap = 0;
	for (size_t i = 0; i + 1 < n && !sk_is_cancelled(bpe->is_cancelled); i++)
		consider(bpe, (int32_t)i);

	while (bpe->n_heap && !sk_is_cancelled(bpe->is_cancelled)) {
		struct sk_bpe_pair pair = pop(bpe);
		struct sk_bpe_symbol *left = &bpe->symbols[pair.left];
		if (left->id != pair.left_id || left->next < 0 ||
		    bpe->symbols[left->next].id != pair.right_id)
			continue; /* one of the two has merged otherwise meanwhile */
		struct sk_bpe_symbol *right = &bpe->symbols[left->next];
		left->id = pair.id;
		left->next = right->next;
		if (right->next >= 0)
			bpe->symbols[right->next].prev = pair.left;
		right->id = -1;
		consider(bpe, left->prev);
		consider(bpe, pair.left);
	}
	for (int32_t at = 0; at >= 0 && !err; at = bpe->symbols[at].next) {
		if (sk_is_cancelled(bpe->is_cancelled))
			return -ECANCELED;
		err = sk_ids_append(ids, bpe->symbols[at].id);
	}
	return err;
}
