/* Who begins, who waits for pages, who is told what. The queue's order is queue.h's. */
#include "base/clock.h"
#include "engine/state.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Further back, one is told now and then alone: when an eighth of the way is done. */
static bool is_news(const struct sk_request *request)
{
	const uint64_t place = request->place, told = request->told_place;
	return place != told && (place <= 16 || place > told || place * 8 <= told * 7);
}

static void tell_place(struct sk_engine *engine, struct sk_request *request, uint64_t n_tokens)
{
	struct sk_event *event =
		sk_event_create(SK_EVENT_PROGRESS, request->connection, request->id);
	if (!event)
		return; /* the next change will tell */
	event->progress.prompt_tokens = n_tokens;
	if (request->generation)
		event->progress.evaluated_tokens = request->generation->result.evaluated_tokens;
	event->progress.queue_place = request->told_place = request->place;
	sk_mailbox_post(&engine->events, &event->node);
}

static void tell_places(struct sk_engine *engine)
{
	sk_list_for_each (node, &engine->queue.requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		const struct sk_generation *g = request->generation;
		if (is_news(request))
			tell_place(engine, request,
				   g ? g->result.prompt_tokens : request->ids.n_ids);
	}
}

static void take_out(struct sk_engine *engine, struct sk_request *request)
{
	sk_queue_remove(&engine->queue, request);
	sk_engine_find_client(engine, request->connection)->n_queued--;
}

void sk_engine_leave_queue(struct sk_engine *engine, struct sk_request *request)
{
	take_out(engine, request);
	request->generation = NULL;
}

static void refuse(struct sk_engine *engine, struct sk_request *request, enum sk_stop_reason stop,
		   int error, const char *reason)
{
	take_out(engine, request);
	sk_engine_refuse(engine, request, stop, error, reason);
}

/* What users hold. */
static void look_at_pages(struct sk_engine *engine)
{
	sk_list_for_each (node, &engine->users)
		sk_container_of(node, struct sk_user, node)->n_pages = 0;
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		const struct sk_generation *g = engine->generations[i];
		g->user->n_pages += sk_session_n_pages(g->session);
	}
}

/* And what they have had until now. */
static void count_pages(struct sk_engine *engine, uint64_t now_ns)
{
	look_at_pages(engine);
	sk_queue_count(&engine->queue, &engine->users,
		       engine->pool.n_free - engine->pool.n_promised, now_ns);
}

/* Its turn has come: it begins, or goes on. */
static int try_one(struct sk_engine *engine, struct sk_request *request, struct sk_diag *diag)
{
	if (request->generation)
		return sk_engine_resume(engine, request);
	return sk_engine_try(engine, request, sk_engine_find_client(engine, request->connection),
			     true, &request->n_pages, diag);
}

static bool may_fit(struct sk_engine *engine, const struct sk_request *request)
{
	return request->generation || sk_engine_may_fit(engine, request, request->n_pages);
}

static void has_begun(struct sk_engine *engine, struct sk_request *request)
{
	const struct sk_generation *g = request->generation
						? request->generation
						: engine->generations[engine->n_generations - 1];
	take_out(engine, request);
	request->place = 0; /* its ids are the generation's now */
	tell_place(engine, request, g->result.prompt_tokens);
	request->generation = NULL;
}

/* To give their pages up for it, if it is the first of its user. */
static enum sk_giving ask_others(struct sk_engine *engine, struct sk_request *request,
				 bool own_only, uint64_t now_ns)
{
	const bool may_ask = !request->user->has_asked && !engine->queue.room_for;
	request->user->has_asked = true;
	return may_ask ? sk_engine_preempt_for(engine, request, own_only, now_ns)
		       : SK_GIVES_NOTHING;
}

/* It gave way, and pages would be of no use to it: its reader has to read first. */
static bool is_idle(const struct sk_request *request)
{
	return request->generation && sk_generation_waits(request->generation);
}

