#include "daemon/manager.h"

#include "base/clock.h"
#include "daemon/notify.h"
#include "daemon/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#define TICK_US 5000000u
#define PART    8 /* ticks while the watchdog waits: so far a step may come near to that */

static void ask(struct sk_manager *manager)
{
	struct sk_request *request = sk_request_create(SK_REQUEST_STATS);
	if (!request)
		return; /* at the next tick */
	request->id = ++manager->n_asked;
	request->sees_all = true;
	sk_engine_submit(manager->server->engine, request);
}

/* A letter that waits is enough: a stuck engine would else find thousands. */
static void on_tick(evutil_socket_t fd, short what, void *context)
{
	struct sk_manager *manager = context;
	(void)fd;
	(void)what;
	if (manager->n_answered == manager->n_asked)
		ask(manager);
}

int sk_manager_init(struct sk_manager *manager, struct sk_server *server)
{
	uint64_t watchdog_us = 0;

	*manager = (struct sk_manager){.server = server};
	manager->has_watchdog = sd_watchdog_enabled(0, &watchdog_us) > 0;
	if (!getenv("NOTIFY_SOCKET"))
		return 0; /* nobody listens: nobody is woken for it */
	uint64_t us = TICK_US;
	if (manager->has_watchdog && watchdog_us / PART < us)
		us = watchdog_us / PART + 1;
	struct timeval period = {.tv_sec = (time_t)(us / 1000000),
				 .tv_usec = (suseconds_t)(us % 1000000)};
	manager->tick = event_new(server->base, -1, EV_PERSIST, on_tick, manager);
	return manager->tick && event_add(manager->tick, &period) == 0 ? 0 : -ENOMEM;
}

void sk_manager_finish(struct sk_manager *manager)
{
	if (manager->tick)
		event_free(manager->tick);
	manager->tick = NULL;
}

void sk_manager_announce(struct sk_manager *manager)
{
	manager->ready_at = manager->n_asked + 1;
	ask(manager);
}

static void tell_status(struct sk_manager *manager, const struct sk_stats *stats)
{
	const struct sk_server *server = manager->server;
	const uint64_t now_ns = sk_clock_ns();
	char status[sizeof manager->status];
	int n;

	/* The first answer comes at once, and says nothing of a rate. */
	const double s = manager->told_ns ? (double)(now_ns - manager->told_ns) * 1e-9 : 0,
		     rate = s > 0 ? (double)(stats->n_generated_tokens - manager->n_generated) / s
				  : 0;
	if (s * 1e6 < TICK_US / 2 && manager->told_ns && !manager->ready_at)
		return;
	if (server->is_draining)
		n = snprintf(status, sizeof status, "Ending; requests that go on: %u",
			     stats->n_running + stats->n_queued);
	else
		n = snprintf(status, sizeof status,
			     "Serving %.64s on %.64s; clients: %u, sessions: %u, running: %u, "
			     "waiting: %u, tokens/s: %.0f",
			     sk_model_config(server->model)->name,
			     sk_engine_backend_name(server->engine), server->n_connections,
			     stats->n_sessions, stats->n_running, stats->n_queued, rate);
	manager->told_ns = now_ns;
	manager->n_generated = stats->n_generated_tokens;
	if (n < 0 || strcmp(status, manager->status) == 0)
		return;
	strcpy(manager->status, status);
	sk_notify("STATUS=%s", status);
}

void sk_manager_take_event(struct sk_manager *manager, struct sk_event *event)
{
	manager->n_answered = event->request;
	if (event->kind == SK_EVENT_STATS && !manager->server->is_stopping) {
		if (manager->has_watchdog)
			sk_notify("WATCHDOG=1");
		tell_status(manager, &event->stats);
		if (manager->ready_at && event->request >= manager->ready_at) {
			manager->ready_at = 0;
			sk_notify("READY=1");
		}
	}
	sk_event_destroy(event);
}
