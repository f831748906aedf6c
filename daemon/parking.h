/* Where this daemon's sessions are kept beyond it (engine/parking.h): by the service manager where there is one, which
 * gives them to the next process of the service; else by the holder of weights that is in use; else nowhere. Loop thread,
 * or before it.
 */
#pragma once

#include "daemon/handed.h"
#include "daemon/held.h"

struct sk_daemon_parking {
	struct sk_parking base; /* first */
	struct sk_held *held;   /* NULL: the service manager keeps */
	unsigned n_cursors;
	bool has_failed; /* the holder has gone, or is stuck: nobody waits for it again */
};

/* key: tells daemons apart that use one holder. *ret_parking: for the engine and the server, NULL where nobody keeps
 * anything. Both must outlive it, and so must `handed`. -errno and a sentence where the holder fails. */
int sk_parking_open(struct sk_daemon_parking *parking, struct sk_handed *handed,
		    struct sk_held *held, const char *key, struct sk_parking **ret_parking,
		    struct sk_diag *diag);
void sk_parking_close(struct sk_daemon_parking *parking); /* zeroed ones are accepted */

/* What an earlier process left is not wanted, now or later. */
void sk_parking_forget(struct sk_parking *parking);
/* A reader's cursor (shm/ring.h) of the connection of that name. Its number, or 0: it is not kept. Accepts NULL. */
uint64_t sk_parking_keep_cursor(struct sk_parking *parking, uint64_t connection, int fd);
void sk_parking_drop_cursor(struct sk_parking *parking, uint64_t number);
