#include "client/workload.h"

#include <math.h>

static bool is_over(const struct sk_workload *w, double now_s)
{
	return (w->most && w->n_made >= w->most) || now_s >= w->most_s;
}

static void draw(struct sk_workload *w, const struct sk_arrival *arrival, double due_s,
		 struct sk_planned *ret_planned)
{
	/* A seed of its own, so that it does not depend on how many numbers those before it took. */
	struct sk_random random = {sk_random_next(&w->random)};
	struct sk_planned planned = {.due_s = due_s, .cancel_at = -1};

	planned.n_prompt =
		arrival ? arrival->prompt_tokens : sk_distribution_draw(&w->prompt, &random);
	planned.n_output =
		arrival ? arrival->output_tokens : sk_distribution_draw(&w->output, &random);
	if (sk_random_uniform(&random) < w->cancel_rate)
		planned.cancel_at = (int64_t)sk_random_below(&random, planned.n_output);
	planned.seed = sk_random_next(&random);
	w->n_made++;
	*ret_planned = planned;
}

static double gap_s(struct sk_workload *w)
{
	return isinf(w->rate)
		       ? 0
		       : sk_random_gamma(&w->gaps, w->burstiness) / (w->burstiness * w->rate);
}

bool sk_workload_next(struct sk_workload *w, double now_s, struct sk_planned *ret_planned)
{
	const struct sk_arrival *arrival = NULL;
	double due_s = now_s;

	if (w->trace) {
		if (w->n_arrived == w->trace->n_items)
			return false;
		arrival = &w->trace->items[w->n_arrived];
		due_s = arrival->at_s / w->speedup;
	} else if (w->is_open) {
		due_s = w->n_arrived ? w->due_s + gap_s(w) : 0;
	}
	if (is_over(w, due_s))
		return false;
	w->n_arrived++;
	w->due_s = due_s;
	draw(w, arrival, due_s, ret_planned);
	return true;
}

bool sk_workload_turn(struct sk_workload *w, double now_s, struct sk_planned *ret_planned)
{
	if (is_over(w, now_s))
		return false;
	draw(w, NULL, now_s, ret_planned);
	return true;
}

uint64_t sk_workload_total(const struct sk_workload *w)
{
	if (w->trace && (!w->most || w->most > w->trace->n_items))
		return isinf(w->most_s) ? w->trace->n_items : 0;
	return isinf(w->most_s) ? w->most : 0;
}
