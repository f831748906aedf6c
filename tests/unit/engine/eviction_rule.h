/* Eviction by section 2 of the design, on a plain list of live entries: what windows and page tables must come to. */
#pragma once

#include "recorder.h"

struct rule {
	struct sk_policy policy;
	uint32_t live[MOST_TOKENS]; /* entries, oldest first */
	uint32_t n_live, next;
	uint32_t n_evicted; /* after tokens */
	uint32_t n_gone;    /* with a change of the policy */
};

static inline uint32_t sinks_of(const struct sk_policy *policy)
{
	bool has_sinks = policy->mode == SK_MODE_STREAMING || policy->mode == SK_MODE_DENSE;
	return has_sinks ? policy->sink : 0;
}

/* Sinks are the first entries of all, as long as none of them is missing. */
static inline uint32_t n_sinks_live(const struct rule *rule, uint32_t most)
{
	uint32_t n = 0;
	while (n < most && n < rule->n_live && rule->live[n] == n)
		n++;
	return n;
}

static inline void drop_entries(struct rule *rule, uint32_t from, uint32_t n)
{
	memmove(rule->live + from, rule->live + from + n,
		(rule->n_live - from - n) * sizeof *rule->live);
	rule->n_live -= n;
}

/* A token: how many entries go after it. */
static inline uint32_t rule_step(struct rule *rule)
{
	const struct sk_policy *p = &rule->policy;
	uint32_t n = 0, capacity = sinks_of(p) + p->window;

	rule->live[rule->n_live++] = rule->next++;
	if (p->mode == SK_MODE_RECOMPUTE)
		n = rule->n_live == p->sink + p->window ? rule->n_live : 0;
	else if (p->mode != SK_MODE_DENSE && rule->n_live > capacity + p->slack)
		n = rule->n_live - capacity;
	drop_entries(rule, n_sinks_live(rule, sinks_of(p)), n);
	rule->n_evicted += n;
	return n;
}

/* Sinks that are not wanted any more go, if something behind them is gone; else they are the window's oldest. */
static inline void rule_change(struct rule *rule, const struct sk_policy *policy)
{
	uint32_t wanted = sinks_of(policy), n = n_sinks_live(rule, rule->n_live);
	bool is_whole = n == rule->n_live;

	rule->policy = *policy;
	if (is_whole || n <= wanted)
		return;
	drop_entries(rule, wanted, n - wanted);
	rule->n_gone += n - wanted;
}
