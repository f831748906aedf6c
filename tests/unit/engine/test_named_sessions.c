/* Named sessions: they go on where they stood, and what is asked of them meanwhile. */
#include "engine_test.h"

static struct answer a, b;

static char giant_piece[32 << 20];

static void test_a_session_goes_on(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	struct sk_request *request = ask(&client, 1, "It was a dark night", 80);
	strcpy(request->session, "log");
	sk_event_destroy(run(&client, request, &a));
	request = ask(&client, 2, "", 80); /* the last token drawn is what goes on */
	strcpy(request->session, "log");
	struct sk_event *event = run(&client, request, &b);
	assert_int_equal(event->result.generated_tokens, 80);
	assert_true(event->result.reused_tokens > 80);
	sk_event_destroy(event);

	/* The two halves are what one request would have said. */
	memmove(a.ids + 80, b.ids, 80 * sizeof *a.ids);
	sk_event_destroy(run(&client, ask(&client, 3, "It was a dark night", 160), &b));
	assert_memory_equal(a.ids, b.ids, 160 * sizeof *a.ids);

	/* Another user's session of that name is another session. */
	request = ask(&client, 4, "It was", 2);
	strcpy(request->session, "log");
	request->uid = 1001;
	event = run(&client, request, &b);
	assert_int_equal(event->result.reused_tokens, 0);
	sk_event_destroy(event);
	assert_int_equal(stats().n_sessions, 2);
	disconnect_client(&client);
}

/* A BOS begins a session, and is left out where one goes on. */
static void test_a_bos_comes_once(void **state)
{
	(void)state;
	struct client client;
	uint64_t n_tokens[2];
	connect_client(&client, 1024);
	for (uint32_t i = 0; i < 2; i++) {
		struct sk_request *request = ask(&client, i, "<|endoftext|>It was a dark night", 5);
		strcpy(request->session, "with-bos");
		request->encode_flags = SK_ENCODE_BOS;
		struct sk_event *event = run(&client, request, &a);
		assert_int_equal(event->result.stop, SK_STOP_LIMIT);
		n_tokens[i] = event->result.prompt_tokens;
		assert_int_equal(event->result.evaluated_tokens, n_tokens[i]);
		sk_event_destroy(event);
	}
	assert_int_equal(n_tokens[0], n_tokens[1] + 1);
	disconnect_client(&client);
}

static void test_a_session_changes_its_policy(void **state)
{
	(void)state;
	static char prompt[512];
	struct client client;
	connect_client(&client, 1024);
	for (size_t i = 0; i + 5 < 60 * 5; i += 5)
		memcpy(prompt + i, "word ", 5);
	struct sk_request *request = ask(&client, 1, prompt, 20);
	strcpy(request->session, "changing");
	request->policy = (struct sk_policy_change){
		.has_sink = true, .has_window = true, .to = {.sink = 40, .window = 80}};
	struct sk_event *event = run(&client, request, &a);
	assert_int_equal(event->result.stop, SK_STOP_LIMIT);
	sk_event_destroy(event);
	const uint32_t sinks[] = {4, 70, 0, 33};
	for (uint32_t i = 0; i < 4; i++) {
		request = ask(&client, 2 + i, "x", 5);
		strcpy(request->session, "changing");
		request->policy =
			(struct sk_policy_change){.has_sink = true, .to = {.sink = sinks[i]}};
		event = run(&client, request, &a);
		assert_int_equal(event->result.stop, SK_STOP_LIMIT);
		assert_int_equal(a.n_ids, 5);
		sk_event_destroy(event);
	}
	disconnect_client(&client);
}

static void test_a_cancel_in_the_queue_loses_no_token(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	struct sk_request *request = ask(&client, 1, "It was a dark night", 10);
	strcpy(request->session, "kept-token");
	struct sk_event *event = run(&client, request, &a);
	uint64_t position = event->result.position;
	sk_event_destroy(event);

	request = ask(&client, 2, "and", 10);
	strcpy(request->session, "kept-token");
	sk_engine_submit(engine, request);
	assert_int_equal(sk_engine_cancel(engine, client.connection, 2), 0);
	event = next_event();
	uint64_t generated = event->result.generated_tokens,
		 prompt = event->result.evaluated_tokens;
	assert_int_equal(event->kind, SK_EVENT_FINISHED);
	sk_event_destroy(event);
	memset(&a, 0, sizeof a);
	drain(&client, &a);

	request = ask(&client, 3, "", 1);
	strcpy(request->session, "kept-token");
	event = run(&client, request, &a);
	assert_int_equal(event->result.position, position + generated + prompt + 1);
	sk_event_destroy(event);
	disconnect_client(&client);
}

