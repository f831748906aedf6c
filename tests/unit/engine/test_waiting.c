/* More is asked for than the KV cache holds: who waits, who is told what, who is refused. */
#define ENGINE_KV_BYTES (10 << 20)
#define ENGINE_STALL_NS 0 /* streams that nobody reads keep their pages until they are cancelled */
#include "engine_test.h"

#define N 200 /* tokens, for which a session needs all the pages that its window may have */

static struct answer a;
static struct client streams;
static uint32_t n_streams;

static struct sk_event *any_event(void)
{
	struct sk_event *event;
	while (!(event = sk_engine_next_event(engine))) {
		struct pollfd fd = {.fd = sk_engine_event_fd(engine), .events = POLLIN};
		assert_int_equal(poll(&fd, 1, 600000), 1);
	}
	return event;
}

/* The next that tells a place. */
static void assert_place(const struct client *client, uint32_t id, uint32_t place)
{
	for (;;) {
		struct sk_event *event = any_event();
		bool is_place = event->kind == SK_EVENT_PROGRESS && event->progress.queue_place;
		if (!is_place)
			assert_int_equal(event->kind, SK_EVENT_PROGRESS);
		if (is_place) {
			assert_int_equal(event->connection, client->connection);
			assert_int_equal(event->request, id);
			assert_int_equal(event->progress.queue_place, place);
		}
		sk_event_destroy(event);
		if (is_place)
			return;
	}
}

static void assert_finished(const struct client *client, uint32_t id, enum sk_stop_reason stop)
{
	struct sk_event *event = next_event();
	assert_int_equal(event->kind, SK_EVENT_FINISHED);
	assert_int_equal(event->connection, client->connection);
	assert_int_equal(event->request, id);
	assert_int_equal(event->result.stop, stop);
	if (stop == SK_STOP_LIMIT)
		assert_int_equal(event->result.generated_tokens, N);
	sk_event_destroy(event);
}

static void submit(const struct client *client, uint32_t id, uid_t uid, uint64_t n)
{
	struct sk_request *request = ask(client, id, "It was a dark night", n);
	request->uid = uid;
	sk_engine_submit(engine, request);
}

/* Streams of user 1000 that nobody reads, until another would not fit. */
static void fill(void)
{
	connect_client(&streams, 256);
	for (n_streams = 0;; n_streams++) {
		submit(&streams, n_streams + 1, 1000, UINT64_MAX);
		while (stats().n_running + stats().n_queued <= n_streams) {
		}
		if (stats().n_queued)
			break;
	}
	assert_true(n_streams >= 2);
	sk_engine_cancel(engine, streams.connection, n_streams + 1);
	assert_finished(&streams, n_streams + 1, SK_STOP_CANCELLED);
	assert_int_equal(stats().n_queued, 0);
}

static void end_streams(void)
{
	disconnect_client(&streams);
	assert_idle();
}

static void test_who_waits_is_told_its_place_and_served(void **state)
{
	(void)state;
	struct client client;
	fill();
	connect_client(&client, 1024);
	submit(&client, 1, 1000, N);
	assert_place(&client, 1, 1);
	submit(&client, 2, 1000, N);
	assert_place(&client, 2, 2);
	submit(&client, 3, 1001, N); /* who has had nothing yet goes first */
	assert_place(&client, 1, 2);
	assert_place(&client, 2, 3);
	assert_place(&client, 3, 1);
	assert_int_equal(stats().n_queued, 3);

	sk_engine_cancel(engine, streams.connection, 1);
	assert_finished(&streams, 1, SK_STOP_CANCELLED);
	assert_finished(&client, 3, SK_STOP_LIMIT);
	assert_finished(&client, 1, SK_STOP_LIMIT);
	assert_finished(&client, 2, SK_STOP_LIMIT);
	assert_int_equal(stats().n_queued, 0);
	disconnect_client(&client);
	end_streams();
}

