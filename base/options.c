#include "base/options.h"

#include "base/duration.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- Values --- */

static void *field(const struct sk_option *option, void *opts)
{
	return (char *)opts + option->offset;
}

/* "allowed are a, b and c" */
static void list_choices(const struct sk_option *option, char *text, size_t n)
{
	size_t at = 0;
	text[0] = '\0';
	for (int i = 0; option->choices[i] && at < n; i++) {
		const char *between = !i ? "" : option->choices[i + 1] ? ", " : " and ";
		at += (size_t)snprintf(text + at, n - at, "%s%s", between, option->choices[i]);
	}
}

static int bad(const struct sk_option *option, const char *value, const char *where,
	       struct sk_diag *diag, const char *allowed)
{
	return sk_diag_fail(diag, EINVAL, "%s%s: '%s' is not allowed; %s", where, option->name,
			    value, allowed);
}

/* Digits, and for bytes a suffix. */
static bool parse_uint(const char *text, bool is_bytes, uint64_t *ret_value)
{
	char *end;
	unsigned shift = 0;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (errno)
		return false;
	if (is_bytes && *end) {
		static const char suffixes[] = "KMGT";
		const char *suffix = strchr(suffixes, toupper((unsigned char)*end));
		if (!suffix)
			return false;
		shift = 10 * (unsigned)(suffix - suffixes + 1);
		end++;
	}
	if (*end || (shift && value >> (64 - shift)))
		return false;
	*ret_value = (uint64_t)value << shift;
	return true;
}

static int set_number(const struct sk_option *option, void *opts, const char *value,
		      const char *where, struct sk_diag *diag)
{
	bool is_bytes = option->kind == SK_OPTION_BYTES;
	uint64_t number;
	char allowed[160];

	if (parse_uint(value, is_bytes, &number) && number >= option->min &&
	    (!option->max || number <= option->max)) {
		*(uint64_t *)field(option, opts) = number;
		return 0;
	}
	const char *kind =
		is_bytes ? "a number of bytes (K, M, G, T may follow)" : "a whole number";
	if (option->max)
		snprintf(allowed, sizeof allowed, "allowed is %s from %llu to %llu", kind,
			 (unsigned long long)option->min, (unsigned long long)option->max);
	else
		snprintf(allowed, sizeof allowed, "allowed is %s from %llu", kind,
			 (unsigned long long)option->min);
	return bad(option, value, where, diag, allowed);
}

static int set_float(const struct sk_option *option, void *opts, const char *value,
		     const char *where, struct sk_diag *diag)
{
	char *end, allowed[120];
	double number = strtod(value, &end);

	if (end != value && !*end && isfinite(number) && number >= option->fmin &&
	    (option->fmax == 0 || number <= option->fmax)) {
		*(double *)field(option, opts) = number;
		return 0;
	}
	if (option->fmax != 0)
		snprintf(allowed, sizeof allowed, "allowed is a number from %g to %g", option->fmin,
			 option->fmax);
	else
		snprintf(allowed, sizeof allowed, "allowed is a number from %g", option->fmin);
	return bad(option, value, where, diag, allowed);
}

static int set_duration(const struct sk_option *option, void *opts, const char *value,
			const char *where, struct sk_diag *diag)
{
	char allowed[200], least[SK_DURATION_BYTES], most[SK_DURATION_BYTES];
	uint64_t max = option->max ? option->max : SK_DURATION_MOST_NS, ns;

	if (sk_duration_parse(value, &ns) && ns >= option->min && ns <= max) {
		*(uint64_t *)field(option, opts) = ns;
		return 0;
	}
	snprintf(allowed, sizeof allowed,
		 "allowed is a time like 500ms, 90s, 10m, 2h or 7d, from %s to %s",
		 sk_duration_print(option->min, least), sk_duration_print(max, most));
	return bad(option, value, where, diag, allowed);
}

static int set_choice(const struct sk_option *option, void *opts, const char *value,
		      const char *where, struct sk_diag *diag)
{
	char names[256], allowed[300];

	for (int i = 0; option->choices[i]; i++) {
		if (strcmp(option->choices[i], value) == 0) {
			*(int *)field(option, opts) = i;
			return 0;
		}
	}
	list_choices(option, names, sizeof names);
	snprintf(allowed, sizeof allowed, "allowed are %s", names);
	return bad(option, value, where, diag, allowed);
}

