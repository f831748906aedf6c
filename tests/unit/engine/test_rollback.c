/* A client that goes away: its session goes back to the last token that the client had read, and from there it says
 * what it would have said, whatever the window has dropped since. */
#define ENGINE_STALL_NS UINT64_C(600000000000) /* nobody is to be thrown out here */
#include "engine_test.h"

#include <unistd.h>

#define N_WHOLE 200

static struct answer whole, rest;
static const char prompt[] = "It was a dark night and the captain said";

static void wait_a_moment(void)
{
	usleep(1000);
}

static struct sk_request *ask_session(struct client *client, const char *text, uint64_t n,
				      const struct sk_policy *policy, const char *session)
{
	struct sk_request *request = ask(client, 1, text, n);
	request->policy = (struct sk_policy_change){.has_mode = true,
						    .has_sink = true,
						    .has_window = true,
						    .has_slack = true,
						    .to = *policy};
	request->ignore_eos = true;
	strcpy(request->session, session);
	return request;
}

static struct sk_request *score_in_session(struct client *client, const char *text,
					   const struct sk_policy *policy, const char *session)
{
	struct sk_request *request = ask_session(client, text, UINT64_MAX, policy, session);
	request->kind = SK_REQUEST_EVALUATE;
	return request;
}

/* Reads n tokens and no more, and says so. */
static void read_tokens(struct client *client, uint32_t n)
{
	struct sk_slot slot;
	for (uint32_t i = 0; i < n;) {
		int r = sk_ring_reader_next(client->reader, &slot);
		assert_true(r >= 0);
		i += r && !(slot.flags & (SK_SLOT_CONTINUES | SK_SLOT_NO_TOKEN));
		if (r && i < n)
			continue;
		/* Tells the writer how far we are; true: there is more. */
		(void)sk_ring_reader_wait(client->reader);
		sk_engine_nudge(engine);
		wait_a_moment();
	}
}

/* Until the session is as far ahead of its reader as it may be. */
static void wait_until_paused(void)
{
	while (stats().n_paused == 0)
		wait_a_moment();
}

static void tell_whole(const struct sk_policy *policy)
{
	struct client client;
	connect_client(&client, 1024);
	sk_event_destroy(run(&client, ask_session(&client, prompt, N_WHOLE, policy, ""), &whole));
	assert_int_equal(whole.n_ids, N_WHOLE);
	disconnect_client(&client);
}

static void go_away_after(uint32_t n_read, const struct sk_policy *policy)
{
	struct client client;

	connect_client(&client, 1024);
	sk_engine_submit(engine, ask_session(&client, prompt, UINT64_MAX, policy, "log"));
	read_tokens(&client, n_read);
	wait_until_paused();
	disconnect_client(&client);
	assert_int_equal(stats().n_running, 0);

	connect_client(&client, 1024);
	if (!n_read) { /* as if it had never asked */
		struct sk_event *event =
			run(&client, ask_session(&client, prompt, N_WHOLE, policy, "log"), &rest);
		assert_int_equal(event->result.reused_tokens, 0);
		assert_int_equal(event->result.position, event->result.prompt_tokens + N_WHOLE);
		sk_event_destroy(event);
		assert_memory_equal(rest.ids, whole.ids, N_WHOLE * sizeof *whole.ids);
	} else {
		const uint32_t n = N_WHOLE - n_read;
		sk_event_destroy(run(&client, ask_session(&client, "", n, policy, "log"), &rest));
		assert_int_equal(rest.n_ids, n);
		assert_memory_equal(rest.ids, whole.ids + n_read, n * sizeof *whole.ids);
	}
	delete_session("log", 1000);
	disconnect_client(&client);
	assert_idle();
}

static void test_a_client_that_goes_away(void **state)
{
	(void)state;
	const uint32_t n_read[] = {0, 1, 31, 130};
	const struct sk_policy policies[] = {
		{SK_MODE_STREAMING, 4, 100, 0},  {SK_MODE_STREAMING, 4, 40, 0},
		{SK_MODE_STREAMING, 33, 30, 17}, {SK_MODE_WINDOW, 0, 35, 70},
		{SK_MODE_DENSE, 0, 1, 0},
	};
	for (unsigned p = 0; p < sizeof policies / sizeof *policies; p++) {
		tell_whole(&policies[p]);
		for (unsigned i = 0; i < sizeof n_read / sizeof *n_read; i++)
			go_away_after(n_read[i], &policies[p]);
	}
}

/* Asks for a long prompt, or for the scores of a long text, and takes it back. True: it was caught in the middle. */
static bool cancel_in_the_middle(struct client *client, struct moment *moment,
				 enum sk_request_kind kind, const char *text,
				 const struct sk_policy *policy)
{
	static struct answer nothing;
	struct sk_request *request = kind == SK_REQUEST_EVALUATE
					     ? score_in_session(client, text, policy, "log")
					     : ask_session(client, text, 1, policy, "log");

	sk_engine_submit(engine, request);
	wait_for_moment(moment);
	assert_int_equal(sk_engine_cancel(engine, client->connection, 1), 0);
	struct sk_event *event = next_event();
	assert_int_equal(event->kind, SK_EVENT_FINISHED);
	const bool is_caught = was_at_moment(moment, event);
	if (event->result.stop != SK_STOP_CANCELLED)
		assert_int_equal(event->result.stop,
				 kind == SK_REQUEST_EVALUATE ? SK_STOP_DONE : SK_STOP_LIMIT);
	sk_event_destroy(event);
	memset(&nothing, 0, sizeof nothing);
	drain(client, &nothing);
	return is_caught;
}

