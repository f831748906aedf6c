/* One client: its channel, its token ring, and the requests it waits for. Loop thread.
 *
 *   hello timeout --> dropped          engine has let go of the ring --> destroyed
 *   accepted --Hello--> welcomed --requests...--> closing
 */
#pragma once

#include "daemon/server.h"
#include "proto/channel.h"

/* One that runs: what must be known when it ends. */
struct sk_connection_request {
	struct sk_list node;
	struct sk_connection *connection;
	uint32_t id;
	bool is_save; /* its answer brings a session's memory */
	bool is_endless;
	uint32_t n_stops;
	struct sk_stop *stops;
};

struct sk_connection {
	struct sk_list node; /* of server->connections */
	struct sk_server *server;
	uint64_t name; /* the engine's word for it */
	uid_t uid;
	pid_t pid;
	struct sk_channel *channel;
	struct event *reading, *writing, *room, *hello_timeout;
	struct sk_ring_writer *ring; /* from Hello on */
	uint64_t
		cursor; /* its reader's, under which it is parked (daemon/parking.h); 0: it is not */
	struct sk_list requests;
	unsigned n_requests;
	bool is_saving, has_saved;
	bool is_welcome;
	bool is_closing; /* nothing more is read or sent; waits for the engine's CLOSED where it had
			    a ring */
};

/* Takes the socket over; on failure it is closed. */
void sk_connection_accept(struct sk_server *server, int fd);
/* An event of the engine for this connection. Takes it over. */
void sk_connection_take_event(struct sk_connection *connection, struct sk_event *event);
/* Tells the client why, as far as it reads, and closes. */
void sk_connection_fail(struct sk_connection *connection, int error, const char *reason);
/* Whether a daemon that ends waits for it: a request of its runs that has an end, or an answer is still on its way out. */
bool sk_connection_holds(const struct sk_connection *connection);
void sk_connection_destroy(struct sk_connection *connection);
