#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *log_program = "streamkv";
static _Atomic enum sk_log_level log_most = SK_LOG_NOTICE;
static bool log_priorities;

/* The variable is inherited by whatever a service starts, also where standard error has been redirected since. */
static bool is_journal(int fd)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat status;

	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
	       fstat(fd, &status) == 0 && status.st_dev == device && status.st_ino == inode;
}

void sk_log_open(const char *program, enum sk_log_level most)
{
	log_program = program;
	atomic_store(&log_most, most);
	log_priorities = is_journal(STDERR_FILENO);
}

void sk_log_set_most(enum sk_log_level most)
{
	atomic_store(&log_most, most);
}

void sk_log(enum sk_log_level level, const char *format, ...)
{
	if (level > atomic_load(&log_most))
		return;
	int saved = errno;
	char line[2048];
	int n = log_priorities ? snprintf(line, sizeof line, "<%d>", (int)level)
			       : snprintf(line, sizeof line, "%s: ", log_program);
	va_list args;
	va_start(args, format);
	int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
	va_end(args);
	size_t length = m < 0 ? (size_t)n : (size_t)n + (size_t)m;
	if (length > sizeof line - 2)
		length = sizeof line - 2;
	line[length] = '\n';
	if (write(STDERR_FILENO, line, length + 1) < 0) {
		/* Nowhere left to say it. */
	}
	errno = saved;
}
