/* Answers about sessions by name, and the list of what there is. */
#include "daemon/answers.h"

#include <errno.h>
#include <stdlib.h>

/* --- From the engine's words to the protocol's --- */

struct session {
	Sk__SessionInfo info;
	Sk__Policy policy; /* info's */
};

static void fill_session(struct session *to, const struct sk_session_info *from)
{
	to->info = (Sk__SessionInfo)SK__SESSION_INFO__INIT;
	sk_answer_fill_policy(&to->policy, &from->policy);
	to->info.policy = &to->policy;
	to->info.name = (char *)from->name;
	to->info.uid = from->uid;
	to->info.state = (Sk__SessionState)from->state; /* engine/event.h keeps the values alike */
	to->info.position = from->position;
	to->info.live = from->live;
	to->info.pages = from->pages;
	to->info.shared_pages = from->shared_pages;
	to->info.stored_bytes = from->stored_bytes;
	to->info.age_ns = from->age_ns;
	to->info.idle_ns = from->idle_ns;
	to->info.ttl_ms = from->ttl_ns / 1000000;
	to->info.requests = from->requests;
	to->info.generated_tokens = from->generated_tokens;
}

static void fill_request(Sk__RequestInfo *to, const struct sk_request_info *from)
{
	*to = (Sk__RequestInfo)SK__REQUEST_INFO__INIT;
	to->uid = from->uid;
	to->pid = (uint32_t)from->pid;
	to->request = from->request;
	to->state = (Sk__RequestState)from->state;
	to->evaluates = from->evaluates;
	to->session = (char *)from->session;
	to->prompt_tokens = from->prompt_tokens;
	to->evaluated_tokens = from->evaluated_tokens;
	to->generated_tokens = from->generated_tokens;
	to->live = from->live;
	to->age_ns = from->age_ns;
	to->queue_place = from->queue_place;
	to->ring_fill = from->ring_fill;
	to->ring_slots = from->ring_slots;
}

static void fill_user(Sk__UserInfo *to, const struct sk_user_info *from)
{
	*to = (Sk__UserInfo)SK__USER_INFO__INIT;
	to->uid = from->uid;
	to->weight = from->weight;
	to->sessions = from->sessions;
	to->running = from->running;
	to->queued = from->queued;
	to->pages = from->pages;
	to->prompt_tokens = from->prompt_tokens;
	to->generated_tokens = from->generated_tokens;
}

/* --- One session --- */

int sk_answer_session(struct sk_connection *connection, const struct sk_event *event)
{
	Sk__ServerMessage message = SK__SERVER_MESSAGE__INIT;
	Sk__SessionAnswer answer = SK__SESSION_ANSWER__INIT;
	struct session session;
	const bool is_saved = event->saved_fd >= 0;

	fill_session(&session, &event->session);
	answer.session = &session.info;
	answer.in_memfd = is_saved;
	answer.saved_bytes = is_saved ? event->n_saved_bytes : 0;
	message.request = event->request;
	message.body_case = SK__SERVER_MESSAGE__BODY_SESSION;
	message.session = &answer;
	return sk_answer_send(connection, &message, &event->saved_fd, is_saved);
}

/* --- Lists --- */

#define FRAME_ENTRIES                                                                              \
	200 /* as many as fit, however long they are, and may be unpacked, however short */

struct frame {
	struct session sessions[FRAME_ENTRIES];
	Sk__SessionInfo *session_pointers[FRAME_ENTRIES];
	Sk__RequestInfo requests[FRAME_ENTRIES], *request_pointers[FRAME_ENTRIES];
	Sk__UserInfo users[FRAME_ENTRIES], *user_pointers[FRAME_ENTRIES];
};

/* What of a list has not been sent yet. */
struct rest {
	const struct sk_session_info *sessions;
	const struct sk_request_info *requests;
	const struct sk_user_info *users;
	uint32_t n_sessions, n_requests, n_users;
};

/* How many of what is left go into a frame that has room for so many. */
static uint32_t take(uint32_t *n_left, uint32_t *room)
{
	uint32_t n = *n_left < *room ? *n_left : *room;
	*n_left -= n;
	*room -= n;
	return n;
}

static int send_part(struct sk_connection *connection, uint32_t request, struct frame *frame,
		     struct rest *rest)
{
	Sk__ServerMessage message = SK__SERVER_MESSAGE__INIT;
	Sk__Listing listing = SK__LISTING__INIT;
	uint32_t room = FRAME_ENTRIES;

	listing.n_sessions = take(&rest->n_sessions, &room);
	listing.n_requests = take(&rest->n_requests, &room);
	listing.n_users = take(&rest->n_users, &room);
	for (size_t i = 0; i < listing.n_sessions; i++) {
		fill_session(&frame->sessions[i], rest->sessions++);
		frame->session_pointers[i] = &frame->sessions[i].info;
	}
	for (size_t i = 0; i < listing.n_requests; i++) {
		fill_request(&frame->requests[i], rest->requests++);
		frame->request_pointers[i] = &frame->requests[i];
	}
	for (size_t i = 0; i < listing.n_users; i++) {
		fill_user(&frame->users[i], rest->users++);
		frame->user_pointers[i] = &frame->users[i];
	}
	listing.sessions = frame->session_pointers;
	listing.requests = frame->request_pointers;
	listing.users = frame->user_pointers;
	listing.more = rest->n_sessions || rest->n_requests || rest->n_users;
	message.request = request;
	message.body_case = SK__SERVER_MESSAGE__BODY_LISTING;
	message.listing = &listing;
	int err = sk_answer_send(connection, &message, NULL, 0);
	return err < 0 ? err : listing.more;
}

int sk_answer_listing(struct sk_connection *connection, const struct sk_event *event)
{
	struct rest rest = {
		.sessions = event->payload,
		.n_sessions = event->listing.n_sessions,
		.n_requests = event->listing.n_requests,
		.n_users = event->listing.n_users,
	};
	rest.requests = (const void *)(rest.sessions + rest.n_sessions);
	rest.users = (const void *)(rest.requests + rest.n_requests);

	struct frame *frame = malloc(sizeof *frame);
	if (!frame)
		return sk_answer_failed(connection, event->request, ENOMEM,
					"not enough memory for the list");
	int more;
	do
		more = send_part(connection, event->request, frame, &rest);
	while (more > 0);
	free(frame);
	return more;
}
