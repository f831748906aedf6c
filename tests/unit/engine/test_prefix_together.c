/* Requests that come together, and begin alike: one of them evaluates that for all. */
#include "beginnings.h"

#include <stdatomic.h>

/* --- The device's side --- */

static atomic_int fails_at; /* that step from now on, and no other; 0: none */

int __real_sk_backend_begin_step(struct sk_backend *backend, const struct sk_batch *batch);
int __wrap_sk_backend_begin_step(struct sk_backend *backend, const struct sk_batch *batch);

int __wrap_sk_backend_begin_step(struct sk_backend *backend, const struct sk_batch *batch)
{
	const int n = atomic_load(&fails_at);
	if (n)
		atomic_store(&fails_at, n - 1);
	return n == 1 ? -ENOMEM : __real_sk_backend_begin_step(backend, batch);
}

/* --- Tests --- */

static void set_long_beginning(void)
{
	system_prompt[0] = '\0';
	for (int i = 0; i < 180; i++)
		strcat(system_prompt, i % 7 ? "word and " : "the sea ");
}

#define N_TOGETHER 3

/* So many requests at once, the first of which is cancelled after a while, if that is wanted. Returns how many tokens of
 * prompts were evaluated for all of them; 0: it was not cancelled in the middle of its prompt. */
static uint64_t n_evaluated_together(struct moment *cancel_at, struct answer *answers,
				     uint64_t *ret_n_prompt)
{
	static const char *const turns[N_TOGETHER] = {"The captain", "She was", "It rained"};
	struct client clients[N_TOGETHER];
	const uint64_t n_before = stats().n_prompt_tokens;
	bool is_caught = !cancel_at;

	for (uint32_t i = 0; i < N_TOGETHER; i++)
		connect_client(&clients[i], 1024);
	for (uint32_t i = 0; i < N_TOGETHER; i++)
		sk_engine_submit(engine, ask_as(&clients[i], i, turns[i], 1000, ""));
	if (cancel_at) {
		wait_for_moment(cancel_at);
		assert_int_equal(sk_engine_cancel(engine, clients[0].connection, 0), 0);
	}
	for (uint32_t n = 0; n < N_TOGETHER; n++) {
		struct sk_event *event = next_event();
		assert_int_equal(event->kind, SK_EVENT_FINISHED);
		if (event->connection == clients[0].connection && cancel_at)
			is_caught = was_at_moment(cancel_at, event);
		else
			assert_int_equal(event->result.stop, SK_STOP_LIMIT);
		*ret_n_prompt = event->result.prompt_tokens;
		sk_event_destroy(event);
	}
	for (uint32_t i = 0; i < N_TOGETHER; i++) {
		memset(&answers[i], 0, sizeof answers[i]);
		drain(&clients[i], &answers[i]);
	}
	const uint64_t n = stats().n_prompt_tokens - n_before;
	for (uint32_t i = 0; i < N_TOGETHER; i++)
		disconnect_client(&clients[i]);
	assert_idle();
	return is_caught ? n : 0;
}

/* Not even where nobody has it yet is it evaluated twice; and where the one that does goes in the middle, the next goes on
 * from there. */
static void test_those_that_come_together(void **state)
{
	(void)state;
	static struct answer alone[N_TOGETHER], told[N_TOGETHER];
	struct client client;
	uint64_t n, n_prompt;

	set_long_beginning();
	connect_client(&client, 1024);
	(void)say(&client, ask_as(&client, 0, "The captain", 1000, ""), &alone[0]);
	(void)say(&client, ask_as(&client, 1, "She was", 1000, ""), &alone[1]);
	(void)say(&client, ask_as(&client, 2, "It rained", 1000, ""), &alone[2]);
	disconnect_client(&client);

	const uint64_t n_own = 2 * SK_PAGE_TOKENS; /* of each, and what is no whole page */
	n = n_evaluated_together(NULL, told, &n_prompt);
	assert_in_range(n_prompt, 330, 400); /* many steps, and all in the window */
	assert_in_range(n, n_prompt, n_prompt + 2 * n_own);
	for (unsigned i = 0; i < N_TOGETHER; i++)
		assert_memory_equal(told[i].ids, alone[i].ids, 40 * sizeof *alone->ids);

	struct moment moment = {0};
	while (!(n = n_evaluated_together(&moment, told, &n_prompt)))
		;
	assert_in_range(n, n_prompt, n_prompt + 2 * n_own);
	for (unsigned i = 1; i < N_TOGETHER; i++)
		assert_memory_equal(told[i].ids, alone[i].ids, 40 * sizeof *alone->ids);
}

