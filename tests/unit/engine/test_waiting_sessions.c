/* Requests on sessions where more is asked for than the KV cache holds: who has pages, or will have them, goes on. */
#include "full_pool.h"

static struct answer a;

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_session_with_pages_does_not_wait),
		cmocka_unit_test(test_another_on_a_session_that_waits),
		cmocka_unit_test(test_no_use_in_waiting),
	};
	const struct CMUnitTest with_patience[] = {
		cmocka_unit_test(test_a_session_with_slack_does_not_wait),
	};
	int failed = sk_test_run(tests, open_engine, close_engine);
	engine_queue_timeout_ns = 600000000000;
	return sk_test_run(with_patience, open_engine, close_engine) || failed;
}
