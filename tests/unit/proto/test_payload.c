/* Memfds beside frames: what is sent can be mapped and not be changed, and nothing else is
 * accepted. */
#include "sk_test.h"

#include "proto/payload.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

static void there_and_back(void **state)
{
	(void)state;
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 3000000};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		size_t n = sizes[i];
		uint8_t *bytes = test_malloc(n + 1);
		const void *map;
		int fd;
		for (size_t k = 0; k < n; k++)
			bytes[k] = (uint8_t)(k * 7 + (k >> 8));
		assert_int_equal(sk_payload_create(bytes, n, &fd), 0);
		assert_int_equal(sk_payload_map(fd, n, &map, NULL), 0);
		assert_memory_equal(map, bytes, n);
		/* It can be changed in no way, not even by who made it. */
		assert_int_equal(write(fd, "x", 1), -1);
		assert_int_equal(errno, EPERM);
		assert_int_equal(ftruncate(fd, (off_t)n + 1), -1);
		if (n) {
			assert_int_equal(ftruncate(fd, (off_t)n - 1), -1);
			assert_ptr_equal(mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
					 MAP_FAILED);
		}
		assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
		sk_payload_unmap(map, n);
		close(fd);
		test_free(bytes);
	}
	sk_payload_unmap(NULL, 0);
}

static void expect_refused(int fd, uint64_t n_bytes, const char *fragment)
{
	struct sk_diag diag = {""};
	const void *map = &diag;
	assert_int_equal(sk_payload_map(fd, n_bytes, &map, &diag), -EBADMSG);
	assert_ptr_equal(map, &diag); /* untouched */
	if (!strstr(diag.text, fragment))
		fail_msg("'%s' does not say '%s'", diag.text, fragment);
}

static void seals_that_are_missing(void **state)
{
	(void)state;
	for (int seals = 0; seals < 16; seals++) { /* SEAL 1, SHRINK 2, GROW 4, WRITE 8 */
		int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		const void *map;
		assert_int_equal(ftruncate(fd, 100), 0);
		assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
		if ((seals & (F_SEAL_SHRINK | F_SEAL_WRITE)) == (F_SEAL_SHRINK | F_SEAL_WRITE)) {
			assert_int_equal(sk_payload_map(fd, 100, &map, NULL), 0);
			sk_payload_unmap(map, 100);
		} else {
			expect_refused(fd, 100, "not sealed");
		}
		close(fd);
	}
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fd, 100), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE), 0);
	expect_refused(fd, 100, "not sealed"); /* an older map may still be written through */
	close(fd);
}

static void sizes_that_lie(void **state)
{
	(void)state;
	const void *map;
	int fd;
	assert_int_equal(sk_payload_create("0123456789", 10, &fd), 0);
	expect_refused(fd, 11, "holds 10 bytes, but 11 are announced");
	expect_refused(fd, UINT64_MAX, "holds 10 bytes");
	expect_refused(fd, (uint64_t)INT64_MAX + 1, "holds 10 bytes");
	assert_int_equal(sk_payload_map(fd, 4, &map, NULL), 0);
	assert_memory_equal(map, "0123", 4);
	sk_payload_unmap(map, 4);
	close(fd);
}

static void what_is_no_memfd(void **state)
{
	(void)state;
	char path[] = "/tmp/streamkv-payload-XXXXXX";
	int fds[2];
	int file = mkstemp(path);
	assert_true(file >= 0);
	unlink(path);
	assert_int_equal(ftruncate(file, 4096), 0);
	expect_refused(file, 100, "not");
	close(file);
	assert_int_equal(pipe(fds), 0);
	expect_refused(fds[0], 100, "not a memfd");
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	expect_refused(fds[0], 100, "not a memfd");
	close(fds[0]);
	close(fds[1]);
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	expect_refused(zero, 100, "not a memfd");
	close(zero);
	expect_refused(-1, 100, "not a memfd");
	int unsealable = memfd_create("test", MFD_CLOEXEC);
	expect_refused(unsealable, 0, "not sealed");
	close(unsealable);
}

static void all_that_can_be_read(void **state)
{
	(void)state;
	static uint8_t bytes[300000];
	char path[] = "/tmp/streamkv-payload-XXXXXX";
	uint64_t n_bytes = 1;
	const void *map;
	int from, fd = -1, ends[2];

	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(i * 13 + (i >> 9));
	assert_true((from = mkstemp(path)) >= 0);
	unlink(path);
	assert_int_equal(sk_payload_read(from, &fd, &n_bytes), 0);
	assert_int_equal(n_bytes, 0);
	close(fd);
	assert_int_equal(write(from, bytes, sizeof bytes), sizeof bytes);
	assert_int_equal(lseek(from, 1000, SEEK_SET), 1000); /* from where it stands */
	assert_int_equal(sk_payload_read(from, &fd, &n_bytes), 0);
	assert_int_equal(n_bytes, sizeof bytes - 1000);
	assert_int_equal(sk_payload_map(fd, n_bytes, &map, NULL), 0);
	assert_memory_equal(map, bytes + 1000, n_bytes);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	sk_payload_unmap(map, n_bytes);
	close(fd);
	close(from);

	assert_int_equal(pipe(ends), 0);
	assert_int_equal(write(ends[1], "0123456789", 10), 10);
	close(ends[1]);
	assert_int_equal(sk_payload_read(ends[0], &fd, &n_bytes), 0);
	assert_int_equal(n_bytes, 10);
	close(fd);
	close(ends[0]);

	fd = -7;
	from = open("/", O_RDONLY | O_CLOEXEC);
	assert_int_equal(sk_payload_read(from, &fd, &n_bytes), -EISDIR);
	close(from);
	assert_int_equal(sk_payload_read(-1, &fd, &n_bytes), -EBADF);
	assert_int_equal(fd, -7);
	assert_int_equal(n_bytes, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),       cmocka_unit_test(seals_that_are_missing),
		cmocka_unit_test(sizes_that_lie),       cmocka_unit_test(what_is_no_memfd),
		cmocka_unit_test(all_that_can_be_read),
	};
	return sk_test_run(tests, NULL, NULL);
}
