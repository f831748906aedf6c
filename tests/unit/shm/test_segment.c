/* Segments: what the peer can do with the descriptor, and which descriptors are believed. */
#include "sk_test.h"

#include "shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define N_BYTES 10000

/* As another process would get it. */
static int copy_of(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	assert_true(copy >= 0);
	return copy;
}

static void expect_no_resizing(int fd)
{
	static const off_t sizes[] = {0, N_BYTES - 1, N_BYTES + 1, 1 << 30};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		assert_int_equal(ftruncate(fd, sizes[i]), -1);
		assert_int_equal(errno, EPERM);
	}
	assert_int_equal(fallocate(fd, 0, N_BYTES, 4096), -1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1); /* nor any more seals */
}

static void expect_no_writing(int fd)
{
	assert_ptr_equal(mmap(NULL, N_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
			 MAP_FAILED);
	assert_int_equal(errno, EPERM);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
	/* A map for reading cannot be turned into one for writing. */
	void *map = mmap(NULL, N_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(mprotect(map, N_BYTES, PROT_READ | PROT_WRITE), -1);
	munmap(map, N_BYTES);
}

static int opened_again(int fd)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return open(path, O_RDWR | O_CLOEXEC);
}

static void the_peer_can_only_read(void **state)
{
	(void)state;
	struct sk_segment mine, peers;
	assert_int_equal(sk_segment_create("test", N_BYTES, 0, &mine), 0);
	assert_int_equal(mine.n_bytes, N_BYTES);
	for (size_t i = 0; i < N_BYTES; i++)
		assert_int_equal(((uint8_t *)mine.data)[i], 0);
	expect_no_writing(mine.fd);
	expect_no_resizing(mine.fd);
	int again = opened_again(mine.fd);
	if (again >= 0) { /* as permissions have it: seals hold all the same */
		expect_no_writing(again);
		expect_no_resizing(again);
		close(again);
	}

	assert_int_equal(sk_segment_attach(copy_of(mine.fd), N_BYTES, 0, &peers), 0);
	memcpy(mine.data, "seen", 5); /* the owner's map still writes */
	assert_string_equal(peers.data, "seen");
	sk_segment_finish(&peers);
	assert_int_equal(sk_segment_attach(copy_of(mine.fd), N_BYTES, 1, &peers), -EBADMSG);
	sk_segment_finish(&mine);
	sk_segment_finish(&mine);
	struct sk_segment nothing = {0};
	sk_segment_finish(&nothing);
	sk_segment_finish(NULL);
	assert_true(fcntl(0, F_GETFD) >= 0); /* fd 0 of a zeroed segment was not its own */
}

static void a_page_for_both(void **state)
{
	(void)state;
	struct sk_segment mine, peers;
	assert_int_equal(sk_segment_create("test", N_BYTES, 1, &mine), 0);
	expect_no_resizing(mine.fd);
	assert_int_equal(sk_segment_attach(copy_of(mine.fd), N_BYTES, 1, &peers), 0);
	memcpy(peers.data, "back", 5);
	assert_string_equal(mine.data, "back");
	assert_int_equal(fcntl(mine.fd, F_GETFD), FD_CLOEXEC);
	sk_segment_finish(&peers);
	sk_segment_finish(&mine);
}

static void sizes_must_match(void **state)
{
	(void)state;
	struct sk_segment mine, peers = {.n_bytes = 77};
	assert_int_equal(sk_segment_create("test", N_BYTES, 0, &mine), 0);
	static const size_t sizes[] = {0, 1, N_BYTES - 1, N_BYTES + 1, SIZE_MAX, (size_t)1 << 40};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
		assert_int_equal(sk_segment_attach(copy_of(mine.fd), sizes[i], 0, &peers),
				 -EBADMSG);
	assert_int_equal(peers.n_bytes, 77);
	sk_segment_finish(&mine);
	assert_int_equal(sk_segment_create("test", 0, 0, &mine), -EINVAL);
	assert_true(sk_segment_create("test", SIZE_MAX, 0, &mine) < 0);
}

static void what_is_no_segment(void **state)
{
	(void)state;
	struct sk_segment s;
	int fds[2];
	for (int seals = 0; seals < 16; seals++) {
		int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		assert_int_equal(ftruncate(fd, 4096), 0);
		assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
		bool sized = (seals & F_SEAL_SHRINK) && (seals & F_SEAL_GROW);
		if (sized && (seals & F_SEAL_WRITE)) {
			close(fd); /* old kernels refuse to map it shared at all */
			continue;
		}
		int r = sk_segment_attach(fd, 4096, 0, &s);
		assert_int_equal(r, sized ? 0 : -EBADMSG);
		if (r == 0)
			sk_segment_finish(&s);
		assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken over */
	}
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(sk_segment_attach(fds[0], 4096, 0, &s), -EBADMSG);
	close(fds[1]);
	char path[] = "/tmp/streamkv-segment-XXXXXX";
	int file = mkstemp(path);
	unlink(path);
	assert_int_equal(ftruncate(file, 4096), 0);
	assert_int_equal(sk_segment_attach(file, 4096, 0, &s), -EBADMSG);
	assert_int_equal(sk_segment_attach(-1, 4096, 0, &s), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_peer_can_only_read),
		cmocka_unit_test(a_page_for_both),
		cmocka_unit_test(sizes_must_match),
		cmocka_unit_test(what_is_no_segment),
	};
	return sk_test_run(tests, NULL, NULL);
}