static int set(const struct sk_option *option, void *opts, const char *value, const char *where,
	       struct sk_diag *diag)
{
	switch (option->kind) {
	case SK_OPTION_FLAG: {
		bool on = strcmp(value, "yes") == 0 || strcmp(value, "true") == 0 ||
			  strcmp(value, "on") == 0;
		bool off = strcmp(value, "no") == 0 || strcmp(value, "false") == 0 ||
			   strcmp(value, "off") == 0;
		if (!on && !off)
			return bad(option, value, where, diag, "allowed are yes and no");
		*(bool *)field(option, opts) = on;
		return 0;
	}
	case SK_OPTION_STRING:
		*(const char **)field(option, opts) = value;
		return 0;
	case SK_OPTION_UINT:
	case SK_OPTION_BYTES:
		return set_number(option, opts, value, where, diag);
	case SK_OPTION_FLOAT:
		return set_float(option, opts, value, where, diag);
	case SK_OPTION_DURATION:
		return set_duration(option, opts, value, where, diag);
	case SK_OPTION_CHOICE:
		return set_choice(option, opts, value, where, diag);
	case SK_OPTION_LIST: {
		struct sk_option_list *list = field(option, opts);
		if (list->n_items == sizeof list->items / sizeof *list->items)
			return sk_diag_fail(diag, EINVAL, "%s%s: given more than %zu times", where,
					    option->name, sizeof list->items / sizeof *list->items);
		list->items[list->n_items++] = value;
		return 0;
	}
	}
	return -EINVAL;
}

int sk_options_defaults(const struct sk_option *table, void *opts, struct sk_diag *diag)
{
	for (const struct sk_option *option = table; option->name; option++) {
		if (!option->default_text)
			continue;
		int err = set(option, opts, option->default_text, "the default of --", diag);
		if (err < 0)
			return err;
	}
	return 0;
}

/* --- Names --- */

static const struct sk_option *find(const struct sk_option *table, const char *name, size_t n)
{
	for (const struct sk_option *option = table; option->name; option++) {
		if (strlen(option->name) == n && memcmp(option->name, name, n) == 0)
			return option;
	}
	return NULL;
}

/* Edits (insert, drop, change, swap neighbours) between two short names. */
static unsigned distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
	unsigned rows[3][64];
	if (n_a >= 64 || n_b >= 64)
		return 64;
	for (size_t j = 0; j <= n_b; j++)
		rows[0][j] = (unsigned)j;
	for (size_t i = 1; i <= n_a; i++) {
		unsigned *row = rows[i % 3], *above = rows[(i - 1) % 3],
			 *two_above = rows[(i + 1) % 3];
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= n_b; j++) {
			unsigned best = above[j - 1] + (a[i - 1] != b[j - 1]);
			best = above[j] + 1 < best ? above[j] + 1 : best;
			best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    two_above[j - 2] + 1 < best)
				best = two_above[j - 2] + 1;
			row[j] = best;
		}
	}
	return rows[n_a % 3][n_b];
}

static const char *nearest(const struct sk_option *table, const char *name, size_t n, bool in_file)
{
	const char *best = NULL;
	unsigned least = 4;
	for (const struct sk_option *option = table; option->name; option++) {
		if (in_file && option->not_in_file)
			continue;
		size_t n_option = strlen(option->name);
		unsigned d = distance(name, n, option->name, n_option);
		bool begins = n >= 3 && n_option > n && memcmp(option->name, name, n) == 0;
		if (begins)
			d = 1;
		if (d < least) {
			least = d;
			best = option->name;
		}
	}
	return best;
}

static int unknown(const struct sk_option *table, const char *dashes, const char *name, size_t n,
		   struct sk_diag *diag)
{
	const char *near = nearest(table, name, n, false);
	if (near)
		return sk_diag_fail(diag, EINVAL, "there is no option %s%.*s; did you mean %s%s?",
				    dashes, (int)n, name, dashes, near);
	return sk_diag_fail(diag, EINVAL, "there is no option %s%.*s", dashes, (int)n, name);
}

