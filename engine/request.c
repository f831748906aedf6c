#include "engine/request.h"
#include "engine/event.h"

#include <stdlib.h>

struct sk_request *sk_request_create(enum sk_request_kind kind)
{
	struct sk_request *request = calloc(1, sizeof *request);
	struct sk_event *finished = sk_event_create(SK_EVENT_FINISHED, 0, 0);
	if (!request || !finished) {
		free(request);
		sk_event_destroy(finished);
		return NULL;
	}
	sk_list_init(&request->mail.node);
	sk_list_init(&request->waiting);
	sk_list_init(&request->queued);
	request->kind = kind;
	request->finished = finished;
	request->sampling =
		(struct sk_sampling){.top_p = 1, .repeat_penalty = 1, .repeat_last = 64};
	return request;
}

void sk_request_release_input(struct sk_request *request)
{
	if (request->release_input)
		request->release_input(request->input, request->n_input_bytes);
	request->release_input = NULL;
	request->input = NULL;
}

void sk_request_destroy(struct sk_request *request)
{
	if (!request)
		return;
	sk_request_release_input(request);
	sk_event_destroy(request->finished);
	sk_ids_finish(&request->ids);
	free(request->system);
	free(request->stops);
	free(request);
}
