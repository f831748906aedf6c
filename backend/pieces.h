/* Weights in one allocation: which piece of it is which. For implementers.
 *
 * Whoever packs takes a piece for each array that it keeps (a matrix' codes, a bias, ...), in order, and the list of
 * their sizes is all that an importer needs: it packs the same matrices in the same order, and finds each array where
 * the list says, provided that it asks for as much.
 */
#pragma once

#include "backend/backend.h"

#define SK_PIECE_ALIGN 256 /* bytes: what any kernel's widest load wants, and whole cache lines */

struct sk_pieces {
	uint64_t *sizes; /* (n) bytes; owned */
	uint32_t n, n_room;
	uint64_t
		n_bytes; /* of the allocation; 0: there is none, every array has memory of its own */
	uint64_t n_used;  /* where the next piece begins */
	uint32_t n_taken; /* imported: of n */
	bool is_import;
};

/* What a piece takes of the allocation. */
static inline uint64_t sk_piece_bytes(uint64_t n_bytes)
{
	return (n_bytes + SK_PIECE_ALIGN - 1) / SK_PIECE_ALIGN * SK_PIECE_ALIGN;
}

/* Where the next piece lies. -ENOMEM, -ENOSPC where the allocation is too small, -ESTALE where an imported one is
 * not what is asked for. */
int sk_pieces_take(struct sk_pieces *pieces, uint64_t n_bytes, uint64_t *ret_offset);

/* The list for export, and one from import: -ENOMEM, -EBADMSG where the sizes do not fit into the allocation. */
int sk_pieces_export(const struct sk_pieces *pieces, struct sk_shared_weights *ret_shared);
int sk_pieces_import(struct sk_pieces *pieces, const struct sk_shared_weights *shared);
void sk_pieces_finish(struct sk_pieces *pieces);
