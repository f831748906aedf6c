/* Weights in one memfd, for other processes to map: sealed before anything is in it, so that the map of who packs is
 * the only one that can write, and its own becomes readable only with the export.
 */
#include "cpu/device.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

static const char layout[SK_LAYOUT_BYTES] = SK_CPU_LAYOUT;

static const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;

int sk_cpu_linear_bytes(struct sk_backend *backend, const struct sk_matrix *matrix,
			const struct sk_matrix *bias, enum sk_weight_format format,
			uint64_t *ret_n_bytes)
{
	struct sk_packed packed;
	int r = sk_packed_plan(&packed, matrix, format);
	(void)backend;
	if (r < 0)
		return r;
	*ret_n_bytes = sk_piece_bytes(sk_packed_bytes(&packed));
	if (bias && !sk_matrix_is_absent(bias))
		*ret_n_bytes += sk_piece_bytes(matrix->n_rows * sizeof(float));
	return 0;
}

uint64_t sk_cpu_norm_bytes(struct sk_backend *backend, const struct sk_matrix *weight,
			   const struct sk_matrix *bias)
{
	(void)backend;
	return (sk_matrix_is_absent(bias) ? 1 : 2) * sk_piece_bytes(weight->n_rows * sizeof(float));
}

int sk_cpu_share_weights(struct sk_backend *backend, uint64_t n_bytes)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	if (!cpu || cpu->shared.data || n_bytes > INT64_MAX)
		return -EINVAL;
	sk_autoclose int fd = memfd_create("streamkv-weights", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	/* Allocates the pages too: a lack of memory is an error here, not a signal later. */
	int r = posix_fallocate(fd, 0, (off_t)n_bytes);
	if (r)
		return r == ENOSPC ? -ENOMEM : -r;
	struct sk_region map;
	r = sk_region_map(&map, fd, n_bytes, true);
	if (r < 0)
		return r;
	if (fcntl(fd, F_ADD_SEALS, seals) < 0) {
		r = errno == EINVAL ? -ENOTSUP : -errno;
		sk_region_finish(&map);
		return r;
	}
	cpu->shared = map;
	cpu->shared_fd = sk_steal_fd(&fd);
	cpu->pieces.n_bytes = n_bytes;
	return 0;
}

int sk_cpu_export_weights(struct sk_backend *backend, struct sk_shared_weights *ret_shared)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	if (!cpu || cpu->shared_fd < 0)
		return -EINVAL;
	/* Gigabytes in small pages would cost a fifth of the speed. A hint, as ever. */
	madvise(cpu->shared.data, cpu->shared.size_bytes, MADV_COLLAPSE);
	if (mprotect(cpu->shared.data, cpu->shared.size_bytes, PROT_READ) < 0)
		return -errno;
	int r = sk_pieces_export(&cpu->pieces, ret_shared);
	if (r < 0)
		return r;
	memcpy(ret_shared->layout, layout, sizeof layout);
	ret_shared->fd = sk_steal_fd(&cpu->shared_fd);
	return 0;
}

/* A memfd of that size that nobody can change any more. */
static bool is_sound(int fd, uint64_t n_bytes)
{
	struct statfs fs;
	struct stat st;
	const int got = fcntl(fd, F_GET_SEALS);
	return got >= 0 && (got & seals) == seals && fstatfs(fd, &fs) == 0 &&
	       fs.f_type == TMPFS_MAGIC && fstat(fd, &st) == 0 && st.st_size >= 0 &&
	       (uint64_t)st.st_size == n_bytes;
}

int sk_cpu_import_weights(struct sk_backend *backend, const struct sk_shared_weights *shared)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	if (!cpu || cpu->shared.data)
		return -EINVAL;
	if (memcmp(shared->layout, layout, sizeof layout) != 0)
		return -ENOTSUP;
	if (shared->fd < 0 || !is_sound(shared->fd, shared->n_bytes))
		return -EBADMSG;
	int r = sk_region_map(&cpu->shared, shared->fd, shared->n_bytes, false);
	if (r < 0)
		return r;
	/* Else the first step would meet a fault for each page. */
	madvise(cpu->shared.data, cpu->shared.size_bytes, MADV_POPULATE_READ);
	return sk_pieces_import(&cpu->pieces, shared);
}

int sk_cpu_take(struct sk_cpu *cpu, struct sk_region *region, size_t n_bytes, bool *ret_is_filled)
{
	uint64_t offset;
	*ret_is_filled = cpu->pieces.is_import;
	if (!cpu->pieces.n_bytes)
		return sk_region_init(region, n_bytes);
	int r = sk_pieces_take(&cpu->pieces, n_bytes, &offset);
	if (r == 0)
		*region = (struct sk_region){(uint8_t *)cpu->shared.data + offset, n_bytes,
					     .is_part = true};
	return r;
}
