/* What the service manager is told while the daemon serves: that it is ready, how it does, and that it is alive. For all
 * three the engine's thread answers a letter (a STATS request under the connection name 0, which no client has): one that is
 * stuck answers none, and so the manager's watchdog is not fed. A step counts as stuck once it takes longer than the watchdog
 * waits. Loop thread.
 */
#pragma once

#include "engine/event.h"

#include <stdbool.h>
#include <stdint.h>

struct sk_server;
struct event;

struct sk_manager {
	struct sk_server *server;
	struct event *tick;
	bool has_watchdog;
	uint32_t n_asked, n_answered; /* letters, numbered */
	uint32_t ready_at;            /* READY=1 with the answer to this one; 0: it has been said */
	uint64_t told_ns, n_generated; /* as of the status told last */
	char status[256];
};

/* The server's engine has been created and its loop made. 0 or -ENOMEM. */
int sk_manager_init(struct sk_manager *manager, struct sk_server *server);
void sk_manager_finish(struct sk_manager *manager);
/* READY=1 once the engine has done all that it was given before. */
void sk_manager_announce(struct sk_manager *manager);
/* The engine has answered. Takes the event over. */
void sk_manager_take_event(struct sk_manager *manager, struct sk_event *event);