/* Who writes a file does not see --help beside it: where no name is near, all are told. */
static int unknown_in_file(const struct sk_option *table, const char *where, const char *name,
			   struct sk_diag *diag)
{
	const char *near = nearest(table, name, strlen(name), true), *between = "";
	char names[768];
	size_t at = 0;

	if (near)
		return sk_diag_fail(diag, EINVAL, "%sthere is no option %s; did you mean %s?",
				    where, name, near);
	names[0] = '\0';
	for (const struct sk_option *option = table; option->name; option++) {
		if (option->not_in_file || at >= sizeof names)
			continue;
		at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", between,
				       option->name);
		between = ", ";
	}
	return sk_diag_fail(diag, EINVAL, "%sthere is no option %s; allowed are %s", where, name,
			    names);
}

int sk_options_set(const struct sk_option *table, void *opts, const char *name, const char *value,
		   const char *where, struct sk_diag *diag)
{
	char prefix[512];
	snprintf(prefix, sizeof prefix, "%s: ", where);
	const struct sk_option *option = find(table, name, strlen(name));
	if (!option || option->not_in_file)
		return unknown_in_file(table, prefix, name, diag);
	return set(option, opts, value, prefix, diag);
}

/* --- argv --- */

static int parse_long(const struct sk_option *table, void *opts, int argc, char **argv, int *at,
		      struct sk_diag *diag)
{
	const char *name = argv[*at] + 2, *equals = strchr(name, '=');
	size_t n = equals ? (size_t)(equals - name) : strlen(name);
	const struct sk_option *option = find(table, name, n);

	if (!option)
		return unknown(table, "--", name, n, diag);
	if (option->kind == SK_OPTION_FLAG)
		return set(option, opts, equals ? equals + 1 : "yes", "--", diag);
	if (equals)
		return set(option, opts, equals + 1, "--", diag);
	if (*at + 1 >= argc)
		return sk_diag_fail(diag, EINVAL, "--%s wants a value (%s)", option->name,
				    option->value_name);
	return set(option, opts, argv[++*at], "--", diag);
}

static int parse_short(const struct sk_option *table, void *opts, int argc, char **argv, int *at,
		       bool *ret_help, struct sk_diag *diag)
{
	for (const char *letter = argv[*at] + 1; *letter; letter++) {
		const struct sk_option *option = table;
		while (option->name && option->letter != *letter)
			option++;
		if (!option->name && *letter == 'h') {
			*ret_help = true;
			continue;
		}
		if (!option->name)
			return sk_diag_fail(diag, EINVAL, "there is no option -%c", *letter);
		if (option->kind == SK_OPTION_FLAG) {
			*(bool *)field(option, opts) = true;
			continue;
		}
		if (letter[1])
			return set(option, opts, letter + 1, "--", diag);
		if (*at + 1 >= argc)
			return sk_diag_fail(diag, EINVAL, "-%c wants a value (%s)", *letter,
					    option->value_name);
		return set(option, opts, argv[++*at], "--", diag);
	}
	return 0;
}

int sk_options_parse(const struct sk_option *table, void *opts, int argc, char **argv,
		     int *ret_n_rest, bool *ret_help, struct sk_diag *diag)
{
	int n_rest = 0;

	*ret_help = false;
	for (int at = 1; at < argc; at++) {
		int err = 0;
		if (strcmp(argv[at], "--") == 0) {
			for (at++; at < argc; at++)
				argv[1 + n_rest++] = argv[at];
			break;
		}
		if (strcmp(argv[at], "--help") == 0)
			*ret_help = true;
		else if (strncmp(argv[at], "--", 2) == 0)
			err = parse_long(table, opts, argc, argv, &at, diag);
		else if (argv[at][0] == '-' && argv[at][1])
			err = parse_short(table, opts, argc, argv, &at, ret_help, diag);
		else
			argv[1 + n_rest++] = argv[at];
		if (err < 0)
			return err;
	}
	*ret_n_rest = n_rest;
	return 0;
}
