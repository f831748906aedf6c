#include "daemon/options.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONFIG_PATH "/etc/streamkv/streamkvd.conf"

struct sk_config_value {
	struct sk_config_value *next; /* read before it */
	const char *name;             /* of the daemon's option; NULL: a user's */
	const char *where;            /* "file:line"; behind the text */
	char text[];
};

struct reading {
	const char *path;
	FILE *file;
	int line; /* that was read last */
	struct sk_daemon_options *options;
	struct sk_user_limits *user; /* whose section this is; NULL: the daemon's options */
	bool has_others;             /* this file has a [user *] */
	uid_t *uids;                 /* (n_uids): of this file's other sections */
	size_t n_uids;
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

static void leave_unset(struct sk_user_limits *user)
{
	for (const struct sk_option *option = sk_user_option_table; option->name; option++)
		*value_of(user, option) = SK_OPTION_UNSET;
}

/* What all users' sections left out. */
static int settle_users(struct sk_limits_table *limits, struct sk_diag *diag)
{
	struct sk_user_limits defaults;
	int err = sk_options_defaults(sk_user_option_table, &defaults, diag);
	if (err < 0)
		return err;
	inherit(&limits->others, &defaults);
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

/* The user's limits, as earlier files have left them; NULL without memory. */
static struct sk_user_limits *limits_of(struct sk_limits_table *limits, uid_t uid)
{
	for (size_t i = 0; i < limits->n_named; i++)
		if (limits->named[i].uid == uid)
			return &limits->named[i];
	struct sk_user_limits *named =
		realloc(limits->named, (limits->n_named + 1) * sizeof *named);
	if (!named)
		return NULL;
	limits->named = named;
	struct sk_user_limits *user = &named[limits->n_named++];
	user->uid = uid;
	leave_unset(user);
	return user;
}

/* False: this file has a section of that user already. */
static bool note_user(struct reading *reading, uid_t uid, bool *ret_has_memory)
{
	*ret_has_memory = true;
	for (size_t i = 0; i < reading->n_uids; i++)
		if (reading->uids[i] == uid)
			return false;
	uid_t *uids = realloc(reading->uids, (reading->n_uids + 1) * sizeof *uids);
	*ret_has_memory = uids;
	if (!uids)
		return true;
	reading->uids = uids;
	uids[reading->n_uids++] = uid;
	return true;
}

/* Where the section of that user begins: reading->user is to be filled. */
static int begin_user(struct reading *reading, const char *name)
{
	bool is_others = strcmp(name, "*") == 0, is_first = !reading->has_others, has_memory = true;
	char place[WHERE_SIZE];
	uid_t uid = 0;

	if (!is_others && uid_of(name, &uid) < 0)
		return sk_diag_fail(reading->diag, EINVAL,
				    "%s: there is no user '%s'; allowed are the name of one, a "
				    "uid, and * for all who have no section",
				    where(reading, place), name);
	if (is_others)
		reading->has_others = true;
	else
		is_first = note_user(reading, uid, &has_memory);
	if (!is_first)
		return sk_diag_fail(reading->diag, EINVAL,
				    "%s: '%s' has a section already; allowed is one for each user "
				    "in a file",
				    where(reading, place), name);
	struct sk_limits_table *limits = &reading->options->limits;
	reading->user = is_others ? &limits->others : has_memory ? limits_of(limits, uid) : NULL;
	if (!reading->user)
		return sk_diag_fail(reading->diag, ENOMEM, "%s: not enough memory", reading->path);
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

/* As the table has it; NULL where it does not. */
static const char *name_of(const struct sk_option *table, const char *name)
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

	if (!name_of(own, name) && name_of(other, name))
		return sk_diag_fail(reading->diag, EINVAL, "%s: %s is %s", where(reading, place),
				    name,
				    reading->user ? "an option of the daemon: it belongs before "
						    "the first section, or under [streamkvd]"
						  : "an option of users: it belongs under "
						    "[user NAME], [user UID] or [user *]");
	where(reading, place);
	const size_t n = strlen(value) + 1;
	struct sk_config_value *kept = malloc(sizeof *kept + n + strlen(place) + 1);
	if (!kept)
		return sk_diag_fail(reading->diag, ENOMEM, "%s: not enough memory", reading->path);
	strcpy(kept->text, value);
	kept->where = strcpy(kept->text + n, place);
	kept->name = reading->user ? NULL : name_of(own, name);
	kept->next = reading->options->values;
	reading->options->values = kept;
	return sk_options_set(own, reading->user ? (void *)reading->user : reading->options, name,
			      kept->text, place, reading->diag);
}

static int take(void *context, const char *section, const char *name, const char *value)
{
	struct reading *reading = context;
	(void)section;

	if (!reading->error)
		fault(reading, set_option(reading, name, value));
	return !reading->error;
}

static int read_file(const char *path, struct sk_daemon_options *options, struct sk_diag *diag)
{
	struct reading reading = {.path = path, .options = options, .diag = diag};

	reading.file = fopen(path, "re");
	if (!reading.file)
		return sk_diag_fail(diag, ENOENT, "%s: cannot be read: %s", path, strerror(errno));
	int line = ini_parse_stream(read_line, &reading, take, &reading);
	bool is_read = !ferror(reading.file);
	fclose(reading.file);
	free(reading.uids);
	if (!is_read)
		return sk_diag_fail(diag, ENOENT, "%s: cannot be read", path);
	if (line < 0)
		return sk_diag_fail(diag, ENOMEM, "%s: not enough memory", path);
	/* inih tells the first line with any fault: one of its own where nothing else had one there. */
	if (line && (!reading.error || line < reading.error_line))
		return sk_diag_fail(diag, EINVAL,
				    "%s:%d: this is no line of the form 'name = value' or "
				    "'[section]'",
				    path, line);
	return reading.error;
}

/* --- The files of a configuration --- */

static int is_drop_in(const struct dirent *entry)
{
	size_t n = strlen(entry->d_name);
	return entry->d_name[0] != '.' && n > 5 && strcmp(entry->d_name + n - 5, ".conf") == 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int read_drop_ins(const char *path, struct sk_daemon_options *options, struct sk_diag *diag)
{
	char folder[WHERE_SIZE], file[2 * WHERE_SIZE];
	struct dirent **entries;
	int err = 0;

	if ((size_t)snprintf(folder, sizeof folder, "%s.d", path) >= sizeof folder)
		return sk_diag_fail(diag, EINVAL, "%s: the path is too long", path);
	int n = scandir(folder, &entries, is_drop_in, by_bytes);
	if (n < 0)
		return errno == ENOENT || errno == ENOTDIR
			       ? 0
			       : sk_diag_fail(diag, ENOENT, "%s: cannot be read: %s", folder,
					      strerror(errno));
	for (int i = 0; i < n; i++) {
		snprintf(file, sizeof file, "%s/%s", folder, entries[i]->d_name);
		free(entries[i]);
		if (!err)
			err = read_file(file, options, diag);
	}
	free(entries);
	return err;
}

int sk_daemon_read_config(struct sk_daemon_options *options, struct sk_diag *diag)
{
	const char *path = options->config ? options->config : CONFIG_PATH;
	struct sk_daemon_options fresh = {.config = options->config};

	int err = sk_options_defaults(sk_daemon_option_table, &fresh, diag);
	leave_unset(&fresh.limits.others);
	/* One that nobody named need not be there; one that may not be read is not passed over. */
	const bool is_read = options->config || access(path, F_OK) == 0 || errno != ENOENT;
	if (!err && is_read)
		err = read_file(path, &fresh, diag);
	if (!err)
		err = read_drop_ins(path, &fresh, diag);
	fresh.config_path = is_read || fresh.values ? path : NULL;
	if (!err)
		err = settle_users(&fresh.limits, diag);
	if (err < 0) {
		sk_daemon_options_finish(&fresh);
		return err;
	}
	*options = fresh;
	return 0;
}

const char *sk_daemon_where(const struct sk_daemon_options *options, const char *name,
			    unsigned *ret_n_after)
{
	unsigned n_after = 0;
	for (const struct sk_config_value *value = options->values; value;
	     value = value->next, n_after++) {
		if (!value->name || strcmp(value->name, name) != 0)
			continue;
		*ret_n_after = n_after;
		return value->where;
	}
	return NULL;
}

void sk_daemon_options_finish(struct sk_daemon_options *options)
{
	free(options->limits.named);
	options->limits = (struct sk_limits_table){.n_named = 0};
	for (struct sk_config_value *next; options->values; options->values = next) {
		next = options->values->next;
		free(options->values);
	}
}
