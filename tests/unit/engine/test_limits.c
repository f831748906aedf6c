/* What the administrator says of users: weights that act on real steps, and each limit. */
#define ENGINE_KV_BYTES (10 << 20)
#define ENGINE_STALL_NS 0 /* streams that nobody reads keep their pages until they are cancelled */
#include "engine_test.h"
#include "kv/pages.h"

enum {
	ANNA = 1000,
	BERT = 1001,
	CARL = 1002
}; /* Anna is limited, Bert is heavy, Carl has no section */

#define RATE 100

static struct sk_user_limits named[2];
static struct answer a;
static uint32_t n_full; /* pages of a session that has filled its window */
static uint32_t n_all;  /* that sessions may have together */

/* Opens it twice: limits are told in bytes, and a page's are known to an engine alone. */
static int open_limited(void **state)
{
	if (open_engine(state) < 0)
		return -1;
	const uint64_t page_bytes = sk_engine_kv_token_bytes(engine) * SK_PAGE_TOKENS;
	n_full = sk_pages_needed(4, 104);
	n_all = (uint32_t)(ENGINE_KV_BYTES / page_bytes) - (64 / SK_PAGE_TOKENS + 8);
	named[0] = (struct sk_user_limits){.uid = ANNA,
					   .weight = 1,
					   .max_sessions = 2,
					   .max_queued = 4,
					   .kv_bytes = (n_full + 7) * page_bytes};
	named[1] = (struct sk_user_limits){.uid = BERT, .weight = 3};
	close_engine(state);
	engine_limits.named = named;
	engine_limits.n_named = 2;
	int err = open_engine(state);
	named[1].weight = 500; /* it has a copy */
	return err;
}

static struct sk_request *ask_as(const struct client *client, uint32_t id, uid_t uid, uint64_t n)
{
	struct sk_request *request = ask(client, id, "It was a dark night", n);
	request->uid = uid;
	return request;
}

static struct sk_request *ask_on(const struct client *client, uint32_t id, uid_t uid,
				 const char *session)
{
	struct sk_request *request = ask_as(client, id, uid, 3);
	strcpy(request->session, session);
	return request;
}

/* With a window that comes to need so many. */
static struct sk_request *with_pages(struct sk_request *request, uint32_t n_pages)
{
	request->policy = (struct sk_policy_change){
		.has_window = true, .to = {.window = (n_pages - 3) * SK_PAGE_TOKENS}};
	assert_int_equal(sk_pages_needed(4, 4 + request->policy.to.window), n_pages);
	return request;
}

static void wait_for(uint32_t n_running, uint32_t n_queued)
{
	for (;;) {
		struct sk_stats s = stats();
		if (s.n_running == n_running && s.n_queued == n_queued)
			return;
	}
}

static void assert_ended(struct sk_event *event, uint32_t id, enum sk_stop_reason stop, int error,
			 const char *reason)
{
	assert_int_equal(event->kind, SK_EVENT_FINISHED);
	assert_int_equal(event->request, id);
	assert_int_equal(event->result.stop, stop);
	assert_int_equal(event->error, error);
	if (!strstr(event->reason, reason))
		fail_msg("'%s' says not '%s'", event->reason, reason);
	sk_event_destroy(event);
}

/* --- Weights --- */

static const char *words(char *text, int n)
{
	for (int i = 0; i < n; i++)
		memcpy(text + 5 * i, "word ", 6);
	return text;
}

static struct sk_request *ask_long(const struct client *client, uint32_t id, uid_t uid,
				   const char *prompt)
{
	struct sk_request *request = ask(client, id, prompt, 1);
	request->uid = uid;
	request->trace = true;
	return request;
}

