#include "engine/scheduler.h"

#include <stddef.h>

#define PIECE        32 /* tokens of a prompt handed out at once */
#define CREDIT_STEPS 2  /* what one might have had in so many, and missed, one may still have */

static bool is_decoding(const struct sk_want *want)
{
	return want->n_tokens == 1;
}

static bool is_prompt(const struct sk_want *want)
{
	return want->n_tokens > 1;
}

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* --- Accounts --- */

/* Who comes to want begins where those in want are, less a credit. Who has had nothing ever has none: or each request of
 * a new session would come first. */
static uint64_t since(uint64_t had, uint64_t least, uint64_t credit)
{
	return later(had, had ? least - sooner(least, credit) : least);
}

static void begin_user(const struct sk_scheduler *scheduler, struct sk_tenant *tenant,
		       enum sk_scarce what, uint64_t credit)
{
	tenant->share.had[what] =
		since(tenant->share.had[what], scheduler->least[what], credit / tenant->weight);
}

static bool is_for(const struct sk_want *want, enum sk_scarce what)
{
	return what == SK_SCARCE_PLACES ? want->wants_place : is_prompt(want);
}

static bool is_short(const struct sk_want *want, enum sk_scarce what)
{
	return what == SK_SCARCE_PLACES ? !want->has_place : want->n_granted < want->n_tokens;
}

static void begin(const struct sk_scheduler *scheduler, struct sk_want *wants, uint32_t n_wants,
		  enum sk_scarce what, uint64_t credit, uint64_t own_credit)
{
	for (uint32_t i = 0; i < n_wants; i++) {
		struct sk_want *want = &wants[i];
		if (!is_for(want, what))
			continue;
		begin_user(scheduler, want->tenant, what, credit);
		want->share->had[what] =
			since(want->share->had[what], want->tenant->least[what], own_credit);
	}
}

/* Where those in want are now: the least that any has had who wants more. Where nobody does, nothing is scarce, and
 * what one has had more than another is forgotten. It never goes back, so that one's credit adds nothing to another's. */
static void settle(struct sk_scheduler *scheduler, struct sk_want *wants, uint32_t n_wants,
		   enum sk_scarce what)
{
	uint64_t least = UINT64_MAX, most = 0;

	for (uint32_t i = 0; i < n_wants; i++) {
		wants[i].tenant->low = UINT64_MAX;
		wants[i].tenant->high = 0;
	}
	for (uint32_t i = 0; i < n_wants; i++) {
		const struct sk_want *want = &wants[i];
		struct sk_tenant *tenant = want->tenant;
		if (!is_for(want, what))
			continue;
		tenant->high = later(tenant->high, want->share->had[what]);
		most = later(most, tenant->share.had[what]);
		if (is_short(want, what)) {
			tenant->low = sooner(tenant->low, want->share->had[what]);
			least = sooner(least, tenant->share.had[what]);
		}
	}
	for (uint32_t i = 0; i < n_wants; i++) {
		struct sk_tenant *tenant = wants[i].tenant;
		uint64_t now = tenant->low == UINT64_MAX ? tenant->high : tenant->low;
		tenant->least[what] = later(tenant->least[what], now);
	}
	scheduler->least[what] = later(scheduler->least[what], least == UINT64_MAX ? most : least);
}

static uint64_t by_weight(const struct sk_tenant *tenant, uint32_t n)
{
	return (uint64_t)n * (SK_ONE_HAD / tenant->weight);
}

static void charge(struct sk_want *want, enum sk_scarce what, uint32_t n)
{
	want->tenant->share.had[what] += by_weight(want->tenant, n);
	want->share->had[what] += (uint64_t)n * SK_ONE_HAD;
}

/* Of two in want: a user that has had less, then a session that has. */
static bool comes_before(const struct sk_want *a, const struct sk_want *b, enum sk_scarce what)
{
	const uint64_t x = a->tenant->share.had[what], y = b->tenant->share.had[what];
	return x != y ? x < y : a->share->had[what] < b->share->had[what];
}

/* --- Tokens --- */

/* Hands out to prompts that may have a place what those that decode leave of the step: these are n_decoding, or, where a
 * prompt takes the place of one, fewer. Returns how many prompts take part. */
static uint32_t grant_prompts(struct sk_want *wants, uint32_t n_wants, uint32_t n_decoding,
			      const struct sk_schedule_limits *limits)
{
	uint32_t n_prompts = 0, n_tokens = 0;

	for (uint32_t i = 0; i < n_wants; i++) {
		n_prompts += wants[i].n_granted > 0;
		n_tokens += wants[i].n_granted;
	}
	for (;;) {
		struct sk_want *next = NULL;
		for (uint32_t i = 0; i < n_wants; i++) {
			struct sk_want *want = &wants[i];
			if (is_prompt(want) && want->has_place &&
			    want->n_granted < sooner(want->n_tokens, limits->chunk_tokens) &&
			    (!next || comes_before(want, next, SK_SCARCE_TOKENS)))
				next = want;
		}
		if (!next)
			return n_prompts;
		const uint32_t n_with = n_prompts + !next->n_granted,
			       n_places = limits->max_sessions;
		const uint64_t n_taken =
			n_tokens + sooner(n_decoding, n_places > n_with ? n_places - n_with : 0);
		if (n_taken >= limits->max_tokens)
			return n_prompts;
		uint64_t n = sooner(next->n_tokens, limits->chunk_tokens) - next->n_granted;
		n = sooner(sooner(n, PIECE), limits->max_tokens - n_taken);
		next->n_granted += (uint32_t)n;
		charge(next, SK_SCARCE_TOKENS, (uint32_t)n);
		n_tokens += (uint32_t)n;
		n_prompts = n_with;
	}
}

