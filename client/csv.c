#include "client/csv.h"

#include "client/command.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

int sk_csv_open(struct sk_csv *csv, const char *path, const char *header)
{
	*csv = (struct sk_csv){.path = path};
	if (!path)
		return 0;
	csv->file = fopen(path, "we");
	if (!csv->file)
		return sk_said(EX_CANTCREAT, "%s: %s", path, strerror(errno));
	sk_csv_write(csv, "%s", header);
	return 0;
}

void sk_csv_write(struct sk_csv *csv, const char *format, ...)
{
	va_list arguments;

	if (!csv->file || csv->error)
		return;
	va_start(arguments, format);
	if (vfprintf(csv->file, format, arguments) < 0)
		csv->error = errno ? errno : EIO;
	va_end(arguments);
}

int sk_csv_close(struct sk_csv *csv)
{
	if (!csv->file)
		return 0;
	if (fclose(csv->file) != 0 && !csv->error)
		csv->error = errno;
	csv->file = NULL;
	if (csv->error == EPIPE)
		return 128 + SIGPIPE;
	return csv->error ? sk_said(EX_IOERR, "%s: %s", csv->path, strerror(csv->error)) : 0;
}
