#include "daemon/options.h"

#include <errno.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>

struct reading {
	const char *path;
	struct sk_daemon_options *options;
	struct sk_diag *diag;
	int error;
};

/* inih tells the line where INI_HANDLER_LINENO was set when it was built; where not, the name must
 * do. */
static int take(void *context, const char *section, const char *name, const char *value)
{
	struct reading *reading = context;
	(void)section;
	if (reading->error) /* the first fault is the one to tell */
		return 0;
	char *kept = strdup(value);
	if (!kept) {
		reading->error = -ENOMEM;
		return 0;
	}
	reading->error = sk_options_set(sk_daemon_option_table, reading->options, name, kept,
					reading->path, reading->diag);
	return reading->error == 0;
}

int sk_daemon_read_config(const char *path, struct sk_daemon_options *options, struct sk_diag *diag)
{
	struct reading reading = {path, options, diag, 0};
	int line = ini_parse(path, take, &reading);

	if (line == 0)
		return 0;
	if (line < 0)
		return line == -1 ? sk_diag_fail(diag, ENOENT, "%s: cannot be read: %s", path,
						 strerror(errno))
				  : sk_diag_fail(diag, ENOMEM, "%s: not enough memory", path);
	if (reading.error == 0)
		return sk_diag_fail(diag, EINVAL,
				    "%s:%d: this is no line of the form 'name = value'", path,
				    line);

	/* The sentence names the file; put the line behind it. */
	size_t n_path = strlen(path);
	if (reading.error == -EINVAL && diag && strncmp(diag->text, path, n_path) == 0) {
		char rest[sizeof diag->text];
		strcpy(rest, diag->text + n_path);
		return sk_diag_fail(diag, EINVAL, "%s:%d%s", path, line, rest);
	}
	return reading.error;
}
