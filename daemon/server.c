#include "daemon/server.h"

#include "base/clock.h"
#include "base/log.h"
#include "daemon/connection.h"
#include "daemon/notify.h"
#include "daemon/reload.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>

#define MOST_SAVED_BESIDE (16u << 20) /* bytes of a saved session beside its keys and values */
#define AFTER_DRAIN_S     60

/* --- Clients --- */

/* At the limit, further clients wait in the backlog. */
static void accept_or_not(struct sk_server *server)
{
	/* Where the socket is the manager's, who comes while this daemon ends waits for the next one. */
	bool is_closed = server->is_stopping || (server->is_draining && !server->listener->path[0]);
	if (is_closed || server->n_connections >= server->max_connections)
		event_del(server->accepting);
	else
		event_add(server->accepting, NULL);
}

uint32_t sk_server_n_connections_of(const struct sk_server *server, uid_t uid)
{
	uint32_t n = 0;
	sk_list_for_each (node, &server->connections)
		n += sk_container_of(node, struct sk_connection, node)->uid == uid;
	return n;
}

void sk_server_lost_one(struct sk_server *server)
{
	server->n_connections--;
	accept_or_not(server);
	sk_server_look_drained(server);
}

static void on_client(evutil_socket_t fd, short what, void *context)
{
	struct sk_server *server = context;
	(void)what;

	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (client >= 0) {
		sk_connection_accept(server, client);
		accept_or_not(server);
		return;
	}
	if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS)
		return; /* the client went again, or a signal came */
	/* The socket stays readable: look away for a moment rather than spin. */
	struct timeval moment = {.tv_usec = 100000};
	sk_log(SK_LOG_WARNING, "a client has to wait: %s", strerror(errno));
	event_del(server->accepting);
	event_add(server->accept_again, &moment);
}

static void on_accept_again(evutil_socket_t fd, short what, void *context)
{
	(void)fd;
	(void)what;
	accept_or_not(context);
}

/* --- The engine --- */

static struct sk_connection *find_connection(struct sk_server *server, uint64_t name)
{
	sk_list_for_each (node, &server->connections) {
		struct sk_connection *connection =
			sk_container_of(node, struct sk_connection, node);
		if (connection->name == name)
			return connection;
	}
	return NULL;
}

static void end(struct sk_server *server, int exit_code)
{
	server->is_stopping = true;
	server->exit_code = exit_code;
	event_base_loopbreak(server->base);
}

static void take_events(struct sk_server *server)
{
	struct sk_event *event;
	while ((event = sk_engine_next_event(server->engine))) {
		struct sk_connection *connection = find_connection(server, event->connection);
		if (event->kind == SK_EVENT_DEAD) {
			sk_log(SK_LOG_ERROR, "%s", event->reason);
			sk_list_for_each (node, &server->connections)
				sk_connection_fail(
					sk_container_of(node, struct sk_connection, node), EIO,
					event->reason);
			end(server, EX_SOFTWARE);
			sk_event_destroy(event);
		} else if (event->kind == SK_EVENT_WARNING) {
			sk_log(SK_LOG_WARNING, "%s", event->reason);
			sk_event_destroy(event);
		} else if (event->connection == 0) {
			sk_manager_take_event(&server->manager, event);
		} else if (connection) {
			sk_connection_take_event(connection, event);
		} else {
			sk_event_destroy(event);
		}
	}
}

static void on_engine(evutil_socket_t fd, short what, void *context)
{
	(void)fd;
	(void)what;
	take_events(context);
}

/* --- Signals --- */

static void stop(struct sk_server *server)
{
	/* From here on a signal ends the process as the system would. */
	event_del(server->terminate);
	event_del(server->interrupt);
	event_del(server->drained);
	end(server, EX_OK);
}

void sk_server_look_drained(struct sk_server *server)
{
	if (!server->is_draining || server->is_stopping)
		return;
	sk_list_for_each (node, &server->connections) {
		if (sk_connection_holds(sk_container_of(node, struct sk_connection, node)))
			return;
	}
	stop(server);
}

static void on_drained(evutil_socket_t fd, short what, void *context)
{
	(void)fd;
	(void)what;
	sk_log(SK_LOG_NOTICE, "the requests that still run are cancelled");
	stop(context);
}

