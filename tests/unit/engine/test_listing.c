/* What there is now: sessions, requests wherever they are, users; and who is shown it. */
#define ENGINE_KV_BYTES (16 << 20)
#define ENGINE_STALL_NS 0 /* streams that nobody reads keep their pages until they are cancelled */
#include "engine/marks.h"
#include "engine_test.h"

static struct answer answer;
static char giant_piece[32 << 20];

struct list {
	struct sk_event *event;
	const struct sk_session_info *sessions;
	const struct sk_request_info *requests;
	const struct sk_user_info *users;
	uint32_t n_sessions, n_requests, n_users;
};

static struct list list_as(uid_t uid, bool sees_all)
{
	struct sk_request *request = sk_request_create(SK_REQUEST_LIST);
	request->id = 77;
	request->uid = uid;
	request->sees_all = sees_all;
	sk_engine_submit(engine, request);
	struct sk_event *event = next_event();
	assert_int_equal(event->kind, SK_EVENT_LISTING);
	assert_int_equal(event->request, 77);
	struct list list = {
		.event = event,
		.sessions = event->payload,
		.n_sessions = event->listing.n_sessions,
		.n_requests = event->listing.n_requests,
		.n_users = event->listing.n_users,
	};
	list.requests = (const void *)(list.sessions + list.n_sessions);
	list.users = (const void *)(list.requests + list.n_requests);
	assert_int_equal((const char *)(list.users + list.n_users) - (const char *)event->payload,
			 event->n_payload_bytes);
	return list;
}

static struct sk_request *ask_as(const struct client *client, uint32_t id, uid_t uid, uint64_t n)
{
	struct sk_request *request = ask(client, id, "It was a dark night", n);
	request->uid = uid;
	request->pid = (pid_t)(uid + id);
	return request;
}

static void test_nothing(void **state)
{
	(void)state;
	struct list list = list_as(1000, false);
	assert_int_equal(list.n_sessions + list.n_requests + list.n_users, 0);
	sk_event_destroy(list.event);
}

static void test_sessions_of_users(void **state)
{
	(void)state;
	struct client client;
	struct sk_request *request;
	connect_client(&client, 1024);
	for (uid_t uid = 1000; uid < 1003; uid++) {
		for (uint32_t id = 1; id <= 2; id++) {
			request = ask_as(&client, id, uid, 10);
			strcpy(request->session, id == 1 ? "log" : "other");
			sk_event_destroy(run(&client, request, &answer));
		}
	}
	request = ask_as(&client, 1, 1001, 5); /* which goes on */
	strcpy(request->session, "log");
	request->policy = (struct sk_policy_change){.has_window = true, .to = {.window = 50}};
	struct sk_event *last = run(&client, request, &answer);

	struct list list = list_as(1001, false);
	assert_int_equal(list.n_sessions, 2);
	assert_int_equal(list.n_requests, 0);
	assert_int_equal(list.n_users, 1);
	const struct sk_session_info *log = &list.sessions[0], *other = &list.sessions[1];
	assert_string_equal(log->name, "log");
	assert_string_equal(other->name, "other");
	assert_int_equal(log->uid, 1001);
	assert_int_equal(log->state, SK_SESSION_IDLE);
	assert_int_equal(log->policy.window, 50);
	assert_int_equal(log->policy.sink, 4);
	assert_int_equal(log->position, last->result.position);
	assert_int_equal(log->live, last->result.live_max + 1);
	assert_int_equal(log->requests, 2);
	assert_int_equal(log->generated_tokens, 15);
	assert_int_equal(other->requests, 1);
	assert_int_equal(other->generated_tokens, 10);
	assert_true(log->pages > 0);
	assert_true(log->age_ns > log->idle_ns && other->age_ns > other->idle_ns);
	assert_true(other->idle_ns > log->idle_ns);
	const struct sk_user_info *user = &list.users[0];
	assert_int_equal(user->uid, 1001);
	assert_int_equal(user->weight, 1);
	assert_int_equal(user->sessions, 2);
	assert_int_equal(user->running, 0);
	assert_int_equal(user->pages, log->pages + other->pages);
	assert_int_equal(user->generated_tokens, 25);
	assert_true(user->prompt_tokens > 15);
	sk_event_destroy(list.event);

	list = list_as(1001, true);
	assert_int_equal(list.n_sessions, 6);
	assert_int_equal(list.n_users, 3);
	uint64_t n_prompt = 0, n_generated = 0, n_sessions = 0;
	for (uint32_t i = 0; i < 3; i++) {
		n_prompt += list.users[i].prompt_tokens;
		n_generated += list.users[i].generated_tokens;
		n_sessions += list.users[i].sessions;
	}
	struct sk_stats s = stats();
	assert_int_equal(n_sessions, 6);
	assert_int_equal(n_generated, 65);
	assert_int_equal(n_generated, s.n_generated_tokens);
	assert_int_equal(n_prompt, s.n_prompt_tokens);
	sk_event_destroy(list.event);

	list = list_as(1003, false);
	assert_int_equal(list.n_sessions + list.n_requests + list.n_users, 0);
	sk_event_destroy(list.event);
	sk_event_destroy(last);
	disconnect_client(&client);
}