/* Whoever went away leaves the session to the next request at once, even where both are heard between two steps. */
static void test_a_session_left_behind_is_free(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 10; i++) {
		struct client gone, next;
		connect_client(&gone, 1024);
		connect_client(&next, 1024);
		struct sk_request *request = ask(&gone, 1, "It was", 100000);
		strcpy(request->session, "left");
		memset(&a, 0, sizeof a);
		sk_engine_submit(engine, request);
		wait_for_tokens(&gone, &a, 2);

		if (i % 2) {
			request = ask(&next, 1, "a", 2);
		} else {
			request = ask_text(&next, SK_REQUEST_SESSION, 1, NULL, 0);
			request->verb = SK_SESSION_DELETE;
		}
		strcpy(request->session, "left");
		sk_engine_disconnect(engine, gone.connection);
		sk_engine_submit(engine, request);
		for (bool is_closed = false, is_through = false; !is_closed || !is_through;) {
			struct sk_event *event = next_event();
			is_closed |= event->kind == SK_EVENT_CLOSED;
			if (event->kind == SK_EVENT_FAILED)
				fail_msg("%s", event->reason);
			is_through |= event->kind == SK_EVENT_SESSION;
			if (event->kind == SK_EVENT_FINISHED &&
			    event->connection == next.connection) {
				assert_int_equal(event->result.stop, SK_STOP_LIMIT);
				is_through = true;
			}
			sk_event_destroy(event);
		}
		sk_ring_writer_destroy(gone.writer);
		sk_ring_reader_destroy(gone.reader);
		disconnect_client(&next);
	}
}

/* A turn of a chat is written for where the session stands; where it has gone on meanwhile, the turn is refused. */
static void test_a_chat_that_went_on_meanwhile(void **state)
{
	(void)state;
	static char longer[4 << 20];
	struct client client;
	connect_client(&client, 1024);
	for (size_t i = 0; i + 5 < sizeof longer; i += 5) /* takes a while to tokenise */
		memcpy(longer + i, "word ", 5);
	memset(giant_piece, 'a', sizeof giant_piece);
	/* While the text worker is busy both come, and so are written for the same place. */
	struct sk_request *first = ask(&client, 1, "It was a dark night", 2);
	struct sk_request *second = ask(&client, 2, longer, 2);
	struct sk_request *busy =
		ask_text(&client, SK_REQUEST_TOKENIZE, 3, giant_piece, sizeof giant_piece);
	strcpy(first->session, "chat");
	strcpy(second->session, "chat");
	strcpy(first->chat, "chatml");
	strcpy(second->chat, "chatml");
	sk_engine_submit(engine, busy);
	sk_engine_submit(engine, first);
	sk_engine_submit(engine, second);
	stats(); /* answered when both have been taken in */
	assert_int_equal(sk_engine_cancel(engine, client.connection, 3), 0);
	struct sk_event *cancelled = next_event();
	assert_int_equal(cancelled->request, 3);
	assert_int_equal(cancelled->error, -ECANCELED);
	sk_event_destroy(cancelled);
	struct sk_event *event = next_event();
	assert_int_equal(event->request, 1);
	assert_int_equal(event->result.stop, SK_STOP_LIMIT);
	uint64_t position = event->result.position;
	sk_event_destroy(event);
	event = next_event();
	assert_int_equal(event->request, 2);
	assert_int_equal(event->result.stop, SK_STOP_REFUSED);
	assert_int_equal(event->error, -EBUSY);
	assert_non_null(strstr(event->reason, "went on"));
	sk_event_destroy(event);
	memset(&a, 0, sizeof a);
	drain(&client, &a);

	/* Asked again it is taken, as the turn that it is now. */
	struct sk_request *again = ask(&client, 4, "And then?", 2);
	strcpy(again->session, "chat");
	strcpy(again->chat, "chatml");
	event = run(&client, again, &a);
	assert_int_equal(event->result.stop, SK_STOP_LIMIT);
	assert_int_equal(event->result.reused_tokens, position - 1);
	sk_event_destroy(event);
	disconnect_client(&client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_session_goes_on),
		cmocka_unit_test(test_a_bos_comes_once),
		cmocka_unit_test(test_a_session_changes_its_policy),
		cmocka_unit_test(test_a_cancel_in_the_queue_loses_no_token),
		cmocka_unit_test(test_a_session_left_behind_is_free),
		cmocka_unit_test(test_a_chat_that_went_on_meanwhile),
	};
	return sk_test_run(tests, open_engine, close_engine);
}
