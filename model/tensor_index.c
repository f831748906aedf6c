/* Tensors by name: a sorted array. */
#include "model/tensor_index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int sk_tensor_index_add(struct sk_tensor_index *index, const struct sk_tensor *tensor,
			const char *source, struct sk_diag *diag)
{
	if (index->n_entries == index->room) {
		size_t room = index->room ? 2 * index->room : 256;
		struct sk_tensor_entry *entries =
			reallocarray(index->entries, room, sizeof *entries);
		if (!entries)
			return sk_diag_fail(diag, ENOMEM, "%s: no memory for its list of tensors",
					    source);
		index->entries = entries;
		index->room = room;
	}
	index->entries[index->n_entries++] = (struct sk_tensor_entry){tensor, source, false};
	return 0;
}

static int compare_entries(const void *a, const void *b)
{
	const struct sk_tensor_entry *x = a, *y = b;
	return strcmp(x->tensor->name, y->tensor->name);
}

int sk_tensor_index_seal(struct sk_tensor_index *index, struct sk_diag *diag)
{
	if (index->n_entries)
		qsort(index->entries, index->n_entries, sizeof *index->entries, compare_entries);
	for (size_t i = 1; i < index->n_entries; i++) {
		const struct sk_tensor_entry *a = &index->entries[i - 1], *b = &index->entries[i];
		if (strcmp(a->tensor->name, b->tensor->name) != 0)
			continue;
		if (strcmp(a->source, b->source) == 0)
			return sk_diag_fail(diag, EINVAL, "%s: tensor '%s' is there twice",
					    a->source, a->tensor->name);
		return sk_diag_fail(diag, EINVAL, "%s: tensor '%s' is in %s too", a->source,
				    a->tensor->name, b->source);
	}
	return 0;
}

static int compare_name(const void *name, const void *entry)
{
	const struct sk_tensor_entry *e = entry;
	return strcmp(name, e->tensor->name);
}

struct sk_tensor_entry *sk_tensor_index_find(const struct sk_tensor_index *index, const char *name)
{
	if (!index->n_entries)
		return NULL;
	return bsearch(name, index->entries, index->n_entries, sizeof *index->entries,
		       compare_name);
}

void sk_tensor_index_finish(struct sk_tensor_index *index)
{
	free(index->entries);
	*index = (struct sk_tensor_index){0};
}
