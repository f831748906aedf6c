/* The engine whole: its threads, a real model on the CPU, real rings. The test plays the loop
 * thread. */
#include "engine/marks.h"
#include "engine_test.h"

static struct answer a, b;

static void test_greedy_is_the_same_twice(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	struct sk_event *event = run(&client, ask(&client, 1, "It was a dark night", 300), &a);
	assert_int_equal(event->result.stop, SK_STOP_LIMIT);
	assert_int_equal(event->result.generated_tokens, 300);
	assert_int_equal(a.n_ids, 300);
	assert_true(a.is_last);
	assert_int_equal(event->result.live_max, 104);
	assert_int_equal(event->result.evaluated_tokens, event->result.prompt_tokens);
	assert_int_equal(event->result.position, event->result.prompt_tokens + 300);
	assert_true(event->result.evicted_tokens > 150);
	sk_event_destroy(event);
	sk_event_destroy(run(&client, ask(&client, 2, "It was a dark night", 300), &b));
	assert_memory_equal(a.ids, b.ids, sizeof *a.ids * 300);
	assert_string_equal(a.text, b.text);
	disconnect_client(&client);
	assert_idle();
}

static void test_refusals(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	const struct {
		struct sk_policy_change policy;
		const char *prompt, *says;
	} cases[] = {
		{{0}, "", "the prompt is empty"},
		{{.has_window = true, .to = {.window = 5000}}, "a", "was trained on 512"},
		{{.has_window = true, .to = {.window = 0}}, "a", "at least 1"},
	};
	for (unsigned i = 0; i < 3; i++) {
		struct sk_request *request = ask(&client, i + 1, cases[i].prompt, 5);
		request->policy = cases[i].policy;
		struct sk_event *event = run(&client, request, &a);
		assert_int_equal(event->result.stop, SK_STOP_REFUSED);
		assert_non_null(strstr(event->reason, cases[i].says));
		assert_int_equal(a.n_ids, 0);
		sk_event_destroy(event);
	}
	struct sk_request *request = ask(&client, 9, "word word word", 5);
	strcpy(request->chat, "no-such");
	struct sk_event *event = run(&client, request, &a);
	assert_int_equal(event->result.stop, SK_STOP_REFUSED);
	assert_non_null(strstr(event->reason, "no-such"));
	sk_event_destroy(event);

	/* Dense and longer than the context: refused, not cut. */
	static char longer[8192];
	for (size_t i = 0; i + 5 < sizeof longer; i += 5)
		memcpy(longer + i, "word ", 5);
	request = ask(&client, 10, longer, 5);
	request->policy =
		(struct sk_policy_change){.has_mode = true, .to = {.mode = SK_MODE_DENSE}};
	event = run(&client, request, &a);
	assert_int_equal(event->result.stop, SK_STOP_REFUSED);
	assert_non_null(strstr(event->reason, "512"));
	sk_event_destroy(event);
	/* Streaming takes it whole. */
	event = run(&client, ask(&client, 11, longer, 5), &a);
	assert_int_equal(event->result.stop, SK_STOP_LIMIT);
	assert_true(event->result.prompt_tokens > 1000);
	assert_int_equal(event->result.evaluated_tokens, event->result.prompt_tokens);
	sk_event_destroy(event);
	disconnect_client(&client);
}

static void test_a_dense_session_ends_at_the_context(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 4096);
	struct sk_request *request = ask(&client, 1, "It was a dark night", UINT64_MAX);
	request->policy =
		(struct sk_policy_change){.has_mode = true, .to = {.mode = SK_MODE_DENSE}};
	request->ignore_eos = true;
	struct sk_event *event = run(&client, request, &a);
	assert_int_equal(event->result.stop, SK_STOP_LIMIT);
	assert_non_null(strstr(event->reason, "512"));
	assert_int_equal(event->result.live_max, 511);
	assert_int_equal(event->result.evicted_tokens, 0);
	sk_event_destroy(event);
	disconnect_client(&client);
}

static void test_a_stop_string_ends_it(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	sk_event_destroy(run(&client, ask(&client, 1, "It was a dark night", 60), &a));
	/* Something from the middle of what it says. */
	char wanted[8] = "";
	memcpy(wanted, a.text + a.n_text / 2, 5);
	size_t at = (size_t)(strstr(a.text, wanted) - a.text);

	struct sk_request *request = ask(&client, 2, "It was a dark night", 60);
	request->stops = calloc(1, sizeof *request->stops);
	request->n_stops = 1;
	memcpy(request->stops[0].bytes, wanted, 5);
	request->stops[0].n_bytes = 5;
	struct sk_event *event = run(&client, request, &b);
	assert_int_equal(event->result.stop, SK_STOP_STRING);
	assert_int_equal(event->result.stop_index, 0);
	assert_int_equal(b.n_text, at);
	assert_memory_equal(a.text, b.text, at);
	sk_event_destroy(event);
	disconnect_client(&client);
}

static struct sk_request *ask_evaluate(const struct client *client, uint32_t id, const char *text)
{
	struct sk_request *request = ask(client, id, text, UINT64_MAX);
	request->kind = SK_REQUEST_EVALUATE;
	return request;
}

