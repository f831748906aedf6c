/* The server: accepts clients, carries requests to the engine and its events back. The loop
 * thread's; it never computes. One instance a process.
 */
#pragma once

#include "daemon/listener.h"
#include "daemon/manager.h"
#include "daemon/options.h"
#include "engine/engine.h"
#include "proto/validate.h"

#include <event2/event.h>

struct sk_server {
	const struct sk_daemon_options *options;
	struct sk_engine *engine;
	const struct sk_model *model;
	const struct sk_tokenizer *tokenizer;
	struct sk_listener *listener;
	struct sk_parking *parking; /* NULL: nobody keeps anything */
	int argc;                   /* to be read again on SIGHUP, with the configuration */
	char **argv;
	uint64_t max_connections;
	struct sk_limits limits;

	struct event_base *base;
	struct event *accepting, *accept_again, *engine_event, *terminate, *interrupt, *hangup;
	struct event *drained; /* its time is up */
	struct sk_manager manager;
	struct sk_list connections; /* struct sk_connection */
	uint32_t n_connections;
	uint64_t last_connection; /* the newest one's name */
	uint64_t begun_ns;
	bool is_draining; /* no new requests; those that run may finish */
	bool is_stopping;
	int exit_code;
};

/* The engine is created, not started; all that is passed must outlive the server. */
int sk_server_init(struct sk_server *server, struct sk_diag *diag);
/* Runs until a signal or a fault ends it; returns the exit code (sysexits.h). */
int sk_server_run(struct sk_server *server);
void sk_server_finish(struct sk_server *server);

/* Of one user. */
uint32_t sk_server_n_connections_of(const struct sk_server *server, uid_t uid);
/* For connections: a request has ended, or what was to be sent has been; while it drains, that may be its end. */
void sk_server_look_drained(struct sk_server *server);
/* One has been destroyed. */
void sk_server_lost_one(struct sk_server *server);
