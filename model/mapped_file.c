/* Files mapped read-only. */
#include "model/mapped_file.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int sk_mapped_file_open(struct sk_mapped_file *file, const char *path, struct sk_diag *diag)
{
	/* Without O_NONBLOCK opening a pipe would wait for its writer. */
	sk_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0) {
		int error = errno;
		return sk_diag_fail(diag, error, "%s: cannot be opened: %s", path, strerror(error));
	}
	if (S_ISDIR(st.st_mode))
		return sk_diag_fail(diag, EISDIR, "%s: is a directory where a file is wanted",
				    path);
	if (!S_ISREG(st.st_mode))
		return sk_diag_fail(diag, EINVAL, "%s: is not a regular file", path);
	if (st.st_size == 0)
		return sk_diag_fail(diag, EINVAL, "%s: the file is empty", path);
	if ((uintmax_t)st.st_size > SIZE_MAX)
		return sk_diag_fail(diag, EFBIG, "%s: the file is too large to map", path);

	void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED) {
		int error = errno;
		return sk_diag_fail(diag, error, "%s: cannot be mapped: %s", path, strerror(error));
	}
	file->data = data;
	file->n_bytes = (size_t)st.st_size;
	return 0;
}

void sk_mapped_file_release(const void *data, size_t n_bytes)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)data,
		  end = (begin + n_bytes) / page * page;
	begin = (begin + page - 1) / page * page;
	if (begin < end)
		madvise((void *)begin, end - begin, MADV_DONTNEED);
}

void sk_mapped_file_close(struct sk_mapped_file *file)
{
	if (file->data)
		munmap((void *)file->data, file->n_bytes);
	*file = (struct sk_mapped_file){0};
}