/* The first in order who can begin does; who cannot ever is refused. False: there is neither. */
static bool serve_one(struct sk_engine *engine, uint64_t now_ns)
{
	struct sk_diag diag;
	bool is_first = true, is_kept = false, is_claimed = false;

	look_at_pages(engine);
	sk_list_for_each (node, &engine->users)
		sk_container_of(node, struct sk_user, node)->has_asked = false;
	sk_queue_order(&engine->queue, &engine->users);
	sk_list_for_each (node, &engine->queue.requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		if (request->generation && request->generation->is_ending) {
			sk_engine_leave_queue(engine, request); /* it needs none any more */
			return true;
		}
		/* What one has had already is within one's limit. */
		if ((request->user->is_held && !request->generation) || is_idle(request))
			continue;
		if (is_kept) { /* for another: one's own pages are not, unless it waits for these as well */
			if (!is_claimed)
				ask_others(engine, request, true, now_ns);
			continue;
		}
		int err = try_one(engine, request, &diag);
		if (err == -ENOSPC && may_fit(engine, request)) {
			is_kept = sk_queue_keeps(&engine->queue, request);
			if (is_kept || !engine->queue.first)
				sk_engine_spill_for(engine, request);
			if (request == engine->queue.room_for) {
				if (sk_engine_is_making_room(engine, now_ns))
					return false;
				engine->queue.room_for = NULL; /* those do not read */
				return true;
			}
			const enum sk_giving giving =
				ask_others(engine, request, !is_first, now_ns);
			is_claimed = giving == SK_GIVES_LATER;
			is_kept |= giving != SK_GIVES_NOTHING; /* with what is free it is enough */
			is_first = false;
			continue;
		}
		if (err == -EBUSY && request->generation) /* for a moment */
			continue;
		if (request ==
		    engine->queue.room_for) /* it is the user's own limit that it meets */
			engine->queue.room_for = NULL;
		if (err == -EAGAIN) { /* nor do its user's others: they keep their order */
			sk_engine_spill_own(engine, request);
			request->user->is_held = true;
			request->user->is_all_held |= request->generation != NULL;
			continue;
		}
		if (err < 0) {
			refuse(engine, request, SK_STOP_REFUSED, err, diag.text);
			return true;
		}
		has_begun(engine, request);
		return true;
	}
	return false;
}

void sk_engine_serve_queue(struct sk_engine *engine)
{
	const uint64_t now_ns = sk_clock_ns();
	char reason[128];

	count_pages(engine, now_ns);
	sk_list_for_each (node, &engine->users) {
		struct sk_user *user = sk_container_of(node, struct sk_user, node);
		user->is_held = user->is_all_held = false;
	}
	engine->preempt_ns = UINT64_MAX;
	while (serve_one(engine, now_ns)) {
	}
	if (!engine->queue.n)
		sk_engine_unpreempt(engine);
	count_pages(engine, now_ns); /* who waits now */
	snprintf(reason, sizeof reason,
		 "the KV cache is full, and so is the queue of %u requests that wait for it",
		 engine->options.queue_most);
	for (struct sk_request *victim; engine->queue.n > engine->options.queue_most &&
					(victim = sk_queue_victim(&engine->queue));)
		refuse(engine, victim, SK_STOP_REFUSED, -ENOSPC, reason);
	tell_places(engine);
}

static void wait_in_line(struct sk_engine *engine, struct sk_request *request,
			 struct sk_engine_client *client, uint32_t n_pages)
{
	char reason[128];
	const struct sk_user *user = request->user;

	const uint32_t n_queued = user->n_queued; /* those that gave way are on the disk */

	if (user->limits->max_queued && n_queued >= user->limits->max_queued) {
		snprintf(reason, sizeof reason,
			 "no room in the KV cache now, and your limit of %u waiting request%s is "
			 "reached; try again when one is through",
			 n_queued, n_queued == 1 ? "" : "s");
		sk_engine_refuse(engine, request, SK_STOP_REFUSED, -ENOSPC, reason);
		return;
	}
	request->n_pages = n_pages;
	request->queued_ns = sk_clock_ns();
	client->n_queued++;
	sk_queue_add(&engine->queue, request);
	sk_engine_serve_queue(engine);
}

static bool names(const struct sk_request *request, const struct sk_session *session)
{
	return request->uid == session->uid && strcmp(request->session, session->name) == 0;
}

bool sk_engine_is_asked_for(const struct sk_engine *engine, const struct sk_session *session)
{
	sk_list_for_each (node, &engine->queue.requests) {
		if (names(sk_container_of(node, struct sk_request, queued), session))
			return true;
	}
	sk_list_for_each (node, &engine->clients) {
		const struct sk_engine_client *client =
			sk_container_of(node, struct sk_engine_client, node);
		sk_list_for_each (waiting, &client->waiting) {
			if (names(sk_container_of(waiting, struct sk_request, waiting), session))
				return true;
		}
	}
	return false;
}

