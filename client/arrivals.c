#include "client/arrivals.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FIELD_BYTES 64 /* no longer one means anything here */

enum { TIME, PROMPT, OUTPUT, N_COLUMNS };
static const char *const names[N_COLUMNS] = {"TIMESTAMP", "ContextTokens", "GeneratedTokens"};

struct line {
	const char *at, *end;
};

/* The next field without the spaces around it; cut to a length that no good one has. False: the line is over. */
static bool take_field(struct line *line, char ret_field[FIELD_BYTES])
{
	if (!line->at)
		return false;
	const char *comma = memchr(line->at, ',', (size_t)(line->end - line->at));
	const char *from = line->at, *to = comma ? comma : line->end;
	line->at = comma ? comma + 1 : NULL;
	while (from < to && isspace((unsigned char)*from))
		from++;
	while (from < to && isspace((unsigned char)to[-1]))
		to--;
	size_t n = (size_t)(to - from) < FIELD_BYTES ? (size_t)(to - from) : FIELD_BYTES - 1;
	memcpy(ret_field, from, n);
	ret_field[n] = '\0';
	return true;
}

/* Where each column stands, from the first line. */
static bool find_columns(struct line line, int ret_columns[N_COLUMNS])
{
	char field[FIELD_BYTES];

	for (int i = 0; i < N_COLUMNS; i++)
		ret_columns[i] = -1;
	for (int column = 0; take_field(&line, field); column++) {
		for (int i = 0; i < N_COLUMNS; i++) {
			if (strcmp(field, names[i]) == 0)
				ret_columns[i] = column;
		}
	}
	return ret_columns[TIME] >= 0 && ret_columns[PROMPT] >= 0 && ret_columns[OUTPUT] >= 0;
}

static bool read_count(const char *field, uint64_t *ret_count)
{
	*ret_count = strtoull(field, NULL, 10);
	return strspn(field, "0123456789") == strlen(field) && strlen(field) < 9 && *ret_count;
}

/* "+02:00", "-07:30", "Z" or nothing; in seconds to take off. */
static bool read_zone(const char *at, double *ret_offset_s)
{
	unsigned hours, minutes;
	int n = 0;

	*ret_offset_s = 0;
	if (strcmp(at, "Z") == 0 || !*at)
		return true;
	if ((*at != '+' && *at != '-') || sscanf(at + 1, "%2u:%2u%n", &hours, &minutes, &n) != 2 ||
	    at[1 + n])
		return false;
	*ret_offset_s = (*at == '-' ? -60. : 60.) * (hours * 60 + minutes);
	return true;
}

static bool read_time(const char *field, double *ret_s)
{
	struct tm date = {0};
	char *end;
	int n = 0;

	if (!isdigit((unsigned char)*field))
		return false;
	if (sscanf(field, "%4d-%2d-%2d%*1[ T]%2d:%2d:%n", &date.tm_year, &date.tm_mon,
		   &date.tm_mday, &date.tm_hour, &date.tm_min, &n) != 5 ||
	    !n) {
		*ret_s = strtod(field, &end);
		return !*end && *ret_s < 1e12;
	}
	size_t n_digits = strspn(field + n, "0123456789.");
	double seconds = strtod(field + n, &end), zone_s;
	if (!n_digits || end != field + n + n_digits || seconds >= 61 || date.tm_mon < 1 ||
	    date.tm_mon > 12 || date.tm_mday < 1 || date.tm_mday > 31 || date.tm_hour < 0 ||
	    date.tm_hour > 23 || date.tm_min < 0 || date.tm_min > 59 || !read_zone(end, &zone_s))
		return false;
	date.tm_year -= 1900;
	date.tm_mon--;
	*ret_s = (double)timegm(&date) + seconds - zone_s;
	return true;
}

/* NULL, or what is wrong with the line. */
static const char *read_row(struct line line, const int columns[N_COLUMNS],
			    struct sk_arrival *arrival)
{
	char fields[N_COLUMNS][FIELD_BYTES] = {"", "", ""}, field[FIELD_BYTES];

	for (int column = 0; take_field(&line, field); column++) {
		for (int i = 0; i < N_COLUMNS; i++) {
			if (columns[i] == column)
				strcpy(fields[i], field);
		}
	}
	if (!read_time(fields[TIME], &arrival->at_s))
		return "TIMESTAMP is no time";
	if (!read_count(fields[PROMPT], &arrival->prompt_tokens))
		return "ContextTokens is no number of tokens, 1 or more";
	if (!read_count(fields[OUTPUT], &arrival->output_tokens))
		return "GeneratedTokens is no number of tokens, 1 or more";
	return NULL;
}

static int compare(const void *a, const void *b)
{
	const struct sk_arrival *x = a, *y = b;
	return (x->at_s > y->at_s) - (x->at_s < y->at_s);
}

static void sort(struct sk_arrivals *arrivals)
{
	struct sk_arrival *items = arrivals->items;
	size_t i = 1;

	while (i < arrivals->n_items && items[i].at_s >= items[i - 1].at_s)
		i++;
	if (i < arrivals->n_items)
		qsort(items, arrivals->n_items, sizeof *items, compare);
	for (size_t j = arrivals->n_items; j-- > 0;)
		items[j].at_s -= items[0].at_s;
}

static bool is_empty(struct line line)
{
	while (line.at < line.end && isspace((unsigned char)*line.at))
		line.at++;
	return line.at == line.end;
}

/* Room for one more, which are allocated in powers of two. */
static int reserve(struct sk_arrivals *arrivals)
{
	size_t n = arrivals->n_items;

	if (n & (n - 1))
		return 0;
	struct sk_arrival *grown = realloc(arrivals->items, (n ? 2 * n : 1) * sizeof *grown);
	if (!grown)
		return -ENOMEM;
	arrivals->items = grown;
	return 0;
}

int sk_arrivals_parse(const char *name, const char *text, size_t n_bytes,
		      struct sk_arrivals *ret_arrivals, struct sk_diag *diag)
{
	const char *at = text, *end = text + n_bytes, *fault = NULL;
	struct sk_arrivals arrivals = {0};
	int columns[N_COLUMNS] = {-1, -1, -1};
	size_t n_lines = 0;

	while (at < end && !fault) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		struct line line = {at, newline ? newline : end};
		at = newline ? newline + 1 : end;
		if (!n_lines++) {
			if (!find_columns(line, columns))
				fault = "the columns TIMESTAMP, ContextTokens and GeneratedTokens "
					"are wanted";
		} else if (!is_empty(line)) {
			fault = reserve(&arrivals) < 0
					? "not enough memory"
					: read_row(line, columns,
						   &arrivals.items[arrivals.n_items]);
			arrivals.n_items++;
		}
	}
	if (fault || !arrivals.n_items) {
		sk_arrivals_finish(&arrivals);
		return fault ? sk_diag_fail(diag, EINVAL, "%s:%zu: %s", name, n_lines, fault)
			     : sk_diag_fail(diag, EINVAL, "%s holds no request", name);
	}
	sort(&arrivals);
	*ret_arrivals = arrivals;
	return 0;
}

void sk_arrivals_finish(struct sk_arrivals *arrivals)
{
	free(arrivals->items);
	*arrivals = (struct sk_arrivals){0};
}
