#include "engine/scheduler.h"

#include <stddef.h>

#define PIECE 32 /* tokens of a prompt handed out at once */

static bool is_decoding(const struct sk_want *want)
{
	return want->n_tokens == 1;
}

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Who comes to want begins where those in want are. */
static void begin(const struct sk_scheduler *scheduler, struct sk_want *want, enum sk_scarce what)
{
	struct sk_tenant *tenant = want->tenant;
	tenant->share.had[what] = later(tenant->share.had[what], scheduler->least[what]);
	want->share->had[what] = later(want->share->had[what], tenant->least[what]);
}

static bool is_for(const struct sk_want *want, enum sk_scarce what)
{
	return what == SK_SCARCE_PLACES ? is_decoding(want) : want->n_tokens > 1;
}

static void begin_all(const struct sk_scheduler *scheduler, struct sk_want *wants, uint32_t n_wants,
		      enum sk_scarce what)
{
	for (uint32_t i = 0; i < n_wants; i++)
		if (is_for(&wants[i], what))
			begin(scheduler, &wants[i], what);
}

/* Where those in want are now: what those have had who want more, the least of it. Where nobody does, nothing is scarce,
 * and what one has had more than another is forgotten. */
static void settle(struct sk_scheduler *scheduler, struct sk_want *wants, uint32_t n_wants,
		   enum sk_scarce what)
{
	bool is_short = false;
	for (uint32_t i = 0; i < n_wants; i++)
		wants[i].tenant->is_short = false;
	for (uint32_t i = 0; i < n_wants; i++) {
		struct sk_want *want = &wants[i];
		struct sk_tenant *tenant = want->tenant;
		if (!is_for(want, what) || want->n_granted == want->n_tokens)
			continue;
		scheduler->least[what] =
			is_short ? sooner(scheduler->least[what], tenant->share.had[what])
				 : tenant->share.had[what];
		tenant->least[what] = tenant->is_short
					      ? sooner(tenant->least[what], want->share->had[what])
					      : want->share->had[what];
		is_short = tenant->is_short = true;
	}
	for (uint32_t i = 0; i < n_wants; i++) {
		struct sk_want *want = &wants[i];
		struct sk_tenant *tenant = want->tenant;
		if (!is_for(want, what))
			continue;
		if (!is_short)
			scheduler->least[what] =
				later(scheduler->least[what], tenant->share.had[what]);
		if (!tenant->is_short)
			tenant->least[what] = later(tenant->least[what], want->share->had[what]);
	}
}

static void charge(struct sk_want *want, enum sk_scarce what, uint32_t n)
{
	want->tenant->share.had[what] += (uint64_t)n * SK_ONE_HAD / want->tenant->weight;
	want->share->had[what] += (uint64_t)n * SK_ONE_HAD;
}

/* Of two in want: a user that has had less, then a session that has. */
static bool comes_before(const struct sk_want *a, const struct sk_want *b, enum sk_scarce what)
{
	const uint64_t x = a->tenant->share.had[what], y = b->tenant->share.had[what];
	return x != y ? x < y : a->share->had[what] < b->share->had[what];
}

static void grant(struct sk_want *want, enum sk_scarce what, uint32_t n)
{
	want->n_granted += n;
	charge(want, what, n);
}

/* One token for each session that decodes; where there are more than places, for those whose turn it is. */
static uint32_t grant_decoding(struct sk_scheduler *scheduler, struct sk_want *wants,
			       uint32_t n_wants, uint32_t n_decoding, uint32_t n_places)
{
	if (n_decoding <= n_places) {
		for (uint32_t i = 0; i < n_wants; i++)
			wants[i].n_granted = is_decoding(&wants[i]);
		return n_decoding;
	}
	begin_all(scheduler, wants, n_wants, SK_SCARCE_PLACES);
	for (uint32_t n = 0; n < n_places; n++) {
		struct sk_want *next = NULL;
		for (uint32_t i = 0; i < n_wants; i++) {
			struct sk_want *want = &wants[i];
			if (is_decoding(want) && !want->n_granted &&
			    (!next || comes_before(want, next, SK_SCARCE_PLACES)))
				next = want;
		}
		grant(next, SK_SCARCE_PLACES, 1);
	}
	settle(scheduler, wants, n_wants, SK_SCARCE_PLACES);
	return n_places;
}

