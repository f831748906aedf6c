/* A session as its ledger entry says it, and back; and an entry that says nonsense. */
#include "engine/record.h"
#include "tiny_backend.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define N_PAGES 32
#define N_VOCAB 512
#define ROOM    65536

static struct sk_backend *backend;
static struct sk_pool pool;
static uint64_t record_room[ROOM / 8];
static struct sk_record *const record = (struct sk_record *)record_room;

static int open_backend(void **state)
{
	(void)state;
	int err = open_tiny_backend(&backend);
	return err < 0 ? err : sk_pool_init(&pool, backend, N_PAGES);
}

static int close_backend(void **state)
{
	(void)state;
	sk_pool_finish(&pool);
	sk_backend_close(backend);
	return 0;
}

/* Of 150 tokens, of which it has dropped some, with a token drawn. */
static struct sk_session *session_of(uid_t uid, const char *name)
{
	const struct sk_policy policy = {SK_MODE_STREAMING, 4, 60, 8};
	struct sk_session *session = sk_session_create(&pool, uid, name, &policy);
	static const int32_t recent[] = {5, 6, 7, 8};
	uint32_t n_pages;
	assert_non_null(session);
	assert_int_equal(sk_session_reserve(session, 512, 200, &n_pages), 0);
	for (int32_t i = 0; i < 150; i++) {
		struct sk_row row;
		struct sk_span span;
		assert_int_equal(sk_session_advance(session, &i, 1, &row, NULL, &span), 0);
		sk_session_trim(session);
	}
	sk_session_settle(session);
	session->last_id = 17;
	session->has_ttl = true;
	session->ttl_ns = 1000;
	session->n_requests = 3;
	session->sampler.has_random = true;
	session->sampler.random[2] = 99;
	assert_int_equal(sk_sampler_memory_set(&session->sampler, recent, 4), 0);
	return session;
}

/* An answer of three tokens, two of which lie unread in a ring. */
static void break_off(struct sk_session *session, int cursor_fd)
{
	struct sk_broken *broken = calloc(1, sizeof *broken);
	static const int32_t recent[] = {8, 1, 2, 17};
	assert_non_null(broken);
	for (unsigned i = 0; i < 3; i++) {
		struct sk_mark mark = {.ring_end = 10 + i,
				       .window = session->window,
				       .last_id = i == 2 ? 17 : (int32_t)i + 1,
				       .random = {i + 1},
				       .n_drawn = i + 1};
		mark.window.next -= 2 - i;
		mark.text.n_held = (uint16_t)i;
		if (i)
			sk_marks_add(&broken->marks, &mark);
		else
			broken->marks.given = mark;
	}
	broken->is_prompt_done = true;
	broken->n_drawn = 3;
	broken->cursor = 77;
	broken->cursor_fd = cursor_fd;
	assert_int_equal(sk_sampler_memory_set(&broken->sampler, recent, 4), 0);
	session->broken = broken;
}

static struct sk_session *again(int cursor_fd)
{
	struct sk_session *session =
		sk_session_create(&pool, record->uid, record->name, &record->window.policy);
	assert_non_null(session);
	assert_int_equal(sk_record_apply(record, session, cursor_fd), 0);
	sk_pool_adopted(&pool);
	return session;
}

