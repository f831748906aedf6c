/* Scope-bound cleanup for plain C: a resource is released when its variable leaves scope.
 *
 *     sk_autofree char *path = NULL;        free()
 *     sk_autoclose int fd = -1;             close(), unless negative
 *     return sk_steal(&path);               hand the pointer on, leave NULL behind
 *     return sk_steal_fd(&fd);              hand the descriptor on, leave -1 behind
 */
#pragma once

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static inline void sk_cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void sk_cleanup_close(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;
		close(*fd);
		errno = saved;
	}
}

static inline void *sk_steal_pointer(void *pp)
{
	void *p = *(void **)pp;
	*(void **)pp = NULL;
	return p;
}

static inline int sk_steal_fd(int *fd)
{
	int value = *fd;
	*fd = -1;
	return value;
}

#define sk_autofree  __attribute__((cleanup(sk_cleanup_free)))
#define sk_autoclose __attribute__((cleanup(sk_cleanup_close)))
#define sk_steal(pp) ((__typeof__(*(pp)))sk_steal_pointer(pp))
