#include "daemon/connection.h"

#include "base/log.h"
#include "daemon/answers.h"
#include "daemon/parking.h"
#include "daemon/requests.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_REQUESTS 16 /* running at once, a connection */

/* --- Closing --- */

static void forget_request(struct sk_connection_request *request)
{
	sk_list_remove(&request->node);
	request->connection->n_requests--;
	if (request->is_save)
		request->connection->is_saving = false;
	free(request->stops);
	free(request);
}

static void free_event(struct event **event)
{
	if (*event)
		event_free(*event);
	*event = NULL;
}

void sk_connection_destroy(struct sk_connection *connection)
{
	struct sk_server *server = connection->server;

	free_event(&connection->reading);
	free_event(&connection->writing);
	free_event(&connection->room);
	free_event(&connection->hello_timeout);
	sk_channel_destroy(connection->channel);
	if (connection->cursor)
		sk_parking_drop_cursor(server->parking, connection->cursor);
	sk_ring_writer_destroy(connection->ring);
	sk_list_for_each (node, &connection->requests)
		forget_request(sk_container_of(node, struct sk_connection_request, node));
	sk_list_remove(&connection->node);
	free(connection);
	sk_server_lost_one(server);
}

/* The client's end is over. Its ring stays until the engine has let go of it. */
static void close_connection(struct sk_connection *connection)
{
	if (connection->is_closing)
		return;
	connection->is_closing = true;
	free_event(&connection->reading);
	free_event(&connection->writing);
	free_event(&connection->room);
	free_event(&connection->hello_timeout);
	sk_channel_destroy(connection->channel);
	connection->channel = NULL;
	if (connection->ring)
		sk_engine_disconnect(connection->server->engine, connection->name);
	else
		sk_connection_destroy(connection);
}

/* Sends what waits; asks to be told when more can be sent. False: the connection is closed (and may
 * be gone). */
static bool flush(struct sk_connection *connection)
{
	int err = sk_channel_flush(connection->channel);
	if (err == -EAGAIN) {
		event_add(connection->writing, NULL);
		return true;
	}
	if (err < 0) {
		close_connection(connection);
		return false;
	}
	return true;
}

/* After an answer was put into the channel, with its outcome. */
static bool answered(struct sk_connection *connection, int err)
{
	if (err >= 0)
		return flush(connection);
	sk_log(SK_LOG_INFO, "client %d: dropped: %s", (int)connection->pid,
	       err == -ENOBUFS ? "it does not read its answers" : strerror(-err));
	close_connection(connection);
	return false;
}

void sk_connection_fail(struct sk_connection *connection, int error, const char *reason)
{
	sk_log(error == ENOMEM || error == EMFILE ? SK_LOG_WARNING : SK_LOG_INFO,
	       "client %d: dropped: %s", (int)connection->pid, reason);
	if (!connection->is_closing && sk_answer_failed(connection, 0, error, reason) == 0)
		(void)sk_channel_flush(connection->channel);
	close_connection(connection);
}

/* --- Messages --- */

static uint32_t power_of_two_from(uint32_t n)
{
	uint32_t power = SK_RING_LEAST_SLOTS;
	while (power < n && power < SK_RING_MOST_SLOTS)
		power *= 2;
	return power;
}

static void on_room(evutil_socket_t fd, short what, void *context)
{
	struct sk_connection *connection = context;
	(void)fd;
	(void)what;
	sk_engine_nudge(connection->server->engine);
}

static bool welcome(struct sk_connection *connection, const Sk__Hello *hello)
{
	struct sk_server *server = connection->server;
	char reason[160];

	uint32_t wanted =
		hello->ring_slots ? hello->ring_slots : (uint32_t)server->options->ring_slots;
	uint32_t n_slots = power_of_two_from(wanted);
	int err = sk_ring_writer_create(n_slots, &connection->ring);
	if (!err) {
		err = sk_engine_connect(server->engine, connection->name);
		if (err < 0) {
			sk_ring_writer_destroy(connection->ring);
			connection->ring = NULL;
		}
	}
	if (err < 0) {
		snprintf(reason, sizeof reason, "no ring for another client: %s", strerror(-err));
		sk_connection_fail(connection, -err, reason);
		return false;
	}
	/* Edge-triggered: the doorbell stays up until the engine looks. */
	connection->room = event_new(server->base, sk_ring_writer_doorbell(connection->ring),
				     EV_READ | EV_PERSIST | EV_ET, on_room, connection);
	if (!connection->room || event_add(connection->room, NULL) < 0) {
		sk_connection_fail(connection, ENOMEM, "not enough memory for another client");
		return false;
	}
	free_event(&connection->hello_timeout);
	connection->is_welcome = true;
	sk_log(SK_LOG_INFO, "client %d (uid %d): %s", (int)connection->pid, (int)connection->uid,
	       hello->client);
	return answered(connection, sk_answer_welcome(connection, n_slots));
}

