/* Maps more than is wanted and trims both ends, since mmap() itself aligns to small pages only. */
#include "cpu/region.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_BYTES ((size_t)2 << 20)

/* Nobody's, but aligned. */
static int reserve(struct sk_region *region, size_t size_bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t align = size_bytes >= HUGE_BYTES ? HUGE_BYTES : page;
	if (size_bytes == 0)
		size_bytes = page;
	if (size_bytes > SIZE_MAX / 2)
		return -ENOMEM;
	size_t size = (size_bytes + page - 1) / page * page;
	uint8_t *map = mmap(NULL, size + align - page, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		return -ENOMEM;
	uint8_t *data = (uint8_t *)(((uintptr_t)map + align - 1) / align * align);
	if (data > map)
		munmap(map, (size_t)(data - map));
	size_t behind = (size_t)(map + size + align - page - (data + size));
	if (behind)
		munmap(data + size, behind);
	*region = (struct sk_region){.data = data, .size_bytes = size};
	return 0;
}

static int map_over(struct sk_region *region, int protection, int flags, int fd)
{
	if (mmap(region->data, region->size_bytes, protection, flags | MAP_FIXED, fd, 0) ==
	    MAP_FAILED) {
		int r = -errno;
		sk_region_finish(region);
		return r;
	}
	if (region->size_bytes >= HUGE_BYTES) /* a hint: without it all is right, but slower */
		madvise(region->data, region->size_bytes, MADV_HUGEPAGE);
	return 0;
}

int sk_region_init(struct sk_region *region, size_t size_bytes)
{
	struct sk_region r;
	if (reserve(&r, size_bytes) < 0 ||
	    map_over(&r, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1) < 0)
		return -ENOMEM;
	*region = r;
	return 0;
}

int sk_region_map(struct sk_region *region, int fd, size_t size_bytes, bool is_writable)
{
	struct sk_region r;
	int err = reserve(&r, size_bytes);
	if (err == 0)
		err = map_over(&r, is_writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
			       fd);
	if (err == 0)
		*region = r;
	return err;
}

void sk_region_finish(struct sk_region *region)
{
	if (region->data && !region->is_part)
		munmap(region->data, region->size_bytes);
	*region = (struct sk_region){0};
}
