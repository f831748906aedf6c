/* Who begins, who waits for pages, who is told what. The queue's order is queue.h's. */
#include "base/clock.h"
#include "engine/state.h"

#include <errno.h>
#include <stdio.h>

/* Further back, one is told now and then alone: when an eighth of the way is done. */
static bool is_news(const struct sk_request *request)
{
	const uint64_t place = request->place, told = request->told_place;
	return place != told && (place <= 16 || place > told || place * 8 <= told * 7);
}

static void tell_place(struct sk_engine *engine, struct sk_request *request)
{
	struct sk_event *event =
		sk_event_create(SK_EVENT_PROGRESS, request->connection, request->id);
	if (!event)
		return; /* the next change will tell */
	event->progress.prompt_tokens = request->ids.n_ids;
	event->progress.queue_place = request->told_place = request->place;
	sk_mailbox_post(&engine->events, &event->node);
}

static void tell_places(struct sk_engine *engine)
{
	sk_list_for_each (node, &engine->queue.requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		if (is_news(request))
			tell_place(engine, request);
	}
}

static void take_out(struct sk_engine *engine, struct sk_request *request)
{
	sk_queue_remove(&engine->queue, request);
	sk_engine_find_client(engine, request->connection)->n_queued--;
}

static void refuse(struct sk_engine *engine, struct sk_request *request, enum sk_stop_reason stop,
		   int error, const char *reason)
{
	take_out(engine, request);
	sk_engine_refuse(engine, request, stop, error, reason);
}

void sk_engine_serve_queue(struct sk_engine *engine)
{
	struct sk_request *request;
	struct sk_diag diag;

	sk_list_for_each (node, &engine->users)
		sk_container_of(node, struct sk_user, node)->is_held = false;
	while ((request = sk_queue_order(&engine->queue, &engine->users, &engine->scheduler))) {
		struct sk_engine_client *client =
			sk_engine_find_client(engine, request->connection);
		int err = sk_engine_try(engine, request, client, true, &request->n_pages, &diag);
		if (err == -ENOSPC && sk_engine_may_fit(engine, request, request->n_pages)) {
			sk_engine_spill_for(engine, request);
			break;
		}
		if (err == -EAGAIN) { /* nor do its user's others: they keep their order */
			sk_engine_spill_own(engine, request);
			request->user->is_held = true;
			continue;
		}
		if (err < 0) {
			refuse(engine, request, SK_STOP_REFUSED, err, diag.text);
			continue;
		}
		take_out(engine, request);
		request->place = 0;
		tell_place(engine, request);
	}
	tell_places(engine);
}

static void wait_in_line(struct sk_engine *engine, struct sk_request *request,
			 struct sk_engine_client *client, uint32_t n_pages)
{
	char reason[128];
	const struct sk_user *user = request->user;

	if (user->limits->max_queued && user->n_queued >= user->limits->max_queued) {
		snprintf(reason, sizeof reason,
			 "no room in the KV cache now, and your limit of %u waiting request%s is "
			 "reached; try again when one is through",
			 user->n_queued, user->n_queued == 1 ? "" : "s");
		sk_engine_refuse(engine, request, SK_STOP_REFUSED, -ENOSPC, reason);
		return;
	}
	if (engine->queue.n >= engine->options.queue_most) {
		snprintf(
			reason, sizeof reason,
			"the KV cache is full, and so is the queue of %u requests that wait for it",
			engine->queue.n);
		struct sk_request *victim = sk_queue_victim(&engine->queue, user);
		if (!victim) {
			sk_engine_refuse(engine, request, SK_STOP_REFUSED, -ENOSPC, reason);
			return;
		}
		refuse(engine, victim, SK_STOP_REFUSED, -ENOSPC, reason);
	}
	request->n_pages = n_pages;
	request->queued_ns = sk_clock_ns();
	client->n_queued++;
	sk_queue_add(&engine->queue, request);
	sk_engine_serve_queue(engine);
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
	request->user = sk_user_of(&engine->users, &engine->options.limits, request->uid);
	if (!request->user) {
		sk_engine_refuse(engine, request, SK_STOP_REFUSED, -ENOMEM, diag.text);
		return;
	}
	/* A session that has its pages goes on past those who wait for some: so it gives them back the sooner. */
	bool may_take = !request->user->n_queued && !sk_queue_is_waiting(&engine->users);
	int err = sk_engine_try(engine, request, client, may_take, &n_pages, &diag);
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
		if (request->connection == connection && (all || request->id == id))
			refuse(engine, request, stop, 0, "");
	}
	if (engine->queue.n < n_before)
		sk_engine_serve_queue(engine);
}

void sk_engine_end_all_queued(struct sk_engine *engine, enum sk_stop_reason stop,
			      const char *reason)
{
	sk_list_for_each (node, &engine->queue.requests)
		refuse(engine, sk_container_of(node, struct sk_request, queued), stop, 0, reason);
}

void sk_engine_expire_queue(struct sk_engine *engine, uint64_t now_ns)
{
	const uint64_t most_ns = engine->options.queue_timeout_ns;
	uint32_t n_before = engine->queue.n;
	char reason[128];

	if (!most_ns || !engine->queue.n) /* as at nearly every step */
		return;
	sk_list_for_each (node, &engine->queue.requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		if (now_ns - request->queued_ns < most_ns)
			continue;
		snprintf(reason, sizeof reason,
			 "no room in %s within %.3g s; try again, or ask for a smaller window",
			 request->user->is_held ? "your part of the KV cache" : "the KV cache",
			 (double)most_ns * 1e-9);
		refuse(engine, request, SK_STOP_REFUSED, -ENOSPC, reason);
	}
	if (engine->queue.n < n_before)
		sk_engine_serve_queue(engine);
}
