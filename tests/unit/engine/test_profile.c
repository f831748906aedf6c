/* Who is told of the time that attention takes: those who asked, their own share. */
#include "engine_test.h"

#define N_TOKENS 100

static struct answer a;

static struct sk_request *ask_long(const struct client *client, uint32_t id, bool profile)
{
	struct sk_request *request = ask(client, id, "It was a dark night", N_TOKENS);
	request->ignore_eos = true;
	request->profile = profile;
	return request;
}

static uint64_t attention_of(const struct sk_stats *s)
{
	return s->profile.ns[SK_OP_APPEND] + s->profile.ns[SK_OP_ATTEND];
}

static void test_nothing_is_timed_unasked(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	struct sk_stats before = stats();
	struct sk_event *event = run(&client, ask_long(&client, 1, false), &a);
	assert_int_equal(event->result.attention_ns, 0);
	sk_event_destroy(event);
	struct sk_stats after = stats();
	assert_int_equal(after.n_profiled_steps, before.n_profiled_steps);
	assert_int_equal(attention_of(&after), attention_of(&before));
	assert_true(after.n_steps >= before.n_steps + N_TOKENS);
	disconnect_client(&client);
}

static void test_alone_it_is_all_of_attention(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	struct sk_stats before = stats();
	struct sk_event *event = run(&client, ask_long(&client, 1, true), &a);
	struct sk_stats after = stats();
	uint64_t told = event->result.attention_ns,
		 taken = attention_of(&after) - attention_of(&before);
	assert_int_equal(after.n_profiled_steps - before.n_profiled_steps, event->result.steps);
	assert_true(told > 0 && told <= taken && taken - told <= event->result.steps);
	assert_true(told < event->result.step_ns);
	assert_true(after.profile.ns[SK_OP_MATMUL] > before.profile.ns[SK_OP_MATMUL]);
	assert_true(after.profiled_ns - before.profiled_ns <= event->result.step_ns);
	sk_event_destroy(event);
	disconnect_client(&client);
}

/* Two that ride together, one of them with four times the cache: both parts are all of it, the larger is the larger's. */
static void test_each_has_its_share(void **state)
{
	(void)state;
	struct client client;
	struct sk_event *events[2];
	static char text[2000];
	connect_client(&client, 1024);
	for (size_t i = 0; i + 5 < sizeof text; i += 5)
		memcpy(text + i, "word ", 5);
	struct sk_stats before = stats();
	struct sk_request *requests[2] = {ask(&client, 1, text, N_TOKENS),
					  ask(&client, 2, text, N_TOKENS)};
	for (int i = 0; i < 2; i++) {
		requests[i]->ignore_eos = true;
		requests[i]->profile = true;
		requests[i]->policy = (struct sk_policy_change){.has_window = true,
								.to = {.window = i ? 400 : 20}};
		sk_engine_submit(engine, requests[i]);
	}
	for (int i = 0; i < 2; i++) {
		events[i] = next_event();
		assert_int_equal(events[i]->result.stop, SK_STOP_LIMIT);
	}
	struct sk_stats after = stats();
	bool swapped = events[0]->request == 2;
	uint64_t small = events[swapped]->result.attention_ns,
		 large = events[!swapped]->result.attention_ns,
		 taken = attention_of(&after) - attention_of(&before);
	uint64_t n_steps = after.n_profiled_steps - before.n_profiled_steps;
	assert_true(n_steps <
		    events[0]->result.steps + events[1]->result.steps); /* so they rode together */
	assert_true(small + large <= taken && taken - small - large <= 2 * n_steps);
	assert_true(large > 2 * small);
	sk_event_destroy(events[0]);
	sk_event_destroy(events[1]);
	memset(&a, 0, sizeof a);
	disconnect_client(&client);
}

/* As status --profile asks. */
static void test_a_while_of_every_step(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	struct sk_request *watch = sk_request_create(SK_REQUEST_STATS);
	watch->sees_all = true;
	watch->profile_ns = UINT64_C(3600000000000);
	sk_engine_submit(engine, watch);
	struct sk_event *event = next_event();
	struct sk_stats before = event->stats;
	sk_event_destroy(event);
	event = run(&client, ask_long(&client, 1, false), &a);
	struct sk_stats after = stats();
	assert_int_equal(after.n_profiled_steps - before.n_profiled_steps, event->result.steps);
	assert_int_equal(event->result.attention_ns, 0);
	assert_true(attention_of(&after) > attention_of(&before));
	sk_event_destroy(event);
	disconnect_client(&client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_is_timed_unasked),
		cmocka_unit_test(test_alone_it_is_all_of_attention),
		cmocka_unit_test(test_each_has_its_share),
		cmocka_unit_test(test_a_while_of_every_step),
	};
	return sk_test_run(tests, open_engine, close_engine);
}
