#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *log_program = "streamkv";
static enum sk_log_level log_most = SK_LOG_NOTICE;
static int log_priorities;

void sk_log_open(const char *program, enum sk_log_level most)
{
	log_program = program;
	log_most = most;
	log_priorities = getenv("JOURNAL_STREAM") != NULL;
}

void sk_log(enum sk_log_level level, const char *format, ...)
{
	if (level > log_most)
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
