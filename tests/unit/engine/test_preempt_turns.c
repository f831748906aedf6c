/* Streams without end that take turns, in sequences that once starved one of them: whoever is to come back does, however
 * the turns of others lie, whatever limits they have, and whatever the store does.
 */
#include <stddef.h>
static unsigned long stall_ns;
#define ENGINE_STALL_NS stall_ns
#include "streams.h"

#include "engine/state.h"

#include <sys/syscall.h>

#define N_PAGES      6   /* of a session by the policy */
#define LARGE_WINDOW 280 /* of one that takes 11 */
#define N_BORROWED   10  /* by a step */

static size_t n_ids[MOST_STREAMS]; /* that the stream has given */
static useconds_t read_takes_us, write_takes_us;

/* A slow disk. */
ssize_t pread(int fd, void *bytes, size_t n, off_t at)
{
	if (read_takes_us)
		usleep(read_takes_us);
	return syscall(SYS_pread64, fd, bytes, n, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	if (write_takes_us)
		usleep(write_takes_us);
	return syscall(SYS_pwrite64, fd, bytes, n, at);
}

static double now_s(void)
{
	return (double)sk_clock_ns() * 1e-9;
}

static size_t page_bytes(void)
{
	static size_t n;
	engine_kv_bytes = 64 << 20;
	if (!n) {
		assert_int_equal(open_engine(NULL), 0);
		n = sk_backend_page_bytes(engine->backend);
		close_engine(NULL);
	}
	return n;
}

/* A pool of n_pages; whoever waits has others' pages after a quarter of timeout_s. */
static void open_pool(uint32_t n_pages, double timeout_s, uint32_t user_pages)
{
	stall_ns = 20000000000;
	engine_limits = (struct sk_limits_table){0};
	engine_store = NULL;
	const size_t bytes = page_bytes();
	open_store();
	engine_kv_bytes = (n_pages + N_BORROWED) * bytes;
	engine_queue_timeout_ns = (uint64_t)(timeout_s * 1e9);
	engine_limits.others =
		(struct sk_user_limits){.tokens_per_second = 300, .kv_bytes = user_pages * bytes};
	assert_int_equal(open_engine(NULL), 0);
	assert_int_equal(engine->n_session_pages, n_pages);
}

static void begin(unsigned i, uid_t uid, uint32_t window)
{
	struct sk_request *request = stream_of(i, uid, prompts[i % 3], UINT64_MAX);
	n_ids[i] = 0;
	request->policy.has_window = window;
	request->policy.to.window = window;
	sk_engine_submit(engine, request);
}

static void read_for(double s)
{
	for (const double end_s = now_s() + s; now_s() < end_s;) {
		read_all();
		for (unsigned i = 0; i < MOST_STREAMS; i++) {
			n_ids[i] += streams[i].answer.n_ids;
			streams[i].answer.n_ids = streams[i].answer.n_text = 0;
		}
	}
}

/* Until it has n more tokens, which it must have within s. */
static void assert_more(unsigned i, size_t n, double s)
{
	const size_t wanted = n_ids[i] + n;
	for (const double end_s = now_s() + s; n_ids[i] < wanted;) {
		if (now_s() > end_s || streams[i].is_finished)
			fail_msg("stream %u has %zu tokens, not %zu, after %.0f s%s", i, n_ids[i],
				 wanted, s, streams[i].is_finished ? ": it was ended" : "");
		read_for(0.01);
	}
}

static void close_pool(void)
{
	for (unsigned i = 0; i < MOST_STREAMS; i++)
		end(i);
	struct sk_stats left = stats();
	for (const double end_s = now_s() + 60; left.n_sessions && now_s() < end_s; left = stats())
		usleep(10000); /* one is on its way yet */
	assert_int_equal(left.n_sessions, 0);
	assert_int_equal(left.n_pages_used, 0);
	assert_int_equal(left.n_running, 0);
	assert_int_equal(left.n_queued, 0);
	close_stored_engine(NULL);
}

#define LONG_S 60 /* for what takes a few seconds on an idle machine */

/* Three small ones of one user share room for two in turns; another user's needs the room of both. It begins, and comes
 * back after it has given way; and so do they. */
static void test_a_large_one_behind_a_rotation(void **state)
{
	(void)state;
	open_pool(2 * N_PAGES, 6, 0);
	for (unsigned i = 0; i < 3; i++) {
		begin(i, 1000, 0);
		read_for(0.3);
	}
	read_for(1.5);
	begin(3, 1001, LARGE_WINDOW);
	for (int k = 0; k < 3; k++) {
		const uint32_t n_told = streams[3].n_told;
		assert_more(3, 50, LONG_S);
		for (unsigned i = 0; i < 3; i++)
			assert_more(i, 20, LONG_S);
		assert_true(streams[3].n_told > n_told);
	}
	close_pool();
}

/* A user whose own limit is two sessions: one of his gave way to another user's, and a third of his own does not take its
 * place for ever. */
static void test_within_a_limit_of_ones_own(void **state)
{
	(void)state;
	open_pool(3 * N_PAGES, 4, 2 * N_PAGES);
	begin(0, 1000, 0);
	begin(1, 1000, 0);
	assert_more(0, 20, LONG_S);
	assert_more(1, 20, LONG_S);
	begin(2, 1001, 0);
	begin(3, 1001, 0);
	for (double end_s = now_s() + LONG_S; !streams[0].n_told && !streams[1].n_told;) {
		assert_true(now_s() < end_s);
		read_for(0.01);
	}
	begin(4, 1000, 0);
	read_for(0.5);
	end(2);
	end(3);
	assert_more(0, 100, LONG_S);
	assert_more(1, 100, LONG_S);
	assert_int_equal(n_ids[4], 0);
	close_pool();
}

/* The store fails, once: when it works again, so do turns. */
static void test_the_store_fails_once(void **state)
{
	(void)state;
	open_pool(2 * N_PAGES, 3, 0);
	for (unsigned i = 0; i < 3; i++)
		begin(i, 1000 + i / 2, 0);
	for (unsigned i = 0; i < 3; i++)
		assert_more(i, 10, LONG_S);
	const int dir_fd = engine_store->dir_fd;
	engine_store->dir_fd = -1;
	read_for(1.5);
	engine_store->dir_fd = dir_fd;
	read_for(0.1);
	for (int k = 0; k < 2; k++)
		for (unsigned i = 0; i < 3; i++)
			assert_more(i, 10, LONG_S);
	close_pool();
}

/* To come in takes longer than a turn: a turn begins when one is there. */
static void test_a_slow_store(void **state)
{
	(void)state;
	open_pool(N_PAGES, 2, 0);
	begin(0, 1000, 0);
	begin(1, 1001, 0);
	assert_more(0, 150, LONG_S);
	assert_more(1, 150, LONG_S);
	read_takes_us = 150000;
	for (int k = 0; k < 2; k++) {
		assert_more(0, 60, LONG_S);
		assert_more(1, 60, LONG_S);
	}
	read_takes_us = 0;
	close_pool();
}

/* One whose reader does not read has no use for pages, cancelled or not: the other keeps its. */
static void test_a_reader_that_does_not_read(void **state)
{
	(void)state;
	open_pool(N_PAGES, 2, 0);
	begin(0, 1000, 0);
	streams[0].is_deaf = true;
	for (double end_s = now_s() + LONG_S; !stats().n_paused;
	     read_for(0.05)) /* its ring is full */
		assert_true(now_s() < end_s);
	begin(1, 1001, 0);
	assert_more(1, 20, LONG_S);
	assert_more(1, 600, LONG_S);
	assert_int_equal(streams[1].n_told, 0);
	assert_int_equal(sk_engine_cancel(engine, streams[0].client.connection, 1), 0);
	assert_more(1, 600, LONG_S);
	assert_int_equal(streams[1].n_told, 0);
	streams[0].is_deaf = false;
	for (double end_s = now_s() + LONG_S; !streams[0].is_finished;) {
		assert_true(now_s() < end_s);
		read_for(0.01);
	}
	close_pool();
}

/* A chat whose next request comes as soon as the last is through has its turn as a stream has: another user's begins. */
static void test_a_chat_that_goes_on_at_once(void **state)
{
	(void)state;
	open_pool(N_PAGES, 6, 0);
	begin_named(0, 1000, "chat", prompts[0], 100);
	read_for(0.3);
	begin(1, 1001, 0);
	write_takes_us = 100000;
	for (const double end_s = now_s() + LONG_S; n_ids[1] < 20 && now_s() < end_s;) {
		if (streams[0].is_finished) {
			end(0);
			begin_named(0, 1000, "chat", prompts[0], 100);
		}
		read_for(0.001);
		if (streams[1].is_finished)
			fail_msg("%s", streams[1].reason);
	}
	write_takes_us = 0;
	assert_true(n_ids[1] >= 20);
	end(0);
	delete_session("chat", 1000);
	close_pool();
}

/* Of five that have room for four, one goes out a turn, not all. */
static void test_one_moves_a_turn(void **state)
{
	uint32_t n = 0;
	(void)state;
	open_pool(4 * N_PAGES, 4, 0);
	for (unsigned i = 0; i < 5; i++) {
		begin(i, 1000, 0);
		read_for(0.02);
	}
	read_for(2.5);
	for (unsigned i = 0; i < 5; i++)
		n -= streams[i].n_told;
	read_for(8);
	for (unsigned i = 0; i < 5; i++)
		n += streams[i].n_told;
	assert_in_range(n, 1, 9); /* eight turns */
	close_pool();
}

/* No more are out than may wait. */
static void test_not_without_bound(void **state)
{
	unsigned n_refused = 0;
	(void)state;
	open_pool(N_PAGES, 1.2, 0);
	for (unsigned i = 0; i < 9; i++) {
		begin(i, 1000, 0);
		read_for(0.6);
	}
	assert_true(stats().n_queued <= 4); /* queue_most */
	for (unsigned i = 0; i < 9; i++)
		n_refused += streams[i].is_finished;
	assert_true(n_refused >= 4);
	close_pool();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_large_one_behind_a_rotation),
		cmocka_unit_test(test_within_a_limit_of_ones_own),
		cmocka_unit_test(test_the_store_fails_once),
		cmocka_unit_test(test_a_slow_store),
		cmocka_unit_test(test_a_reader_that_does_not_read),
		cmocka_unit_test(test_a_chat_that_goes_on_at_once),
		cmocka_unit_test(test_one_moves_a_turn),
		cmocka_unit_test(test_not_without_bound),
	};
	return sk_test_run(tests, NULL, NULL);
}
