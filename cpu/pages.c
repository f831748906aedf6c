/* The pool of KV pages: one mapping. */
#include "cpu/pages.h"

#include <errno.h>
#include <string.h>

void sk_cpu_pages_init(struct sk_cpu_pages *pages, const struct sk_backend_shape *shape)
{
	size_t element = shape->kv_format == SK_KV_F32 ? 4 : 2;
	*pages = (struct sk_cpu_pages){0};
	pages->value_dim = (shape->head_dim + SK_CPU_LANES - 1) / SK_CPU_LANES * SK_CPU_LANES;
	pages->key_bytes = element * SK_PAGE_TOKENS * shape->head_dim;
	pages->head_bytes = pages->key_bytes + element * SK_PAGE_TOKENS * pages->value_dim;
	pages->layer_bytes = pages->head_bytes * shape->n_kv_heads;
	pages->page_bytes = pages->layer_bytes * shape->n_layers;
}

int sk_cpu_pages_reserve(struct sk_cpu_pages *pages, uint32_t n_pages, int fd)
{
	if (pages->region.data)
		return -EBUSY;
	if (n_pages > SIZE_MAX / 2 / pages->page_bytes)
		return -ENOMEM;
	const size_t n_bytes = n_pages * pages->page_bytes;
	int r = fd < 0 ? sk_region_init(&pages->region, n_bytes)
		       : sk_region_map(&pages->region, fd, n_bytes, true);
	if (r == 0)
		pages->n_pages = n_pages;
	return r;
}

void sk_cpu_pages_clear(struct sk_cpu_pages *pages, uint32_t page)
{
	memset(sk_cpu_pages_head(pages, page, 0, 0), 0, pages->page_bytes);
}

void sk_cpu_pages_copy(struct sk_cpu_pages *pages, uint32_t from, uint32_t to)
{
	if (from != to)
		memcpy(sk_cpu_pages_head(pages, to, 0, 0), sk_cpu_pages_head(pages, from, 0, 0),
		       pages->page_bytes);
}

void sk_cpu_pages_finish(struct sk_cpu_pages *pages)
{
	sk_region_finish(&pages->region);
}
