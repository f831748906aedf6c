#include "daemon/listener.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#define BACKLOG 128

/* 1: a socket was handed over, 0: none was. */
static int take_over(struct sk_listener *listener, struct sk_handed *handed, struct sk_diag *diag)
{
	if (!handed->n_sockets)
		return 0;
	if (handed->n_sockets > 1 ||
	    sd_is_socket_unix(handed->socket_fd, SOCK_STREAM, 1, NULL, 0) <= 0)
		return sk_diag_fail(
			diag, EINVAL,
			"socket activation: exactly one listening Unix stream socket is wanted");
	listener->fd = handed->socket_fd;
	if (fcntl(listener->fd, F_SETFL, O_NONBLOCK) < 0)
		return sk_diag_fail(diag, errno, "socket activation: %s", strerror(errno));
	return 1;
}

/* Who holds this lock owns the path. It goes with the process, however that ends, and so tells a
 * dead daemon's socket from a living one's without a race. */
static int lock(const char *path, int *ret_fd, struct sk_diag *diag)
{
	char name[128];
	snprintf(name, sizeof name, "%s.lock", path);
	sk_autoclose int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return sk_diag_fail(diag, errno, "%s: %s", name, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK
			       ? sk_diag_fail(diag, EADDRINUSE,
					      "%s: another streamkvd listens there; name another "
					      "with --socket, or use that one",
					      path)
			       : sk_diag_fail(diag, errno, "%s: %s", name, strerror(errno));
	*ret_fd = sk_steal_fd(&fd);
	return 0;
}

static int remove_stale(const char *path, struct sk_diag *diag)
{
	struct stat status;
	if (lstat(path, &status) < 0)
		return errno == ENOENT ? 0
				       : sk_diag_fail(diag, errno, "%s: %s", path, strerror(errno));
	if (!S_ISSOCK(status.st_mode))
		return sk_diag_fail(diag, EEXIST, "%s: a file that is no socket is there", path);
	if (unlink(path) < 0)
		return sk_diag_fail(diag, errno, "%s: %s", path, strerror(errno));
	return 0;
}

int sk_listener_check_path(const char *path, struct sk_diag *diag)
{
	const size_t most = sizeof((struct sockaddr_un *)0)->sun_path - sizeof ".lock";
	if (strlen(path) <= most)
		return 0;
	return sk_diag_fail(diag, ENAMETOOLONG,
			    "%s: the path of a socket may have %zu bytes at most", path, most);
}

static int bind_path(struct sk_listener *listener, const char *path, unsigned mode,
		     struct sk_diag *diag)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	int err = sk_listener_check_path(path, diag);
	if (err < 0)
		return err;
	strcpy(address.sun_path, path);
	sk_autoclose int lock_fd = -1;
	err = lock(path, &lock_fd, diag);
	if (!err)
		err = remove_stale(path, diag);
	if (err < 0)
		return err;
	sk_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return sk_diag_fail(diag, errno, "socket: %s", strerror(errno));
	mode_t mask = umask(0777); /* nobody connects before the mode is as wanted */
	err = bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ? errno : 0;
	umask(mask);
	if (!err && chmod(path, mode) < 0)
		err = errno;
	if (!err && listen(fd, BACKLOG) < 0)
		err = errno;
	if (err) {
		if (err != EADDRINUSE)
			unlink(path); /* bound, then refused */
		return sk_diag_fail(diag, err, "%s: %s", path, strerror(err));
	}
	strcpy(listener->path, path);
	listener->fd = sk_steal_fd(&fd);
	listener->lock_fd = sk_steal_fd(&lock_fd);
	return 0;
}

int sk_listener_open(struct sk_listener *listener, struct sk_handed *handed, const char *path,
		     unsigned mode, struct sk_diag *diag)
{
	*listener = (struct sk_listener){.fd = -1, .lock_fd = -1};
	int err = take_over(listener, handed, diag);
	if (err != 0)
		return err < 0 ? err : 0;
	return bind_path(listener, path, mode, diag);
}

void sk_listener_close(struct sk_listener *listener)
{
	if (listener->fd >= 0)
		close(listener->fd);
	if (listener->path[0]) {
		unlink(listener->path); /* the lock file stays: others may be waiting on this very one */
	}
	if (listener->lock_fd >= 0)
		close(listener->lock_fd);
	*listener = (struct sk_listener){.fd = -1, .lock_fd = -1};
}
