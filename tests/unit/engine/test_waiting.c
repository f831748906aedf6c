/* More is asked for than the KV cache holds: who waits, who is told what, who is refused. */
#define ENGINE_KV_BYTES (10 << 20)
#define ENGINE_STALL_NS 0 /* streams that nobody reads keep their pages until they are cancelled */
#include "engine_test.h"

#define N 200 /* tokens, for which a session needs all the pages that its window may have */

static struct answer a;
static struct client streams[8];
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
	sk_event_destroy(event);
}

static void submit(const struct client *client, uint32_t id, uid_t uid, uint64_t n)
{
	struct sk_request *request = ask(client, id, "It was a dark night", n);
	request->uid = uid;
	sk_engine_submit(engine, request);
}

/* Streams of user 1000 that nobody reads, until another would not fit: at least so many. */
static void fill_beside(uint32_t at_least)
{
	for (n_streams = 0;; n_streams++) {
		struct client *stream = &streams[n_streams];
		assert_true(n_streams < 8);
		connect_client(stream, 256);
		submit(stream, 1, 1000, UINT64_MAX);
		while (stats().n_running + stats().n_queued <= n_streams) {
		}
		if (stats().n_queued)
			break;
	}
	assert_true(n_streams >= at_least);
	disconnect_client(&streams[n_streams]);
	assert_int_equal(stats().n_queued, 0);
}

static void fill(void)
{
	fill_beside(2);
}

static void end_stream(void)
{
	disconnect_client(&streams[--n_streams]);
}

static void end_streams(void)
{
	while (n_streams)
		end_stream();
}

static void wait_until_paused(void)
{
	while (stats().n_paused < n_streams) {
	}
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

static struct sk_request *on_session(const struct client *client, uint32_t id, const char *name,
				     uint64_t n)
{
	struct sk_request *request = ask(client, id, "It was a dark night", n);
	strcpy(request->session, name);
	return request;
}

/* A session that has its pages goes on, whoever waits for some. */
static void test_a_session_with_pages_does_not_wait(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	sk_event_destroy(run(&client, on_session(&client, 1, "full", N), &a));
	sk_event_destroy(run(&client, on_session(&client, 1, "growing", 2), &a));
	fill_beside(1);
	submit(&client, 2, 1001, N);
	assert_place(&client, 2, 1);
	struct sk_event *event = run(&client, on_session(&client, 3, "full", N), &a);
	assert_int_equal(event->request, 3);
	assert_int_equal(event->result.stop, SK_STOP_LIMIT);
	sk_event_destroy(event);
	assert_int_equal(a.n_ids, N);
	assert_int_equal(stats().n_queued, 1);
	/* But one that is to get them waits, though it wants few and they are free; and who grows in small steps. */
	sk_engine_submit(engine, on_session(&client, 4, "new", 5));
	assert_place(&client, 4, 2);
	sk_engine_submit(engine, on_session(&client, 5, "growing", 1));
	assert_place(&client, 5, 3);
	disconnect_client(&client);
	end_streams();
}

/* A request must not go past an earlier one on its session: its session is as busy as if that ran. */
static void test_another_on_a_session_that_waits(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	fill_beside(1);
	for (int is_new = 0; is_new < 2; is_new++) {
		const char *name = is_new ? "as new" : "growing"; /* of the test before */
		sk_engine_submit(engine, on_session(&client, 1, name, N));
		assert_place(&client, 1, 1);
		sk_engine_submit(engine, on_session(&client, 2, name, 1));
		struct sk_event *event = next_event();
		assert_int_equal(event->request, 2);
		assert_int_equal(event->result.stop, SK_STOP_REFUSED);
		assert_int_equal(event->error, -EBUSY);
		assert_non_null(strstr(event->reason, "waits"));
		sk_event_destroy(event);
		struct sk_request *other = on_session(&client, 3, name, N); /* another user's */
		other->uid = 1001;
		sk_engine_submit(engine, other);
		assert_place(&client, 3, 1);
		sk_engine_cancel(engine, client.connection, 3);
		assert_finished(&client, 3, SK_STOP_CANCELLED);
		sk_engine_cancel(engine, client.connection, 1);
		assert_finished(&client, 1, SK_STOP_CANCELLED);
	}
	disconnect_client(&client);
	end_streams();
}

/* What can never fit, or what only idle sessions keep out, is refused at once. */
static void test_no_use_in_waiting(void **state)
{
	(void)state;
	struct client client;
	fill_beside(1); /* beside the session of the test before */
	connect_client(&client, 1024);
	struct sk_request *request = ask(&client, 1, "It was", UINT64_MAX);
	request->policy =
		(struct sk_policy_change){.has_mode = true, .to = {.mode = SK_MODE_DENSE}};
	struct sk_event *event = run(&client, request, &a);
	assert_int_equal(event->result.stop, SK_STOP_REFUSED);
	assert_int_equal(event->error, -ENOSPC);
	sk_event_destroy(event);

	request = ask(&client, 2, "It was", UINT64_MAX); /* would fit, but for the session */
	request->policy = (struct sk_policy_change){.has_window = true, .to = {.window = 330}};
	event = run(&client, request, &a);
	assert_int_equal(event->result.stop, SK_STOP_REFUSED);
	assert_int_equal(event->error, -ENOSPC);
	sk_event_destroy(event);
	assert_int_equal(stats().n_queued, 0);
	disconnect_client(&client);
	end_streams();
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

/* Nor one that was cut back, and needs its slack again; what it has not needed before, it waits for. */
static void test_a_session_with_slack_does_not_wait(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	for (uint32_t id = 1; id <= 3; id++) {
		struct sk_request *request = on_session(&client, id, "slack", id == 1 ? 150 : N);
		if (id == 1) { /* 150: it has just been cut back */
			request->policy =
				(struct sk_policy_change){.has_window = true,
							  .has_slack = true,
							  .to = {.window = 20, .slack = 120}};
		}
		if (id == 2) {
			connect_client(&streams[n_streams], 256);
			submit(&streams[n_streams++], 1, 1000, UINT64_MAX);
			while (stats().n_running ==
			       0) /* users' texts take turns: the order is ours to keep */
				;
			struct sk_request *large = ask(&client, 9, "It was", UINT64_MAX);
			large->uid = 1001;
			large->policy = (struct sk_policy_change){.has_window = true,
								  .to = {.window = 250}};
			sk_engine_submit(engine, large);
			assert_place(&client, 9, 1);
		}
		if (id == 3)
			request->policy =
				(struct sk_policy_change){.has_slack = true, .to = {.slack = 180}};
		memset(&a, 0, sizeof a);
		sk_engine_submit(engine, request);
		if (id < 3) { /* read, for a named session goes only so far ahead of its reader */
			wait_for_tokens(&client, &a, id == 1 ? 150 : N);
			assert_finished(&client, id, SK_STOP_LIMIT);
		} else {
			assert_place(&client, id, 2);
		}
	}
	disconnect_client(&client);
	end_streams();
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
		cmocka_unit_test(test_a_session_with_pages_does_not_wait),
		cmocka_unit_test(test_another_on_a_session_that_waits),
		cmocka_unit_test(test_no_use_in_waiting),
	};
	const struct CMUnitTest with_patience[] = {
		cmocka_unit_test(test_the_first_is_passed_in_the_end),
		cmocka_unit_test(test_a_session_with_slack_does_not_wait),
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
