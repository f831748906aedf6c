#include "client/distribution.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	int kind;
	char separator; /* between its two numbers; 0: it has one */
} forms[] = {
	{"uniform:", SK_UNIFORM, '-'},
	{"normal:", SK_NORMAL, ','},
	{"lognormal:", SK_LOGNORMAL, ','},
	{"exp:", SK_EXPONENTIAL, 0},
	{"", SK_FIXED, 0},
};

/* Digits and a point alone: strtod() would take "nan", "0x1p3" and spaces too. */
static bool take_number(const char **text, double *ret_number)
{
	size_t n = strspn(*text, "0123456789.");
	char *end;

	*ret_number = strtod(*text, &end);
	bool is_number = n && end == *text + n;
	*text += n;
	return is_number;
}

static bool is_sensible(const struct sk_distribution *d)
{
	bool is_whole = d->kind == SK_FIXED || d->kind == SK_UNIFORM;

	if (d->a < 1 || d->a > SK_DISTRIBUTION_MOST || d->b > SK_DISTRIBUTION_MOST)
		return false;
	if (is_whole && (d->a != floor(d->a) || d->b != floor(d->b)))
		return false;
	return d->kind != SK_UNIFORM || d->a <= d->b;
}

int sk_distribution_parse(const char *text, struct sk_distribution *ret_distribution,
			  struct sk_diag *diag)
{
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		struct sk_distribution d = {.kind = forms[i].kind};
		size_t n_name = strlen(forms[i].name);
		const char *at = text + n_name;
		if (strncmp(text, forms[i].name, n_name) != 0)
			continue;
		if (take_number(&at, &d.a) &&
		    (!forms[i].separator ||
		     (*at++ == forms[i].separator && take_number(&at, &d.b))) &&
		    !*at && is_sensible(&d)) {
			*ret_distribution = d;
			return 0;
		}
		break;
	}
	return sk_diag_fail(diag, EINVAL,
			    "'%s' is no number of tokens; allowed are 128, uniform:32-512, "
			    "normal:MEAN,DEVIATION, lognormal:MEDIAN,SIGMA and exp:MEAN, "
			    "from 1 to %u",
			    text, SK_DISTRIBUTION_MOST);
}

uint64_t sk_distribution_draw(const struct sk_distribution *d, struct sk_random *random)
{
	double x = d->a;

	switch (d->kind) {
	case SK_FIXED:
		break;
	case SK_UNIFORM:
		x += (double)sk_random_below(random, (uint64_t)(d->b - d->a) + 1);
		break;
	case SK_NORMAL:
		x += d->b * sk_random_normal(random);
		break;
	case SK_LOGNORMAL:
		x *= exp(d->b * sk_random_normal(random));
		break;
	case SK_EXPONENTIAL:
		x *= sk_random_exponential(random);
		break;
	}
	x = round(x);
	return x < 1 ? 1 : x > SK_DISTRIBUTION_MOST ? SK_DISTRIBUTION_MOST : (uint64_t)x;
}
