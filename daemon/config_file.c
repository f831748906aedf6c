#include "daemon/options.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Values, since options point into them; kept until the program ends. */
struct kept_value {
	struct kept_value *next;
	char text[];
};
static struct kept_value *kept_values;

struct reading {
	const char *path;
	FILE *file;
	int line; /* that was read last */
	struct sk_daemon_options *options;
	struct sk_diag *diag;
	int error, error_line; /* the first that an option had */
};

static char *read_line(char *text, int n, void *context)
{
	struct reading *reading = context;
	reading->line++;
	return fgets(text, n, reading->file);
}

static int take(void *context, const char *section, const char *name, const char *value)
{
	struct reading *reading = context;
	char where[512];
	(void)section;

	if (reading->error) /* the first fault is the one to tell */
		return 0;
	reading->error_line = reading->line;
	struct kept_value *kept = malloc(sizeof *kept + strlen(value) + 1);
	if (!kept) {
		reading->error =
			sk_diag_fail(reading->diag, ENOMEM, "%s: not enough memory", reading->path);
		return 0;
	}
	strcpy(kept->text, value);
	kept->next = kept_values;
	kept_values = kept;
	snprintf(where, sizeof where, "%s:%d", reading->path, reading->line);
	reading->error = sk_options_set(sk_daemon_option_table, reading->options, name, kept->text,
					where, reading->diag);
	return reading->error == 0;
}

int sk_daemon_read_config(const char *path, struct sk_daemon_options *options, struct sk_diag *diag)
{
	struct reading reading = {.path = path, .options = options, .diag = diag};

	reading.file = fopen(path, "re");
	if (!reading.file)
		return sk_diag_fail(diag, ENOENT, "%s: cannot be read: %s", path, strerror(errno));
	int line = ini_parse_stream(read_line, &reading, take, &reading);
	fclose(reading.file);
	if (line < 0)
		return sk_diag_fail(diag, ENOMEM, "%s: not enough memory", path);
	/* inih tells the first line with any fault: one of its own where no option had one there. */
	if (line && (!reading.error || line < reading.error_line))
		return sk_diag_fail(diag, EINVAL,
				    "%s:%d: this is no line of the form 'name = value'", path,
				    line);
	return reading.error;
}