/* Whether a request on the same session waits already. */
static bool is_behind_another(const struct sk_engine *engine, const struct sk_request *request)
{
	sk_list_for_each (node, &engine->queue.requests) {
		const struct sk_request *other = sk_container_of(node, struct sk_request, queued);
		if (request->session[0] && other->uid == request->uid &&
		    strcmp(other->session, request->session) == 0)
			return true;
	}
	return false;
}

void sk_engine_admit(struct sk_engine *engine, struct sk_request *request,
		     struct sk_engine_client *client)
{
	struct sk_diag diag = {.text = "not enough memory"};
	uint32_t n_pages;

	if (client->is_gone || atomic_load(&request->is_cancelled)) {
		sk_engine_refuse(engine, request,
				 client->is_gone ? SK_STOP_DISCONNECTED : SK_STOP_CANCELLED, 0, "");
		return;
	}
	if (request->error) {
		sk_engine_refuse(engine, request, SK_STOP_REFUSED, request->error,
				 request->diag.text);
		return;
	}
	int err = sk_engine_check_ids(engine, request, &diag);
	if (!err && is_behind_another(engine, request)) /* as if it ran: its order must be kept */
		err = sk_diag_fail(&diag, EBUSY,
				   "the session '%s' is busy with another request, which waits "
				   "for room in the KV cache",
				   request->session);
	if (!err && sk_engine_is_held(engine, request->uid, request->session))
		err = sk_diag_fail(&diag, EBUSY,
				   "the session '%s' is busy: what was asked of it before waits",
				   request->session);
	request->user = sk_user_of(&engine->users, &engine->options.limits, request->uid);
	if (!err && !request->user)
		err = -ENOMEM;
	if (err < 0) {
		sk_engine_refuse(engine, request, SK_STOP_REFUSED, err, diag.text);
		return;
	}
	/* A session that has its pages goes on past those who wait for some: so it gives them back the sooner. */
	bool may_take = !request->user->n_queued && !sk_queue_is_waiting(&engine->users);
	err = sk_engine_try(engine, request, client, may_take, &n_pages, &diag);
	if (err == -EAGAIN || (err == -ENOSPC && sk_engine_may_fit(engine, request, n_pages)))
		wait_in_line(engine, request, client, n_pages);
	else if (err < 0)
		sk_engine_refuse(engine, request, SK_STOP_REFUSED, err, diag.text);
}

void sk_engine_end_queued(struct sk_engine *engine, uint64_t connection, uint32_t id, bool all,
			  enum sk_stop_reason stop)
{
	uint32_t n_before = engine->queue.n;
	sk_list_for_each (node, &engine->queue.requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		if (!request->generation && request->connection == connection &&
		    (all || request->id == id))
			refuse(engine, request, stop, 0, "");
	}
	if (engine->queue.n < n_before)
		sk_engine_serve_queue(engine);
}

void sk_engine_end_all_queued(struct sk_engine *engine, enum sk_stop_reason stop,
			      const char *reason)
{
	sk_list_for_each (node, &engine->queue.requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		if (!request->generation)
			refuse(engine, request, stop, 0, reason);
	}
}

void sk_engine_expire_queue(struct sk_engine *engine, uint64_t now_ns)
{
	const uint64_t most_ns = engine->options.queue_timeout_ns;
	uint32_t n_before = engine->queue.n;
	char reason[128];

	if (!engine->queue.n) /* as at nearly every step */
		return;
	count_pages(engine, now_ns);
	sk_list_for_each (node, &engine->queue.requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		if (!most_ns || request->generation || now_ns - request->queued_ns < most_ns)
			continue;
		snprintf(reason, sizeof reason,
			 "no room in %s within %.3g s; try again, or ask for a smaller window",
			 request->user->is_held ? "your part of the KV cache" : "the KV cache",
			 (double)most_ns * 1e-9);
		refuse(engine, request, SK_STOP_REFUSED, -ENOSPC, reason);
	}
	if (engine->queue.n < n_before || now_ns >= engine->preempt_ns ||
	    now_ns >= sk_queue_keeps_until(&engine->queue))
		sk_engine_serve_queue(engine);
}

uint64_t sk_engine_queue_until(const struct sk_engine *engine)
{
	const uint64_t most_ns = engine->options.queue_timeout_ns;
	uint64_t until_ns = sk_queue_keeps_until(&engine->queue);

	sk_list_for_each (node, &engine->queue.requests) {
		const struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		const uint64_t end_ns = request->queued_ns + most_ns;
		if (most_ns && !request->generation && end_ns < until_ns)
			until_ns = end_ns;
	}
	return engine->preempt_ns < until_ns ? engine->preempt_ns : until_ns;
}
