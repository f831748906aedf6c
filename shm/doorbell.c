/* Pipes as doorbells. */
#include "shm/doorbell.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIPE_BYTES 4096 /* the least there is, also what one drain reads */

int sk_doorbell_open(int *ret_read_fd, int *ret_write_fd)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	/* Saves pages of the user's allowance for pipes; all the same where it is refused. */
	(void)fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES);
	*ret_read_fd = fds[0];
	*ret_write_fd = fds[1];
	return 0;
}

int sk_doorbell_check(int fd, int for_writing)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode) || !(flags & O_NONBLOCK))
		return -EBADMSG;
	return (flags & O_ACCMODE) == (for_writing ? O_WRONLY : O_RDONLY) ? 0 : -EBADMSG;
}

void sk_doorbell_ring(int write_fd)
{
	ssize_t n;

	do {
		n = write(write_fd, "", 1);
	} while (n < 0 && errno == EINTR);
}

void sk_doorbell_ring_peer(int write_fd)
{
	const struct timespec at_once = {.tv_sec = 0};
	sigset_t pipe, before, pending;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, &before);
	const bool was_pending = sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE);
	ssize_t n;
	do {
		n = write(write_fd, "", 1);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EPIPE && !was_pending) /* its signal, and only its own */
		(void)sigtimedwait(&pipe, NULL, &at_once);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void sk_doorbell_drain(int read_fd)
{
	char bytes[PIPE_BYTES];
	ssize_t n;

	/* Once is enough for a peer that plays fair; what one that does not leaves in only wakes us
	 * again. */
	do {
		n = read(read_fd, bytes, sizeof bytes);
	} while (n < 0 && errno == EINTR);
}
