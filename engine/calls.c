/* What the loop thread calls, while the engine's own runs. */
#include "engine/state.h"

#include <errno.h>
#include <stdlib.h>

/* The loop thread's. */
static void cancel_texts(struct sk_engine *engine, uint64_t connection, uint32_t id, bool all)
{
	sk_list_for_each (node, &engine->texts) {
		struct sk_request *request = sk_container_of(node, struct sk_request, waiting);
		if (request->connection == connection && (all || request->id == id))
			atomic_store(&request->is_cancelled, true);
	}
}

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