/* Hands out `left` tokens to prompts, in pieces. */
static uint32_t grant_prompts(struct sk_scheduler *scheduler, struct sk_want *wants,
			      uint32_t n_wants, uint32_t n_places, uint32_t left,
			      uint32_t chunk_tokens)
{
	const uint32_t all = left;
	begin_all(scheduler, wants, n_wants, SK_SCARCE_TOKENS);
	while (left) {
		struct sk_want *next = NULL;
		for (uint32_t i = 0; i < n_wants; i++) {
			struct sk_want *want = &wants[i];
			if (want->n_tokens > 1 && want->n_granted < want->n_tokens &&
			    want->n_granted < chunk_tokens && (want->n_granted || n_places) &&
			    (!next || comes_before(want, next, SK_SCARCE_TOKENS)))
				next = want;
		}
		if (!next)
			break;
		uint64_t n = next->n_tokens - next->n_granted;
		n = n < chunk_tokens - next->n_granted ? n : chunk_tokens - next->n_granted;
		n = n < PIECE ? n : PIECE;
		n = n < left ? n : left;
		n_places -= !next->n_granted;
		grant(next, SK_SCARCE_TOKENS, (uint32_t)n);
		left -= (uint32_t)n;
	}
	settle(scheduler, wants, n_wants, SK_SCARCE_TOKENS);
	return all - left;
}

/* Where a step is long because many decode, their tokens are of the same stuff as the `left` ones that prompts want: each
 * user's are charged, but to no more than a fair share of those, or its prompts might never come. Where prompts
 * want no more than there is, nothing is scarce. */
static void charge_decoding(struct sk_scheduler *scheduler, struct sk_want *wants, uint32_t n_wants,
			    uint32_t left)
{
	uint64_t wanted = 0, weights = 0;
	for (uint32_t i = 0; i < n_wants; i++)
		wants[i].tenant->n_charged = UINT32_MAX;
	for (uint32_t i = 0; i < n_wants; i++) {
		struct sk_tenant *tenant = wants[i].tenant;
		if (!wants[i].n_tokens)
			continue;
		if (tenant->n_charged) /* seen first */
			weights += tenant->weight;
		tenant->n_charged = 0;
		if (wants[i].n_tokens > 1)
			wanted += sooner(wants[i].n_tokens, left);
	}
	for (uint32_t i = 0; i < n_wants && wanted > left; i++) {
		struct sk_tenant *tenant = wants[i].tenant;
		if (!is_decoding(&wants[i]) || !wants[i].n_granted ||
		    tenant->n_charged >= (uint64_t)left * tenant->weight / weights)
			continue;
		begin(scheduler, &wants[i], SK_SCARCE_TOKENS);
		charge(&wants[i], SK_SCARCE_TOKENS, 1);
		tenant->n_charged++;
	}
}

uint32_t sk_schedule(struct sk_scheduler *scheduler, struct sk_want *wants, uint32_t n_wants,
		     const struct sk_schedule_limits *limits)
{
	uint32_t n_decoding = 0, n_prompts = 0;

	for (uint32_t i = 0; i < n_wants; i++) {
		wants[i].n_granted = 0;
		n_prompts += wants[i].n_tokens > 1;
		n_decoding += is_decoding(&wants[i]);
	}
	/* One place is kept for a prompt where any waits, or decoding alone could fill every step. Where there is but
	 * one, they take turns. */
	const bool keeps_place =
		n_prompts && (limits->max_sessions > 1 || scheduler->turn++ % 2 || !n_decoding);
	uint32_t n_places = limits->max_sessions - keeps_place;

	uint32_t n = grant_decoding(scheduler, wants, n_wants, n_decoding, n_places);
	if (n > limits->free_tokens)
		charge_decoding(scheduler, wants, n_wants, limits->max_tokens - n);
	return n + grant_prompts(scheduler, wants, n_wants, limits->max_sessions - n,
				 limits->max_tokens - n, limits->chunk_tokens);
}
