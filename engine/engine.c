#include "engine/engine.h"
#include "base/clock.h"
#include "engine/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_WINDOW 1020

/* --- Creating --- */

/* Pages that a step can borrow beyond what its sessions were promised (kv/pages.h). */
static uint32_t n_borrowed(const struct sk_engine_options *options)
{
	return options->step_tokens / SK_PAGE_TOKENS + options->max_batch;
}

static int settle_policy(struct sk_engine *engine, struct sk_diag *diag)
{
	struct sk_policy *policy = &engine->options.policy;

	if (!policy->window) {
		uint64_t others = (uint64_t)sk_policy_sinks(policy) + policy->slack + 1;
		uint64_t context = engine->config.n_context;
		if (others >= context)
			return sk_diag_fail(
				diag, ERANGE,
				"sink %u and slack %u leave no window in the model's context of %u",
				policy->sink, policy->slack, engine->config.n_context);
		uint64_t most = context - others;
		policy->window = most < DEFAULT_WINDOW ? (uint32_t)most : DEFAULT_WINDOW;
	}
	return sk_engine_check_policy(engine, policy, diag) < 0 ? -ERANGE : 0;
}

static int open_pool(struct sk_engine *engine, struct sk_diag *diag)
{
	const struct sk_engine_options *options = &engine->options;
	const struct sk_policy *policy = &options->policy;
	uint64_t page_bytes = sk_backend_page_bytes(engine->backend);
	uint64_t n_pages = options->kv_memory_bytes / page_bytes;
	uint64_t most = sk_policy_most_live(policy, engine->config.n_context);
	uint64_t least =
		(uint64_t)n_borrowed(options) + sk_pages_needed(sk_policy_sinks(policy), most);

	if (n_pages > UINT32_MAX / 2)
		n_pages = UINT32_MAX / 2;
	if (n_pages < least)
		return sk_diag_fail(diag, ENOMEM,
				    "one session of %llu entries needs %llu MiB of KV cache "
				    "memory, --kv-memory gives %llu MiB",
				    (unsigned long long)most,
				    (unsigned long long)(least * page_bytes >> 20) + 1,
				    (unsigned long long)options->kv_memory_bytes >> 20);
	int err = sk_pool_init(&engine->pool, engine->backend, (uint32_t)n_pages);
	if (err < 0)
		return sk_diag_fail(diag, -err,
				    "no memory for %llu MiB of KV cache; lower --kv-memory",
				    (unsigned long long)options->kv_memory_bytes >> 20);
	return sk_pool_reserve(&engine->pool, n_borrowed(options));
}

static int alloc_step(struct sk_engine *engine, struct sk_diag *diag)
{
	uint32_t n_tokens = engine->options.step_tokens, n_sessions = engine->options.max_batch;

	engine->rows = calloc(n_tokens, sizeof *engine->rows);
	engine->views = calloc(n_tokens, sizeof *engine->views);
	engine->spans = calloc(n_sessions, sizeof *engine->spans);
	engine->logit_rows = calloc(n_sessions, sizeof *engine->logit_rows);
	engine->logit_of = calloc(n_sessions, sizeof *engine->logit_of);
	engine->running = calloc(n_sessions, sizeof *engine->running);
	engine->dead = sk_event_create(SK_EVENT_DEAD, 0, 0);
	if (!engine->rows || !engine->views || !engine->spans || !engine->logit_rows ||
	    !engine->logit_of || !engine->running || !engine->dead)
		return sk_diag_fail(diag, ENOMEM, "not enough memory for steps of %u tokens",
				    n_tokens);
	return 0;
}

int sk_engine_create(const struct sk_model *model, const struct sk_tokenizer *tokenizer,
		     const struct sk_engine_options *options, struct sk_engine **ret_engine,
		     struct sk_diag *diag)
{
	if (!options->max_batch || options->step_tokens < options->max_batch)
		return sk_diag_fail(diag, EINVAL,
				    "a step of %u tokens cannot hold one of each of %u sessions",
				    options->step_tokens, options->max_batch);
	struct sk_engine *engine = calloc(1, sizeof *engine);
	if (!engine)
		return sk_diag_fail(diag, ENOMEM, "not enough memory");
	engine->options = *options;
	engine->config = *sk_model_config(model);
	engine->tokenizer = tokenizer;
	engine->n_ids = sk_tokenizer_n_ids(tokenizer);
	sk_list_init(&engine->known);
	sk_list_init(&engine->clients);
	sk_list_init(&engine->sessions);