/* Streams that nobody reads, until one has to wait; and one that the text worker has not come to. */
static void test_requests_wherever_they_are(void **state)
{
	(void)state;
	struct client streams[8], client;
	uint32_t n_streams = 0;
	do {
		assert_true(n_streams < 8);
		connect_client(&streams[n_streams], 256);
		struct sk_request *request =
			ask_as(&streams[n_streams], 9, 1000 + n_streams % 2, UINT64_MAX);
		if (!n_streams)
			strcpy(request->session, "endless");
		sk_engine_submit(engine, request);
		n_streams++;
		while (stats().n_running + stats().n_queued < n_streams) {
		}
	} while (!stats().n_queued);
	const uint32_t n_running = n_streams - 1;
	while (stats().n_paused < n_running) {
	}
	connect_client(&client, 512);
	sk_engine_submit(
		engine, ask_text(&client, SK_REQUEST_TOKENIZE, 1, giant_piece, sizeof giant_piece));
	struct sk_request *scored = ask_as(&client, 2, 1000, 1);
	scored->kind = SK_REQUEST_EVALUATE;
	sk_engine_submit(engine, scored);

	struct list list = list_as(0, true);
	assert_int_equal(list.n_requests, n_streams + 1);
	assert_int_equal(list.n_sessions, 6 + n_running);
	for (uint32_t i = 0; i < n_running; i++) {
		const struct sk_request_info *request = &list.requests[i];
		assert_int_equal(request->state, SK_REQUEST_PAUSED);
		assert_int_equal(request->uid, 1000 + i % 2);
		assert_int_equal(request->pid, request->uid + 9);
		assert_int_equal(request->request, 9);
		assert_false(request->evaluates);
		assert_string_equal(request->session, i ? "" : "endless");
		assert_int_equal(request->ring_fill, request->session[0] ? SK_MARKS_MOST : 256);
		assert_int_equal(request->ring_slots, 256);
		assert_int_equal(request->queue_place, 0);
		assert_int_equal(request->generated_tokens, /* else one waits for room */
				 request->session[0] ? SK_MARKS_MOST : 257);
		assert_int_equal(request->evaluated_tokens, request->prompt_tokens);
		assert_int_equal(request->live, request->session[0] ? SK_MARKS_MOST + 4 : 104);
		assert_true(request->age_ns > 0);
		assert_int_equal(list.sessions[6 + i].state, SK_SESSION_RUNNING);
		assert_int_equal(list.sessions[6 + i].idle_ns, 0);
		assert_int_equal(list.sessions[6 + i].live, request->live);
	}
	const struct sk_request_info *queued = &list.requests[n_running],
				     *waiting = &list.requests[n_running + 1];
	assert_int_equal(queued->state, SK_REQUEST_QUEUED);
	assert_int_equal(queued->queue_place, 1);
	assert_int_equal(queued->prompt_tokens, list.requests[0].prompt_tokens);
	assert_int_equal(queued->generated_tokens, 0);
	assert_int_equal(queued->ring_fill, 0);
	assert_int_equal(waiting->state, SK_REQUEST_TOKENIZING);
	assert_int_equal(waiting->request, 2);
	assert_true(waiting->evaluates);
	assert_int_equal(waiting->ring_slots, 512);
	uint32_t n_queued = 0, n = 0;
	for (uint32_t i = 0; i < list.n_users; i++) {
		n += list.users[i].running;
		n_queued += list.users[i].queued;
	}
	assert_int_equal(n, n_running);
	assert_int_equal(n_queued, 1);
	sk_event_destroy(list.event);

	list = list_as(1001, false); /* its own alone */
	assert_true(list.n_requests < n_streams);
	for (uint32_t i = 0; i < list.n_requests; i++)
		assert_int_equal(list.requests[i].uid, 1001);
	sk_event_destroy(list.event);

	assert_int_equal(sk_engine_cancel(engine, client.connection, 1), 0);
	sk_event_destroy(next_event());
	while (n_streams)
		disconnect_client(&streams[--n_streams]);
	disconnect_client(&client);
	list = list_as(0, true);
	assert_int_equal(list.n_requests, 0);
	assert_int_equal(list.n_sessions, 7); /* those with a name */
	assert_string_equal(list.sessions[6].name, "endless");
	assert_int_equal(list.sessions[6].state, SK_SESSION_IDLE);
	sk_event_destroy(list.event);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_sessions_of_users),
		cmocka_unit_test(test_requests_wherever_they_are),
	};
	memset(giant_piece, 'a', sizeof giant_piece);
	return sk_test_run(tests, open_engine, close_engine);
}