/* What a step that failed would have evaluated is taken over by nobody. */
static void test_the_first_is_lost(void **state)
{
	(void)state;
	static const char *const turns[] = {"The captain", "She was", "It rained"};
	static struct answer alone[3], told[3];
	struct client clients[3];

	set_long_beginning();
	connect_client(&clients[0], 1024);
	for (uint32_t i = 1; i < 3; i++)
		(void)say(&clients[0], ask_as(&clients[0], i, turns[i], 1000, ""), &alone[i]);
	disconnect_client(&clients[0]);

	for (uint32_t i = 0; i < 3; i++)
		connect_client(&clients[i], 1024);
	fails_at = 5;
	for (uint32_t i = 0; i < 3; i++)
		sk_engine_submit(engine, ask_as(&clients[i], i, turns[i], 1000, ""));
	for (uint32_t n = 0; n < 3; n++) {
		struct sk_event *event = next_event();
		assert_int_equal(event->kind, SK_EVENT_FINISHED);
		assert_int_equal(event->result.stop, event->connection == clients[0].connection
							     ? SK_STOP_ERROR
							     : SK_STOP_LIMIT);
		sk_event_destroy(event);
	}
	for (uint32_t i = 0; i < 3; i++) {
		memset(&told[i], 0, sizeof told[i]);
		drain(&clients[i], &told[i]);
		disconnect_client(&clients[i]);
	}
	for (uint32_t i = 1; i < 3; i++)
		assert_memory_equal(told[i].ids, alone[i].ids, 40 * sizeof *told[i].ids);
	assert_idle();
}

/* Of such that have more in common than their window holds: how many tokens more were evaluated than had to be. */
static uint64_t n_evaluated_again(void)
{
	static const char *const turns[] = {"The captain", "She was", "It rained"};
	const uint64_t n_before = stats().n_prompt_tokens,
		       n_shared = (4 + 100) / SK_PAGE_TOKENS * SK_PAGE_TOKENS;
	struct client clients[3];
	uint64_t n_prompts = 0;

	for (uint32_t i = 0; i < 3; i++)
		connect_client(&clients[i], 1024);
	for (uint32_t i = 0; i < 3; i++) {
		struct sk_request *request = ask_as(&clients[i], i, turns[i], 1000, "");
		request->policy.to.window = 100;
		sk_engine_submit(engine, request);
	}
	for (uint32_t n = 0; n < 3; n++) {
		struct sk_event *event = next_event();
		assert_int_equal(event->result.stop, SK_STOP_LIMIT);
		n_prompts += event->result.prompt_tokens;
		sk_event_destroy(event);
	}
	const uint64_t n = stats().n_prompt_tokens - n_before;
	for (uint32_t i = 0; i < 3; i++)
		disconnect_client(&clients[i]);
	assert_idle();
	return n - (n_prompts - 2 * n_shared);
}

/* The first does not drop what they have in common in the middle of a step, before the others have it. */
static void test_a_beginning_longer_than_the_window(void **state)
{
	(void)state;
	uint64_t n = UINT64_MAX;

	set_long_beginning();
	for (int i = 0; n && i < 20; i++) /* on a busy machine they may come one by one */
		n = n_evaluated_again();
	assert_int_equal(n, 0);
}

