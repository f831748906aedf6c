/* The socket that clients connect to: handed over by systemd, or made here. */
#pragma once

#include "base/diag.h"
#include "daemon/handed.h"

#include <stdbool.h>

struct sk_listener {
	int fd;
	char path[108]; /* as bound here; empty where it was handed over */
	int lock_fd;    /* held while the path is ours */
};

/* -ENAMETOOLONG and a sentence. */
int sk_listener_check_path(const char *path, struct sk_diag *diag);
/* Listens from now on: clients wait in the backlog until they are accepted. -EADDRINUSE where
 * another daemon listens there; a socket that a dead one left is replaced. */
int sk_listener_open(struct sk_listener *listener, struct sk_handed *handed, const char *path,
		     unsigned mode, struct sk_diag *diag);
void sk_listener_close(
	struct sk_listener *listener); /* takes the path away again if it was made here */
