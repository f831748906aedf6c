/* A CSV file that is written row by row while a stream runs. A fault is kept from the moment it comes, with its cause,
 * so that the caller can end the stream for it. A value to embed; zeroed writes nothing.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

struct sk_csv {
	FILE *file;
	const char *path; /* the caller's */
	int error;        /* errno of the first write that failed */
};

/* path NULL: nothing will be written. 0, or the exit code of what has been said. */
int sk_csv_open(struct sk_csv *csv, const char *path, const char *header);
void sk_csv_write(struct sk_csv *csv, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static inline bool sk_csv_failed(const struct sk_csv *csv)
{
	return csv->error != 0;
}
/* 0, or the exit code: quiet where the reader has gone, else it has been said. */
int sk_csv_close(struct sk_csv *csv);
