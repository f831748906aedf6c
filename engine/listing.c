/* What there is now: sessions, requests wherever they are, users. Of one user, or of all. */
#include "base/clock.h"
#include "engine/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct listing {
	struct sk_engine *engine;
	const struct sk_request *asked;
	uint64_t now_ns;
	struct sk_session_info *sessions; /* those that follow lie in the same memory */
	struct sk_request_info *requests;
	struct sk_user_info *users;
	uint32_t n_sessions, n_requests, n_users;
};

static bool sees(const struct listing *listing, uid_t uid)
{
	return listing->asked->sees_all || listing->asked->uid == uid;
}

/* --- How many --- */

static uint32_t length(const struct sk_list *list)
{
	uint32_t n = 0;
	for (const struct sk_list *node = list->next; node != list; node = node->next)
		n++;
	return n;
}

/* Room for all of them, whoever's they are: 0 or -ENOMEM. */
static int make_room(struct listing *listing)
{
	const struct sk_engine *engine = listing->engine;
	size_t n_sessions = length(&engine->sessions), n_users = length(&engine->users),
	       n_requests = engine->n_generations + engine->queue.n;
	sk_list_for_each (node, &engine->clients)
		n_requests +=
			length(&sk_container_of(node, struct sk_engine_client, node)->waiting);

	listing->sessions = malloc(n_sessions * sizeof *listing->sessions +
				   n_requests * sizeof *listing->requests +
				   n_users * sizeof *listing->users + 1);
	return listing->sessions ? 0 : -ENOMEM;
}

/* --- Sessions --- */

static void list_sessions(struct listing *listing)
{
	sk_list_for_each (node, &listing->engine->sessions) {
		const struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (sees(listing, session->uid))
			sk_session_describe(session, listing->now_ns,
					    &listing->sessions[listing->n_sessions++]);
	}
	listing->requests = (void *)(listing->sessions + listing->n_sessions);
}

/* --- Requests --- */

/* NULL where the asker may not see it. What the text worker works at is not looked at. */
static struct sk_request_info *
add_request(struct listing *listing, const struct sk_request *request, enum sk_request_state state)
{
	if (!sees(listing, request->uid))
		return NULL;
	struct sk_request_info *info = &listing->requests[listing->n_requests++];
	const uint32_t n_slots = sk_ring_writer_n_slots(request->ring);
	const int64_t room = sk_ring_writer_room(request->ring);
	*info = (struct sk_request_info){
		.uid = request->uid,
		.pid = request->pid,
		.request = request->id,
		.state = state,
		.evaluates = request->kind == SK_REQUEST_EVALUATE,
		.age_ns = listing->now_ns - request->arrived_ns,
		.ring_fill = room < 0 ? n_slots : n_slots - (uint32_t)room,
		.ring_slots = n_slots,
	};
	snprintf(info->session, sizeof info->session, "%s", request->session);
	return info;
}

static enum sk_request_state state_of(const struct sk_generation *g)
{
	if (g->is_out)
		return SK_REQUEST_QUEUED;
	if (sk_generation_waits(g) || sk_generation_is_ahead(g) || g->yields_ns)
		return SK_REQUEST_PAUSED;
	if (g->session->is_moving)
		return SK_REQUEST_FETCHING;
	return g->prompt_done_ns ? SK_REQUEST_DECODE : SK_REQUEST_PROMPT;
}

static void list_requests(struct listing *listing)
{
	const struct sk_engine *engine = listing->engine;

	for (uint32_t i = 0; i < engine->n_generations; i++) {
		const struct sk_generation *g = engine->generations[i];
		struct sk_request_info *info = add_request(listing, g->request, state_of(g));
		if (!info)
			continue;
		info->prompt_tokens = g->result.prompt_tokens;
		info->evaluated_tokens = g->result.evaluated_tokens;
		info->generated_tokens = g->result.generated_tokens;
		info->live = sk_window_live(&g->session->window);
		info->queue_place = g->is_out ? g->request->place : 0;
	}
	sk_list_for_each (node, &engine->queue.requests) {
		const struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		if (request->generation)
			continue;
		struct sk_request_info *info = add_request(listing, request, SK_REQUEST_QUEUED);
		if (!info)
			continue;
		info->prompt_tokens = request->ids.n_ids;
		info->queue_place = request->place;
	}
	sk_list_for_each (node, &engine->clients) {
		const struct sk_engine_client *client =
			sk_container_of(node, struct sk_engine_client, node);
		sk_list_for_each (waiting, &client->waiting)
			add_request(listing, sk_container_of(waiting, struct sk_request, waiting),
				    SK_REQUEST_TOKENIZING);
	}
	listing->users = (void *)(listing->requests + listing->n_requests);
}

/* --- Users --- */

static struct sk_user_info *find_user(struct listing *listing, uid_t uid)
{
	for (uint32_t i = 0; i < listing->n_users; i++) {
		if (listing->users[i].uid == uid)
			return &listing->users[i];
	}
	return NULL;
}

static void list_users(struct listing *listing)
{
	const struct sk_engine *engine = listing->engine;
	struct sk_user_info *info = NULL;

	sk_list_for_each (node, &engine->users) {
		const struct sk_user *user = sk_container_of(node, struct sk_user, node);
		if (!sees(listing, user->uid))
			continue;
		listing->users[listing->n_users++] = (struct sk_user_info){
			.uid = user->uid,
			.weight = user->tenant.weight,
			.queued = user->n_queued,
			.prompt_tokens = user->n_prompt_tokens,
			.generated_tokens = user->n_generated_tokens,
		};
	}
	for (uint32_t i = 0; i < listing->n_sessions; i++) { /* a user's lie beside each other */
		const struct sk_session_info *session = &listing->sessions[i];
		if (!info || info->uid != session->uid)
			info = find_user(listing, session->uid);
		if (!info)
			continue;
		info->sessions++;
		info->pages += session->pages;
	}
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		info = find_user(listing, engine->generations[i]->user->uid);
		if (info)
			info->running++;
	}
}

void sk_engine_list(struct sk_engine *engine, struct sk_request *request)
{
	struct listing listing = {.engine = engine, .asked = request, .now_ns = sk_clock_ns()};

	if (make_room(&listing) < 0) {
		sk_engine_fail(engine, request, -ENOMEM, "not enough memory for the list");
		return;
	}
	list_sessions(&listing);
	list_requests(&listing);
	list_users(&listing);

	struct sk_event *event = sk_event_answer(request, SK_EVENT_LISTING);
	event->payload = listing.sessions;
	event->n_payload_bytes =
		(uint64_t)((char *)(listing.users + listing.n_users) - (char *)listing.sessions);
	event->listing.n_sessions = listing.n_sessions;
	event->listing.n_requests = listing.n_requests;
	event->listing.n_users = listing.n_users;
	sk_mailbox_post(&engine->events, &event->node);
	sk_request_destroy(request);
}
