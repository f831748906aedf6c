#include "backend/pieces.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int append(struct sk_pieces *pieces, uint64_t n_bytes)
{
	if (pieces->n == pieces->n_room) {
		const uint32_t n_room = pieces->n_room ? 2 * pieces->n_room : 64;
		uint64_t *sizes = realloc(pieces->sizes, n_room * sizeof *sizes);
		if (!sizes)
			return -ENOMEM;
		pieces->sizes = sizes;
		pieces->n_room = n_room;
	}
	pieces->sizes[pieces->n++] = n_bytes;
	return 0;
}

int sk_pieces_take(struct sk_pieces *pieces, uint64_t n_bytes, uint64_t *ret_offset)
{
	if (pieces->is_import) {
		if (pieces->n_taken == pieces->n || pieces->sizes[pieces->n_taken] != n_bytes)
			return -ESTALE;
		pieces->n_taken++;
	} else {
		if (n_bytes > pieces->n_bytes - pieces->n_used ||
		    sk_piece_bytes(n_bytes) > pieces->n_bytes - pieces->n_used)
			return -ENOSPC;
		int r = append(pieces, n_bytes);
		if (r < 0)
			return r;
	}
	*ret_offset = pieces->n_used;
	pieces->n_used += sk_piece_bytes(n_bytes);
	return 0;
}

int sk_pieces_export(const struct sk_pieces *pieces, struct sk_shared_weights *ret_shared)
{
	ret_shared->pieces = malloc((pieces->n ? pieces->n : 1) * sizeof *ret_shared->pieces);
	if (!ret_shared->pieces)
		return -ENOMEM;
	if (pieces->n)
		memcpy(ret_shared->pieces, pieces->sizes, pieces->n * sizeof *pieces->sizes);
	ret_shared->n_pieces = pieces->n;
	ret_shared->n_bytes = pieces->n_bytes;
	return 0;
}

int sk_pieces_import(struct sk_pieces *pieces, const struct sk_shared_weights *shared)
{
	uint64_t left = shared->n_bytes;
	for (uint32_t i = 0; i < shared->n_pieces; i++) {
		if (shared->pieces[i] > left || sk_piece_bytes(shared->pieces[i]) > left)
			return -EBADMSG;
		left -= sk_piece_bytes(shared->pieces[i]);
	}
	struct sk_pieces imported = {.n_bytes = shared->n_bytes, .is_import = true};
	for (uint32_t i = 0; i < shared->n_pieces; i++) {
		int r = append(&imported, shared->pieces[i]);
		if (r < 0) {
			sk_pieces_finish(&imported);
			return r;
		}
	}
	*pieces = imported;
	return 0;
}

void sk_pieces_finish(struct sk_pieces *pieces)
{
	free(pieces->sizes);
	*pieces = (struct sk_pieces){0};
}

void sk_shared_weights_finish(struct sk_shared_weights *shared)
{
	free(shared->pieces);
	if (shared->fd >= 0)
		close(shared->fd);
	*shared = (struct sk_shared_weights){.fd = -1};
}
