/* The engine whole: its threads, a real model on the CPU, real rings. The test plays the loop
 * thread. */
#include "base/clock.h"
#include "cpu/cpu.h"
#include "engine/engine.h"
#include "sk_test.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

static struct sk_model *model;
static struct sk_tokenizer *tokenizer;
static struct sk_engine *engine;
static uint64_t n_connections;

struct client {
	uint64_t connection;
	struct sk_ring_writer *writer;
	struct sk_ring_reader *reader;
};

static int open_engine(void **state)
{
	(void)state;
	struct sk_diag diag = {""};
	struct sk_engine_options options = {
		.backend = &sk_cpu_backend,
		.kv_memory_bytes = 64 << 20,
		.max_batch = 8,
		.step_tokens = 64,
		.policy = {SK_MODE_STREAMING, 4, 100, 0},
		.stall_timeout_ns = 300000000,
	};
	if (sk_model_open(sk_test_model("pythia-books"), &model, &diag) < 0 ||
	    sk_tokenizer_open(model, &tokenizer, &diag) < 0 ||
	    sk_engine_create(model, tokenizer, &options, &engine, &diag) < 0) {
		print_error("%s\n", diag.text);
		return -1;
	}
	return sk_engine_start(engine);
}

static int close_engine(void **state)
{
	(void)state;
	sk_engine_destroy(engine);
	sk_tokenizer_close(tokenizer);
	sk_model_close(model);
	return 0;
}

static void connect_client(struct client *client, uint32_t n_slots)
{
	int fds[4];
	client->connection = ++n_connections;
	assert_int_equal(sk_ring_writer_create(n_slots, &client->writer), 0);
	sk_ring_writer_fds(client->writer, fds);
	for (int i = 0; i < 4; i++)
		fds[i] = dup(fds[i]);
	assert_int_equal(sk_ring_reader_create(fds, n_slots, &client->reader), 0);
	assert_int_equal(sk_engine_connect(engine, client->connection), 0);
}

static struct sk_request *ask(const struct client *client, uint32_t id, const char *prompt,
			      uint64_t max_tokens)
{
	struct sk_request *request = sk_request_create(SK_REQUEST_GENERATE);
	assert_non_null(request);
	request->connection = client->connection;
	request->id = id;
	request->uid = 1000;
	request->arrived_ns = sk_clock_ns();
	request->input = prompt;
	request->n_input_bytes = strlen(prompt);
	request->ring = client->writer;
	request->max_tokens = max_tokens;
	return request;
}

/* The next event that is not progress, waited for. */
static struct sk_event *next_event(void)
{
	for (;;) {
		struct sk_event *event = sk_engine_next_event(engine);
		if (event && event->kind != SK_EVENT_PROGRESS)
			return event;
		sk_event_destroy(event);
		if (event)
			continue;
		struct pollfd fd = {.fd = sk_engine_event_fd(engine), .events = POLLIN};
		if (poll(&fd, 1, 600000) != 1) /* a sanitizer on a busy machine is slow */
			fail_msg("no event for ten minutes");
	}
}

static void disconnect_client(struct client *client)
{
	sk_engine_disconnect(engine, client->connection);
	for (;;) {
		struct sk_event *event = next_event();
		bool closed =
			event->kind == SK_EVENT_CLOSED && event->connection == client->connection;
		sk_event_destroy(event);
		if (closed)
			break;
	}
	sk_ring_writer_destroy(client->writer);
	sk_ring_reader_destroy(client->reader);
}

struct answer {
	int32_t ids[4096];
	size_t n_ids;
	char text[65536];
	size_t n_text;
	bool is_last;
};

/* Takes what the ring holds. */
static void drain(struct client *client, struct answer *answer)
{
	struct sk_slot slot;
	int err;
	while ((err = sk_ring_reader_next(client->reader, &slot)) == 1) {
		assert_false(answer->is_last);
		memcpy(answer->text + answer->n_text, slot.text, slot.n_text_bytes);
		answer->n_text += slot.n_text_bytes;
		if (!(slot.flags & (SK_SLOT_CONTINUES | SK_SLOT_NO_TOKEN)))
			answer->ids[answer->n_ids++] = slot.id;
		answer->is_last = (slot.flags & SK_SLOT_LAST) && !(slot.flags & SK_SLOT_MORE);
	}
	assert_int_equal(err, 0);
	answer->text[answer->n_text] = '\0';
}

