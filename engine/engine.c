#include "engine/engine.h"
#include "base/clock.h"
#include "engine/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHORT_TEXT_BYTES 4096
#define SHORT_WAIT_NS    1000000

/* --- Cancelling --- */

static void end_generations(struct sk_engine *engine, uint64_t connection, uint32_t request,
			    bool all, enum sk_stop_reason stop, const char *reason)
{
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		if (g->request->connection == connection && (all || g->request->id == request))
			sk_generation_end(g, stop, reason);
	}
}

static void cancel_waiting(struct sk_engine_client *client, uint32_t id, bool all)
{
	sk_list_for_each (node, &client->waiting) {
		struct sk_request *request = sk_container_of(node, struct sk_request, waiting);
		if (all || request->id == id)
			atomic_store(&request->is_cancelled, true);
	}
}

/* The loop thread's. */
static void cancel_texts(struct sk_engine *engine, uint64_t connection, uint32_t id, bool all)
{
	sk_list_for_each (node, &engine->texts) {
		struct sk_request *request = sk_container_of(node, struct sk_request, waiting);
		if (request->connection == connection && (all || request->id == id))
			atomic_store(&request->is_cancelled, true);
	}
}

/* The engine thread has ended: its lists are the caller's. */
static void cancel_at_worker(struct sk_engine *engine)
{
	sk_list_for_each (node, &engine->texts)
		atomic_store(&sk_container_of(node, struct sk_request, waiting)->is_cancelled,
			     true);
	sk_list_for_each (node, &engine->clients)
		cancel_waiting(sk_container_of(node, struct sk_engine_client, node), 0, true);
}

/* --- Letters --- */

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
	request->chat_place = sk_engine_chat_place(
		engine, sk_engine_find_session(engine, request->uid, request->session));
	engine->n_short_texts += is_run(request) && request->n_input_bytes <= SHORT_TEXT_BYTES;
	sk_list_append(&client->waiting, &request->waiting);
	sk_text_worker_submit(&engine->worker, request);
}

static void receive(struct sk_engine *engine, struct sk_mail *mail)
{
	struct sk_engine_client *client;

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
	case SK_MAIL_CONNECT:
		client = sk_container_of(mail, struct sk_engine_client, connect);
		sk_list_append(&engine->clients, &client->node);
		break;
	case SK_MAIL_CANCEL: {
		struct sk_cancel *cancel = sk_container_of(mail, struct sk_cancel, mail);
		client = sk_engine_find_client(engine, cancel->connection);
		if (client)
			cancel_waiting(client, cancel->request, false);
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
		cancel_waiting(client, 0, true);
		sk_engine_end_queued(engine, client->connection, 0, true, SK_STOP_DISCONNECTED);
		end_generations(engine, client->connection, 0, true, SK_STOP_DISCONNECTED, "");
		sk_engine_close_if_done(engine, client);
		break;
	}
}

static void receive_all(struct sk_engine *engine)
{
	struct sk_list letters;
	sk_mailbox_take(&engine->inbox, &letters);
	for (struct sk_list *node; (node = sk_list_pop(&letters));)
		receive(engine, sk_container_of(node, struct sk_mail, node));
}

/* A short prompt is made tokens in less time than a step takes: it takes part in the next one, not in that after it. */
static void wait_for_short_texts(struct sk_engine *engine)
{
	const uint64_t until_ns = sk_clock_ns() + SHORT_WAIT_NS;

	while (engine->n_short_texts && sk_clock_ns() < until_ns) {
		sk_mailbox_wait(&engine->inbox, 1);
		receive_all(engine);
	}
	engine->n_short_texts = 0; /* whoever takes longer is not waited for again */
}

/* --- The thread --- */

/* Tokens that found no room: once more; and readers that have not read for too long. */
static void deliver_waiting(struct sk_engine *engine)
{
	uint64_t now_ns = sk_clock_ns(), most_ns = engine->options.stall_timeout_ns;

	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		sk_generation_look(g);
		if (g->yields_ns)
			sk_engine_yield(engine, g);
		bool is_waiting = sk_generation_is_ahead(g);
		if (sk_generation_waits(g)) {
			is_waiting = !sk_generation_deliver(g, now_ns);
			if (!g->is_detached)
				sk_ring_writer_publish(g->request->ring);
		}
		if (is_waiting && most_ns && now_ns > g->paused_ns &&
		    now_ns - g->paused_ns > most_ns) {
			g->is_stalled = true;
			sk_generation_end(g, SK_STOP_DISCONNECTED,
					  "the client stopped reading its tokens");
		}
	}
}

