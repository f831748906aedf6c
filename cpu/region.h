/* Anonymous memory straight from the kernel: zeroed, aligned to huge pages and asking for them, so that
 * gigabytes of weights cost few TLB misses. Nothing is committed before it is touched.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct sk_region {
	void *data; /* NULL: empty */
	size_t size_bytes;
	bool is_part; /* of another region, with which it goes */
};

int sk_region_init(struct sk_region *region, size_t size_bytes); /* -ENOMEM */
/* A shared map of a file's first bytes instead, aligned as well. -ENOMEM, or what mmap() says. */
int sk_region_map(struct sk_region *region, int fd, size_t size_bytes, bool is_writable);
void sk_region_finish(struct sk_region *region);