static void test_it_comes_back(void **state)
{
	(void)state;
	struct sk_session *session = session_of(1000, "notes");
	const uint32_t n_bytes = sk_record_of(session, NULL, record, ROOM);
	assert_true(n_bytes > 0);
	assert_int_equal(sk_record_of(session, NULL, record, n_bytes - 1), 0);
	assert_int_equal(sk_record_of(session, NULL, record, n_bytes), n_bytes);
	assert_true(sk_record_means_something(record, n_bytes, &pool, N_VOCAB));
	assert_false(sk_record_means_something(record, n_bytes, &pool, 17)); /* an id of no model */
	record->uid++; /* pages that another user has */
	assert_false(sk_record_means_something(record, n_bytes, &pool, N_VOCAB));
	record->uid--;
	pool.n_pages = 2; /* pages of no pool */
	assert_false(sk_record_means_something(record, n_bytes, &pool, N_VOCAB));
	pool.n_pages = N_PAGES;
	assert_false(sk_record_means_something(record, n_bytes - 4, &pool, N_VOCAB));

	struct sk_session *other = again(-1);
	assert_memory_equal(&other->window, &session->window, sizeof other->window);
	assert_int_equal(other->last_id, 17);
	assert_int_equal(other->ttl_ns, 1000);
	assert_int_equal(other->n_requests, 3);
	assert_int_equal(other->sampler.random[2], 99);
	assert_int_equal(other->sampler.n_recent, 4);
	assert_memory_equal(other->sampler.recent, session->sampler.recent, 16);
	uint32_t pages[2][N_PAGES];
	const uint32_t n = sk_pages_distinct(&session->pages);
	assert_int_equal(sk_pages_distinct(&other->pages), n);
	sk_pages_list(&session->pages, pages[0]);
	sk_pages_list(&other->pages, pages[1]);
	assert_memory_equal(pages[0], pages[1], n * sizeof **pages);
	sk_session_destroy(other);
	sk_session_destroy(session);
	assert_int_equal(pool.n_free, N_PAGES);
}

/* To what its client had read: `n_read` slots. */
static void mend(uint64_t n_read, int32_t last_id, uint64_t back, uint64_t n_given,
		 uint32_t n_recent)
{
	int fd = memfd_create("cursor", 0);
	assert_int_equal(write(fd, &n_read, sizeof n_read), sizeof n_read);
	struct sk_session *session = session_of(1000, "answers");
	const uint64_t next = session->window.next;
	break_off(session, -1);
	const uint32_t n_bytes = sk_record_of(session, NULL, record, ROOM);
	assert_true(sk_record_means_something(record, n_bytes, &pool, N_VOCAB));
	assert_int_equal(record->cursor, 77);
	sk_session_destroy(session);

	struct sk_session *other = again(fd);
	assert_non_null(other->broken);
	sk_session_mend(other);
	assert_null(other->broken);
	assert_int_equal(other->last_id, last_id);
	assert_int_equal(other->window.next, next - back);
	assert_true(other->has_open_text);
	assert_int_equal(other->open_text.n_held, n_given - 1);
	assert_int_equal(other->sampler.random[0], n_given);
	assert_int_equal(other->sampler.n_recent, n_recent);
	sk_session_mend(other); /* nothing more */
	assert_int_equal(other->last_id, last_id);
	sk_session_destroy(other);
	assert_int_equal(pool.n_free, N_PAGES);
}

static void test_it_goes_back_to_what_was_read(void **state)
{
	(void)state;
	mend(9, 1, 2, 1, 2);
	mend(10, 1, 2, 1, 2);
	mend(11, 2, 1, 2, 3);
	mend(12, 17, 0, 3, 4);
	mend(UINT64_MAX, 17, 0, 3, 4); /* a lie is about its own session alone */
}

/* Whatever an entry says, what is taken of it fits the pool. */
static void test_nonsense(void **state)
{
	(void)state;
	static uint64_t good[ROOM / 8];
	struct sk_session *session = session_of(1000, "nonsense");
	break_off(session, -1);
	const uint32_t n_bytes = sk_record_of(session, NULL, record, ROOM);
	memcpy(good, record, n_bytes);
	sk_session_destroy(session);

	unsigned n_taken = 0, n_refused = 0;
	srandom(2);
	for (unsigned round = 0; round < 20000; round++) {
		memcpy(record, good, n_bytes);
		for (int n = 1 + (int)(random() % 3); n--;)
			((uint8_t *)record)[(size_t)random() % n_bytes] ^=
				(uint8_t)(1 << random() % 8);
		const uint32_t said = round % 7 ? n_bytes : n_bytes - (uint32_t)(random() % 200);
		if (!sk_record_means_something(record, said, &pool, N_VOCAB)) {
			n_refused++;
			continue;
		}
		n_taken++;
		struct sk_session *taken = again(-1);
		sk_session_mend(taken);
		sk_session_destroy(taken);
		assert_int_equal(pool.n_free, N_PAGES);
	}
	assert_true(n_taken > 100 && n_refused > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_it_comes_back),
		cmocka_unit_test(test_it_goes_back_to_what_was_read),
		cmocka_unit_test(test_nonsense),
	};
	return sk_test_run(tests, open_backend, close_backend);
}
