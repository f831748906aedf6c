#include "base/duration.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	double ns;
} units[] = {{"", 1e9},       {"s", 1e9},           {"ms", 1e6},
	     {"m", 60 * 1e9}, {"h", 60 * 60 * 1e9}, {"d", 24 * 60 * 60 * 1e9}};

bool sk_duration_parse(const char *text, uint64_t *ret_ns)
{
	size_t n_digits = strspn(text, "0123456789.");
	char *end;

	/* strtod() also knows signs, exponents, hexadecimal, infinity: none of that begins so, and ends there. */
	double number = strtod(text, &end);
	if (!isdigit((unsigned char)text[0]) || end != text + n_digits)
		return false;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
		if (strcmp(end, units[i].name) != 0)
			continue;
		double ns = number * units[i].ns;
		if (ns > (double)SK_DURATION_MOST_NS)
			return false;
		*ret_ns = (uint64_t)(ns + 0.5);
		return true;
	}
	return false;
}

const char *sk_duration_print(uint64_t ns, char ret_text[SK_DURATION_BYTES])
{
	const uint64_t s = ns / 1000000000;

	if (s < 10)
		snprintf(ret_text, SK_DURATION_BYTES, "%llu.%llus", (unsigned long long)s,
			 (unsigned long long)(ns % 1000000000 / 100000000));
	else if (s < 120)
		snprintf(ret_text, SK_DURATION_BYTES, "%llus", (unsigned long long)s);
	else if (s < 120 * 60)
		snprintf(ret_text, SK_DURATION_BYTES, "%llum", (unsigned long long)s / 60);
	else if (s < 48 * 60 * 60)
		snprintf(ret_text, SK_DURATION_BYTES, "%lluh", (unsigned long long)s / 60 / 60);
	else
		snprintf(ret_text, SK_DURATION_BYTES, "%llud",
			 (unsigned long long)s / 60 / 60 / 24);
	return ret_text;
}
