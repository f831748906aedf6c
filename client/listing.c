/* Of libstreamkv: what there is now, put together from as many frames as it comes in. */
#include "client/connection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

const char *streamkv_request_state_name(int state)
{
	static const char *const names[] = {"tokenizing", "queued", "prompt",
					    "decode",     "paused", "fetching"};
	return state >= 0 && state < (int)(sizeof names / sizeof *names) ? names[state] : "unknown";
}

static void fill_request(struct streamkv_request *to, const Sk__RequestInfo *from)
{
	*to = (struct streamkv_request){
		.uid = from->uid,
		.pid = from->pid,
		.request = from->request,
		.evaluates = from->evaluates,
		.prompt_tokens = from->prompt_tokens,
		.evaluated_tokens = from->evaluated_tokens,
		.generated_tokens = from->generated_tokens,
		.live = from->live,
		.age_ns = from->age_ns,
		.queue_place = from->queue_place,
		.ring_fill = from->ring_fill,
		.ring_slots = from->ring_slots,
	};
	to->state = (enum streamkv_request_state)from->state; /* the values are alike */
	snprintf(to->session, sizeof to->session, "%s", from->session);
}

static void fill_user(struct streamkv_user *to, const Sk__UserInfo *from)
{
	*to = (struct streamkv_user){
		.uid = from->uid,
		.weight = from->weight,
		.sessions = from->sessions,
		.running = from->running,
		.queued = from->queued,
		.pages = from->pages,
		.prompt_tokens = from->prompt_tokens,
		.generated_tokens = from->generated_tokens,
	};
}

/* Makes room for n more behind those of *array: false without memory. */
static bool grow(void *array, size_t n_before, size_t n, size_t n_bytes_each)
{
	void **at = array, *grown = realloc(*at, (n_before + n) * n_bytes_each + 1);
	if (!grown)
		return false;
	*at = grown;
	return true;
}

static bool add(struct streamkv_list *list, const Sk__Listing *part)
{
	if (!grow(&list->sessions, list->n_sessions, part->n_sessions, sizeof *list->sessions) ||
	    !grow(&list->requests, list->n_requests, part->n_requests, sizeof *list->requests) ||
	    !grow(&list->users, list->n_users, part->n_users, sizeof *list->users))
		return false;
	for (size_t i = 0; i < part->n_sessions; i++)
		streamkv_fill_session(&list->sessions[list->n_sessions++], part->sessions[i]);
	for (size_t i = 0; i < part->n_requests; i++)
		fill_request(&list->requests[list->n_requests++], part->requests[i]);
	for (size_t i = 0; i < part->n_users; i++)
		fill_user(&list->users[list->n_users++], part->users[i]);
	return true;
}

int streamkv_list(struct streamkv *kv, struct streamkv_list *ret_list, struct streamkv_error *error)
{
	Sk__ClientMessage message = SK__CLIENT_MESSAGE__INIT;
	Sk__ListRequest body = SK__LIST_REQUEST__INIT;
	struct streamkv_list list = {0};
	Sk__ServerMessage *answer;
	struct sk_frame frame;
	bool has_room = true;

	message.request = streamkv_next_request(kv);
	message.body_case = SK__CLIENT_MESSAGE__BODY_LIST;
	message.list = &body;
	int err = streamkv_call(kv, &message, NULL, 0, &frame, &answer, error);
	while (!err) {
		if (answer->body_case != SK__SERVER_MESSAGE__BODY_LISTING) {
			err = streamkv_unexpected(kv, answer, &frame, error);
			break;
		}
		/* Without room the rest is still read, so that the connection can go on. */
		has_room = has_room && add(&list, answer->listing);
		bool has_more = answer->listing->more;
		sk__server_message__free_unpacked(answer, NULL);
		sk_frame_finish(&frame);
		if (!has_more)
			break;
		err = streamkv_answer(kv, message.request, &frame, &answer, error);
	}
	if (!err && !has_room)
		err = streamkv_fail(error, ENOMEM, "not enough memory for the list");
	if (err) {
		streamkv_list_free(&list);
		return err;
	}
	*ret_list = list;
	return 0;
}

void streamkv_list_free(struct streamkv_list *list)
{
	free(list->sessions);
	free(list->requests);
	free(list->users);
	*list = (struct streamkv_list){0};
}
