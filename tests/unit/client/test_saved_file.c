/* Saved sessions in files: whole or as they were. */
#include "client/saved_file.h"
#include "sk_test.h"

#include "client/command.h"
#include "proto/payload.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

static char folder[] = "/tmp/streamkv-saved-XXXXXX";
static uint8_t bytes[3 << 20];

static int begin(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(i * 31 + (i >> 11));
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int end(void **state)
{
	(void)state;
	return chdir("/") || rmdir(folder);
}

static void put(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");
	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

static void assert_holds(const char *path, const void *wanted, size_t n)
{
	static uint8_t found[sizeof bytes + 1];
	FILE *file = fopen(path, "re");
	assert_non_null(file);
	assert_int_equal(fread(found, 1, sizeof found, file), n);
	assert_memory_equal(found, wanted, n);
	fclose(file);
}

static unsigned n_files(void)
{
	DIR *dir = opendir(".");
	unsigned n = 0;
	for (const struct dirent *entry; (entry = readdir(dir));)
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n;
}

static int save(const char *path)
{
	int fd;
	assert_int_equal(sk_payload_create(bytes, sizeof bytes, &fd), 0);
	int exit_code = sk_saved_write(path, fd, sizeof bytes);
	close(fd);
	return exit_code;
}

static void a_file_is_replaced_whole(void **state)
{
	struct stat before, after;
	(void)state;
	assert_int_equal(save("new"), 0);
	assert_holds("new", bytes, sizeof bytes);
	assert_int_equal(stat("new", &after), 0);
	assert_int_equal(after.st_mode & 0777, 0600);

	put("old", "old");
	assert_int_equal(stat("old", &before), 0);
	assert_int_equal(symlink("old", "link"), 0);
	int reader = open("old", O_RDONLY | O_CLOEXEC);
	assert_int_equal(save("link"), 0);
	assert_holds("old", bytes, sizeof bytes);
	assert_int_equal(lstat("link", &after), 0);
	assert_true(S_ISLNK(after.st_mode));
	assert_int_equal(stat("old", &after), 0);
	assert_int_not_equal(before.st_ino, after.st_ino);
	char text[8];
	assert_int_equal(read(reader, text, sizeof text), 3); /* who reads the old one still does */
	close(reader);
	assert_int_equal(n_files(), 3);
	unlink("new");
	unlink("old");
	unlink("link");
}

static void what_fails_leaves_nothing(void **state)
{
	(void)state;
	put("old", "old");
	assert_int_equal(save("no/such/folder"), EX_CANTCREAT);
	assert_int_equal(save("."), EX_CANTCREAT);
	assert_int_equal(save("/dev/full"), EX_IOERR);

	struct rlimit limit, small;
	getrlimit(RLIMIT_FSIZE, &limit);
	int fd;
	assert_int_equal(sk_payload_create(bytes, sizeof bytes, &fd), 0);
	small = (struct rlimit){1500000, limit.rlim_max}; /* as a full disk: in the middle */
	setrlimit(RLIMIT_FSIZE, &small);
	int exit_code = sk_saved_write("old", fd, sizeof bytes);
	setrlimit(RLIMIT_FSIZE, &limit);
	close(fd);
	assert_int_equal(exit_code, EX_IOERR);
	assert_holds("old", "old", 3);
	assert_int_equal(n_files(), 1);
	unlink("old");
}

static void into_what_is_no_file(void **state)
{
	int ends[2], fd;
	char path[64];
	uint64_t n;
	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(fcntl(ends[1], F_SETPIPE_SZ, 1 << 16) > 0, 1);
	snprintf(path, sizeof path, "/dev/fd/%d", ends[1]);
	pid_t child = fork();
	if (child == 0) {
		close(ends[0]);
		_exit(save(path));
	}
	close(ends[1]);
	assert_int_equal(streamkv_saved_read(ends[0], &fd, &n, NULL), 0);
	assert_int_equal(n, sizeof bytes);
	const void *map;
	assert_int_equal(sk_payload_map(fd, n, &map, NULL), 0);
	assert_memory_equal(map, bytes, n);
	sk_payload_unmap(map, n);
	close(fd);
	close(ends[0]);

	assert_int_equal(pipe(ends), 0); /* nobody reads: quietly */
	snprintf(path, sizeof path, "/dev/fd/%d", ends[1]);
	close(ends[0]);
	assert_int_equal(save(path), 128 + SIGPIPE);
	close(ends[1]);
	assert_int_equal(n_files(), 0);
}

static void reading(void **state)
{
	uint64_t n;
	int fd = -7;
	(void)state;
	put("empty", "");
	put("full", "abc");
	assert_int_equal(sk_saved_read("none", &fd, &n), EX_NOINPUT);
	assert_int_equal(sk_saved_read(".", &fd, &n), EX_NOINPUT);
	assert_int_equal(sk_saved_read("empty", &fd, &n), EX_DATAERR);
	assert_int_equal(fd, -7);
	assert_int_equal(sk_saved_read("full", &fd, &n), 0);
	assert_int_equal(n, 3);
	close(fd);
	unlink("empty");
	unlink("full");
}

/* The last: a signal that was caught stays. */
static void a_signal(void **state)
{
	(void)state;
	put("old", "old");
	sk_interrupt_catch();
	raise(SIGINT);
	assert_int_equal(save("old"), 128 + SIGINT);
	assert_int_equal(save("new"), 128 + SIGINT);
	assert_holds("old", "old", 3);
	assert_int_equal(n_files(), 1);
	unlink("old");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_is_replaced_whole),
		cmocka_unit_test(what_fails_leaves_nothing),
		cmocka_unit_test(into_what_is_no_file),
		cmocka_unit_test(reading),
		cmocka_unit_test(a_signal),
	};
	return sk_test_run(tests, begin, end);
}
