#include "daemon/options.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <pwd.h>
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
	struct sk_user_limits *user; /* whose section this is; NULL: the daemon's options */
	bool has_others;             /* there is a [user *] */
	struct sk_diag *diag;
	int error, error_line; /* the first that a section or an option had */
};

/* The first fault is the one to tell. `where` is room for "file:line", which opens its sentence. */
#define WHERE_SIZE 512
static const char *where(const struct reading *reading, char *text)
{
	snprintf(text, WHERE_SIZE, "%s:%d", reading->path, reading->line);
	return text;
}

static void fault(struct reading *reading, int err)
{
	if (reading->error)
		return;
	reading->error = err;
	reading->error_line = reading->line;
}

/* --- Users --- */

static uint64_t *value_of(struct sk_user_limits *user, const struct sk_option *option)
{
	return (uint64_t *)((char *)user + option->offset);
}

static void inherit(struct sk_user_limits *user, struct sk_user_limits *from)
{
	for (const struct sk_option *option = sk_user_option_table; option->name; option++)
		if (*value_of(user, option) == SK_OPTION_UNSET)
			*value_of(user, option) = *value_of(from, option);
}

/* What users' sections left out. */
static int settle_users(struct sk_limits_table *limits, bool has_others, struct sk_diag *diag)
{
	struct sk_user_limits defaults;
	int err = sk_options_defaults(sk_user_option_table, &defaults, diag);
	if (err < 0)
		return err;
	if (has_others)
		inherit(&limits->others, &defaults);
	else
		limits->others = defaults;
	for (size_t i = 0; i < limits->n_named; i++)
		inherit(&limits->named[i], &limits->others);
	return 0;
}

static int uid_of(const char *name, uid_t *ret_uid)
{
	if (isdigit((unsigned char)name[0])) {
		char *end;
		errno = 0;
		unsigned long long uid = strtoull(name, &end, 10);
		if (errno || *end || uid >= (uid_t)-1)
			return -EINVAL;
		*ret_uid = (uid_t)uid;
		return 0;
	}
	const struct passwd *user = getpwnam(name);
	if (!user)
		return -ENOENT;
	*ret_uid = user->pw_uid;
	return 0;
}

/* Where the section of that user begins: reading->user is to be filled. */
static int begin_user(struct reading *reading, const char *name)
{
	struct sk_limits_table *limits = &reading->options->limits;
	bool is_others = strcmp(name, "*") == 0;
	char place[WHERE_SIZE];
	uid_t uid = 0;

	if (!is_others && uid_of(name, &uid) < 0)
		return sk_diag_fail(reading->diag, EINVAL,
				    "%s: there is no user '%s'; allowed are the name of one, a "
				    "uid, and * for all who have no section",
				    where(reading, place), name);
	bool is_there = is_others && reading->has_others;
	for (size_t i = 0; i < limits->n_named && !is_others; i++)
		is_there |= limits->named[i].uid == uid;
	if (is_there)
		return sk_diag_fail(reading->diag, EINVAL,
				    "%s: '%s' has a section already; allowed is one for each user",
				    where(reading, place), name);
	if (is_others) {
		reading->has_others = true;
		reading->user = &limits->others;
	} else {
		struct sk_user_limits *named =
			realloc(limits->named, (limits->n_named + 1) * sizeof *named);
		if (!named)
			return sk_diag_fail(reading->diag, ENOMEM, "%s: not enough memory",
					    reading->path);
		limits->named = named;
		reading->user = &named[limits->n_named++];
	}
	reading->user->uid = uid;
	for (const struct sk_option *option = sk_user_option_table; option->name; option++)
		*value_of(reading->user, option) = SK_OPTION_UNSET;
	return 0;
}

/* --- Lines --- */

/* Of "[name]". Blanks at both ends of a name do not count. */
static int begin_section(struct reading *reading, const char *name, size_t n)
{
	char place[WHERE_SIZE], text[128];

	snprintf(text, sizeof text, "%.*s", (int)n, name);
	for (n = strlen(text); n && isspace((unsigned char)text[n - 1]);)
		text[--n] = '\0';
	const char *word = text + strspn(text, " \t");
	if (strcmp(word, "streamkvd") == 0) {
		reading->user = NULL;
		return 0;
	}
	if (strncmp(word, "user", 4) == 0 && isblank((unsigned char)word[4]))
		return begin_user(reading, word + 4 + strspn(word + 4, " \t"));
	return sk_diag_fail(reading->diag, EINVAL,
			    "%s: there is no section [%s]; allowed are [streamkvd], [user NAME], "
			    "[user UID] and [user *]",
			    where(reading, place), word);
}

/* inih takes what is indented for more of the line before, cuts what is long, and tells of a section by its options
 * alone: so lines are looked at before it has them. */
static char *read_line(char *text, int n, void *context)
{
	struct reading *reading = context;
	char place[WHERE_SIZE];

	if (!fgets(text, n, reading->file))
		return NULL;
	reading->line++;
	if (!strchr(text, '\n') && !feof(reading->file))
		fault(reading, sk_diag_fail(reading->error ? NULL : reading->diag, EINVAL,
					    "%s: the line is longer than the %d bytes allowed",
					    where(reading, place), n - 2));
	size_t n_blank = strspn(text, " \t");
	memmove(text, text + n_blank, strlen(text + n_blank) + 1);
	const char *end = text[0] == '[' ? strchr(text, ']') : NULL;
	if (end && !reading->error)
		fault(reading, begin_section(reading, text + 1, (size_t)(end - text - 1)));
	return text;
}

static bool has_option(const struct sk_option *table, const char *name)
{
	while (table->name && strcmp(table->name, name) != 0)
		table++;
	return table->name;
}

static int set_option(struct reading *reading, const char *name, const char *value)
{
	const struct sk_option *own = reading->user ? sk_user_option_table : sk_daemon_option_table;
	const struct sk_option *other =
		reading->user ? sk_daemon_option_table : sk_user_option_table;
	char place[WHERE_SIZE];

	if (!has_option(own, name) && has_option(other, name))
		return sk_diag_fail(reading->diag, EINVAL, "%s: %s is %s", where(reading, place),
				    name,
				    reading->user ? "an option of the daemon: it belongs before "
						    "the first section, or under [streamkvd]"
						  : "an option of users: it belongs under "
						    "[user NAME], [user UID] or [user *]");
	struct kept_value *kept = malloc(sizeof *kept + strlen(value) + 1);
	if (!kept)
		return sk_diag_fail(reading->diag, ENOMEM, "%s: not enough memory", reading->path);
	strcpy(kept->text, value);
	kept->next = kept_values;
	kept_values = kept;
	return sk_options_set(own, reading->user ? (void *)reading->user : reading->options, name,
			      kept->text, where(reading, place), reading->diag);
}

static int take(void *context, const char *section, const char *name, const char *value)
{
	struct reading *reading = context;
	(void)section;

	if (!reading->error)
		fault(reading, set_option(reading, name, value));
	return !reading->error;
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
	/* inih tells the first line with any fault: one of its own where nothing else had one there. */
	if (line && (!reading.error || line < reading.error_line))
		return sk_diag_fail(diag, EINVAL,
				    "%s:%d: this is no line of the form 'name = value' or "
				    "'[section]'",
				    path, line);
	if (reading.error)
		return reading.error;
	return settle_users(&options->limits, reading.has_others, diag);
}