/* Tokens of a stream's steps, up to the first that had not `most` (0: all). */
static uint64_t tokens_told(struct client *client, uint32_t most)
{
	struct sk_slot slot;
	struct sk_slot_step step;
	uint64_t n = 0;
	bool is_over = false;

	while (sk_ring_reader_next(client->reader, &slot) == 1) {
		if (!(slot.flags & SK_SLOT_STEP))
			continue;
		memcpy(&step, slot.text, sizeof step);
		is_over |= most && step.n_tokens != most;
		n += is_over ? 0 : step.n_tokens;
	}
	return n;
}

/* Two prompts that begin in the same step, and last: while both run, a step of 64 tokens is two pieces of 32. Of these
 * the heavy one gets three for one of the other, which has no full step until it is alone. */
static void test_prompts_share_by_weight(void **state)
{
	(void)state;
	static char text[2][40000];
	struct client filler, light, heavy;
	connect_client(&filler, 256);
	connect_client(&light, 1024);
	connect_client(&heavy, 1024);
	struct sk_request *request = ask_as(&filler, 1, CARL, UINT64_MAX);
	request = with_pages(request, n_all); /* so that both wait for the same moment */
	sk_engine_submit(engine, request);
	wait_for(1, 0);
	sk_engine_submit(engine, ask_long(&light, 1, CARL + 1, words(text[0], 4000)));
	sk_engine_submit(engine, ask_long(&heavy, 1, BERT, words(text[1], 6000)));
	wait_for(1, 2);
	disconnect_client(&filler);
	assert_ended(next_event(), 1, SK_STOP_LIMIT, 0, "");
	assert_ended(next_event(), 1, SK_STOP_LIMIT, 0, "");
	uint64_t n_heavy = tokens_told(&heavy, 0), n_light = tokens_told(&light, 32);
	assert_true(n_heavy > 5000);
	assert_in_range(n_heavy * 100 / n_light, 285, 315);
	disconnect_client(&light);
	disconnect_client(&heavy);
	assert_idle();
}

/* --- Pages --- */

static struct sk_event *any_event(void)
{
	struct sk_event *event;
	while (!(event = sk_engine_next_event(engine))) {
		struct pollfd fd = {.fd = sk_engine_event_fd(engine), .events = POLLIN};
		assert_int_equal(poll(&fd, 1, 600000), 1);
	}
	return event;
}

/* Waits until the request is told that place. */
static void wait_for_place(uint32_t id, uint32_t place)
{
	for (bool is_told = false; !is_told;) {
		struct sk_event *event = any_event();
		assert_int_equal(event->kind, SK_EVENT_PROGRESS);
		is_told = event->request == id && event->progress.queue_place == place;
		sk_event_destroy(event);
	}
}

/* One whose own limit holds it has no claim to the few pages that the pool has left: nobody waits behind it. */
static void test_ones_own_limit_comes_first(void **state)
{
	(void)state;
	struct client first, second, filler, other;
	connect_client(&first, 256);
	connect_client(&second, 1024);
	connect_client(&filler, 256);
	connect_client(&other, 1024);
	sk_engine_submit(engine, ask_as(&first, 1, ANNA, UINT64_MAX));
	sk_engine_submit(engine,
			 with_pages(ask_as(&filler, 2, BERT, UINT64_MAX), n_all - n_full - 4));
	wait_for(2, 0);
	sk_engine_submit(engine, with_pages(ask_as(&second, 3, ANNA, UINT64_MAX), n_full + 2));
	wait_for_place(3, 1);
	assert_ended(run(&other, ask_as(&other, 4, CARL, 20), &a), 4, SK_STOP_LIMIT, 0, "");
	assert_int_equal(stats().n_queued, 1);
	disconnect_client(&second);
	disconnect_client(&first);
	disconnect_client(&filler);
	disconnect_client(&other);
	assert_idle();
}

/* --- Sessions --- */

