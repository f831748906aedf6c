/* What comes through the engine's mailbox: requests of the loop, prompts that the text worker has made tokens, moves that
 * have ended, and who goes away. */
#include "base/clock.h"
#include "engine/state.h"

#include <errno.h>
#include <stdlib.h>

#define SHORT_TEXT_BYTES 4096

static void end_generations(struct sk_engine *engine, uint64_t connection, uint32_t request,
			    bool all, enum sk_stop_reason stop, const char *reason)
{
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		if (g->request->connection == connection && (all || g->request->id == request))
			sk_generation_end(g, stop, reason);
	}
}

void sk_engine_cancel_waiting(struct sk_engine_client *client, uint32_t id, bool all)
{
	sk_list_for_each (node, &client->waiting) {
		struct sk_request *request = sk_container_of(node, struct sk_request, waiting);
		if (all || request->id == id)
			atomic_store(&request->is_cancelled, true);
	}
}

/* Of one user alone, what would tell them of the others: what is left is the machine's. */
static void only_own(struct sk_engine *engine, uid_t uid, struct sk_stats *stats)
{
	const struct sk_user *user = NULL;
	sk_list_for_each (node, &engine->users) {
		const struct sk_user *other = sk_container_of(node, struct sk_user, node);
		user = other->uid == uid ? other : user;
	}
	stats->n_requests = user ? user->n_requests : 0;
	stats->n_prompt_tokens = user ? user->n_prompt_tokens : 0;
	stats->n_generated_tokens = user ? user->n_generated_tokens : 0;
	stats->n_queued = user ? user->n_queued : 0;
	stats->n_steps = 0;
	stats->n_pages_used = 0;
	sk_list_for_each (node, &engine->sessions) {
		const struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (session->uid == uid)
			stats->n_pages_used += sk_session_n_charged(session);
	}
}

static void take_stats(struct sk_engine *engine, struct sk_request *request)
{
	struct sk_event *event = sk_event_answer(request, SK_EVENT_STATS);
	const bool all = request->sees_all;

	uint64_t until_ns = sk_clock_ns() + request->profile_ns;
	if (request->profile_ns && until_ns > engine->profile_until_ns)
		engine->profile_until_ns = until_ns;

	struct sk_stats stats = engine->stats;
	stats.n_sessions = stats.n_paused = stats.n_stored = stats.n_running = 0;
	sk_list_for_each (node, &engine->sessions) {
		const struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (!all && session->uid != request->uid)
			continue;
		stats.n_sessions++;
		stats.n_stored += session->is_stored;
	}
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		const struct sk_generation *g = engine->generations[i];
		if (!all && g->request->uid != request->uid)
			continue;
		stats.n_running += !g->is_out;
		stats.n_paused += sk_generation_waits(g) || sk_generation_is_ahead(g);
	}
	stats.n_queued = engine->queue.n;
	stats.n_pages = engine->pool.n_pages;
	stats.n_pages_used = engine->pool.n_pages - engine->pool.n_free;
	stats.page_bytes = sk_backend_page_bytes(engine->backend);
	stats.scratch_bytes = sk_backend_scratch_bytes(engine->backend);
	if (!all)
		only_own(engine, request->uid, &stats);
	event->stats = stats;
	sk_mailbox_post(&engine->events, &event->node);
	sk_request_destroy(request);
}

static bool is_run(const struct sk_request *request)
{
	return request->kind == SK_REQUEST_GENERATE || request->kind == SK_REQUEST_EVALUATE;
}

static void receive_request(struct sk_engine *engine, struct sk_request *request)
{
	if (request->kind == SK_REQUEST_STATS) {
		take_stats(engine, request);
		return;
	}
	if (request->kind == SK_REQUEST_LIST) {
		sk_engine_list(engine, request);
		return;
	}
	if (request->kind == SK_REQUEST_SESSION) {
		sk_engine_session_request(engine, request);
		return;
	}
	struct sk_engine_client *client = sk_engine_find_client(engine, request->connection);
	if (!client || engine->is_dead) {
		sk_engine_refuse(engine, request, SK_STOP_REFUSED, -EIO,
				 "the engine takes no requests");
		return;
	}
	/* Where its chat goes on; admission looks whether that still holds. */
	struct sk_session *session = sk_engine_find_session(engine, request->uid, request->session);
	if (session)
		sk_engine_mend(engine, session);
	request->chat_place = sk_engine_chat_place(engine, session);
	engine->n_short_texts += is_run(request) && request->n_input_bytes <= SHORT_TEXT_BYTES;
	sk_list_append(&client->waiting, &request->waiting);
	sk_text_worker_submit(&engine->worker, request);
}

void sk_engine_receive(struct sk_engine *engine, struct sk_mail *mail)
{
	struct sk_engine_client *client;

	engine->is_touched = true;
	switch (mail->kind) {
	case SK_MAIL_REQUEST:
		receive_request(engine, sk_container_of(mail, struct sk_request, mail));
		break;
	case SK_MAIL_READY: {
		struct sk_request *request = sk_container_of(mail, struct sk_request, mail);
		client = sk_engine_find_client(engine, request->connection);
		engine->n_short_texts -= engine->n_short_texts > 0;
		sk_list_remove(&request->waiting);
		sk_engine_admit(engine, request, client); /* it waited, so its client is here */
		sk_engine_close_if_done(engine, client);
		break;
	}
	case SK_MAIL_MOVED:
		sk_engine_moved(engine, sk_container_of(mail, struct sk_move, mail));
		break;
	case SK_MAIL_LIMITS:
		sk_engine_take_limits(engine, mail);
		break;
	case SK_MAIL_CONNECT:
		client = sk_container_of(mail, struct sk_engine_client, connect);
		sk_list_append(&engine->clients, &client->node);
		break;
	case SK_MAIL_CANCEL: {
		struct sk_cancel *cancel = sk_container_of(mail, struct sk_cancel, mail);
		client = sk_engine_find_client(engine, cancel->connection);
		if (client)
			sk_engine_cancel_waiting(client, cancel->request, false);
		sk_engine_end_queued(engine, cancel->connection, cancel->request, false,
				     SK_STOP_CANCELLED);
		end_generations(engine, cancel->connection, cancel->request, false,
				SK_STOP_CANCELLED, "");
		free(cancel);
		break;
	}
	case SK_MAIL_DISCONNECT:
		client = sk_container_of(mail, struct sk_engine_client, disconnect);
		client->is_gone = true;
		sk_engine_cancel_waiting(client, 0, true);
		sk_engine_end_queued(engine, client->connection, 0, true, SK_STOP_DISCONNECTED);
		end_generations(engine, client->connection, 0, true, SK_STOP_DISCONNECTED, "");
		sk_engine_close_if_done(engine, client);
		break;
	}
}
