/* Where keys and values lie in the pool: the layout of a page is known here and in kernel_attention.h
 * and kernel_append.h alone.
 *
 * page -> layer -> kv head -> keys (head_dim, SK_PAGE_TOKENS), then values (SK_PAGE_TOKENS, value_dim).
 * Keys have tokens last, so that the scores of a page are lanes of one vector; value_dim is head_dim
 * rounded up to whole vectors, with zeros behind.
 */
#pragma once

#include "backend/backend.h"
#include "cpu/region.h"

#define SK_CPU_LANES 16 /* floats in the widest vector */

struct sk_cpu_pages {
	struct sk_region region;
	uint32_t n_pages;
	uint32_t value_dim;
	size_t key_bytes, head_bytes, layer_bytes, page_bytes; /* keys of a head; a head; ... */
};

void sk_cpu_pages_init(struct sk_cpu_pages *pages, const struct sk_backend_shape *shape);
/* fd: in that file's first bytes; -1: in memory of its own. -ENOMEM, -EBUSY. */
int sk_cpu_pages_reserve(struct sk_cpu_pages *pages, uint32_t n_pages, int fd);
void sk_cpu_pages_clear(struct sk_cpu_pages *pages, uint32_t page);
void sk_cpu_pages_copy(struct sk_cpu_pages *pages, uint32_t from, uint32_t to);
void sk_cpu_pages_finish(struct sk_cpu_pages *pages);

/* The keys of one head in one page of one layer; its values follow key_bytes behind. */
static inline void *sk_cpu_pages_head(const struct sk_cpu_pages *pages, uint32_t page,
				      uint32_t layer, uint32_t kv_head)
{
	return (char *)pages->region.data + page * pages->page_bytes + layer * pages->layer_bytes +
	       kv_head * pages->head_bytes;
}
