/* Long prompts, texts to score, and streams whose readers take their time give way as well: nobody holds pages for as long as
 * he likes.
 */
#define ENGINE_KV_BYTES (11 << 20) /* two sessions of the policy, and what a step borrows */
#define ENGINE_STALL_NS UINT64_C(60000000000)
#include "streams.h"

#define N_WORDS 3000 /* eight seconds of a user's tokens, and more than twenty turns */

static char words[6 * N_WORDS];

/* Slow users, so that a prompt lasts longer than its turn, which is a quarter of the time in the queue. */
static int open_all(void **state)
{
	for (size_t i = 0; i < N_WORDS; i++)
		memcpy(words + 5 * i, " word", 6);
	engine_queue_timeout_ns = UINT64_C(1200000000);
	engine_limits.others.tokens_per_second = 400;
	return open_stored_engine(state);
}

/* What a session says next, of a user who has had nothing else, and that it is this. */
static void assert_says(uid_t uid, const char *session, const char *prompt,
			const struct answer *told)
{
	begin_named(5, uid, session, prompt, told->n_ids);
	finish_stream(5);
	assert_told(5, told->n_ids);
	assert_memory_equal(streams[5].answer.ids, told->ids, told->n_ids * sizeof *told->ids);
	end(5);
}

/* The sessions of that name that the first two streams had: others find the pool as they did. */
static void drop(const char *session)
{
	for (unsigned i = 0; i < 2; i++) {
		struct sk_request *request = sk_request_create(SK_REQUEST_SESSION);
		request->uid = 1000 + 2 * i;
		request->verb = SK_SESSION_DELETE;
		strcpy(request->session, session);
		sk_engine_submit(engine, request);
		sk_event_destroy(next_event());
	}
}

static void end_all(void)
{
	for (unsigned i = 0; i < MOST_STREAMS; i++)
		end(i);
}

/* Others come, and are served though these hold all pages but a few. Each asks for so many tokens that its user's pace, not
 * the machine's, says how long it takes: longer than a turn, or they could be through one after the other in those few.
 */
static void assert_gives_way(void)
{
	while (stats().n_running < 2)
		read_all();
	for (unsigned i = 2; i < 5; i++)
		begin_named(i, 1100 + i, "", prompts[2], 600);
	for (unsigned i = 2; i < 5; i++) {
		finish_stream(i);
		assert_told(i, 600);
	}
	assert_true(streams[0].n_told + streams[1].n_told > 0);
}

static void test_prompts_give_way(void **state)
{
	(void)state;
	begin_named(0, 1000, "", words, 30);
	begin_named(1, 1002, "read", words, 30);
	assert_gives_way();
	for (unsigned i = 0; i < 2; i++) {
		finish_stream(i);
		assert_told(i, 30);
		assert_int_equal(streams[i].result.evaluated_tokens,
				 streams[i].result.prompt_tokens);
		assert_says(2000 + i, "", words, &streams[i].answer);
	}
	static struct answer whole;
	whole = streams[1].answer;
	end_all();
	/* The named one goes on. */
	begin_named(0, 1002, "read", "", 30);
	finish_stream(0);
	memcpy(whole.ids + 30, streams[0].answer.ids, 30 * sizeof *whole.ids);
	whole.n_ids = 60;
	assert_says(2003, "", words, &whole);
	end_all();
	drop("read");
}

/* `are_deaf`: the rings are full when the others come, and are read when those are through. */
static void scores_give_way(bool are_deaf)
{
	static struct answer alone;
	begin_named(0, 2004, "", words, 20);
	finish_stream(0);
	alone = streams[0].answer;
	end_all();
	for (unsigned i = 0; i < 2; i++) {
		struct sk_request *request = stream_of(i, 1000 + 2 * i, words, UINT64_MAX);
		request->kind = SK_REQUEST_EVALUATE;
		strcpy(request->session, "scored");
		streams[i].is_deaf = are_deaf;
		sk_engine_submit(engine, request);
	}
	while (are_deaf && stats().n_paused < 2)
		read_all();
	assert_gives_way();
	streams[0].is_deaf = streams[1].is_deaf = false;
	for (unsigned i = 0; i < 2; i++) {
		finish_stream(i);
		assert_int_equal(streams[i].result.stop, SK_STOP_DONE);
		assert_int_equal(streams[i].answer.n_ids, streams[i].result.prompt_tokens);
		assert_says(1000 + 2 * i, "scored", "", &alone);
	}
	end_all();
	drop("scored");
}

