/* Connections, as the engine knows them. */
#include "engine/state.h"

#include <stdlib.h>

struct sk_engine_client *sk_engine_find_client(struct sk_engine *engine, uint64_t connection)
{
	sk_list_for_each (node, &engine->clients) {
		struct sk_engine_client *client =
			sk_container_of(node, struct sk_engine_client, node);
		if (client->connection == connection)
			return client;
	}
	return NULL;
}

void sk_engine_destroy_client(struct sk_engine_client *client)
{
	sk_list_remove(&client->node);
	sk_event_destroy(client->closed);
	free(client);
}

void sk_engine_close_if_done(struct sk_engine *engine, struct sk_engine_client *client)
{
	if (!client->is_gone || client->n_running || client->n_queued ||
	    !sk_list_is_empty(&client->waiting))
		return;
	sk_mailbox_post(&engine->events, &client->closed->node);
	client->closed = NULL;
	sk_engine_destroy_client(client);
}
