#include "client/evaluation.h"
#include "client/json_out.h"

#include <math.h>

bool sk_evaluation_has_scores(const struct sk_evaluation *run)
{
	return run->scores.n_scored > 0;
}

/* JSON has no word for infinity. */
static json_t *number_of(double value)
{
	return isfinite(value) ? json_real(value) : json_null();
}

static json_t *json_of(const struct sk_evaluation *run)
{
	const struct sk_scores *s = &run->scores;
	const struct streamkv_result *r = &s->result;
	const struct streamkv_policy *p = &run->policy;
	const bool is_dense = p->mode == STREAMKV_DENSE;
	const struct {
		const char *name;
		bool is_none; /* means nothing here */
		int64_t value;
	} policy[] = {
		{"sink", is_dense, p->sink},
		{"window", is_dense, p->window},
		{"slack", is_dense || p->mode == STREAMKV_RECOMPUTE, p->slack},
	};
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"tokens", s->n_tokens},
		{"scored_tokens", s->n_scored},
		{"evaluated_tokens", r->evaluated_tokens},
		{"live_min", r->live_min},
		{"live_max", r->live_max},
		{"evictions", r->evictions},
		{"evicted_tokens", r->evicted_tokens},
		{"cache_bytes", r->cache_bytes},
		{"steps", r->steps},
	};
	json_t *object =
		json_pack("{s:s, s:b, s:o, s:f, s:f, s:f}", "mode", streamkv_mode_name(p->mode),
			  "is_whole", s->is_whole, "perplexity", number_of(sk_scores_perplexity(s)),
			  "nll", s->nll / (double)s->n_scored, "seconds", s->seconds,
			  "tokens_per_s", sk_scores_per_second(s));
	for (unsigned i = 0; object && i < sizeof policy / sizeof *policy; i++)
		json_object_set_new(object, policy[i].name,
				    policy[i].is_none ? json_null()
						      : json_integer(policy[i].value));
	for (unsigned i = 0; object && i < sizeof numbers / sizeof *numbers; i++)
		json_object_set_new(object, numbers[i].name,
				    json_integer((json_int_t)numbers[i].value));
	return object;
}

int sk_evaluation_print_json(const struct sk_evaluation *runs, unsigned n_runs, bool is_list)
{
	json_t *list = json_array();
	for (unsigned i = 0; i < n_runs; i++) {
		if (sk_evaluation_has_scores(&runs[i]))
			json_array_append_new(list, json_of(&runs[i]));
	}
	json_t *one = json_incref(json_array_get(list, 0));
	json_decref(is_list ? one : list);
	return sk_json_print(is_list ? list : one, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
}

/* "streaming 4+252", and what else is not 0 */
static void describe(const struct streamkv_policy *p, char *text, size_t n_bytes)
{
	int n = snprintf(text, n_bytes, "%s", streamkv_mode_name(p->mode));
	if (p->mode == STREAMKV_DENSE)
		return;
	if (p->mode == STREAMKV_WINDOW)
		n += snprintf(text + n, n_bytes - (size_t)n, " %lld", (long long)p->window);
	else
		n += snprintf(text + n, n_bytes - (size_t)n, " %lld+%lld", (long long)p->sink,
			      (long long)p->window);
	if (p->slack && p->mode != STREAMKV_RECOMPUTE)
		snprintf(text + n, n_bytes - (size_t)n, " (slack %lld)", (long long)p->slack);
}

int sk_evaluation_print(const struct sk_evaluation *run)
{
	char text[512], what[64];
	const struct sk_scores *s = &run->scores;

	describe(&run->policy, what, sizeof what);
	int n = snprintf(text, sizeof text,
			 "perplexity %.4f  (%s, %llu tokens scored, %.4f nats each; %.1f s, %.0f "
			 "tokens/s, at most %llu entries live)\n",
			 sk_scores_perplexity(s), what, (unsigned long long)s->n_scored,
			 s->nll / (double)s->n_scored, s->seconds, sk_scores_per_second(s),
			 (unsigned long long)s->result.live_max);
	return sk_write_out(text, (size_t)n);
}

int sk_evaluation_print_table(const struct sk_evaluation *runs, unsigned n_runs)
{
	char text[256], what[64];
	int n = snprintf(text, sizeof text, "%-28s %10s %12s %10s %10s %10s\n", "mode", "tokens",
			 "perplexity", "to dense", "live", "tokens/s");
	int err = sk_write_out(text, (size_t)n);

	for (unsigned i = 0; i < n_runs && !err; i++) {
		const struct sk_scores *s = &runs[i].scores;
		char change[32] = "";
		if (!sk_evaluation_has_scores(&runs[i]))
			continue;
		/* Of the same tokens alone. */
		if (runs[0].policy.mode == STREAMKV_DENSE && runs[0].scores.n_scored == s->n_scored)
			snprintf(change, sizeof change, "%+.1f %%",
				 100 * (sk_scores_perplexity(s) /
						sk_scores_perplexity(&runs[0].scores) -
					1));
		describe(&runs[i].policy, what, sizeof what);
		n = snprintf(text, sizeof text, "%-28s %10llu %12.4f %10s %10llu %10.0f%s\n", what,
			     (unsigned long long)s->n_scored, sk_scores_perplexity(s), change,
			     (unsigned long long)s->result.live_max, sk_scores_per_second(s),
			     s->is_whole ? "" : "  (interrupted)");
		err = sk_write_out(text, (size_t)n);
	}
	return err;
}