/* Where a step is long because many decode, their tokens are of the same stuff as the `left` ones that prompts want: each
 * user's are charged, but to no more than a fair share of those, or its prompts might never come. (Its sessions' are not:
 * between them prompts alone are shared.) Where prompts want no more than there is, nothing is scarce. */
static void charge_decoding(struct sk_scheduler *scheduler, struct sk_want *wants, uint32_t n_wants,
			    uint32_t left, uint64_t credit)
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
		if (is_prompt(&wants[i]))
			wanted += sooner(wants[i].n_tokens, left);
	}
	for (uint32_t i = 0; i < n_wants && wanted > left; i++) {
		struct sk_tenant *tenant = wants[i].tenant;
		if (!is_decoding(&wants[i]) || !wants[i].n_granted ||
		    tenant->n_charged >= (uint64_t)left * tenant->weight / weights)
			continue;
		begin_user(scheduler, tenant, SK_SCARCE_TOKENS, credit);
		tenant->share.had[SK_SCARCE_TOKENS] += by_weight(tenant, 1);
		tenant->n_charged++;
	}
}

/* --- Places --- */

/* Those that decode and the prompts for which there are tokens are more than there are places. */
static void give_places(struct sk_scheduler *scheduler, struct sk_want *wants, uint32_t n_wants,
			uint32_t n_places)
{
	struct sk_want *longest = wants;

	for (uint32_t i = 0; i < n_wants; i++) {
		struct sk_want *want = &wants[i];
		want->wants_place = is_decoding(want) || want->n_granted;
		want->has_place = false;
		longest = want->n_granted > longest->n_granted ? want : longest;
	}
	begin(scheduler, wants, n_wants, SK_SCARCE_PLACES,
	      (uint64_t)CREDIT_STEPS * n_places * SK_ONE_HAD, CREDIT_STEPS * SK_ONE_HAD);
	/* One is for the prompt that fills the step, and costs nothing: tokens do. Where there is but one, all take turns. */
	if (n_places > 1 && longest->n_granted) {
		longest->has_place = true;
		n_places--;
	}
	while (n_places--) {
		struct sk_want *next = NULL;
		for (uint32_t i = 0; i < n_wants; i++) {
			struct sk_want *want = &wants[i];
			if (want->wants_place && !want->has_place &&
			    (!next || comes_before(want, next, SK_SCARCE_PLACES)))
				next = want;
		}
		next->has_place = true;
		charge(next, SK_SCARCE_PLACES, 1);
	}
	settle(scheduler, wants, n_wants, SK_SCARCE_PLACES);
}

/* --- A step --- */

static void take_tokens_back(struct sk_want *want)
{
	want->tenant->share.had[SK_SCARCE_TOKENS] -= by_weight(want->tenant, want->n_granted);
	want->share->had[SK_SCARCE_TOKENS] -= (uint64_t)want->n_granted * SK_ONE_HAD;
	want->n_granted = 0;
}

double sk_schedule_part_of_prompts(const struct sk_want *wants, uint32_t n_wants)
{
	double asked = 0, all = 0;

	for (uint32_t i = 0; i < n_wants; i++)
		wants[i].tenant->n_wanting = 0;
	for (uint32_t i = 0; i < n_wants; i++)
		wants[i].tenant->n_wanting += wants[i].n_tokens > 0;
	for (uint32_t i = 0; i < n_wants; i++) {
		if (!wants[i].n_tokens)
			continue;
		const double part = (double)wants[i].tenant->weight / wants[i].tenant->n_wanting;
		all += part;
		asked += is_prompt(&wants[i]) ? part : 0;
	}
	return all > 0 ? asked / all : 0;
}

uint32_t sk_schedule(struct sk_scheduler *scheduler, struct sk_want *wants, uint32_t n_wants,
		     const struct sk_schedule_limits *limits)
{
	const uint32_t n_places = limits->max_sessions;
	const uint64_t credit = (uint64_t)CREDIT_STEPS * limits->max_tokens * SK_ONE_HAD;
	uint32_t n_decoding = 0, n_running = 0, total = 0;

	for (uint32_t i = 0; i < n_wants; i++) {
		wants[i].n_granted = 0;
		wants[i].has_place = true;
		n_decoding += is_decoding(&wants[i]);
	}
	begin(scheduler, wants, n_wants, SK_SCARCE_TOKENS, credit, credit);
	uint32_t n_prompts = grant_prompts(wants, n_wants, n_decoding, limits);
	if (n_decoding + n_prompts > n_places) {
		give_places(scheduler, wants, n_wants, n_places);
		for (uint32_t i = 0; i < n_wants; i++)
			if (wants[i].n_granted && !wants[i].has_place)
				take_tokens_back(&wants[i]);
		grant_prompts(wants, n_wants, n_decoding, limits);
	}
	for (uint32_t i = 0; i < n_wants; i++) {
		if (is_decoding(&wants[i]))
			n_running += wants[i].n_granted = wants[i].has_place;
		total += wants[i].n_granted;
	}
	if (n_running > limits->free_tokens)
		charge_decoding(scheduler, wants, n_wants, limits->max_tokens - n_running, credit);
	settle(scheduler, wants, n_wants, SK_SCARCE_TOKENS);
	return total;
}
