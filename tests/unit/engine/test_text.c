/* Text on its way through the engine: what is generated is UTF-8 whatever is drawn, and long work on text ends when
 * nobody wants it. */
#include "engine_test.h"
#include "text/normalizer.h"

#include <utf8proc.h>

/* --- What is generated --- */

static void take_text(struct client *client, struct sk_bytes *text)
{
	struct sk_slot slot;
	while (sk_ring_reader_next(client->reader, &slot) == 1)
		assert_int_equal(sk_bytes_append(text, slot.text, slot.n_text_bytes), 0);
}

/* Drawn from all tokens alike, every few of them are a part of a character: a generation begins, goes on and ends with
 * such, and is UTF-8. */
static void test_generated_text_is_utf8(void **state)
{
	(void)state;
	struct client client;
	unsigned n_replaced = 0, n_replaced_at_end = 0;

	connect_client(&client, 1024);
	for (uint32_t seed = 1; seed <= 400; seed++) {
		struct sk_bytes text = {0};
		struct sk_request *request = ask(&client, seed, "It was", 1);
		request->sampling.temperature = 1e6f;
		request->sampling.seed = seed;
		request->max_tokens = 1 + seed % 4;
		request->show_special = seed % 8 == 0;
		sk_engine_submit(engine, request);
		struct sk_event *event = next_event();
		assert_int_equal(event->kind, SK_EVENT_FINISHED);
		sk_event_destroy(event);
		take_text(&client, &text);
		for (size_t at = 0; at < text.n_bytes;) {
			utf8proc_int32_t character;
			utf8proc_ssize_t n = utf8proc_iterate(
				text.bytes + at, (utf8proc_ssize_t)(text.n_bytes - at), &character);
			assert_true(n > 0);
			at += (size_t)n;
			n_replaced += character == 0xfffd;
			n_replaced_at_end += character == 0xfffd && at == text.n_bytes;
		}
		sk_bytes_finish(&text);
	}
	assert_true(n_replaced > n_replaced_at_end && n_replaced_at_end > 5); /* so it was tried */
	disconnect_client(&client);
}

/* --- What is asked of text alone --- */

/* One user's long texts do not keep another's short one waiting until all of them are through. */
static void test_users_take_turns(void **state)
{
	(void)state;
	enum { N = 8, BYTES = 1 << 20, SHORT = 100 };
	struct client client;
	char *text = malloc(BYTES);
	assert_non_null(text);
	for (size_t i = 0; i < BYTES; i++)
		text[i] = i % 6 == 5 ? ' ' : (char)('a' + i * 7 % 26);
	connect_client(&client, 256);
	for (uint32_t i = 0; i < N; i++) {
		struct sk_request *request =
			ask_text(&client, SK_REQUEST_TOKENIZE, 1 + i, text, BYTES);
		request->uid = 4711;
		sk_engine_submit(engine, request);
	}
	struct sk_request *request = ask_text(&client, SK_REQUEST_TOKENIZE, SHORT, "It was", 6);
	request->uid = 4712;
	sk_engine_submit(engine, request);
	uint32_t place = 0;
	for (uint32_t i = 0; i <= N; i++) {
		struct sk_event *event = next_event();
		assert_int_equal(event->kind, SK_EVENT_IDS);
		if (event->request == SHORT)
			place = i;
		sk_event_destroy(event);
	}
	assert_in_range(place, 0,
			2); /* behind the one at work, and one that was begun before it came */
	disconnect_client(&client);
	free(text);
}

static void test_text_requests(void **state)
{
	(void)state;
	const char text[] = "It was a dark night\0, and after";
	struct client client;
	connect_client(&client, 256);
	sk_engine_submit(engine, ask_text(&client, SK_REQUEST_TOKENIZE, 5, text, sizeof text - 1));
	struct sk_event *event = next_event();
	assert_int_equal(event->kind, SK_EVENT_IDS);
	assert_int_equal(event->request, 5);

	sk_engine_submit(engine, ask_text(&client, SK_REQUEST_DETOKENIZE, 6, event->payload,
					  event->n_payload_bytes));
	struct sk_event *back = next_event();
	assert_int_equal(back->kind, SK_EVENT_TEXT);
	assert_int_equal(back->n_payload_bytes, sizeof text - 1);
	assert_memory_equal(back->payload, text, sizeof text - 1);
	sk_event_destroy(event);
	sk_event_destroy(back);
	disconnect_client(&client);
}

/* --- Long work that nobody wants any more --- */

/* One piece for the pre-tokenizer, which takes many seconds to merge: whoever is answered at once was not finished. */
static char giant[32 << 20];

static void wait_until_it_works(void)
{
	const struct timespec a_while = {.tv_nsec = 100000000};
	nanosleep(&a_while, NULL);
}