static void test_a_place_can_be_given_up(void **state)
{
	(void)state;
	struct client client, other;
	fill();
	connect_client(&client, 1024);
	connect_client(&other, 1024);
	submit(&client, 1, 1000, N);
	assert_place(&client, 1, 1);
	submit(&other, 1, 1000, N);
	assert_place(&other, 1, 2);
	submit(&client, 2, 1000, N);
	assert_place(&client, 2, 3);
	sk_engine_cancel(engine, client.connection, 1);
	assert_finished(&client, 1, SK_STOP_CANCELLED);
	assert_int_equal(stats().n_queued, 2);
	disconnect_client(&other);
	assert_int_equal(stats().n_queued, 1);
	disconnect_client(&client);
	assert_int_equal(stats().n_queued, 0);
	end_streams();
}

static void test_a_full_queue(void **state)
{
	(void)state;
	struct client client, other;
	fill();
	connect_client(&client, 1024);
	connect_client(&other, 1024);
	for (uint32_t i = 1; i <= 4; i++) {
		submit(&client, i, 1000, N);
		assert_place(&client, i, i);
	}
	submit(&client, 5, 1000, N);
	struct sk_event *event = next_event();
	assert_int_equal(event->request, 5);
	assert_int_equal(event->result.stop, SK_STOP_REFUSED);
	assert_int_equal(event->error, -ENOSPC);
	assert_non_null(strstr(event->reason, "queue of 4"));
	sk_event_destroy(event);
	/* Another user's comes in; the last of the one who has all places goes. */
	submit(&other, 1, 1001, N);
	assert_finished(&client, 4, SK_STOP_REFUSED);
	assert_int_equal(stats().n_queued, 4);
	disconnect_client(&client);
	disconnect_client(&other);
	end_streams();
}

static void test_nobody_waits_for_ever(void **state)
{
	(void)state;
	struct client client;
	fill();
	connect_client(&client, 1024);
	uint64_t begun_ns = sk_clock_ns();
	submit(&client, 1, 1000, N);
	struct sk_event *event = next_event();
	assert_int_equal(event->result.stop, SK_STOP_REFUSED);
	assert_int_equal(event->error, -ENOSPC);
	assert_non_null(strstr(event->reason, "within 2 s"));
	assert_true(sk_clock_ns() - begun_ns >= 2000000000u);
	sk_event_destroy(event);
	disconnect_client(&client);
	end_streams();
}

/* What can never fit, or what only idle sessions keep out, is refused at once. */
static void test_no_use_in_waiting(void **state)
{
	(void)state;
	struct client client;
	fill();
	connect_client(&client, 1024);
	struct sk_request *request = ask(&client, 1, "It was", UINT64_MAX);
	request->policy =
		(struct sk_policy_change){.has_mode = true, .to = {.mode = SK_MODE_DENSE}};
	struct sk_event *event = run(&client, request, &a);
	assert_int_equal(event->result.stop, SK_STOP_REFUSED);
	assert_int_equal(event->error, -ENOSPC);
	sk_event_destroy(event);
	end_streams();

	for (uint32_t i = 1;; i++) {
		static char prompt[700];
		for (size_t j = 0; j + 5 < sizeof prompt; j += 5)
			memcpy(prompt + j, "word ", 5);
		request = ask(&client, i, prompt, 2);
		snprintf(request->session, sizeof request->session, "idle %u", i);
		event = run(&client, request, &a);
		bool refused = event->result.stop == SK_STOP_REFUSED;
		assert_true(refused || i < 20);
		sk_event_destroy(event);
		if (refused)
			break;
	}
	assert_int_equal(stats().n_queued, 0);
	disconnect_client(&client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_waits_is_told_its_place_and_served),
		cmocka_unit_test(test_a_place_can_be_given_up),
		cmocka_unit_test(test_a_full_queue),
		cmocka_unit_test(test_nobody_waits_for_ever),
		cmocka_unit_test(test_no_use_in_waiting),
	};
	return sk_test_run(tests, open_engine, close_engine);
}
