/* The tensors of a model by name, whichever files they lie in. Filled, sealed, then searched. A
 * tensor that has found its place in the model is marked as used, so that what is left over can be
 * named.
 */
#pragma once

#include "base/diag.h"
#include "base/tensor.h"

struct sk_tensor_entry {
	const struct sk_tensor *tensor; /* owned by its file's reader */
	const char *source;             /* the file, for messages */
	bool is_used;
};

struct sk_tensor_index {
	struct sk_tensor_entry *entries; /* by name once sealed */
	size_t n_entries, room;
};

int sk_tensor_index_add(struct sk_tensor_index *index, const struct sk_tensor *tensor,
			const char *source, struct sk_diag *diag);
/* Sorts. A name that is there twice is a fault that names both files. */
int sk_tensor_index_seal(struct sk_tensor_index *index, struct sk_diag *diag);
/* NULL where there is none. */
struct sk_tensor_entry *sk_tensor_index_find(const struct sk_tensor_index *index, const char *name);
void sk_tensor_index_finish(struct sk_tensor_index *index);