/* Submits, reads until FINISHED, and hands that event over. */
static struct sk_event *run(struct client *client, struct sk_request *request,
			    struct answer *answer)
{
	memset(answer, 0, sizeof *answer);
	sk_engine_submit(engine, request);
	struct sk_event *event = next_event();
	assert_int_equal(event->kind, SK_EVENT_FINISHED);
	drain(client, answer);
	return event;
}

static struct sk_stats stats(void)
{
	struct sk_request *request = sk_request_create(SK_REQUEST_STATS);
	sk_engine_submit(engine, request);
	struct sk_event *event = next_event();
	assert_int_equal(event->kind, SK_EVENT_STATS);
	struct sk_stats result = event->stats;
	sk_event_destroy(event);
	return result;
}

static void assert_idle(void)
{
	struct sk_stats s = stats();
	assert_int_equal(s.n_running, 0);
	assert_int_equal(s.n_sessions, 0);
	assert_int_equal(s.n_pages_used, 0);
}

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

/* A turn of a chat is written for where the session stands; where it has gone on meanwhile, the turn is refused. */
static void test_a_chat_that_went_on_meanwhile(void **state)
{
	(void)state;
	static char longer[4 << 20];
	struct client client;
	connect_client(&client, 1024);
	for (size_t i = 0; i + 5 < sizeof longer; i += 5) /* takes a while to tokenise */
		memcpy(longer + i, "word ", 5);
	struct sk_request *first = ask(&client, 1, "It was a dark night", 2);
	struct sk_request *second = ask(&client, 2, longer, 2);
	strcpy(first->session, "chat");
	strcpy(second->session, "chat");
	strcpy(first->chat, "chatml");
	strcpy(second->chat, "chatml");
	sk_engine_submit(engine, first);
	sk_engine_submit(engine, second);
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
	struct sk_request *again = ask(&client, 3, "And then?", 2);
	strcpy(again->session, "chat");
	strcpy(again->chat, "chatml");
	event = run(&client, again, &a);
	assert_int_equal(event->result.stop, SK_STOP_LIMIT);
	assert_int_equal(event->result.reused_tokens, position - 1);
	sk_event_destroy(event);
	disconnect_client(&client);
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

static void wait_for_tokens(struct client *client, struct answer *answer, size_t n)
{
	while (answer->n_ids < n) {
		/* The loop thread would watch the writer's doorbell. */
		struct pollfd fds[2] = {
			{.fd = sk_ring_reader_doorbell(client->reader), .events = POLLIN},
			{.fd = sk_ring_writer_doorbell(client->writer), .events = POLLIN},
		};
		if (!sk_ring_reader_wait(client->reader))
			assert_true(poll(fds, 2, 600000) > 0);
		if (fds[1].revents)
			sk_engine_nudge(engine);
		drain(client, answer);
	}
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
	assert_true(of_stuck->result.generated_tokens > 100);
	assert_true(of_stuck->result.generated_tokens <= 257);
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

static void test_text_requests(void **state)
{
	(void)state;
	struct sk_request *request = sk_request_create(SK_REQUEST_TOKENIZE);
	const char text[] = "It was a dark night\0, and after";
	request->id = 5;
	request->input = text;
	request->n_input_bytes = sizeof text - 1;
	sk_engine_submit(engine, request);
	struct sk_event *event = next_event();
	assert_int_equal(event->kind, SK_EVENT_IDS);
	assert_int_equal(event->request, 5);

	request = sk_request_create(SK_REQUEST_DETOKENIZE);
	request->input = event->payload;
	request->n_input_bytes = event->n_payload_bytes;
	sk_engine_submit(engine, request);
	struct sk_event *back = next_event();
	assert_int_equal(back->kind, SK_EVENT_TEXT);
	assert_int_equal(back->n_payload_bytes, sizeof text - 1);
	assert_memory_equal(back->payload, text, sizeof text - 1);
	sk_event_destroy(event);
	sk_event_destroy(back);
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
		cmocka_unit_test(test_text_requests),
		cmocka_unit_test(test_a_session_goes_on),
		cmocka_unit_test(test_a_session_changes_its_policy),
		cmocka_unit_test(test_a_cancel_in_the_queue_loses_no_token),
		cmocka_unit_test(test_a_chat_that_went_on_meanwhile),
		cmocka_unit_test(test_a_reader_that_stops_pauses_itself_alone),
	};
	return sk_test_run(tests, open_engine, close_engine);
}
