#include "engine/engine.h"
#include "base/clock.h"
#include "engine/ledger.h"
#include "engine/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHORT_WAIT_NS 1000000

/* Tokens that found no room: once more; and readers that have not read for too long. */
static void deliver_waiting(struct sk_engine *engine)
{
	uint64_t now_ns = sk_clock_ns(), most_ns = engine->options.stall_timeout_ns;
	bool has_put = false;

	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		sk_generation_look(g);
		if (g->yields_ns)
			sk_engine_yield(engine, g);
		bool is_waiting = sk_generation_is_ahead(g) || sk_generation_is_unread(g);
		if (sk_generation_waits(g)) {
			is_waiting = !sk_generation_deliver(g, now_ns);
			has_put = true;
			if (!is_waiting && g->is_out) /* it can use pages again */
				engine->preempt_ns = 0;
		}
		const bool is_held_up = g->yields_ns && !g->is_out && sk_generation_waits(g) &&
					now_ns > g->yields_ns && now_ns - g->yields_ns > most_ns;
		if (is_waiting && most_ns &&
		    (is_held_up || (now_ns > g->paused_ns && now_ns - g->paused_ns > most_ns))) {
			g->is_stalled = true;
			sk_generation_end(g, SK_STOP_DISCONNECTED,
					  "the client stopped reading its tokens");
		}
	}
	if (has_put)
		sk_engine_publish(engine);
}

/* True: some have ended. Others may have begun in their stead. */
static bool reap(struct sk_engine *engine)
{
	uint32_t n_left = 0, n = engine->n_generations;

	for (uint32_t i = 0; i < n; i++) {
		if (sk_generation_is_over(engine->generations[i]))
			sk_engine_lose_leader(engine, engine->generations[i]);
	}
	for (uint32_t i = 0; i < n; i++) {
		struct sk_generation *g = engine->generations[i];
		if (!sk_generation_is_over(g)) {
			engine->generations[n_left++] = g;
			continue;
		}
		struct sk_engine_client *client =
			sk_engine_find_client(engine, g->request->connection);
		struct sk_event *event = sk_generation_finish(g);
		struct sk_session *named = g->session->name[0] ? g->session : NULL;
		engine->stats.n_requests++;
		g->user->n_requests++;
		if (g->request->generation) /* it is in the queue */
			sk_engine_leave_queue(engine, g->request);
		if (named)
			sk_engine_watch_session(engine, named);
		else
			sk_engine_leave_session(engine, g->session);
		sk_generation_destroy(g);
		if (named) /* before its client is told */
			sk_engine_commit_idle(engine, named);
		sk_mailbox_post(&engine->events, &event->node);
		client->n_running--;
		sk_engine_close_if_done(engine, client);
	}
	engine->n_generations = n_left;
	if (n_left == n)
		return false;
	engine->is_touched = true;
	sk_engine_serve_queue(engine);
	return true;
}

/* What is over ends, and whoever waited for it begins. */
static void settle(struct sk_engine *engine)
{
	deliver_waiting(engine);
	reap(engine);
}

/* What has come, and its consequences at once: a session that somebody has left is free for whoever asks next. */
static void hear(struct sk_engine *engine)
{
	struct sk_list letters;
	sk_mailbox_take(&engine->inbox, &letters);
	for (struct sk_list *node; (node = sk_list_pop(&letters));) {
		struct sk_mail *mail = sk_container_of(node, struct sk_mail, node);
		const bool is_leave =
			mail->kind == SK_MAIL_CANCEL || mail->kind == SK_MAIL_DISCONNECT;
		sk_engine_receive(engine, mail);
		if (is_leave)
			settle(engine);
	}
	settle(engine);
}

/* A short prompt is made tokens in less time than a step takes: it takes part in the next one, not in that after it. */
static void wait_for_short_texts(struct sk_engine *engine)
{
	const uint64_t until_ns = sk_clock_ns() + SHORT_WAIT_NS;

	while (engine->n_short_texts && sk_clock_ns() < until_ns) {
		sk_mailbox_wait(&engine->inbox, 1);
		hear(engine);
	}
	engine->n_short_texts = 0; /* whoever takes longer is not waited for again */
}

/* How long to sleep when nobody may run: until a letter comes, the first stalled reader's time is up, or a user has
 * allowance again. 0: a reader has made room meanwhile. */
static int sleep_ms(struct sk_engine *engine)
{
	uint64_t now_ns = sk_clock_ns(), least_ns = UINT64_MAX;

	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		const uint64_t yields_at = sk_engine_yields_at(engine, g);
		if (g->yields_ns && !g->is_out && yields_at > now_ns &&
		    yields_at - now_ns < least_ns)
			least_ns = yields_at - now_ns;
		const bool is_stuck = sk_generation_waits(g) || sk_generation_is_ahead(g);
		if (!is_stuck && !sk_generation_is_unread(g))
			continue;
		if (is_stuck && sk_generation_wait(g))
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
	if (engine->ledger)
		sk_ledger_is_good(engine->ledger);
	while (!atomic_load(&engine->is_stopping)) {
		hear(engine);
		wait_for_short_texts(engine);
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
		sk_engine_commit(engine);
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

/* --- Its end --- */

/* The engine thread has ended: its lists are the caller's. */
static void cancel_at_worker(struct sk_engine *engine)
{
	sk_list_for_each (node, &engine->texts)
		atomic_store(&sk_container_of(node, struct sk_request, waiting)->is_cancelled,
			     true);
	sk_list_for_each (node, &engine->clients)
		sk_engine_cancel_waiting(sk_container_of(node, struct sk_engine_client, node), 0,
					 true);
}

static void receive_all(struct sk_engine *engine)
{
	struct sk_list letters;
	sk_mailbox_take(&engine->inbox, &letters);
	for (struct sk_list *node; (node = sk_list_pop(&letters));)
		sk_engine_receive(engine, sk_container_of(node, struct sk_mail, node));
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
	engine->is_touched = true;
	sk_engine_commit(engine); /* for those that cannot be stored */
	do { /* moves that have been begun meanwhile, and who waits for their end */
		sk_engine_fail_held(engine);
		sk_engine_drain(engine);
	} while (engine->n_moves);
	sk_engine_fail_held(engine);
	sk_engine_keep_all(engine);
}
