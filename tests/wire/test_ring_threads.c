/* The same traffic between two threads, for ThreadSanitizer. It follows addresses, and the two ends
 * of a ring map the same memory at different ones; so mmap is wrapped here (by the linker) to hand
 * out one map of a file again: the two ends then meet at the same addresses and every unordered
 * access shows.
 */
#include "sk_test.h"

#include "ring_traffic.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>

void *__real_mmap(void *address, size_t n_bytes, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *address, size_t n_bytes);
void *__wrap_mmap(void *address, size_t n_bytes, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *address, size_t n_bytes);

static struct shared_map {
	ino_t inode;
	void *address;
	int n_users;
} maps[8];

void *__wrap_mmap(void *address, size_t n_bytes, int protection, int flags, int fd, off_t offset)
{
	struct stat st;
	struct shared_map *unused = NULL;

	assert_int_equal(fstat(fd, &st), 0);
	for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
		if (maps[i].n_users && maps[i].inode == st.st_ino) {
			maps[i].n_users++;
			return maps[i].address;
		}
		if (!maps[i].n_users)
			unused = &maps[i];
	}
	assert_non_null(unused);
	void *map = __real_mmap(address, n_bytes, protection, flags, fd, offset);
	if (map != MAP_FAILED)
		*unused = (struct shared_map){st.st_ino, map, 1};
	return map;
}

int __wrap_munmap(void *address, size_t n_bytes)
{
	for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
		if (maps[i].n_users && maps[i].address == address)
			return --maps[i].n_users ? 0 : __real_munmap(address, n_bytes);
	fail_msg("unmapped what was never mapped");
	return -1;
}

struct end {
	struct sk_ring_reader *reader;
	uint64_t n_tokens;
	struct traffic_count count;
	int result;
};

static void *read_all(void *data)
{
	struct end *end = data;
	end->result = traffic_read(end->reader, end->n_tokens, &end->count);
	return NULL;
}

static void pass_tokens(uint32_t n_slots, uint64_t n_tokens)
{
	struct sk_ring_writer *writer;
	struct end end = {.n_tokens = n_tokens};
	struct traffic_count count = {0};
	pthread_t thread;
	int fds[4];

	assert_int_equal(sk_ring_writer_create(n_slots, &writer), 0);
	sk_ring_writer_fds(writer, fds);
	for (int i = 0; i < 4; i++)
		fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
	assert_int_equal(sk_ring_reader_create(fds, n_slots, &end.reader), 0);
	assert_int_equal(pthread_create(&thread, NULL, read_all, &end), 0);
	int r = traffic_write(writer, n_tokens, &count);
	assert_int_equal(pthread_join(thread, NULL), 0);
	fprintf(stderr, "%llu tokens in %llu slots; sleeps: writer %llu, reader %llu\n",
		(unsigned long long)end.count.n_tokens, (unsigned long long)end.count.n_slots,
		(unsigned long long)count.n_sleeps, (unsigned long long)end.count.n_sleeps);
	assert_int_equal(r, 0);
	assert_int_equal(end.result, 0);
	sk_ring_reader_destroy(end.reader);
	sk_ring_writer_destroy(writer);
}

static void ten_million_tokens(void **state)
{
	(void)state;
	pass_tokens(SK_RING_DEFAULT_SLOTS, traffic_n_tokens());
}

static void smallest_ring(void **state)
{
	(void)state;
	pass_tokens(SK_RING_LEAST_SLOTS, traffic_n_tokens() / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ten_million_tokens),
		cmocka_unit_test(smallest_ring),
	};
	return sk_test_run(tests, NULL, NULL);
}
