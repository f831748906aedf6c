/* Requests that begin alike, for tests of what they have in common. */
#pragma once

#define ENGINE_STALL_NS UINT64_C(600000000000)
#include "engine_test.h"

static char system_prompt[2000];

static inline struct sk_request *ask_as(struct client *client, uint32_t id, const char *turn,
					uid_t uid, const char *session)
{
	static char prompts[4][2200];
	char *prompt = prompts[id % 4];
	snprintf(prompt, sizeof prompts[0], "%s%s", system_prompt, turn);
	struct sk_request *request = ask(client, id, prompt, 40);
	request->uid = uid;
	request->ignore_eos = true;
	request->policy = (struct sk_policy_change){.has_window = true, .to = {.window = 400}};
	strcpy(request->session, session);
	return request;
}

static inline struct sk_result say(struct client *client, struct sk_request *request,
				   struct answer *answer)
{
	struct sk_event *event = run(client, request, answer);
	if (event->result.stop != SK_STOP_LIMIT)
		fail_msg("%s", event->reason);
	struct sk_result result = event->result;
	sk_event_destroy(event);
	return result;
}
