/* What is left of a ring when one side has gone: how far its reader came, and no signal for who still has it. */
#include "shm/ring.h"
#include "sk_test.h"

#include <errno.h>
#include <string.h>

#define N_SLOTS 256

static struct sk_ring_writer *writer;
static struct sk_ring_reader *reader;

static int open_ring(void **state)
{
	int fds[4];
	(void)state;
	if (sk_ring_writer_create(N_SLOTS, &writer) < 0)
		return -1;
	sk_ring_writer_fds(writer, fds);
	for (int i = 0; i < 4; i++)
		fds[i] = dup(fds[i]);
	return sk_ring_reader_create(fds, N_SLOTS, &reader);
}

static void put(unsigned n)
{
	struct sk_slot slot;
	memset(&slot, 0, sizeof slot);
	while (n--)
		assert_int_equal(sk_ring_writer_put(writer, &slot, "x", 1), 0);
	sk_ring_writer_publish(writer);
}

static void take(unsigned n)
{
	struct sk_slot slot;
	while (n--)
		assert_int_equal(sk_ring_reader_next(reader, &slot), 1);
}

/* Each slot counts once it is taken, though the writer is rung for many at once. */
static void test_the_cursor_outlives_both(void **state)
{
	(void)state;
	int fds[4];
	uint64_t n_read = 0;
	sk_ring_writer_fds(writer, fds);
	const int cursor = dup(fds[1]);
	put(10);
	take(3);
	assert_int_equal(sk_ring_cursor_read(cursor, &n_read), 0);
	assert_int_equal(n_read, 3);
	sk_ring_writer_destroy(writer);
	(void)sk_ring_reader_wait(reader);
	assert_int_equal(sk_ring_cursor_read(cursor, &n_read), 0);
	assert_int_equal(n_read, 3);
	take(4); /* what was published is there */
	sk_ring_reader_destroy(reader);
	assert_int_equal(sk_ring_cursor_read(cursor, &n_read), 0);
	assert_int_equal(n_read, 7);
	close(cursor);
	assert_int_equal(sk_ring_cursor_read(cursor, &n_read), -EBADF);
	assert_int_equal(sk_ring_cursor_read(-1, &n_read), -EBADF);
}

/* A writer that wanted to be rung, and is gone: whoever rings nobody lives on. */
static void test_who_rings_nobody(void **state)
{
	(void)state;
	put(N_SLOTS);
	assert_false(sk_ring_writer_wait(writer));
	sk_ring_writer_destroy(writer);
	take(N_SLOTS);
	sk_ring_reader_destroy(reader); /* SIGPIPE would end this program */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_the_cursor_outlives_both, open_ring),
		cmocka_unit_test_setup(test_who_rings_nobody, open_ring),
	};
	return sk_test_run(tests, NULL, NULL);
}
