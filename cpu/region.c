/* Maps more than is wanted and trims both ends, since mmap() itself aligns to small pages only. */
#include "cpu/region.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_BYTES ((size_t)2 << 20)

int sk_region_init(struct sk_region *region, size_t size_bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t align = size_bytes >= HUGE_BYTES ? HUGE_BYTES : page;
	if (size_bytes == 0)
		size_bytes = page;
	if (size_bytes > SIZE_MAX / 2)
		return -ENOMEM;
	size_t size = (size_bytes + page - 1) / page * page;
	uint8_t *map = mmap(NULL, size + align - page, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		return -ENOMEM;
	uint8_t *data = (uint8_t *)(((uintptr_t)map + align - 1) / align * align);
	if (data > map)
		munmap(map, (size_t)(data - map));
	size_t behind = (size_t)(map + size + align - page - (data + size));
	if (behind)
		munmap(data + size, behind);
	if (align == HUGE_BYTES)
		madvise(data, size,
			MADV_HUGEPAGE); /* a hint: without it all is right, but slower */
	*region = (struct sk_region){data, size};
	return 0;
}

void sk_region_finish(struct sk_region *region)
{
	if (region->data)
		munmap(region->data, region->size_bytes);
	*region = (struct sk_region){0};
}
