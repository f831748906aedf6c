/* More is asked for than the KV cache holds: who waits, who is told what, who is refused. */
#include "full_pool.h"

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
	submit(&client, 3, 1001, N); /* who has nothing goes first */
	assert_place(&client, 3, 1);
	assert_place(&client, 1, 2);
	assert_place(&client, 2, 3);
	assert_int_equal(stats().n_queued, 3);

	wait_until_paused(); /* else nothing is running that would keep the engine awake */
	end_stream();
	uint32_t last_place[4] = {0}, order[3], n = 0;
	while (n < 3) {
		struct sk_event *event = any_event();
		assert_in_range(event->request, 1, 3);
		if (event->kind == SK_EVENT_PROGRESS) {
			assert_true(event->progress.prompt_tokens > 0);
			last_place[event->request] = event->progress.queue_place;
		} else {
			assert_int_equal(event->kind, SK_EVENT_FINISHED);
			assert_int_equal(event->result.generated_tokens, N);
			assert_int_equal(last_place[event->request], 0);
			order[n++] = event->request;
		}
		sk_event_destroy(event);
	}
	assert_int_equal(order[0], 3);
	assert_int_equal(order[1], 1);
	assert_int_equal(order[2], 2);
	assert_int_equal(stats().n_queued, 0);
	disconnect_client(&client);
	end_streams();
	assert_idle();
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
	assert_idle();
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
	/* For what can begin at once nobody has to go. */
	struct sk_request *small = ask(&other, 2, "It was", 1);
	small->uid = 1002;
	small->policy = (struct sk_policy_change){
		.has_sink = true, .has_window = true, .to = {.sink = 0, .window = 2}};
	sk_engine_submit(engine, small);
	assert_finished(&other, 2, SK_STOP_LIMIT);
	assert_int_equal(stats().n_queued, 4);
	/* Another user's comes in; the last of the one who has all places goes. */
	submit(&other, 1, 1001, N);
	assert_finished(&client, 4, SK_STOP_REFUSED);
	assert_int_equal(stats().n_queued, 4);
	disconnect_client(&client);
	disconnect_client(&other);
	end_streams();
	assert_idle();
}

static void test_nobody_waits_for_ever(void **state)
{
	(void)state;
	struct client client;
	fill();
	wait_until_paused();
	connect_client(&client, 1024);
	uint64_t begun_ns = sk_clock_ns();
	submit(&client, 1, 1000, 5 * N);
	struct sk_event *event = next_event();
	assert_int_equal(event->result.stop, SK_STOP_REFUSED);
	assert_int_equal(event->error, -ENOSPC);
	assert_non_null(strstr(event->reason, "within 2 s"));
	assert_true(sk_clock_ns() - begun_ns >= 2000000000u);
	sk_event_destroy(event);
	disconnect_client(&client);
	end_streams();
	assert_idle();
}

/* What is free is kept for the first, who wants more; but not for as long as it waits. */
static void test_the_first_is_passed_in_the_end(void **state)
{
	(void)state;
	struct client client, other;
	fill();
	wait_until_paused();
	end_stream();
	connect_client(&client, 1024);
	connect_client(&other, 1024);
	struct sk_request *request = ask(&client, 1, "It was a dark night", UINT64_MAX);
	request->uid = 1001;
	request->policy = (struct sk_policy_change){.has_window = true, .to = {.window = 330}};
	sk_engine_submit(engine, request);
	assert_place(&client, 1, 1);
	submit(&other, 2, 1002, 5);
	assert_place(&other, 2, 2);
	struct sk_event *event = next_event();
	assert_int_equal(event->kind, SK_EVENT_FINISHED);
	assert_int_equal(event->connection, other.connection);
	assert_int_equal(event->result.stop, SK_STOP_LIMIT);
	sk_event_destroy(event);
	assert_int_equal(stats().n_queued, 1);
	end_streams(); /* now there is room */
	while (!stats().n_running) {
	}
	disconnect_client(&client);
	disconnect_client(&other);
	assert_idle();
}

/* The last one: then there is no engine. */
static void test_who_waits_when_it_stops(void **state)
{
	(void)state;
	struct client client;
	fill();
	connect_client(&client, 1024);
	submit(&client, 1, 1000, N);
	assert_place(&client, 1, 1);
	sk_engine_stop(engine);
	struct sk_event *event;
	while ((event = next_event())->connection != client.connection)
		sk_event_destroy(event);
	assert_int_equal(event->kind, SK_EVENT_FINISHED);
	assert_int_equal(event->result.stop, SK_STOP_CANCELLED);
	assert_non_null(strstr(event->reason, "stopping"));
	sk_event_destroy(event);
	sk_engine_destroy(engine);
	engine = NULL;
	streams[n_streams++] = client;
	while (n_streams) {
		sk_ring_writer_destroy(streams[--n_streams].writer);
		sk_ring_reader_destroy(streams[n_streams].reader);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_waits_is_told_its_place_and_served),
		cmocka_unit_test(test_a_place_can_be_given_up),
		cmocka_unit_test(test_a_full_queue),
	};
	const struct CMUnitTest with_patience[] = {
		cmocka_unit_test(test_the_first_is_passed_in_the_end),
	};
	const struct CMUnitTest with_timeout[] = {
		cmocka_unit_test(test_nobody_waits_for_ever),
		cmocka_unit_test(test_who_waits_when_it_stops),
	};
	int failed = sk_test_run(tests, open_engine, close_engine);
	engine_queue_timeout_ns = 20000000000; /* of which the patience is a quarter */
	failed |= sk_test_run(with_patience, open_engine, close_engine);
	engine_queue_timeout_ns = 2000000000;
	return sk_test_run(with_timeout, open_engine, close_engine) || failed;
}
