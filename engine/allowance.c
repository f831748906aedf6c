#include "engine/allowance.h"

#include <stddef.h>

#define SECOND_NS 1000000000u
#define PIECE     32 /* tokens of a prompt, as the scheduler hands them out */

static uint64_t lesser(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t greater(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

uint64_t sk_allowance_left(const struct sk_allowance *allowance, uint64_t now_ns)
{
	uint64_t missing_ns = allowance->full_ns > now_ns ? allowance->full_ns - now_ns : 0;
	return (SECOND_NS - lesser(missing_ns, SECOND_NS)) * allowance->per_second / SECOND_NS;
}

uint64_t sk_allowance_when(const struct sk_allowance *allowance, uint64_t n_tokens)
{
	const uint64_t rate = allowance->per_second;
	uint64_t then_ns = allowance->full_ns + (n_tokens * SECOND_NS + rate - 1) / rate;
	return then_ns - lesser(then_ns, SECOND_NS);
}

/* What the session has had, and gets in this step. */
static uint64_t has(const struct sk_want *want)
{
	return want->share->had[SK_SCARCE_ALLOWANCE] + (uint64_t)want->n_granted * SK_ONE_HAD;
}

/* It could run more in this step than it gets. */
static bool is_short(const struct sk_want *want, uint32_t most)
{
	return want->n_granted < lesser(want->n_tokens, most);
}

/* The session that has had least of those that want more; NULL: none does. */
static struct sk_want *whose_turn(const struct sk_tenant *tenant, struct sk_want *wants,
				  uint32_t n_wants, uint32_t most)
{
	struct sk_want *next = NULL;
	for (uint32_t i = 0; i < n_wants; i++) {
		struct sk_want *want = &wants[i];
		if (want->tenant == tenant && is_short(want, most) &&
		    (!next || has(want) < has(next)))
			next = want;
	}
	return next;
}

/* Where those are who want more than they get: the least that one of them has had. Where nobody does, what one has had
 * more than another is forgotten. */
static uint64_t least_had(const struct sk_tenant *tenant, const struct sk_want *wants,
			  uint32_t n_wants, uint32_t most)
{
	uint64_t least = UINT64_MAX, greatest = tenant->least[SK_SCARCE_ALLOWANCE];
	for (uint32_t i = 0; i < n_wants; i++) {
		const struct sk_want *want = &wants[i];
		if (want->tenant != tenant || !want->n_tokens)
			continue;
		greatest = greater(greatest, has(want));
		if (is_short(want, most))
			least = lesser(least, want->share->had[SK_SCARCE_ALLOWANCE]);
	}
	return least == UINT64_MAX ? greatest : least;
}

/* Who comes to want begins where the others are; or, as a stream that stood back for a prompt's piece and wants but one token
 * a step, so much behind them. */
static void begin(const struct sk_tenant *tenant, struct sk_want *wants, uint32_t n_wants)
{
	const uint64_t least = tenant->least[SK_SCARCE_ALLOWANCE],
		       behind = lesser(least, (uint64_t)PIECE * SK_ONE_HAD);
	for (uint32_t i = 0; i < n_wants; i++) {
		struct sk_want *want = &wants[i];
		if (want->tenant != tenant)
			continue;
		uint64_t *had = &want->share->had[SK_SCARCE_ALLOWANCE];
		*had = greater(*had, least - behind);
		want->n_granted = 0;
	}
}

uint64_t sk_allowance_cut(const struct sk_allowance *allowance, struct sk_tenant *tenant,
			  struct sk_want *wants, uint32_t n_wants, uint32_t most, uint64_t now_ns)
{
	if (!allowance->per_second)
		return 0;
	const uint64_t all = sk_allowance_left(allowance, now_ns),
		       piece = lesser(PIECE, lesser(most, allowance->per_second));
	uint64_t left = all, until_ns = 0;
	struct sk_want *next;

	begin(tenant, wants, n_wants);
	while ((next = whose_turn(tenant, wants, n_wants, most))) {
		uint64_t n = lesser(lesser(next->n_tokens, most) - next->n_granted, piece);
		if (n > left) {
			until_ns = left == all ? sk_allowance_when(allowance, n) : 0;
			break;
		}
		next->n_granted += (uint32_t)n;
		left -= n;
	}
	tenant->least[SK_SCARCE_ALLOWANCE] = least_had(tenant, wants, n_wants, most);
	for (uint32_t i = 0; i < n_wants; i++)
		if (wants[i].tenant == tenant && is_short(&wants[i], most))
			wants[i].n_tokens = wants[i].n_granted;
	return until_ns;
}

void sk_allowance_take(struct sk_allowance *allowance, const struct sk_tenant *tenant,
		       struct sk_want *wants, uint32_t n_wants, uint64_t now_ns)
{
	uint64_t n = 0;

	if (!allowance->per_second)
		return;
	for (uint32_t i = 0; i < n_wants; i++) {
		if (wants[i].tenant != tenant)
			continue;
		wants[i].share->had[SK_SCARCE_ALLOWANCE] +=
			(uint64_t)wants[i].n_granted * SK_ONE_HAD;
		n += wants[i].n_granted;
	}
	allowance->full_ns =
		greater(allowance->full_ns, now_ns) + n * SECOND_NS / allowance->per_second;
}