static void test_sessions(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	assert_ended(run(&client, ask_on(&client, 1, ANNA, "one"), &a), 1, SK_STOP_LIMIT, 0, "");
	assert_ended(run(&client, ask_on(&client, 2, ANNA, "two"), &a), 2, SK_STOP_LIMIT, 0, "");
	assert_ended(run(&client, ask_on(&client, 3, ANNA, "three"), &a), 3, SK_STOP_REFUSED,
		     -EDQUOT, "limit of 2 named sessions");
	/* What is there goes on; a request's own session is no named one; and others are others. */
	assert_ended(run(&client, ask_on(&client, 4, ANNA, "two"), &a), 4, SK_STOP_LIMIT, 0, "");
	assert_ended(run(&client, ask_as(&client, 5, ANNA, 3), &a), 5, SK_STOP_LIMIT, 0, "");
	assert_ended(run(&client, ask_on(&client, 6, CARL, "three"), &a), 6, SK_STOP_LIMIT, 0, "");
	assert_int_equal(stats().n_sessions, 3);
	disconnect_client(&client);
}

/* After test_sessions: Anna has two idle sessions of a page or two. */
static void test_pages(void **state)
{
	(void)state;
	struct client first, second, other;
	connect_client(&first, 256);
	connect_client(&second, 1024);
	connect_client(&other, 4096);

	/* What can never fit, or not beside one's idle sessions, is refused. */
	assert_ended(run(&second, with_pages(ask_as(&second, 1, ANNA, UINT64_MAX), n_full + 8), &a),
		     1, SK_STOP_REFUSED, -EDQUOT, "that you may have");
	assert_ended(run(&second, with_pages(ask_as(&second, 2, ANNA, UINT64_MAX), n_full + 7), &a),
		     2, SK_STOP_REFUSED, -EDQUOT, "idle sessions of yours hold");

	/* What fits once the user's own stream ends waits, and nobody waits behind it. */
	sk_engine_submit(engine, ask_as(&first, 3, ANNA, UINT64_MAX));
	wait_for(1, 0);
	sk_engine_submit(engine, ask_as(&second, 4, ANNA, 300));
	wait_for_place(4, 1);
	assert_ended(run(&other, ask_as(&other, 5, CARL, 20), &a), 5, SK_STOP_LIMIT, 0, "");
	assert_int_equal(stats().n_queued, 1);

	/* But a smaller one of the same user does; one too many is refused, and one for which there is no hope. */
	for (uint32_t i = 0; i < 3; i++) {
		sk_engine_submit(engine, ask_as(&second, 20 + i, ANNA, 1));
		wait_for_place(20 + i, 2 + i);
	}
	assert_ended(run(&second, ask_as(&second, 7, ANNA, 1), &a), 7, SK_STOP_REFUSED, -ENOSPC,
		     "limit of 4 waiting requests");

	assert_ended(
		run(&second, with_pages(ask_as(&second, 10, ANNA, UINT64_MAX), n_full + 7), &a), 10,
		SK_STOP_REFUSED, -EDQUOT, "idle sessions of yours hold");
	/* They fill the queue; but for the others there is none. */
	assert_ended(run(&other, ask_as(&other, 11, CARL, 20), &a), 11, SK_STOP_LIMIT, 0, "");
	assert_int_equal(stats().n_queued, 4);

	/* Who waits for the pool comes before them. */
	sk_engine_cancel(engine, second.connection, 22);
	assert_ended(next_event(), 22, SK_STOP_CANCELLED, 0, "");
	sk_engine_submit(engine, with_pages(ask_as(&other, 8, CARL, 2000), n_all - n_full));
	wait_for_place(4, 2);
	assert_int_equal(stats().n_queued, 4);

	disconnect_client(&first);
	for (uint32_t n_ended = 0; n_ended < 4; n_ended++) {
		struct sk_event *event = next_event();
		assert_int_equal(event->kind, SK_EVENT_FINISHED);
		assert_int_equal(event->result.stop, SK_STOP_LIMIT);
		sk_event_destroy(event);
	}
	disconnect_client(&second);
	disconnect_client(&other);
	struct sk_stats s = stats();
	assert_int_equal(s.n_running + s.n_queued, 0);
	assert_int_equal(s.n_sessions, 3);
}