/* True: some have ended. Others may have begun in their stead. */
static bool reap(struct sk_engine *engine)
{
	uint32_t n_left = 0, n = engine->n_generations;

	for (uint32_t i = 0; i < n; i++) {
		struct sk_generation *g = engine->generations[i];
		if (!sk_generation_is_over(g)) {
			engine->generations[n_left++] = g;
			continue;
		}
		struct sk_engine_client *client =
			sk_engine_find_client(engine, g->request->connection);
		struct sk_event *event = sk_generation_finish(g);
		engine->stats.n_requests++;
		g->user->n_requests++;
		if (g->is_out)
			sk_engine_leave_queue(engine, g->request);
		if (g->session->name[0])
			sk_engine_watch_session(engine, g->session);
		else
			sk_engine_leave_session(engine, g->session);
		sk_generation_destroy(g);
		sk_mailbox_post(&engine->events, &event->node);
		client->n_running--;
		sk_engine_close_if_done(engine, client);
	}
	engine->n_generations = n_left;
	if (n_left == n)
		return false;
	sk_engine_serve_queue(engine);
	return true;
}

/* How long to sleep when nobody may run: until a letter comes, the first stalled reader's time is up, or a user has
 * allowance again. 0: a reader has made room meanwhile. */
static int sleep_ms(struct sk_engine *engine)
{
	uint64_t now_ns = sk_clock_ns(), least_ns = UINT64_MAX;

	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		if (!sk_generation_waits(g) && !sk_generation_is_ahead(g))
			continue;
		if (sk_generation_wait(g))
			return 0;
		if (!engine->options.stall_timeout_ns)
			continue;
		uint64_t end_ns = g->paused_ns + engine->options.stall_timeout_ns;
		uint64_t left_ns = end_ns > now_ns ? end_ns - now_ns : 0;
		least_ns = left_ns < least_ns ? left_ns : least_ns;
	}
	const uint64_t queue_ns = sk_engine_queue_until(engine);
	if (queue_ns < UINT64_MAX) {
		uint64_t left_ns = queue_ns > now_ns ? queue_ns - now_ns : 0;
		least_ns = left_ns < least_ns ? left_ns : least_ns;
	}
	if (engine->next_end_ns != UINT64_MAX) {
		uint64_t left_ns = engine->next_end_ns > now_ns ? engine->next_end_ns - now_ns : 0;
		least_ns = left_ns < least_ns ? left_ns : least_ns;
	}
	sk_list_for_each (node, &engine->users) {
		const struct sk_user *user = sk_container_of(node, struct sk_user, node);
		if (!user->resumes_ns)
			continue;
		uint64_t left_ns = user->resumes_ns > now_ns ? user->resumes_ns - now_ns : 0;
		least_ns = left_ns < least_ns ? left_ns : least_ns;
	}
	if (least_ns == UINT64_MAX)
		return -1;
	return (int)(least_ns / 1000000 > 60000 ? 60000 : least_ns / 1000000) + 1;
}

static void *engine_main(void *context)
{
	struct sk_engine *engine = context;

	pthread_setname_np(pthread_self(), "sk-engine");
	while (!atomic_load(&engine->is_stopping)) {
		receive_all(engine);
		wait_for_short_texts(engine);
		deliver_waiting(engine);
		uint64_t now_ns = sk_clock_ns();
		sk_engine_expire_queue(engine, now_ns);
		sk_engine_end_unused(engine, now_ns);
		bool ran = sk_engine_step(engine);
		if (engine->is_dead) {
			sk_engine_end_all_queued(engine, SK_STOP_ERROR, "the device failed");
			for (uint32_t i = 0; i < engine->n_generations; i++)
				sk_generation_end(engine->generations[i], SK_STOP_ERROR,
						  "the device failed");
		}
		ran |= reap(engine);
		if (engine->is_dead && engine->dead) {
			sk_mailbox_post(&engine->events, &engine->dead->node);
			engine->dead = NULL;
		}
		if (!ran)
			sk_mailbox_wait(&engine->inbox, sleep_ms(engine));
	}
	return NULL;
}

int sk_engine_start(struct sk_engine *engine)
{
	int err = sk_text_worker_start(&engine->worker);
	if (err < 0)
		return err;
	err = sk_mover_start(&engine->mover);
	if (!err)
		err = -pthread_create(&engine->thread, NULL, engine_main, engine);
	if (err < 0) {
		sk_text_worker_stop(&engine->worker);
		sk_mover_stop(&engine->mover);
		return err;
	}
	engine->is_running = true;
	return 0;
}

/* With no thread left: every letter is answered here, on the caller's. */
void sk_engine_drain(struct sk_engine *engine)
{
	if (!engine->has_mailboxes)
		return;
	cancel_at_worker(engine);
	for (int i = 0; i < 2;
	     i++) { /* what comes new goes through the text worker, and comes back */
		sk_text_worker_stop(&engine->worker);
		sk_mover_stop(&engine->mover);
		receive_all(engine);
	}
	sk_text_worker_stop(&engine->worker);
	sk_mover_stop(&engine->mover);
	receive_all(engine);
}