	int err = 0;
	if (engine->n_ids > engine->config.n_vocab)
		err = sk_diag_fail(diag, EINVAL,
				   "%s: the tokenizer has %u tokens, the model only %u",
				   sk_model_path(model), engine->n_ids, engine->config.n_vocab);
	if (!err)
		err = settle_policy(engine, diag);
	if (!err)
		err = alloc_step(engine, diag);
	if (!err) {
		err = sk_mailbox_init(&engine->inbox);
		err = err ? err : sk_mailbox_init(&engine->events);
		err = err ? err
			  : sk_text_worker_init(&engine->worker, tokenizer, &engine->inbox,
						&engine->events);
		engine->has_mailboxes = !err;
		if (err)
			sk_diag_fail(diag, -err, "the engine's mailboxes: %s", strerror(-err));
	}
	if (!err) {
		struct sk_backend_shape shape =
			sk_forward_shape(&engine->config, options->kv_format, options->step_tokens);
		err = sk_backend_open(options->backend, &options->backend_options, &shape,
				      &engine->backend, diag);
	}
	if (!err)
		err = open_pool(engine,
				diag); /* before the weights: too little memory shows at once */
	if (!err)
		err = sk_forward_init(&engine->forward, engine->backend, model, options->weights,
				      options->max_batch, options->progress,
				      options->progress_context, diag);
	if (err) {
		sk_engine_destroy(engine);
		return err;
	}
	*ret_engine = engine;
	return 0;
}

/* --- Clients --- */

static struct sk_engine_client *find_client(struct sk_engine *engine, uint64_t connection)
{
	sk_list_for_each (node, &engine->clients) {
		struct sk_engine_client *client =
			sk_container_of(node, struct sk_engine_client, node);
		if (client->connection == connection)
			return client;
	}
	return NULL;
}

static void destroy_client(struct sk_engine_client *client)
{
	sk_list_remove(&client->node);
	sk_event_destroy(client->closed);
	free(client);
}

/* Gone, and nothing of it is left: its ring will not be touched again. */
static void close_if_done(struct sk_engine *engine, struct sk_engine_client *client)
{
	if (!client->is_gone || client->n_running || !sk_list_is_empty(&client->waiting))
		return;
	sk_mailbox_post(&engine->events, &client->closed->node);
	client->closed = NULL;
	destroy_client(client);
}

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

/* --- Letters --- */

static void take_stats(struct sk_engine *engine, struct sk_request *request)
{
	struct sk_event *event = request->finished;
	request->finished = NULL;
	event->kind = SK_EVENT_STATS;
	event->connection = request->connection;
	event->request = request->id;

	struct sk_stats *stats = &engine->stats;
	stats->n_sessions = stats->n_paused = 0;
	sk_list_for_each (node, &engine->sessions)
		stats->n_sessions++;
	for (uint32_t i = 0; i < engine->n_generations; i++)
		stats->n_paused += engine->generations[i]->has_slot;
	stats->n_running = engine->n_generations;
	stats->n_pages = engine->pool.n_pages;
	stats->n_pages_used = engine->pool.n_pages - engine->pool.n_free;
	stats->page_bytes = sk_backend_page_bytes(engine->backend);
	event->stats = *stats;
	sk_mailbox_post(&engine->events, &event->node);
	sk_request_destroy(request);
}

static void receive_request(struct sk_engine *engine, struct sk_request *request)
{
	if (request->kind == SK_REQUEST_STATS) {
		take_stats(engine, request);
		return;
	}
	struct sk_engine_client *client = find_client(engine, request->connection);
	if (!client || engine->is_dead) {
		sk_engine_refuse(engine, request, SK_STOP_REFUSED, -EIO,
				 "the engine takes no requests");
		return;
	}
	/* Where its chat goes on. (A request ahead of it on the same session makes it refused anyhow: busy.) */
	struct sk_session *session = sk_engine_find_session(engine, request->uid, request->session);
	if (session && session->window.next)
		request->chat_place = sk_tokenizer_is_end(engine->tokenizer, session->last_id)
					      ? SK_CHAT_IS_ENDED
					      : SK_CHAT_IS_OPEN;
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
		client = find_client(engine, request->connection);
		sk_list_remove(&request->waiting);
		sk_engine_admit(engine, request, client); /* it waited, so its client is here */
		close_if_done(engine, client);
		break;
	}
	case SK_MAIL_CONNECT:
		client = sk_container_of(mail, struct sk_engine_client, connect);
		sk_list_append(&engine->clients, &client->node);
		break;
	case SK_MAIL_CANCEL: {
		struct sk_cancel *cancel = sk_container_of(mail, struct sk_cancel, mail);
		client = find_client(engine, cancel->connection);
		if (client)
			cancel_waiting(client, cancel->request, false);
		end_generations(engine, cancel->connection, cancel->request, false,
				SK_STOP_CANCELLED, "");
		free(cancel);
		break;
	}
	case SK_MAIL_DISCONNECT:
		client = sk_container_of(mail, struct sk_engine_client, disconnect);
		client->is_gone = true;
		cancel_waiting(client, 0, true);
		end_generations(engine, client->connection, 0, true, SK_STOP_DISCONNECTED, "");
		close_if_done(engine, client);
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

/* --- The thread --- */