static struct sk_connection_request *find_request(struct sk_connection *connection, uint32_t id)
{
	sk_list_for_each (node, &connection->requests) {
		struct sk_connection_request *request =
			sk_container_of(node, struct sk_connection_request, node);
		if (request->id == id)
			return request;
	}
	return NULL;
}

static bool is_save(const struct sk_request *request)
{
	return request->kind == SK_REQUEST_SESSION && request->verb == SK_SESSION_SAVE;
}

/* Notes a request, so that its answer finds it and its id is not taken twice. */
static struct sk_connection_request *note_request(struct sk_connection *connection, uint32_t id,
						  const struct sk_request *from)
{
	struct sk_connection_request *request = calloc(1, sizeof *request);
	if (!request)
		return NULL;
	request->id = id;
	request->connection = connection;
	if (from && from->n_stops) {
		request->stops = malloc(from->n_stops * sizeof *request->stops);
		if (!request->stops) {
			free(request);
			return NULL;
		}
		memcpy(request->stops, from->stops, from->n_stops * sizeof *request->stops);
		request->n_stops = from->n_stops;
	}
	request->is_save = from && is_save(from);
	request->is_endless =
		from && from->kind == SK_REQUEST_GENERATE && from->max_tokens == UINT64_MAX;
	connection->is_saving |= request->is_save;
	sk_list_append(&connection->requests, &request->node);
	connection->n_requests++;
	return request;
}

static bool refuse(struct sk_connection *connection, uint32_t id, int error, const char *reason)
{
	return answered(connection, sk_answer_failed(connection, id, error, reason));
}

/* What was saved lies in memory until its reader lets go of it: one a connection that nobody has looked at. */
static bool has_unread_save(const struct sk_connection *connection)
{
	return connection->is_saving || (connection->has_saved && connection->channel &&
					 !sk_channel_is_read(connection->channel));
}

/* And so many a user, on all connections. */
#define SAVES_A_USER 4

static bool has_unread_saves(const struct sk_connection *connection)
{
	unsigned n = 0;
	sk_list_for_each (node, &connection->server->connections) {
		const struct sk_connection *other =
			sk_container_of(node, struct sk_connection, node);
		n += other->uid == connection->uid && has_unread_save(other);
	}
	return has_unread_save(connection) || (n >= SAVES_A_USER && !sk_sees_all(connection->uid));
}

/* How far the client reads is to be known to the daemon that comes after this one, if its session is. */
static void park_cursor(struct sk_connection *connection, const Sk__ClientMessage *message)
{
	int fds[4];
	if (connection->cursor || message->body_case != SK__CLIENT_MESSAGE__BODY_GENERATE ||
	    !message->generate->session[0])
		return;
	sk_ring_writer_fds(connection->ring, fds);
	connection->cursor =
		sk_parking_keep_cursor(connection->server->parking, connection->name, fds[1]);
}

static bool submit(struct sk_connection *connection, const Sk__ClientMessage *message,
		   struct sk_frame *frame)
{
	struct sk_diag diag = {.text = "not enough memory"};
	struct sk_request *request = NULL;
	park_cursor(connection, message);
	int err = sk_request_of(connection, message, frame, &request, &diag);
	if (err == 0 && is_save(request) && has_unread_saves(connection))
		err = sk_diag_fail(
			&diag, EBUSY,
			"saved sessions of yours have not been read yet; read them first");
	if (err < 0 || !note_request(connection, message->request, request)) {
		sk_request_destroy(request);
		return refuse(connection, message->request, err ? err : ENOMEM, diag.text);
	}
	sk_engine_submit(connection->server->engine, request);
	return true;
}

