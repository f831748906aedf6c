/* Sealed memfds. */
#include "proto/payload.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

/* What no bytes are mapped to: mmap refuses an empty map. */
static const char no_bytes[1];

static int create(void)
{
	int fd = memfd_create("streamkv-payload", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : fd;
}

static int write_all(int fd, const char *bytes, size_t n_bytes)
{
	for (size_t n_written = 0; n_written < n_bytes;) {
		ssize_t n = write(fd, bytes + n_written, n_bytes - n_written);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		n_written += (size_t)n;
	}
	return 0;
}

static int seal(int fd)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
	return fcntl(fd, F_ADD_SEALS, seals) < 0 ? -errno : 0;
}

int sk_payload_create(const void *bytes, size_t n_bytes, int *ret_fd)
{
	sk_autoclose int fd = create();
	int err = fd < 0 ? fd : write_all(fd, bytes, n_bytes);

	if (!err)
		err = seal(fd);
	if (!err)
		*ret_fd = sk_steal_fd(&fd);
	return err;
}

int sk_payload_read(int from, int *ret_fd, uint64_t *ret_n_bytes)
{
	sk_autoclose int fd = create();
	char portion[1 << 16];
	uint64_t n_bytes = 0;
	int err = fd < 0 ? fd : 0;

	while (!err) {
		ssize_t n = read(from, portion, sizeof portion);
		if (n == 0)
			break;
		if (n > 0)
			err = write_all(fd, portion, (size_t)n);
		else if (errno != EINTR)
			err = -errno;
		n_bytes += n > 0 ? (uint64_t)n : 0;
	}
	if (!err)
		err = seal(fd);
	if (err)
		return err;
	*ret_fd = sk_steal_fd(&fd);
	*ret_n_bytes = n_bytes;
	return 0;
}

int sk_payload_map(int fd, uint64_t n_bytes, const void **ret_bytes, struct sk_diag *diag)
{
	/* Seals first: any other call on a descriptor of a peer's choice (a FUSE file, say) could
	 * block. Pages of a hugetlbfs file may fail to come when they are read, so that is refused
	 * too. */
	struct statfs fs;
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || fstatfs(fd, &fs) < 0 || fs.f_type != TMPFS_MAGIC || fstat(fd, &st) < 0)
		return sk_diag_fail(diag, EBADMSG,
				    "the descriptor beside the message is not a memfd");
	if (!(seals & F_SEAL_SHRINK) || !(seals & F_SEAL_WRITE))
		return sk_diag_fail(
			diag, EBADMSG,
			"the memfd beside the message is not sealed against shrinking and writing");
	if ((uint64_t)st.st_size < n_bytes)
		return sk_diag_fail(diag, EBADMSG,
				    "the memfd beside the message holds %" PRIu64
				    " bytes, but %" PRIu64 " are announced",
				    (uint64_t)st.st_size, n_bytes);
	if (n_bytes == 0) {
		*ret_bytes = no_bytes;
		return 0;
	}
	/* Private: older kernels refuse a shared map of a memfd that is sealed against writing. */
	void *map = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		return sk_diag_fail(diag, errno,
				    "the memfd beside the message cannot be mapped: %s",
				    strerror(errno));
	*ret_bytes = map;
	return 0;
}

void sk_payload_unmap(const void *bytes, uint64_t n_bytes)
{
	if (bytes && n_bytes)
		munmap((void *)bytes, n_bytes);
}
