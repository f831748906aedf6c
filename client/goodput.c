#include "client/goodput.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *text, struct sk_diag *diag)
{
	return sk_diag_fail(diag, EINVAL,
			    "'%s' is not allowed; wanted are milliseconds, each once, as "
			    "ttft:500,tpot:40,e2e:9000",
			    text);
}

int sk_goodput_parse(const char *text, struct sk_goodput *ret_goodput, struct sk_diag *diag)
{
	struct sk_goodput goodput = SK_GOODPUT_ANY;
	const struct {
		const char *name;
		double *bound;
	} bounds[] = {{"ttft:", &goodput.ttft_ms},
		      {"tpot:", &goodput.tpot_ms},
		      {"e2e:", &goodput.e2e_ms}};
	const char *at = text;

	for (;;) {
		double *bound = NULL;
		char *end;
		for (unsigned i = 0; i < 3; i++) {
			size_t n = strlen(bounds[i].name);
			if (strncmp(at, bounds[i].name, n) == 0) {
				bound = bounds[i].bound;
				at += n;
				break;
			}
		}
		size_t n_digits = strspn(at, "0123456789.");
		if (!bound || !isinf(*bound) || !n_digits)
			return fail(text, diag);
		*bound = strtod(at, &end);
		if (end != at + n_digits || !isfinite(*bound) || (*end && *end != ','))
			return fail(text, diag);
		if (!*end)
			break;
		at = end + 1;
	}
	*ret_goodput = goodput;
	return 0;
}

bool sk_goodput_is_met(const struct sk_goodput *goodput, double ttft_ms, double tpot_ms,
		       double e2e_ms)
{
	return ttft_ms <= goodput->ttft_ms && !(tpot_ms > goodput->tpot_ms) &&
	       e2e_ms <= goodput->e2e_ms;
}
