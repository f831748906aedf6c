#include "kv/window.h"

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

struct sk_policy sk_policy_changed(struct sk_policy policy, const struct sk_policy_change *change)
{
	if (change->has_mode)
		policy.mode = change->to.mode;
	if (change->has_sink)
		policy.sink = change->to.sink;
	if (change->has_window)
		policy.window = change->to.window;
	if (change->has_slack)
		policy.slack = change->to.slack;
	return policy;
}

uint32_t sk_policy_sinks(const struct sk_policy *policy)
{
	return policy->mode == SK_MODE_WINDOW || policy->mode == SK_MODE_RECOMPUTE ? 0
										   : policy->sink;
}

uint64_t sk_policy_capacity(const struct sk_policy *policy)
{
	uint64_t sink = policy->mode == SK_MODE_WINDOW ? 0 : policy->sink;
	return sink + policy->window;
}

uint64_t sk_policy_most_live(const struct sk_policy *policy, uint64_t context)
{
	if (policy->mode == SK_MODE_DENSE)
		return context;
	if (policy->mode == SK_MODE_RECOMPUTE)
		return sk_policy_capacity(policy);
	return sk_policy_capacity(policy) + policy->slack;
}

void sk_window_init(struct sk_window *window, const struct sk_policy *policy)
{
	*window = (struct sk_window){.policy = *policy};
}

uint64_t sk_window_live(const struct sk_window *window)
{
	return window->n_sink + window->next - window->first;
}

/* While nothing has been dropped the cache is one run, and where its sinks end is only a name. */
static bool is_whole(const struct sk_window *window)
{
	return window->first == window->n_sink;
}

static void name_sinks(struct sk_window *window)
{
	window->n_sink = min_u64(sk_policy_sinks(&window->policy), window->next);
	window->first = window->n_sink;
}

void sk_window_step(struct sk_window *window, struct sk_view *ret_view)
{
	const struct sk_policy *policy = &window->policy;
	uint64_t n_evicted = 0;

	struct sk_view view = {
		.entry = window->next,
		.first = window->first,
		.n_sink = window->n_sink,
		.live = sk_window_live(window),
	};

	window->next++;
	if (is_whole(window))
		name_sinks(window);

	uint64_t capacity = sk_policy_capacity(policy), live = sk_window_live(window);
	if (policy->mode == SK_MODE_RECOMPUTE) {
		n_evicted = live == capacity ? live : 0;
	} else if (policy->mode != SK_MODE_DENSE && live > capacity + policy->slack) {
		n_evicted = live - capacity;
	}
	window->first += n_evicted;

	view.n_evicted = n_evicted;
	*ret_view = view;
}

void sk_window_set_policy(struct sk_window *window, const struct sk_policy *policy)
{
	bool whole = is_whole(window);
	window->policy = *policy;
	if (whole)
		name_sinks(window);
	else
		window->n_sink = min_u64(window->n_sink, sk_policy_sinks(policy));
}