static void test_a_cancel_ends_tokenising(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	memset(giant, 'a', sizeof giant);

	sk_engine_submit(engine, ask_text(&client, SK_REQUEST_TOKENIZE, 1, giant, sizeof giant));
	wait_until_it_works();
	assert_int_equal(sk_engine_cancel(engine, client.connection, 1), 0);
	struct sk_event *event = next_event();
	assert_int_equal(event->kind, SK_EVENT_FAILED);
	assert_int_equal(event->request, 1);
	assert_int_equal(event->error, -ECANCELED);
	assert_string_equal(event->reason, "the request was cancelled");
	sk_event_destroy(event);

	struct sk_request *request = ask(&client, 2, "", 1);
	request->input = giant;
	request->n_input_bytes = sizeof giant;
	sk_engine_submit(engine, request);
	wait_until_it_works();
	assert_int_equal(sk_engine_cancel(engine, client.connection, 2), 0);
	event = next_event();
	assert_int_equal(event->kind, SK_EVENT_FINISHED);
	assert_int_equal(event->result.stop, SK_STOP_CANCELLED);
	assert_int_equal(event->result.evaluated_tokens, 0);
	sk_event_destroy(event);

	/* Another client's request is none of that one's to cancel. */
	assert_int_equal(sk_engine_cancel(engine, client.connection + 1, 3), 0);
	sk_engine_submit(engine, ask_text(&client, SK_REQUEST_TOKENIZE, 3, "aa", 2));
	assert_int_equal(sk_engine_cancel(engine, client.connection + 1, 3), 0);
	event = next_event();
	assert_int_equal(event->kind, SK_EVENT_IDS);
	sk_event_destroy(event);
	disconnect_client(&client);
}

/* The worker does what it was given in order: the second is answered when the first has been let go. */
static void test_a_disconnect_ends_tokenising(void **state)
{
	(void)state;
	struct client gone, here;
	unsigned n_failed = 0;
	connect_client(&gone, 1024);
	connect_client(&here, 1024);
	for (uint32_t id = 1; id <= 8; id++)
		sk_engine_submit(engine,
				 ask_text(&gone, SK_REQUEST_TOKENIZE, id, giant, sizeof giant));
	sk_engine_submit(engine, ask_text(&here, SK_REQUEST_TOKENIZE, 9, "night", 5));
	wait_until_it_works();
	sk_engine_disconnect(engine, gone.connection);
	bool is_closed = false, is_answered = false;
	while (!is_closed || !is_answered) {
		struct sk_event *event = next_event();
		if (event->connection == here.connection) {
			assert_int_equal(event->kind, SK_EVENT_IDS);
			is_answered = true;
		} else if (event->kind == SK_EVENT_FAILED) {
			assert_int_equal(event->error, -ECANCELED);
			n_failed++;
		} else {
			assert_int_equal(event->kind, SK_EVENT_CLOSED);
			is_closed = true;
		}
		sk_event_destroy(event);
	}
	assert_int_equal(n_failed, 8);
	sk_ring_writer_destroy(gone.writer);
	sk_ring_reader_destroy(gone.reader);
	disconnect_client(&here);
}

/* An engine that ends takes no time over what it was asked. */
static void test_the_end_ends_tokenising(void **state)
{
	struct client client;
	connect_client(&client, 1024);
	for (uint32_t id = 1; id <= 4; id++)
		sk_engine_submit(engine,
				 ask_text(&client, SK_REQUEST_TOKENIZE, id, giant, sizeof giant));
	struct sk_request *request = ask(&client, 5, "", 1);
	request->input = giant;
	request->n_input_bytes = sizeof giant;
	sk_engine_submit(engine, request);
	wait_until_it_works();
	sk_engine_stop(engine);
	for (unsigned n = 0; n < 5; n++) {
		struct sk_event *event = next_event();
		if (event->kind == SK_EVENT_FAILED)
			assert_int_equal(event->error, -ECANCELED);
		else
			assert_int_equal(event->result.stop, SK_STOP_CANCELLED);
		sk_event_destroy(event);
	}
	sk_ring_writer_destroy(client.writer);
	sk_ring_reader_destroy(client.reader);
	close_engine(state);
	assert_int_equal(open_engine(state), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_generated_text_is_utf8),
		cmocka_unit_test(test_text_requests),
		cmocka_unit_test(test_users_take_turns),
		cmocka_unit_test(test_a_cancel_ends_tokenising),
		cmocka_unit_test(test_a_disconnect_ends_tokenising),
		cmocka_unit_test(test_the_end_ends_tokenising),
	};
	return sk_test_run(tests, open_engine, close_engine);
}
