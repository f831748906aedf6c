#include "engine/event.h"

#include <stdlib.h>

struct sk_event *sk_event_create(enum sk_event_kind kind, uint64_t connection, uint32_t request)
{
	struct sk_event *event = calloc(1, sizeof *event);
	if (!event)
		return NULL;
	sk_list_init(&event->node);
	event->kind = kind;
	event->connection = connection;
	event->request = request;
	return event;
}

void sk_event_destroy(struct sk_event *event)
{
	if (!event)
		return;
	free(event->payload);
	free(event);
}