/* A text of more scores than the ring has slots, whose reader comes late, and then reads all. */
static void test_scores_wait_for_their_reader(void **state)
{
	(void)state;
	static char text[8192];
	struct client client;
	connect_client(&client, 256);
	for (size_t i = 0; i + 5 < sizeof text; i += 5)
		memcpy(text + i, i % 15 ? "word " : "king ", 5);
	sk_engine_submit(engine, ask_evaluate(&client, 1, text));
	while (stats().n_paused == 0)
		;
	memset(&a, 0, sizeof a);
	wait_for_tokens(&client, &a, 900);
	struct sk_event *event = sk_engine_next_event(engine);
	while (!event || event->kind != SK_EVENT_FINISHED) {
		sk_event_destroy(event);
		drain(&client, &a);
		sk_engine_nudge(engine);
		event = sk_engine_next_event(engine);
	}
	drain(&client, &a);
	assert_int_equal(event->result.stop, SK_STOP_DONE);
	assert_int_equal(event->result.scored_tokens, a.n_ids - 1);
	assert_int_equal(event->result.evaluated_tokens, a.n_ids - 1);
	assert_int_equal(event->result.prompt_tokens, a.n_ids);
	assert_true(a.is_last);
	sk_event_destroy(event);

	/* Every token of the text, in order: tokenised, they are the same. */
	struct sk_request *request = sk_request_create(SK_REQUEST_TOKENIZE);
	request->input = text;
	request->n_input_bytes = strlen(text);
	sk_engine_submit(engine, request);
	event = next_event();
	assert_int_equal(event->n_payload_bytes, a.n_ids * sizeof *a.ids);
	assert_memory_equal(event->payload, a.ids, event->n_payload_bytes);
	sk_event_destroy(event);

	/* One who never reads: cancelled, and nothing of it stays. */
	sk_engine_submit(engine, ask_evaluate(&client, 2, text));
	event = next_event();
	assert_int_equal(event->result.stop, SK_STOP_DISCONNECTED);
	sk_event_destroy(event);
	disconnect_client(&client);
	assert_idle();
}

static void test_cancel(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 256);
	memset(&a, 0, sizeof a);
	struct sk_request *request = ask(&client, 7, "It was a dark night", UINT64_MAX);
	request->ignore_eos = true;
	sk_engine_submit(engine, request);
	wait_for_tokens(&client, &a, 20);
	assert_int_equal(sk_engine_cancel(engine, client.connection, 7), 0);
	struct sk_event *event;
	while (!(event = sk_engine_next_event(engine)) || event->kind != SK_EVENT_FINISHED) {
		sk_event_destroy(event);
		drain(&client, &a);
		sk_engine_nudge(engine);
	}
	drain(&client, &a);
	assert_true(a.is_last);
	assert_int_equal(event->result.stop, SK_STOP_CANCELLED);
	assert_int_equal(event->result.generated_tokens, a.n_ids);
	sk_event_destroy(event);
	/* One that never ran. */
	assert_int_equal(sk_engine_cancel(engine, client.connection, 99), 0);
	disconnect_client(&client);
}

static void test_a_reader_that_stops_pauses_itself_alone(void **state)
{
	(void)state;
	struct client stuck, lively;
	connect_client(&stuck, 256);
	connect_client(&lively, 1024);
	struct sk_request *request = ask(&stuck, 1, "It was a dark night", UINT64_MAX);
	request->ignore_eos = true;
	strcpy(request->session, "kept");
	sk_engine_submit(engine, request);

	struct sk_event *event = run(&lively, ask(&lively, 2, "The morning", 600), &b);
	bool stuck_first = event->connection == stuck.connection;
	struct sk_event *other = next_event();
	struct sk_event *of_stuck = stuck_first ? event : other,
			*of_lively = stuck_first ? other : event;
	drain(&lively, &b);
	assert_int_equal(of_lively->result.stop, SK_STOP_LIMIT);
	assert_int_equal(b.n_ids, 600);
	/* Nobody reads: cancelled after the stall timeout, the session kept. */
	assert_int_equal(of_stuck->result.stop, SK_STOP_DISCONNECTED);
	assert_int_equal(of_stuck->result.generated_tokens, SK_MARKS_MOST);
	sk_event_destroy(event);
	sk_event_destroy(other);
	assert_int_equal(stats().n_running, 0);

	disconnect_client(&stuck);
	disconnect_client(&lively);
}

static void test_a_disconnect_ends_everything_of_it(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 256);
	for (uint32_t i = 1; i <= 12; i++) {
		struct sk_request *request = ask(&client, i, "It was a dark night", UINT64_MAX);
		request->ignore_eos = true;
		sk_engine_submit(engine, request);
	}
	memset(&a, 0, sizeof a);
	wait_for_tokens(&client, &a, 3);
	disconnect_client(&client);
	assert_int_equal(stats().n_running, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_greedy_is_the_same_twice),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_a_dense_session_ends_at_the_context),
		cmocka_unit_test(test_a_stop_string_ends_it),
		cmocka_unit_test(test_scores_wait_for_their_reader),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_a_disconnect_ends_everything_of_it),
		cmocka_unit_test(test_a_reader_that_stops_pauses_itself_alone),
	};
	return sk_test_run(tests, open_engine, close_engine);
}