/* --- Tokens a second --- */

static int open_slow(void **state)
{
	engine_limits.others = (struct sk_user_limits){.weight = 1, .tokens_per_second = RATE};
	return open_engine(state);
}

/* Tokens that may have run since then. */
static uint64_t most_since(uint64_t begun_ns)
{
	return RATE + (sk_clock_ns() - begun_ns) * RATE / 1000000000 + 1;
}

static void test_tokens_per_second(void **state)
{
	(void)state;
	static char text[1000];
	struct client slow, reader, fast;
	uint64_t begun_ns = sk_clock_ns();
	connect_client(&slow, 4096);
	connect_client(&reader, 1024);
	connect_client(&fast, 1024);
	struct answer *answer = calloc(1, sizeof *answer);
	sk_engine_submit(engine, ask_as(&slow, 1, CARL, UINT64_MAX));
	wait_for_tokens(&slow, answer, 10);
	/* Others go on as if it were not there. */
	for (uint32_t i = 0; i < 3; i++)
		assert_ended(run(&fast, ask_as(&fast, 2 + i, BERT, 300), &a), 2 + i, SK_STOP_LIMIT,
			     0, "");
	drain(&slow, answer);
	assert_true(answer->n_ids <= most_since(begun_ns));

	/* A prompt counts, beside it. It wakes by itself: nobody else runs. */
	struct sk_request *request = ask(&reader, 9, words(text, 150), 1);
	request->uid = CARL;
	struct sk_event *event = run(&reader, request, &a);
	uint64_t n_prompt = event->result.prompt_tokens;
	assert_ended(event, 9, SK_STOP_LIMIT, 0, "");
	assert_true(n_prompt >= 150);
	drain(&slow, answer);
	assert_true(n_prompt + answer->n_ids <= most_since(begun_ns));
	/* Nor does the stream stand still meanwhile. */
	wait_for_tokens(&slow, answer, answer->n_ids + 10);
	free(answer);
	disconnect_client(&slow);
	disconnect_client(&reader);
	disconnect_client(&fast);
	assert_idle();
}

/* A text to score runs no tokens ahead of its reader: its named session is charged for none that would be kept. */
static void test_pages_of_a_text_to_score(void **state)
{
	(void)state;
	static char text[5 * 400 + 2];
	struct client one, two;
	struct sk_stats s;

	connect_client(&one, SK_RING_LEAST_SLOTS);
	connect_client(&two, 1024);
	struct sk_request *request = ask_on(&one, 1, ANNA, "scored");
	request->kind = SK_REQUEST_EVALUATE;
	request->input = words(text, 400);
	request->n_input_bytes = strlen(text);
	request->max_tokens = UINT64_MAX;
	sk_engine_submit(engine, request);
	while (stats().n_paused == 0) {
	}
	request = with_pages(ask_as(&two, 2, ANNA, UINT64_MAX), 7);
	request->ignore_eos = true;
	sk_engine_submit(engine, request);
	do {
		s = stats();
	} while (s.n_running + s.n_queued < 2);
	assert_int_equal(s.n_queued, 0);
	disconnect_client(&two);
	disconnect_client(&one);
	delete_session("scored", ANNA);
	assert_idle();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prompts_share_by_weight),
		cmocka_unit_test(test_pages_of_a_text_to_score),
		cmocka_unit_test(test_ones_own_limit_comes_first),
		cmocka_unit_test(test_sessions),
		cmocka_unit_test(test_pages),
	};
	const struct CMUnitTest slow[] = {
		cmocka_unit_test(test_tokens_per_second),
	};
	int failed = sk_test_run(tests, open_limited, close_engine);
	return sk_test_run(slow, open_slow, close_engine) || failed;
}
