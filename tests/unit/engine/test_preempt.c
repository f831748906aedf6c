/* Streams that give way: to others, in turn, by the store and back, and nobody's text changes. */
#define ENGINE_KV_BYTES (11 << 20) /* two sessions of the policy, and what a step borrows */
#define ENGINE_STALL_NS UINT64_C(20000000000)
#include "streams.h"

#include <dirent.h>

#define N_STREAMS 6

/* Slow users, so that a stream lasts longer than its turn, which is a quarter of the time in the queue. */
static int open_all(void **state)
{
	engine_queue_timeout_ns = UINT64_C(1200000000);
	engine_limits.others.tokens_per_second = 400;
	return open_stored_engine(state);
}

static unsigned n_files(void)
{
	unsigned n = 0;
	DIR *dir = fdopendir(dup(engine_store->dir_fd));
	assert_non_null(dir);
	rewinddir(dir);
	for (struct dirent *entry; (entry = readdir(dir));)
		n += entry->d_name[0] != '.' || strlen(entry->d_name) > 2;
	closedir(dir);
	return n;
}

static void assert_same(unsigned i, const struct answer *alone)
{
	assert_int_equal(streams[i].answer.n_ids, alone->n_ids);
	assert_memory_equal(streams[i].answer.ids, alone->ids, alone->n_ids * sizeof *alone->ids);
}

static void test_many_share_a_pool_of_two_in_turn(void **state)
{
	(void)state;
	static struct answer alone[3];
	for (unsigned p = 0; p < 3; p++) {
		begin_named(0, 2000 + p, "", prompts[p], 500);
		finish_stream(0);
		assert_told(0, 500);
		assert_int_equal(streams[0].n_told, 0);
		alone[p] = streams[0].answer;
		end(0);
	}
	/* Of three users; half of them named. */
	for (unsigned i = 0; i < N_STREAMS; i++)
		begin_named(i, 1000 + i / 2, i % 2 ? "story" : "", prompts[i / 2], 500);
	unsigned n_told = 0;
	for (unsigned i = 0; i < N_STREAMS; i++) {
		finish_stream(i);
		assert_told(i, 500);
		assert_same(i, &alone[i / 2]);
		n_told += streams[i].n_told;
	}
	assert_true(n_told > N_STREAMS);
	assert_int_equal(stats().n_queued, 0);
	for (unsigned i = 0; i < N_STREAMS; i++)
		end(i);
	assert_int_equal(stats().n_sessions, 3); /* the named ones, idle */
}

/* Named, "name", told by prompts[0] until it was left: goes on as if it had never been elsewhere. */
static void assert_goes_on(const char *name, const struct answer *told)
{
	static struct answer whole;
	whole = *told;
	begin_named(0, 1000, name, "", 100);
	finish_stream(0);
	assert_told(0, 100);
	memcpy(whole.ids + whole.n_ids, streams[0].answer.ids, 100 * sizeof *whole.ids);
	whole.n_ids += 100;
	end(0);
	begin_named(0, 1003, "", prompts[0], whole.n_ids);
	finish_stream(0);
	assert_same(0, &whole);
	end(0);
}

/* Streams 0 and 1 hold all and give way to 2, which lasts; until both of them have been out. */
static void push_out(const char *name)
{
	begin_named(0, 1000, name, prompts[0], UINT64_MAX);
	begin_named(1, 1000, "", prompts[1], UINT64_MAX);
	while (streams[0].answer.n_ids < 10 || streams[1].answer.n_ids < 10)
		read_all();
	begin_named(2, 1001, "", prompts[2], UINT64_MAX);
	begin_named(3, 1002, "", prompts[2], UINT64_MAX);
	while (streams[0].n_told < 1 || streams[1].n_told < 1)
		read_all();
}

static void test_one_that_is_out_can_be_cancelled(void **state)
{
	(void)state;
	static struct answer whole;
	push_out("cut");
	sk_engine_cancel(engine, streams[0].client.connection, 1);
	sk_engine_cancel(engine, streams[1].client.connection, 1);
	finish_stream(0);
	finish_stream(1);
	assert_int_equal(streams[0].result.stop, SK_STOP_CANCELLED);
	assert_int_equal(streams[1].result.stop, SK_STOP_CANCELLED);
	whole = streams[0].answer;
	for (unsigned i = 0; i < 4; i++)
		end(i);

	assert_goes_on("cut", &whole);
}

/* A client that is gone leaves its session at the last token that it was given. */
static void test_one_that_is_out_can_be_left(void **state)
{
	(void)state;
	static struct answer whole;
	push_out("left");
	const size_t n_read = streams[0].answer.n_ids;
	whole = streams[0].answer;
	assert_true(n_read >= 10);
	for (unsigned i = 0; i < 4; i++)
		end(i);
	assert_goes_on("left", &whole);
}

/* Its session keeps what its reader may want back: so it waits until that has read. */
static void test_one_gives_way_only_where_its_reader_is(void **state)
{
	(void)state;
	static struct answer told;
	begin_named(0, 1000, "deaf", prompts[0], UINT64_MAX);
	begin_named(1, 1000, "deaf2", prompts[1], UINT64_MAX);
	while (streams[0].answer.n_ids < 150 || streams[1].answer.n_ids < 150)
		read_all();
	begin_named(2, 1001, "", prompts[2], 50);
	streams[0].is_deaf = true;
	while (!streams[2].is_finished) /* from the other, which reads */
		read_all();
	assert_told(2, 50);
	assert_int_equal(streams[0].n_told, 0);
	told = streams[0].answer;
	for (unsigned i = 0; i < 3; i++)
		end(i);
	assert_goes_on("deaf", &told);
}

/* Where the store fails they run on, and who waits is told so in time. */
static void test_without_a_place_to_go_they_run_on(void **state)
{
	(void)state;
	begin_named(0, 1000, "", prompts[0], UINT64_MAX);
	begin_named(1, 1000, "stuck", prompts[1], UINT64_MAX);
	while (streams[0].answer.n_ids < 10 || streams[1].answer.n_ids < 10)
		read_all();
	const int dir_fd = engine_store->dir_fd;
	engine_store->dir_fd = -1;
	begin_named(2, 1001, "", prompts[2], 50);
	finish_stream(2);
	engine_store->dir_fd = dir_fd;
	assert_int_equal(streams[2].result.stop, SK_STOP_REFUSED);
	const size_t n = streams[0].answer.n_ids;
	while (streams[0].answer.n_ids < n + 10)
		read_all();
	assert_false(streams[0].is_finished);
	assert_false(streams[1].is_finished);
	for (unsigned i = 0; i < 3; i++)
		end(i);
}

static void test_nothing_is_left(void **state)
{
	static const char *const names[][2] = {
		{"story", "1000"}, {"story", "1001"}, {"story", "1002"}, {"cut", "1000"},
		{"left", "1000"},  {"deaf", "1000"},  {"deaf2", "1000"}, {"stuck", "1000"}};
	(void)state;
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
		delete_session(names[i][0], (uid_t)atoi(names[i][1]));
	assert_idle();
	assert_int_equal(n_files(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_many_share_a_pool_of_two_in_turn),
		cmocka_unit_test(test_one_that_is_out_can_be_cancelled),
		cmocka_unit_test(test_one_that_is_out_can_be_left),
		cmocka_unit_test(test_one_gives_way_only_where_its_reader_is),
		cmocka_unit_test(test_without_a_place_to_go_they_run_on),
		cmocka_unit_test(test_nothing_is_left),
	};
	return sk_test_run(tests, open_all, close_stored_engine);
}
