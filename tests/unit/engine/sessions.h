/* Sessions with a name, for tests of what becomes of them: what clients do with one in a line, and what its text
 * must be: as if nothing had happened to it.
 */
#pragma once

#define ENGINE_KV_BYTES (11 << 20) /* two sessions of the policy, and what a step borrows */
#include "engine_test.h"

static struct answer a, b;

/* Another engine, as after a restart of the daemon. */
static inline void restart(void)
{
	void *state = NULL;
	close_engine(&state);
	assert_int_equal(open_engine(&state), 0);
}

static inline struct sk_event *verb(const struct client *client, enum sk_session_verb v,
				    const char *name, const char *to)
{
	static uint32_t id = 1000;
	struct sk_request *request = sk_request_create(SK_REQUEST_SESSION);
	request->connection = client->connection;
	request->id = ++id;
	request->uid = 1000;
	request->verb = v;
	strcpy(request->session, name);
	strcpy(request->to, to);
	sk_engine_submit(engine, request);
	struct sk_event *event = next_event();
	assert_int_equal(event->request, id);
	return event;
}

static inline struct sk_session_info show(const struct client *client, const char *name)
{
	struct sk_event *event = verb(client, SK_SESSION_SHOW, name, "");
	assert_int_equal(event->kind, SK_EVENT_SESSION);
	struct sk_session_info info = event->session;
	sk_event_destroy(event);
	return info;
}

static inline void done(struct sk_event *event)
{
	if (event->kind != SK_EVENT_SESSION)
		fail_msg("%s", event->reason);
	sk_event_destroy(event);
}

static inline void refused(struct sk_event *event, int error, const char *words)
{
	assert_int_equal(event->kind, SK_EVENT_FAILED);
	assert_int_equal(event->error, error);
	if (!strstr(event->reason, words))
		fail_msg("'%s' does not say '%s'", event->reason, words);
	sk_event_destroy(event);
}

/* Appends what the session says to `answer`. */
static inline uint64_t say(struct client *client, const char *session, const char *prompt,
			   uint64_t n, struct answer *answer)
{
	static struct answer part;
	struct sk_request *request = ask(client, 1, prompt, n);
	strcpy(request->session, session);
	struct sk_event *event = run(client, request, &part);
	if (event->result.stop != SK_STOP_LIMIT)
		fail_msg("%s: %s", session, event->reason);
	uint64_t reused = event->result.reused_tokens;
	sk_event_destroy(event);
	memcpy(answer->ids + answer->n_ids, part.ids, part.n_ids * sizeof *part.ids);
	answer->n_ids += part.n_ids;
	return reused;
}

static inline void clear(struct answer *answer)
{
	memset(answer, 0, sizeof *answer);
}

/* What the story is without interruptions; n at most 260. */
static inline void assert_as_in_one(struct client *client, const char *prompt,
				    const struct answer *told)
{
	static struct answer whole;
	clear(&whole);
	say(client, "", prompt, told->n_ids, &whole);
	assert_memory_equal(whole.ids, told->ids, told->n_ids * sizeof *told->ids);
}

static const char *const stories[] = {"It was a dark night", "The captain said", "She had never",
				      "In the garden there", "A letter came",    "The old man"};
#define N_STORIES 6