/* Tokens that found no room: once more; and readers that have not read for too long. */
static void deliver_waiting(struct sk_engine *engine)
{
	uint64_t now_ns = sk_clock_ns(), most_ns = engine->options.stall_timeout_ns;

	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		if (!g->has_slot)
			continue;
		if (sk_generation_deliver(g, now_ns)) {
			if (!g->is_detached)
				sk_ring_writer_publish(g->request->ring);
		} else if (most_ns && now_ns - g->paused_ns > most_ns) {
			sk_generation_end(g, SK_STOP_DISCONNECTED,
					  "the client stopped reading its tokens");
		}
	}
}

static void reap(struct sk_engine *engine)
{
	uint32_t n_left = 0, n = engine->n_generations;

	for (uint32_t i = 0; i < n; i++) {
		struct sk_generation *g = engine->generations[i];
		if (!sk_generation_is_over(g)) {
			engine->generations[n_left++] = g;
			continue;
		}
		struct sk_engine_client *client = find_client(engine, g->request->connection);
		struct sk_event *event = sk_generation_finish(g);
		engine->stats.n_requests++;
		sk_generation_destroy(g);
		sk_mailbox_post(&engine->events, &event->node);
		client->n_running--;
		close_if_done(engine, client);
	}
	engine->n_generations = n_left;
}

/* How long to sleep when nobody wants to run: until a letter comes, or the first stalled reader's
 * time is up. 0: a reader has made room meanwhile. */
static int sleep_ms(struct sk_engine *engine)
{
	uint64_t now_ns = sk_clock_ns(), least_ns = UINT64_MAX;

	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		if (!g->has_slot)
			continue;
		if (sk_ring_writer_wait(g->request->ring))
			return 0;
		if (!engine->options.stall_timeout_ns)
			continue;
		uint64_t end_ns = g->paused_ns + engine->options.stall_timeout_ns;
		uint64_t left_ns = end_ns > now_ns ? end_ns - now_ns : 0;
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
		deliver_waiting(engine);
		bool ran = sk_engine_step(engine);
		if (engine->is_dead)
			for (uint32_t i = 0; i < engine->n_generations; i++)
				sk_generation_end(engine->generations[i], SK_STOP_ERROR,
						  "the device failed");
		uint32_t n_before = engine->n_generations;
		reap(engine);
		if (engine->is_dead && engine->dead) {
			sk_mailbox_post(&engine->events, &engine->dead->node);
			engine->dead = NULL;
		}
		if (!ran && engine->n_generations == n_before)
			sk_mailbox_wait(&engine->inbox, sleep_ms(engine));
	}
	return NULL;
}

int sk_engine_start(struct sk_engine *engine)
{
	int err = sk_text_worker_start(&engine->worker);
	if (err < 0)
		return err;
	err = pthread_create(&engine->thread, NULL, engine_main, engine);
	if (err) {
		sk_text_worker_stop(&engine->worker);
		return -err;
	}
	engine->is_running = true;
	return 0;
}

/* With no thread left: every letter is answered here, on the caller's. */
static void drain(struct sk_engine *engine)
{
	if (!engine->has_mailboxes)
		return;
	for (int i = 0; i < 2;
	     i++) { /* what comes new goes through the text worker, and comes back */
		sk_text_worker_stop(&engine->worker);
		receive_all(engine);
	}
	sk_text_worker_stop(&engine->worker);
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
	drain(engine);
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
}

void sk_engine_destroy(struct sk_engine *engine)
{
	if (!engine)
		return;
	sk_engine_stop(engine);
	drain(engine); /* whatever came after the stop */
	sk_list_for_each (node, &engine->sessions)
		sk_session_destroy(sk_container_of(node, struct sk_session, node));
	sk_list_for_each (node, &engine->clients)
		destroy_client(sk_container_of(node, struct sk_engine_client, node));
	if (engine->events.letters.next) {
		for (struct sk_event *event; (event = sk_engine_next_event(engine));)
			sk_event_destroy(event);
	}
	if (engine->backend) {
		sk_pool_finish(&engine->pool);
		if (engine->forward.backend)
			sk_forward_finish(&engine->forward);
		sk_backend_close(engine->backend);
	}
	sk_text_worker_finish(&engine->worker);
	sk_mailbox_finish(&engine->inbox);
	sk_mailbox_finish(&engine->events);
	sk_event_destroy(engine->dead);
	free(engine->generations);
	free(engine->wants);
	free(engine->rows);
	free(engine->views);
	free(engine->spans);
	free(engine->logit_rows);
	free(engine->logit_of);
	free(engine->running);
	free(engine);
}

/* --- For the loop thread --- */

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
	cancel->mail.kind = SK_MAIL_CANCEL;
	cancel->connection = connection;
	cancel->request = request;
	sk_mailbox_post(&engine->inbox, &cancel->mail.node);
	return 0;
}

void sk_engine_disconnect(struct sk_engine *engine, uint64_t connection)
{
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
	return node ? sk_container_of(node, struct sk_event, node) : NULL;
}
