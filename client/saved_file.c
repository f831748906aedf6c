#include "client/saved_file.h"

#include "base/cleanup.h"
#include "client/command.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PORTION (1u << 20) /* between looks for a signal */

static int cannot_write(const char *path)
{
	return errno == EPIPE ? 128 + SIGPIPE : sk_said(EX_IOERR, "%s: %s", path, strerror(errno));
}

static int write_all(const char *path, int fd, const char *bytes, uint64_t n_bytes)
{
	for (uint64_t at = 0; at < n_bytes;) {
		if (sk_interrupted())
			return 128 + sk_interrupted();
		uint64_t left = n_bytes - at;
		ssize_t n = write(fd, bytes + at, left < PORTION ? left : PORTION);
		if (n < 0 && errno != EINTR)
			return cannot_write(path);
		at += n > 0 ? (uint64_t)n : 0;
	}
	return 0;
}

static int write_through(const char *path, const char *bytes, uint64_t n_bytes)
{
	sk_autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return sk_said(EX_CANTCREAT, "%s: %s", path, strerror(errno));
	return write_all(path, fd, bytes, n_bytes);
}

/* `path` is a regular file, or nothing yet. */
static int write_beside(const char *path, const char *bytes, uint64_t n_bytes)
{
	sk_autofree char *temporary = NULL;
	if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
		return sk_said(EX_OSERR, "not enough memory");
	sk_autoclose int fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return sk_said(EX_CANTCREAT, "%s: %s", path, strerror(errno));
	int exit_code = write_all(path, fd, bytes, n_bytes);
	if (!exit_code && (fsync(fd) < 0 || rename(temporary, path) < 0))
		exit_code = cannot_write(path);
	if (exit_code)
		unlink(temporary);
	return exit_code;
}

static int write_file(const char *path, const char *bytes, uint64_t n_bytes)
{
	struct stat st;
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return write_through(path, bytes, n_bytes);
	/* A link stays one: what it names is written anew. */
	sk_autofree char *real = realpath(path, NULL);
	return write_beside(real ? real : path, bytes, n_bytes);
}

int sk_saved_write(const char *path, int fd, uint64_t n_bytes)
{
	/* Sealed, so that reading it cannot fault. */
	const char *bytes = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	if (bytes == MAP_FAILED)
		return sk_said(EX_OSERR, "the saved session cannot be mapped: %s", strerror(errno));
	int exit_code = strcmp(path, "-") == 0
				? write_all("standard output", STDOUT_FILENO, bytes, n_bytes)
				: write_file(path, bytes, n_bytes);
	munmap((void *)bytes, n_bytes);
	return exit_code;
}

int sk_saved_read(const char *path, int *ret_fd, uint64_t *ret_n_bytes)
{
	const bool is_stdin = strcmp(path, "-") == 0;
	sk_autoclose int file = is_stdin ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	sk_autoclose int fd = -1;
	struct streamkv_error error;
	uint64_t n_bytes;

	if (!is_stdin && file < 0)
		return sk_said(EX_NOINPUT, "%s: %s", path, strerror(errno));
	path = sk_file_name(path);
	int err = streamkv_saved_read(is_stdin ? STDIN_FILENO : file, &fd, &n_bytes, &error);
	if (err < 0)
		return sk_said(err == -ENOMEM ? EX_OSERR : EX_NOINPUT, "%s: %s", path, error.text);
	if (!n_bytes)
		return sk_said(EX_DATAERR, "%s is empty: it is no saved session", path);
	*ret_fd = sk_steal_fd(&fd);
	*ret_n_bytes = n_bytes;
	return 0;
}