/* In the middle of a prompt: back to where the session was, if that is still there; and to what it kept, though the prompt
 * asked for another policy. */
static void cancel_a_prompt(enum sk_request_kind kind, const struct sk_policy *policy,
			    const struct sk_policy *other)
{
	static char longer[400 * 5 + 1]; /* fits the context */
	struct moment moment = {0};
	struct client client;
	bool is_caught;

	for (size_t i = 0; i + 5 < sizeof longer; i += 5)
		memcpy(longer + i, "word ", 5);
	connect_client(&client, 1024);
	sk_event_destroy(run(&client, ask_session(&client, prompt, 120, policy, ""), &whole));
	do { /* a busy machine may be through before we ask */
		sk_event_destroy(
			run(&client, ask_session(&client, prompt, 60, policy, "log"), &rest));
		is_caught = cancel_in_the_middle(&client, &moment, kind, longer, other);
		if (is_caught)
			sk_event_destroy(
				run(&client, ask_session(&client, "", 60, policy, "log"), &rest));
		delete_session("log", 1000);
	} while (!is_caught);
	assert_memory_equal(rest.ids, whole.ids + 60, 60 * sizeof *whole.ids);
	disconnect_client(&client);
	assert_idle();
}

static void test_a_prompt_that_is_cancelled(void **state)
{
	(void)state;
	const struct sk_policy dense = {SK_MODE_DENSE, 0, 1, 0};
	cancel_a_prompt(SK_REQUEST_GENERATE, &dense, &dense);
}

static void test_a_prompt_under_another_policy(void **state)
{
	(void)state;
	const struct sk_policy sinks = {SK_MODE_STREAMING, 4, 40, 0},
			       none = {SK_MODE_STREAMING, 0, 450, 0},
			       window = {SK_MODE_WINDOW, 0, 450, 0},
			       many = {SK_MODE_STREAMING, 33, 30, 0};
	cancel_a_prompt(SK_REQUEST_GENERATE, &sinks, &none);
	cancel_a_prompt(SK_REQUEST_GENERATE, &sinks, &window);
	cancel_a_prompt(SK_REQUEST_GENERATE, &many, &none);
}

static void test_a_text_to_score_that_is_cancelled(void **state)
{
	(void)state;
	const struct sk_policy dense = {SK_MODE_DENSE, 0, 1, 0},
			       sinks = {SK_MODE_STREAMING, 4, 40, 0},
			       none = {SK_MODE_STREAMING, 0, 450, 0};
	cancel_a_prompt(SK_REQUEST_EVALUATE, &dense, &dense);
	cancel_a_prompt(SK_REQUEST_EVALUATE, &sinks, &none);
}

/* All of it has run, and its scores wait for room in a ring that nobody reads any more: where the session cannot go back to
 * before the text, it stands behind all of it. */
static void go_away_before_the_scores(const struct sk_policy *policy, bool goes_back)
{
	static char
		text[280 * 5 + 1]; /* more than the ring holds, of which the last step fills it */
	static struct answer scored;
	struct client client;

	for (size_t i = 0; i + 5 < sizeof text; i += 5)
		memcpy(text + i, "word ", 5);
	connect_client(&client, 1024);
	sk_event_destroy(run(&client, ask_session(&client, prompt, 60, policy, "log"), &rest));
	if (!goes_back) { /* as if its client had stayed */
		sk_event_destroy(
			run(&client, score_in_session(&client, text, policy, "log"), &scored));
		assert_in_range(scored.n_ids, SK_RING_LEAST_SLOTS + 1, SK_RING_LEAST_SLOTS + 64);
		sk_event_destroy(run(&client, ask_session(&client, "", 60, policy, "log"), &whole));
		delete_session("log", 1000);
		sk_event_destroy(
			run(&client, ask_session(&client, prompt, 60, policy, "log"), &rest));
	} else {
		sk_event_destroy(
			run(&client, ask_session(&client, prompt, 120, policy, ""), &whole));
		memmove(whole.ids, whole.ids + 60, 60 * sizeof *whole.ids);
	}
	disconnect_client(&client);

	connect_client(&client, SK_RING_LEAST_SLOTS);
	sk_engine_submit(engine, score_in_session(&client, text, policy, "log"));
	wait_until_paused();
	disconnect_client(&client);

	connect_client(&client, 1024);
	sk_event_destroy(run(&client, ask_session(&client, "", 60, policy, "log"), &rest));
	assert_memory_equal(rest.ids, whole.ids, 60 * sizeof *whole.ids);
	delete_session("log", 1000);
	disconnect_client(&client);
	assert_idle();
}

static void test_a_client_that_goes_away_before_its_scores(void **state)
{
	(void)state;
	const struct sk_policy dense = {SK_MODE_DENSE, 0, 1, 0},
			       sinks = {SK_MODE_STREAMING, 4, 40, 0};
	go_away_before_the_scores(&dense, true);
	go_away_before_the_scores(&sinks, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_client_that_goes_away),
		cmocka_unit_test(test_a_prompt_that_is_cancelled),
		cmocka_unit_test(test_a_prompt_under_another_policy),
		cmocka_unit_test(test_a_text_to_score_that_is_cancelled),
		cmocka_unit_test(test_a_client_that_goes_away_before_its_scores),
	};
	return sk_test_run(tests, open_engine, close_engine);
}
