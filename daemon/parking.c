#include "daemon/parking.h"

#include "base/log.h"
#include "daemon/notify.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define MOST_CURSORS 1000 /* as many as the units' FileDescriptorStoreMax= has room for, and some */
#define LIFE_SHIFT   40   /* a cursor's number: which process' connection it is, and which */

/* --- The service manager --- */

/* Not watched (FDPOLL=0): a memfd always has an event. */
static int keep_by_manager(void *context, const char *name, int fd)
{
	char state[SK_PARKED_NAME_BYTES + 64];
	(void)context;
	snprintf(state, sizeof state, "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
	const int r = sd_pid_notify_with_fds(0, 0, state, &fd, 1);
	return r > 0 ? 0 : r < 0 ? r : -ENOTCONN;
}

static void drop_by_manager(void *context, const char *name)
{
	(void)context;
	sk_notify("FDSTOREREMOVE=1\nFDNAME=%s", name);
}

/* --- The holder of weights --- */

/* What is kept ends with the holder, and one that comes after it knows nothing of this daemon. */
static int note(struct sk_daemon_parking *parking, int err)
{
	if (err >= 0 || parking->has_failed)
		return err;
	if (err == -EMFILE || err == -ENFILE || err == -ENOMEM)
		return err; /* nothing was said to it: this one is not kept */
	parking->has_failed = true;
	if (err == -EPIPE || err == -ECONNRESET)
		sk_log(SK_LOG_WARNING, "the holder of weights has gone: named sessions will not "
				       "survive a crash of this "
				       "daemon until it is started again, even if the holder is");
	else
		sk_log(SK_LOG_WARNING,
		       "the holder of weights keeps nothing more (%s): how far clients read is not "
		       "known to the daemon after this one",
		       strerror(-err));
	return err;
}

static int keep_by_holder(void *context, const char *name, int fd)
{
	struct sk_daemon_parking *parking = context;
	return parking->has_failed ? -ENOTCONN
				   : note(parking, sk_held_keep(parking->held, name, fd));
}

static void drop_by_holder(void *context, const char *name)
{
	struct sk_daemon_parking *parking = context;
	if (!parking->has_failed)
		(void)note(parking, sk_held_drop(parking->held, name));
}

/* --- Both --- */

/* Two daemons may have sockets of one name in two folders. */
static const char *absolute(const char *path, char *room, size_t n_bytes)
{
	char folder[PATH_MAX];
	if (path[0] == '/' || !getcwd(folder, sizeof folder))
		return path;
	snprintf(room, n_bytes, "%s/%s", folder, path);
	return room;
}

int sk_parking_open(struct sk_daemon_parking *parking, struct sk_handed *handed,
		    struct sk_held *held, const char *key, struct sk_parking **ret_parking,
		    struct sk_diag *diag)
{
	*parking = (struct sk_daemon_parking){.held = held};
	*ret_parking = NULL;
	if (getenv("NOTIFY_SOCKET")) {
		parking->held = NULL;
		parking->base = (struct sk_parking){
			.keep = keep_by_manager,
			.drop = drop_by_manager,
			.parked = handed->parked,
			.n_parked = handed->n_parked,
		};
	} else if (held) {
		parking->base = (struct sk_parking){.keep = keep_by_holder, .drop = drop_by_holder};
		char path[PATH_MAX + 128];
		int err = sk_held_claim(held, absolute(key, path, sizeof path),
					&parking->base.parked, &parking->base.n_parked, diag);
		if (err == -EBUSY) {
			sk_log(SK_LOG_WARNING,
			       "named sessions will not survive a crash: another daemon that uses "
			       "these weights serves %s, or is just ending",
			       key);
			return 0;
		}
		if (err < 0)
			return err;
	} else {
		return 0;
	}
	parking->base.context = parking;
	*ret_parking = &parking->base;
	return 0;
}

void sk_parking_close(struct sk_daemon_parking *parking)
{
	if (!parking->held)
		return; /* `handed` has them */
	sk_parked_finish(parking->base.parked, parking->base.n_parked);
	parking->base.parked = NULL;
	parking->base.n_parked = 0;
}

void sk_parking_forget(struct sk_parking *parking)
{
	for (uint32_t i = 0; i < parking->n_parked; i++)
		parking->drop(parking->context, parking->parked[i].name);
}

uint64_t sk_parking_keep_cursor(struct sk_parking *base, uint64_t connection, int fd)
{
	struct sk_daemon_parking *parking = (struct sk_daemon_parking *)base;
	char name[SK_PARKED_NAME_BYTES];

	if (!base || !base->n_lives || parking->n_cursors == MOST_CURSORS)
		return 0;
	const uint64_t number = (uint64_t)base->n_lives << LIFE_SHIFT | connection;
	sk_parking_cursor_name(number, name);
	if (base->keep(base->context, name, fd) < 0)
		return 0;
	parking->n_cursors++;
	return number;
}

void sk_parking_drop_cursor(struct sk_parking *base, uint64_t number)
{
	struct sk_daemon_parking *parking = (struct sk_daemon_parking *)base;
	char name[SK_PARKED_NAME_BYTES];

	sk_parking_cursor_name(number, name);
	base->drop(base->context, name);
	parking->n_cursors--;
}