void sk_engine_stop(struct sk_engine *engine)
{
	if (engine->is_stopped)
		return;
	engine->is_stopped = true;
	atomic_store(&engine->is_stopping, true);
	if (engine->is_running) {
		sk_mailbox_wake(&engine->inbox);
		pthread_join(engine->thread, NULL);
		engine->is_running = false;
	}
	sk_engine_drain(engine);
	sk_engine_end_all_queued(engine, SK_STOP_CANCELLED, "the daemon is stopping");
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		sk_generation_end(g, SK_STOP_CANCELLED, "the daemon is stopping");
		if (sk_generation_deliver(g, sk_clock_ns()) && !g->is_detached)
			sk_ring_writer_publish(g->request->ring);
		else
			sk_generation_end(g, SK_STOP_DISCONNECTED,
					  "the daemon is stopping, and the client does not read");
	}
	reap(engine);
	do { /* moves that have been begun meanwhile, and who waits for their end */
		sk_engine_fail_held(engine);
		sk_engine_drain(engine);
	} while (engine->n_moves);
	sk_engine_fail_held(engine);
	sk_engine_keep_all(engine);
}

/* --- For the loop thread --- */

const struct sk_engine_kept *sk_engine_kept(const struct sk_engine *engine)
{
	return &engine->kept;
}

const char *sk_engine_backend_name(const struct sk_engine *engine)
{
	return sk_backend_name(engine->backend);
}

uint64_t sk_engine_weight_bytes(const struct sk_engine *engine)
{
	return sk_backend_weight_bytes(engine->backend);
}

uint64_t sk_engine_kv_token_bytes(const struct sk_engine *engine)
{
	return sk_backend_page_bytes(engine->backend) / SK_PAGE_TOKENS;
}

const struct sk_policy *sk_engine_policy(const struct sk_engine *engine)
{
	return &engine->options.policy;
}

void sk_engine_submit(struct sk_engine *engine, struct sk_request *request)
{
	if (request->kind == SK_REQUEST_TOKENIZE || request->kind == SK_REQUEST_DETOKENIZE) {
		sk_list_append(&engine->texts, &request->waiting);
		sk_text_worker_submit(&engine->worker, request);
		return;
	}
	request->mail.kind = SK_MAIL_REQUEST;
	sk_mailbox_post(&engine->inbox, &request->mail.node);
}

int sk_engine_connect(struct sk_engine *engine, uint64_t connection)
{
	struct sk_engine_client *client = calloc(1, sizeof *client);
	struct sk_event *closed = sk_event_create(SK_EVENT_CLOSED, connection, 0);
	if (!client || !closed) {
		free(client);
		sk_event_destroy(closed);
		return -ENOMEM;
	}
	client->connection = connection;
	client->closed = closed;
	client->connect.kind = SK_MAIL_CONNECT;
	client->disconnect.kind = SK_MAIL_DISCONNECT;
	sk_list_init(&client->node);
	sk_list_init(&client->waiting);
	sk_list_append(&engine->known, &client->known);
	sk_mailbox_post(&engine->inbox, &client->connect.node);
	return 0;
}

int sk_engine_cancel(struct sk_engine *engine, uint64_t connection, uint32_t request)
{
	struct sk_cancel *cancel = calloc(1, sizeof *cancel);
	if (!cancel)
		return -ENOMEM;
	cancel_texts(engine, connection, request, false);
	cancel->mail.kind = SK_MAIL_CANCEL;
	cancel->connection = connection;
	cancel->request = request;
	sk_mailbox_post(&engine->inbox, &cancel->mail.node);
	return 0;
}

void sk_engine_disconnect(struct sk_engine *engine, uint64_t connection)
{
	cancel_texts(engine, connection, 0, true);
	sk_list_for_each (node, &engine->known) {
		struct sk_engine_client *client =
			sk_container_of(node, struct sk_engine_client, known);
		if (client->connection != connection)
			continue;
		sk_list_remove(&client->known);
		sk_mailbox_post(&engine->inbox, &client->disconnect.node);
		return;
	}
}

void sk_engine_nudge(struct sk_engine *engine)
{
	sk_mailbox_wake(&engine->inbox);
}

int sk_engine_event_fd(const struct sk_engine *engine)
{
	return engine->events.wake_fd;
}

struct sk_event *sk_engine_next_event(struct sk_engine *engine)
{
	struct sk_list *node = sk_mailbox_take_one(&engine->events);
	if (!node)
		return NULL;
	struct sk_event *event = sk_container_of(node, struct sk_event, node);
	if (event->answered) {
		sk_list_remove(&event->answered->waiting);
		sk_request_destroy(event->answered);
		event->answered = NULL;
	}
	return event;
}