static bool only_looks(const Sk__ClientMessage *message)
{
	return message->body_case == SK__CLIENT_MESSAGE__BODY_STATUS ||
	       message->body_case == SK__CLIENT_MESSAGE__BODY_LIST;
}

/* False: the connection is closed. */
static bool handle(struct sk_connection *connection, const Sk__ClientMessage *message,
		   struct sk_frame *frame)
{
	struct sk_diag diag = {""};
	bool is_hello = message->body_case == SK__CLIENT_MESSAGE__BODY_HELLO;

	if (is_hello == connection->is_welcome) {
		sk_connection_fail(connection, EPROTO,
				   is_hello ? "a client says hello once"
					    : "a client says hello first");
		return false;
	}
	if (find_request(connection, message->request)) {
		sk_connection_fail(connection, EPROTO, "two running requests have the same number");
		return false;
	}
	int err = sk_client_message_check(message, &connection->server->limits, &diag);
	if (err < 0) {
		if (is_hello || !message->request) { /* nothing that an answer could name */
			bool is_other = is_hello && message->hello->version != 1;
			sk_connection_fail(connection, is_other ? EPROTONOSUPPORT : -err,
					   diag.text);
			return false;
		}
		return refuse(connection, message->request, err, diag.text);
	}
	switch (message->body_case) {
	case SK__CLIENT_MESSAGE__BODY_HELLO:
		return welcome(connection, message->hello);
	case SK__CLIENT_MESSAGE__BODY_CANCEL:
		err = sk_engine_cancel(connection->server->engine, connection->name,
				       message->cancel->target);
		if (err < 0) {
			sk_connection_fail(connection, -err, "not enough memory");
			return false;
		}
		return true;
	case SK__CLIENT_MESSAGE__BODY_MODEL:
		return answered(connection, sk_answer_model(connection, message->request));
	default:
		break;
	}
	if (connection->server->is_draining && !only_looks(message))
		return refuse(
			connection, message->request, ESHUTDOWN,
			"the daemon is ending and takes no new requests; try again once it is "
			"back");
	if (connection->n_requests == MOST_REQUESTS)
		return refuse(connection, message->request, EBUSY,
			      "this connection has 16 requests running already");
	return submit(connection, message, frame);
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
	struct sk_connection *connection = context;
	struct sk_diag diag = {""};
	struct sk_frame frame;
	int got;
	(void)fd;
	(void)what;

	int filled = sk_channel_fill(connection->channel);
	while ((got = sk_channel_next(connection->channel, &frame)) == 1) {
		Sk__ClientMessage *message;
		int err = sk_client_message_unpack(&frame, &message, &diag);
		if (err < 0) {
			sk_frame_finish(&frame);
			sk_connection_fail(connection, -err, diag.text);
			return;
		}
		bool is_open = handle(connection, message, &frame);
		sk__client_message__free_unpacked(message, NULL);
		sk_frame_finish(&frame);
		if (!is_open)
			return;
	}
	int err = got < 0 ? got : filled;
	if (err == -EMSGSIZE)
		sk_connection_fail(connection, EMSGSIZE, "a frame is longer than 1 MiB, or empty");
	else if (err == -EBADMSG)
		sk_connection_fail(connection, EBADMSG, "descriptors came that no message wants");
	else if (err < 0)
		close_connection(connection);
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
	(void)fd;
	struct sk_connection *connection = context;
	struct sk_server *server = connection->server;
	(void)what;
	flush(connection);
	sk_server_look_drained(server);
}

static void on_hello_timeout(evutil_socket_t fd, short what, void *context)
{
	(void)fd;
	(void)what;
	sk_connection_fail(context, ETIMEDOUT, "the client has not said hello");
}

/* --- Opening --- */

static struct timeval seconds(double s)
{
	return (struct timeval){.tv_sec = (time_t)s, .tv_usec = (suseconds_t)(fmod(s, 1) * 1e6)};
}

/* One user leaves a quarter of the places to the others. Who runs the daemon, and root, need not. */
static bool has_too_many(const struct sk_connection *connection)
{
	const uint64_t most = connection->server->max_connections;
	return !sk_sees_all(connection->uid) &&
	       sk_server_n_connections_of(connection->server, connection->uid) > most - most / 4;
}