static void test_texts_to_score_give_way(void **state)
{
	(void)state;
	scores_give_way(false);
	scores_give_way(true);
}

/* Returns where the session stands then. */
static uint64_t tell(uid_t uid, const char *session, const char *prompt, uint64_t n,
		     struct answer *ret_told)
{
	begin_named(5, uid, session, prompt, n);
	finish_stream(5);
	assert_told(5, n);
	*ret_told = streams[5].answer;
	const uint64_t position = streams[5].result.position;
	end(5);
	return position;
}

/* Then it stands behind what has been read of it, or where it was if none is gone of that. */
static void test_one_that_is_out_in_its_prompt_is_cancelled(void **state)
{
	(void)state;
	static struct answer told, alone;
	static char part[sizeof words + 8];
	uint64_t before = 0;
	unsigned n_out = 0;
	for (unsigned i = 0; i < 2; i++)
		before = tell(1000 + 2 * i, "cut", prompts[0], 5, &told);
	begin_named(0, 1000, "cut", words, 30);
	begin_named(1, 1002, "cut", words, 30);
	assert_gives_way();
	for (unsigned i = 6; i < 9; i++) /* who keep them out */
		begin_named(i, 1100 + i, "", prompts[2], 1000);
	bool is_late =
		false; /* on a slow machine the prompts may be through before one of them goes out */
	while (!streams[0].place && !streams[1].place && !is_late) {
		read_all();
		is_late = streams[0].is_finished || streams[1].is_finished ||
			  (streams[6].is_finished && streams[7].is_finished &&
			   streams[8].is_finished);
	}
	if (is_late) {
		print_message("none of them was out in time\n");
		end_all();
		drop("cut");
		return;
	}
	for (unsigned i = 0; i < 2; i++)
		sk_engine_cancel(engine, streams[i].client.connection, 1);
	for (unsigned i = 0; i < 2; i++) {
		finish_stream(i);
		assert_int_equal(streams[i].result.stop, SK_STOP_CANCELLED);
	}
	const uint64_t stands[] = {streams[0].result.position, streams[1].result.position};
	end_all();
	for (unsigned i = 0; i < 2; i++) { /* one word is one token */
		assert_in_range(stands[i], before, before + N_WORDS - 1);
		n_out += stands[i] > before;
		snprintf(part, sizeof part, "%.*s and the", (int)(5 * (stands[i] - before)), words);
		tell(1000 + 2 * i, "cut", " and the", 20, &told);
		assert_int_equal(tell(2005 + i, "same", prompts[0], 5, &alone), before);
		tell(2005 + i, "same", part, 20, &alone);
		assert_memory_equal(told.ids, alone.ids, 20 * sizeof *told.ids);
	}
	assert_true(n_out);
	drop("cut");
}

/* Its session goes on, exactly, whenever it reads. */
static void test_readers_that_take_their_time(void **state)
{
	(void)state;
	static struct answer told[2];
	for (unsigned i = 0; i < 2; i++)
		begin_named(i, 1000 + 2 * i, "slow", prompts[i], 800);
	while (!streams[0].is_deaf || !streams[1].is_deaf) {
		read_all();
		for (unsigned i = 0; i < 2; i++) /* their windows move on */
			streams[i].is_deaf = streams[i].answer.n_ids >= 150;
	}
	while (stats().n_paused < 2)
		read_all();
	for (unsigned i = 2; i < 5; i++)
		begin_named(i, 1100 + i, "", prompts[2], 200);
	for (unsigned i = 2; i < 5; i++) {
		finish_stream(i);
		assert_told(i, 200);
	}
	for (unsigned i = 0; i < 2; i++) {
		streams[i].is_deaf = false;
		finish_stream(i);
		assert_told(i, 800);
		told[i] = streams[i].answer;
	}
	end_all();
	for (unsigned i = 0; i < 2; i++)
		assert_says(2007 + i, "", prompts[i], &told[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prompts_give_way),
		cmocka_unit_test(test_texts_to_score_give_way),
		cmocka_unit_test(test_one_that_is_out_in_its_prompt_is_cancelled),
		cmocka_unit_test(test_readers_that_take_their_time),
	};
	return sk_test_run(tests, open_all, close_stored_engine);
}
