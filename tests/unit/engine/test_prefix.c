/* What sessions of a user have in common at their beginning is evaluated and stored once, and nobody can tell by the text. */
#include "beginnings.h"

static struct answer a, b;

static void test_a_beginning_in_common(void **state)
{
	(void)state;
	struct client client;
	const char *turns[] = {"The captain spoke.", "She was silent.", "It rained."};
	static struct answer alone[3];

	for (int i = 0; i < 60; i++)
		strcat(system_prompt, "word and ");
	connect_client(&client, 1024);
	for (int i = 0; i < 3; i++) {
		struct sk_result r =
			say(&client, ask_as(&client, 1, turns[i], 1000, ""), &alone[i]);
		assert_int_equal(r.reused_tokens, 0);
		assert_int_equal(r.evaluated_tokens, r.prompt_tokens);
	}
	assert_idle();

	struct sk_result first = say(&client, ask_as(&client, 1, turns[0], 1000, "one"), &a);
	assert_int_equal(first.reused_tokens, 0);
	assert_memory_equal(a.ids, alone[0].ids, 40 * sizeof *a.ids);
	const uint64_t n_used = stats().n_pages_used;
	struct sk_result second = say(&client, ask_as(&client, 2, turns[1], 1000, "two"), &a);
	assert_int_equal(second.reused_tokens % SK_PAGE_TOKENS, 0);
	assert_true(second.reused_tokens >= 64);
	assert_int_equal(second.evaluated_tokens, second.prompt_tokens - second.reused_tokens);
	assert_int_equal(second.position, second.prompt_tokens + 40);
	assert_memory_equal(a.ids, alone[1].ids, 40 * sizeof *a.ids);
	assert_int_equal(stats().n_pages_used, 2 * n_used - second.reused_tokens / SK_PAGE_TOKENS);

	/* One without a name as well; and both go on as they would have. */
	struct sk_result third = say(&client, ask_as(&client, 3, turns[2], 1000, ""), &a);
	assert_int_equal(third.reused_tokens, second.reused_tokens);
	assert_memory_equal(a.ids, alone[2].ids, 40 * sizeof *a.ids);

	/* Another user's is nobody's business, nor is it used where its window is smaller. */
	struct sk_result other = say(&client, ask_as(&client, 1, turns[1], 1001, "one"), &a);
	assert_int_equal(other.reused_tokens, 0);
	delete_session("one", 1001);
	struct sk_request *small = ask_as(&client, 2, turns[1], 1000, "");
	small->policy.to.window = 50;
	struct sk_result narrow = say(&client, small, &b);
	assert_true(narrow.reused_tokens <= 54);

	/* Nor with other sinks, whose numbers are not the same to the last bit; not even once "two" has as many. */
	for (int i = 0; i < 2; i++) {
		struct sk_request *sinks = ask_as(&client, 3, turns[2], 1000, "");
		sinks->policy.has_sink = true;
		sinks->policy.to.sink = 8;
		assert_int_equal(say(&client, sinks, &a).reused_tokens, 0);
		struct sk_request *more = ask(&client, 1, " And then", 3);
		more->ignore_eos = true;
		strcpy(more->session, "two");
		more->policy = (struct sk_policy_change){.has_sink = true, .to = {.sink = 8}};
		assert_int_equal(say(&client, more, &a).evicted_tokens, 0);
	}

	/* Whoever goes first, the other keeps what it has. */
	delete_session("one", 1000);
	struct sk_result fourth = say(&client, ask_as(&client, 3, turns[0], 1000, ""), &a);
	assert_int_equal(fourth.reused_tokens, second.reused_tokens);
	assert_memory_equal(a.ids, alone[0].ids, 40 * sizeof *a.ids);

	/* A fork has it as well. */
	struct sk_request *fork = sk_request_create(SK_REQUEST_SESSION);
	fork->connection = client.connection;
	fork->uid = 1000;
	fork->verb = SK_SESSION_FORK;
	strcpy(fork->session, "two");
	strcpy(fork->to, "three");
	sk_engine_submit(engine, fork);
	struct sk_event *forked = next_event();
	assert_int_equal(forked->kind, SK_EVENT_SESSION);
	sk_event_destroy(forked);
	delete_session("two", 1000);
	struct sk_result fifth = say(&client, ask_as(&client, 3, turns[2], 1000, ""), &a);
	assert_int_equal(fifth.reused_tokens, second.reused_tokens);
	assert_memory_equal(a.ids, alone[2].ids, 40 * sizeof *a.ids);
	delete_session("three", 1000);
	disconnect_client(&client);
	assert_idle();
}

/* One that is evaluating shares what it has so far, and then runs on past its window: nothing fails for memory. */
static void test_of_one_that_runs(void **state)
{
	(void)state;
	struct client one, two;
	connect_client(&one, 1024);
	connect_client(&two, 1024);
	struct sk_request *request = ask_as(&one, 1, "", 1000, "");
	request->max_tokens = 600;
	sk_engine_submit(engine, request);
	memset(&b, 0, sizeof b);
	wait_for_tokens(&one, &b, 5);
	request = ask_as(&two, 2, "And then", 1000, "");
	request->max_tokens = 600;
	sk_engine_submit(engine, request);
	struct sk_event *event[2];
	event[0] = next_event();
	event[1] = next_event();
	for (int i = 0; i < 2; i++) {
		assert_int_equal(event[i]->kind, SK_EVENT_FINISHED);
		assert_int_equal(event[i]->result.stop, SK_STOP_LIMIT);
		assert_int_equal(event[i]->result.generated_tokens, 600);
		if (event[i]->connection == two.connection)
			assert_true(event[i]->result.reused_tokens >= 64);
		sk_event_destroy(event[i]);
	}
	disconnect_client(&one);
	disconnect_client(&two);
	assert_idle();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_beginning_in_common),
		cmocka_unit_test(test_of_one_that_runs),
	};
	return sk_test_run(tests, open_engine, close_engine);
}