void sk_connection_accept(struct sk_server *server, int fd)
{
	struct timeval timeout = seconds(server->options->hello_timeout);
	struct sk_connection *connection = calloc(1, sizeof *connection);
	struct sk_channel *channel = NULL;

	int err = sk_channel_create(fd, &channel); /* takes fd, whatever comes */
	if (!connection || err < 0) {
		sk_channel_destroy(channel);
		free(connection);
		sk_log(SK_LOG_WARNING, "a client could not be taken: %s",
		       strerror(err < 0 ? -err : ENOMEM));
		return;
	}
	connection->server = server;
	connection->name = ++server->last_connection;
	connection->channel = channel;
	sk_list_init(&connection->requests);
	sk_list_append(&server->connections, &connection->node);
	server->n_connections++;
	connection->reading = event_new(server->base, sk_channel_fd(channel), EV_READ | EV_PERSIST,
					on_readable, connection);
	connection->writing =
		event_new(server->base, sk_channel_fd(channel), EV_WRITE, on_writable, connection);
	connection->hello_timeout = evtimer_new(server->base, on_hello_timeout, connection);
	if (sk_channel_peer(channel, &connection->uid, &connection->pid) < 0 ||
	    !connection->reading || !connection->writing || !connection->hello_timeout ||
	    event_add(connection->reading, NULL) < 0 ||
	    event_add(connection->hello_timeout, &timeout) < 0) {
		sk_log(SK_LOG_WARNING, "a client could not be taken: not enough memory");
		sk_connection_destroy(connection);
	} else if (has_too_many(connection)) {
		sk_connection_fail(connection, EDQUOT,
				   "you have as many connections as one user may have at once; end "
				   "one, or ask the administrator for a larger --max-connections");
	}
}

/* --- Ending --- */

bool sk_connection_holds(const struct sk_connection *connection)
{
	if (connection->is_closing)
		return false;
	sk_list_for_each (node, &connection->requests) {
		if (!sk_container_of(node, struct sk_connection_request, node)->is_endless)
			return true;
	}
	return event_pending(connection->writing, EV_WRITE, NULL);
}

/* --- The engine's events --- */

static int answer(struct sk_connection *connection, const struct sk_event *event,
		  const struct sk_connection_request *request)
{
	switch (event->kind) {
	case SK_EVENT_PROGRESS:
		return sk_answer_progress(connection, event);
	case SK_EVENT_FINISHED:
		return sk_answer_finished(connection, event, request);
	case SK_EVENT_IDS:
		return sk_answer_ids(connection, event);
	case SK_EVENT_TEXT:
		return sk_answer_text(connection, event);
	case SK_EVENT_STATS:
		return sk_answer_status(connection, event);
	case SK_EVENT_SESSION:
		return sk_answer_session(connection, event);
	case SK_EVENT_LISTING:
		return sk_answer_listing(connection, event);
	case SK_EVENT_FAILED:
		return sk_answer_failed(connection, event->request, event->error, event->reason);
	default:
		return 0;
	}
}

static void take_event(struct sk_connection *connection, struct sk_event *event)
{
	struct sk_connection_request *request = find_request(connection, event->request);

	if (event->kind == SK_EVENT_CLOSED) {
		sk_event_destroy(event);
		sk_connection_destroy(connection);
		return;
	}
	if (connection->is_closing || !request) {
		sk_event_destroy(event);
		return;
	}
	int err = answer(connection, event, request);
	connection->has_saved |= event->kind == SK_EVENT_SESSION && event->saved_fd >= 0;
	bool broke_ring = event->kind == SK_EVENT_FINISHED && event->error == -EPROTO;
	if (event->kind != SK_EVENT_PROGRESS)
		forget_request(request);
	sk_event_destroy(event);
	if (answered(connection, err) && broke_ring)
		sk_connection_fail(connection, EPROTO, "the client broke its token ring");
}

void sk_connection_take_event(struct sk_connection *connection, struct sk_event *event)
{
	struct sk_server *server = connection->server;
	take_event(connection, event);
	sk_server_look_drained(server);
}
