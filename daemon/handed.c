#include "daemon/handed.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define PARKED "streamkv-" /* what their names begin with; a unit's may as well */

/* What is parked is memory: a socket is there to be listened on, whatever its unit is called. */
static bool is_parked(int fd, const char *name)
{
	return strncmp(name, PARKED, strlen(PARKED)) == 0 &&
	       sd_is_socket(fd, AF_UNSPEC, 0, -1) == 0;
}

static void sort_one(struct sk_handed *handed, int fd, const char *name)
{
	if (!is_parked(fd, name)) {
		if (!handed->n_sockets++)
			handed->socket_fd = fd;
		return;
	}
	if (strlen(name) >= SK_PARKED_NAME_BYTES) {
		close(fd);
		return;
	}
	struct sk_parked *parked = &handed->parked[handed->n_parked++];
	strcpy(parked->name, name);
	parked->fd = fd;
}

int sk_handed_take(struct sk_handed *handed, struct sk_diag *diag)
{
	char **names = NULL;
	*handed = (struct sk_handed){.socket_fd = -1};
	const int n = sd_listen_fds_with_names(1, &names);
	if (n < 0)
		return sk_diag_fail(diag, -n, "socket activation: %s", strerror(-n));
	handed->parked = calloc((size_t)n + 1, sizeof *handed->parked);
	for (int i = 0; i < n; i++) {
		if (handed->parked)
			sort_one(handed, SD_LISTEN_FDS_START + i, names[i]);
		free(names[i]);
	}
	free(names);
	return handed->parked ? 0 : sk_diag_fail(diag, ENOMEM, "not enough memory");
}

void sk_parked_finish(struct sk_parked *parked, uint32_t n_parked)
{
	while (n_parked)
		sk_cleanup_close(&parked[--n_parked].fd);
	free(parked);
}

void sk_handed_finish(struct sk_handed *handed)
{
	sk_parked_finish(handed->parked, handed->n_parked);
	*handed = (struct sk_handed){.socket_fd = -1};
}