/* Where the first goes, nobody waits for one that has little in common with the others, or is slow on purpose. */
static bool is_another_the_next(struct moment *cancel_at, bool is_slow)
{
	static const char *const turns[] = {"The captain", "She was", "It rained", "And"};
	struct client clients[4];
	const uint64_t n_before = stats().n_prompt_tokens;
	uint64_t n_prompt = 0, n_first = 0;
	bool is_caught = false;

	for (uint32_t i = 0; i < 4; i++)
		connect_client(&clients[i], 1024);
	for (uint32_t i = 0; i < 4; i++) {
		struct sk_request *request = ask_as(&clients[i], i, turns[i], 1000, "");
		if (i == 1 && is_slow)
			request->chunk_tokens = 1;
		else if (i == 1)
			((char *)request->input)[200] = 'X';
		sk_engine_submit(engine, request);
	}
	wait_for_moment(cancel_at);
	assert_int_equal(sk_engine_cancel(engine, clients[0].connection, 0), 0);
	for (uint32_t n = 0; n < 4; n++) {
		struct sk_event *event = next_event();
		assert_int_equal(event->kind, SK_EVENT_FINISHED);
		if (event->connection == clients[0].connection) {
			is_caught = was_at_moment(cancel_at, event);
			n_first = event->result.evaluated_tokens;
		} else {
			assert_int_equal(event->result.stop, SK_STOP_LIMIT);
			n_prompt = event->result.prompt_tokens;
		}
		sk_event_destroy(event);
	}
	const uint64_t n = stats().n_prompt_tokens - n_before;
	for (uint32_t i = 0; i < 4; i++)
		disconnect_client(&clients[i]);
	assert_idle();
	/* The first what it had, the second all of its own, the third all, and the fourth its end. */
	if (is_caught)
		assert_in_range(n, is_slow ? 2 * (n_prompt - SK_PAGE_TOKENS) - n_first : 0,
				n_first + 2 * n_prompt + 2 * SK_PAGE_TOKENS);
	return is_caught;
}

static void test_who_is_next(void **state)
{
	(void)state;
	set_long_beginning();
	for (int is_slow = 0; is_slow < 2; is_slow++) {
		struct moment moment = {0};
		while (!is_another_the_next(&moment, is_slow))
			;
	}
}

/* Sinks that a session had before are another's beginning: nobody waits for what he would not take over. */
static void test_of_other_sinks(void **state)
{
	(void)state;
	struct client one, two;
	const char *begins = "word and word and word and word and word and word and word";
	char text[2300];

	set_long_beginning();
	snprintf(text, sizeof text, "%s %s", begins, system_prompt);
	connect_client(&one, 1024);
	connect_client(&two, 1024);
	struct sk_request *request = ask_as(&one, 1, "", 1000, "old");
	request->kind = SK_REQUEST_EVALUATE;
	request->input = begins;
	request->n_input_bytes = strlen(begins);
	request->max_tokens = UINT64_MAX;
	sk_engine_submit(engine, request);
	sk_event_destroy(next_event());

	for (int i = 0; i < 2; i++) {
		request = ask_as(i ? &two : &one, 1, "", 1000, i ? "" : "old");
		request->policy.has_sink = true;
		request->policy.to.sink = 8;
		request->input = i ? text : text + strlen(begins);
		request->n_input_bytes = strlen(request->input);
		sk_engine_submit(engine, request);
	}
	uint64_t queue_ns = 0, prefill_ns = 0;
	for (int i = 0; i < 2; i++) {
		struct sk_event *event = next_event();
		assert_int_equal(event->result.stop, SK_STOP_LIMIT);
		assert_int_equal(event->result.evaluated_tokens, event->result.prompt_tokens);
		if (event->connection == two.connection)
			queue_ns = event->result.queue_ns;
		else
			prefill_ns = event->result.prefill_ns;
		sk_event_destroy(event);
	}
	assert_true(queue_ns < prefill_ns);
	delete_session("old", 1000);
	disconnect_client(&one);
	disconnect_client(&two);
	assert_idle();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_those_that_come_together),
		cmocka_unit_test(test_the_first_is_lost),
		cmocka_unit_test(test_a_beginning_longer_than_the_window),
		cmocka_unit_test(test_who_is_next),
		cmocka_unit_test(test_of_other_sinks),
	};
	return sk_test_run(tests, open_engine, close_engine);
}