static void on_terminate(evutil_socket_t signal_number, short what, void *context)
{
	struct sk_server *server = context;
	const double seconds = server->options->drain_timeout;
	struct timeval timeout = {.tv_sec = (time_t)seconds,
				  .tv_usec = (suseconds_t)((seconds - floor(seconds)) * 1e6)};
	(void)what;

	if (server->is_draining || seconds == 0) {
		sk_log(SK_LOG_NOTICE, "%s: ending", strsignal(signal_number));
		if (!server->is_draining)
			sk_notify("STOPPING=1");
		stop(server);
		return;
	}
	/* What comes after the waiting has time as well. */
	sk_log(SK_LOG_NOTICE, "%s: ending once the requests that run have, within %g s",
	       strsignal(signal_number), seconds);
	sk_notify("STOPPING=1\nEXTEND_TIMEOUT_USEC=%.0f", (seconds + AFTER_DRAIN_S) * 1e6);
	server->is_draining = true;
	event_add(server->drained, &timeout);
	accept_or_not(server);
	sk_server_look_drained(server);
}

static void on_hangup(evutil_socket_t signal_number, short what, void *context)
{
	struct sk_server *server = context;
	(void)signal_number;
	(void)what;
	if (!server->is_draining)
		sk_server_reload(server);
}

/* --- Running --- */

int sk_server_init(struct sk_server *server, struct sk_diag *diag)
{
	signal(SIGPIPE, SIG_IGN);
	sk_list_init(&server->connections);
	server->begun_ns = sk_clock_ns();
	server->limits = (struct sk_limits){
		.max_prompt_bytes = server->options->max_prompt,
		.max_window_tokens =
			1u << 30, /* what the model and the pool allow is the engine's to say */
		.max_ring_slots = SK_RING_MOST_SLOTS,
		.max_saved_bytes = server->options->kv_memory + MOST_SAVED_BESIDE,
	};
	server->base = event_base_new();
	if (server->base) {
		server->accepting = event_new(server->base, server->listener->fd,
					      EV_READ | EV_PERSIST, on_client, server);
		server->accept_again = evtimer_new(server->base, on_accept_again, server);
		server->engine_event = event_new(server->base, sk_engine_event_fd(server->engine),
						 EV_READ | EV_PERSIST, on_engine, server);
		server->terminate = evsignal_new(server->base, SIGTERM, on_terminate, server);
		server->interrupt = evsignal_new(server->base, SIGINT, on_terminate, server);
		server->hangup = evsignal_new(server->base, SIGHUP, on_hangup, server);
		server->drained = evtimer_new(server->base, on_drained, server);
	}
	if (!server->base || !server->accepting || !server->accept_again || !server->engine_event ||
	    !server->terminate || !server->interrupt || !server->hangup || !server->drained ||
	    sk_manager_init(&server->manager, server) < 0)
		return sk_diag_fail(diag, ENOMEM, "the event loop could not be made");
	return 0;
}

int sk_server_run(struct sk_server *server)
{
	event_add(server->accepting, NULL);
	event_add(server->engine_event, NULL);
	event_add(server->terminate, NULL);
	event_add(server->interrupt, NULL);
	event_add(server->hangup, NULL);
	/* One that came during the load is about what has just been read, and did not end the daemon. */
	sigset_t held;
	sigemptyset(&held);
	sigaddset(&held, SIGHUP);
	sigprocmask(SIG_UNBLOCK, &held, NULL);
	sk_manager_announce(&server->manager);
	if (event_base_dispatch(server->base) < 0) {
		sk_log(SK_LOG_ERROR, "the event loop failed");
		server->exit_code = EX_OSERR;
	}

	/* Requests end as cancelled, and their clients are told as far as they read. */
	event_del(server->accepting);
	sk_engine_stop(server->engine);
	take_events(server);
	return server->exit_code;
}

void sk_server_finish(struct sk_server *server)
{
	struct event *events[] = {server->engine_event, server->terminate, server->interrupt,
				  server->hangup, server->drained};

	server->is_stopping = true;
	sk_manager_finish(&server->manager);
	sk_list_for_each (node, &server->connections)
		sk_connection_destroy(sk_container_of(node, struct sk_connection, node));
	for (unsigned i = 0; i < sizeof events / sizeof *events; i++) {
		if (events[i])
			event_free(events[i]);
	}
	if (server->accepting)
		event_free(server->accepting);
	if (server->accept_again)
		event_free(server->accept_again);
	if (server->base)
		event_base_free(server->base);
}
