#include "engine/event.h"

#include "engine/request.h"

#include <stdlib.h>
#include <unistd.h>

struct sk_event *sk_event_create(enum sk_event_kind kind, uint64_t connection, uint32_t request)
{
	struct sk_event *event = calloc(1, sizeof *event);
	if (!event)
		return NULL;
	sk_list_init(&event->node);
	event->kind = kind;
	event->connection = connection;
	event->request = request;
	event->saved_fd = -1;
	return event;
}

struct sk_event *sk_event_answer(struct sk_request *request, enum sk_event_kind kind)
{
	struct sk_event *event = request->finished;
	request->finished = NULL;
	event->kind = kind;
	event->connection = request->connection;
	event->request = request->id;
	return event;
}

void sk_event_destroy(struct sk_event *event)
{
	if (!event)
		return;
	if (event->saved_fd >= 0)
		close(event->saved_fd);
	free(event->payload);
	free(event);
}
