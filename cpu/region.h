/* Anonymous memory straight from the kernel: zeroed, aligned to huge pages and asking for them, so that
 * gigabytes of weights cost few TLB misses. Nothing is committed before it is touched.
 */
#pragma once

#include <stddef.h>

struct sk_region {
	void *data; /* NULL: empty */
	size_t size_bytes;
};

int sk_region_init(struct sk_region *region, size_t size_bytes); /* -ENOMEM */
void sk_region_finish(struct sk_region *region);
