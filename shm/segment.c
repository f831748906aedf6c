/* Sealed memfds with maps. */
#include "shm/segment.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define SIZE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

int sk_segment_create(const char *name, size_t n_bytes, int peer_may_write,
		      struct sk_segment *ret_segment)
{
	sk_autoclose int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (n_bytes == 0 || n_bytes > INT64_MAX)
		return -EINVAL;
	/* Allocates the pages too: a lack of memory is an error here, not a signal later. */
	int r = posix_fallocate(fd, 0, (off_t)n_bytes);
	if (r)
		return -r;
	void *data = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (data == MAP_FAILED)
		return -errno;
	/* The seal spares maps that are there already: ours stays the only writable one. */
	int seals = SIZE_SEALS | F_SEAL_SEAL | (peer_may_write ? 0 : F_SEAL_FUTURE_WRITE);
	if (fcntl(fd, F_ADD_SEALS, seals) < 0) {
		r = -errno;
		munmap(data, n_bytes);
		return r;
	}
	*ret_segment =
		(struct sk_segment){.data = data, .n_bytes = n_bytes, .fd = sk_steal_fd(&fd)};
	return 0;
}

int sk_segment_attach(int fd, size_t n_bytes, int writable, struct sk_segment *ret_segment)
{
	sk_autoclose int owned = fd;
	struct statfs fs;
	struct stat st;

	/* Seals first: any other call on a descriptor of the peer's choice could block. */
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & SIZE_SEALS) != SIZE_SEALS)
		return -EBADMSG;
	if (fstatfs(fd, &fs) < 0 || fs.f_type != TMPFS_MAGIC || fstat(fd, &st) < 0)
		return -EBADMSG;
	if (n_bytes == 0 || st.st_size < 0 || (uint64_t)st.st_size != n_bytes)
		return -EBADMSG;
	void *data = mmap(NULL, n_bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
			  fd, 0);
	if (data == MAP_FAILED)
		return errno == EPERM || errno == EACCES ? -EBADMSG : -errno;
	*ret_segment =
		(struct sk_segment){.data = data, .n_bytes = n_bytes, .fd = sk_steal_fd(&owned)};
	return 0;
}

void sk_segment_finish(struct sk_segment *segment)
{
	if (!segment || !segment->data)
		return;
	munmap(segment->data, segment->n_bytes);
	sk_cleanup_close(&segment->fd);
	*segment = (struct sk_segment){0};
}
