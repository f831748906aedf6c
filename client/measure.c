#include "client/measure.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WARM_UP_TOKENS 8
/* An evaluation's chunk takes pages beside what the policy keeps. Where no speed run tells what a stream
 * takes, chunks are this small: at most a page or two, and hardly slower. */
#define SMALL_CHUNK 32

void sk_measure_label(const struct sk_measure *measure, char ret_text[SK_MEASURE_LABEL_BYTES])
{
	const struct streamkv_policy *p = &measure->policy;

	if (p->mode == STREAMKV_DENSE)
		snprintf(ret_text, SK_MEASURE_LABEL_BYTES, "dense");
	else if (p->mode == STREAMKV_WINDOW)
		snprintf(ret_text, SK_MEASURE_LABEL_BYTES, "window %lld", (long long)p->window);
	else
		snprintf(ret_text, SK_MEASURE_LABEL_BYTES, "streaming %lld+%lld",
			 (long long)p->sink, (long long)p->window);
}

/* --- Runs --- */

int sk_measure_perplexity(struct streamkv *kv, const struct sk_subject *subject,
			  struct sk_measure *measure)
{
	struct streamkv_evaluate ask = STREAMKV_EVALUATE_INIT;
	char label[SK_MEASURE_LABEL_BYTES], bar[SK_MEASURE_LABEL_BYTES + 40];
	struct sk_scores_output output = {.label = bar, .quiet = subject->quiet};
	struct sk_scores scores;

	sk_measure_label(measure, label);
	snprintf(bar, sizeof bar, "run %u of %u: %s,", subject->run, subject->n_runs, label);
	ask.text = subject->text.bytes;
	ask.n_text_bytes = subject->text.n_bytes;
	ask.max_tokens = subject->n_tokens;
	ask.policy = measure->policy;
	ask.plain = subject->plain;
	ask.chunk_tokens = subject->has_speed ? 0 : SMALL_CHUNK;
	int exit_code = sk_scores_run(kv, &ask, &output, &scores);
	if (!exit_code && scores.is_whole)
		measure->scores = scores;
	return exit_code;
}

static void show(const struct sk_subject *subject, const char *label, const char *what, double part,
		 double per_second)
{
	char bar[SK_MEASURE_LABEL_BYTES + 80];

	if (subject->quiet)
		return;
	snprintf(bar, sizeof bar, "run %u of %u: %s, %s", subject->run, subject->n_runs, label,
		 what);
	sk_terminal_bar(bar, part, per_second, "tokens");
}

/* Generates to the end. The result is of a whole run where its stop is LIMIT; its strings are empty. */
static int generate(struct streamkv *kv, const struct sk_subject *subject,
		    const struct sk_measure *measure, const char *what, uint64_t n_tokens,
		    bool profile, struct streamkv_result *ret_result)
{
	struct streamkv_generate ask = STREAMKV_GENERATE_INIT;
	struct streamkv_stream *stream;
	struct streamkv_error error;
	struct streamkv_token token;
	char label[SK_MEASURE_LABEL_BYTES];
	bool is_cancelled = false;
	uint64_t n_come = 0;
	double begun_s = sk_now_s(), shown_s = begun_s;
	int got;

	sk_measure_label(measure, label);
	ask.prompt = subject->prompt.bytes;
	ask.n_prompt_bytes = subject->prompt.n_bytes;
	ask.max_tokens = n_tokens;
	ask.policy = measure->policy;
	ask.plain = subject->plain;
	ask.ignore_eos = true;
	ask.profile = profile;
	got = streamkv_generate(kv, &ask, &stream, &error);
	if (got < 0)
		return sk_said(sk_exit_code_of(got), "%s", error.text);
	for (;;) {
		if (sk_interrupted() && !is_cancelled) {
			is_cancelled = true;
			(void)streamkv_cancel(stream, NULL);
		}
		got = streamkv_next(stream, 100, &token, &error);
		if (got == 1)
			n_come += token.id >= 0;
		else if (got != -EINTR && got != -ETIMEDOUT)
			break;
		double at_s = sk_now_s();
		if (at_s - shown_s < 0.25)
			continue;
		shown_s = at_s;
		show(subject, label, what, (double)n_come / (double)n_tokens,
		     (double)n_come / (at_s - begun_s));
	}
	sk_terminal_clear();
	*ret_result = *streamkv_result(stream);
	int exit_code = got < 0 ? sk_said(sk_exit_code_of(got), "%s", error.text) : 0;
	if (!exit_code && !(ret_result->stop == STREAMKV_STOP_CANCELLED && sk_interrupted()))
		exit_code = sk_conclude(ret_result, label);
	ret_result->reason = ret_result->stop_string = "";
	streamkv_stream_close(stream);
	return exit_code;
}

int sk_measure_warm_up(struct streamkv *kv, struct sk_subject *subject, struct sk_measure *measure)
{
	struct streamkv_result result;
	uint64_t n = subject->n_generate < WARM_UP_TOKENS ? subject->n_generate : WARM_UP_TOKENS;

	int exit_code = generate(kv, subject, measure, "warming up", n, false, &result);
	if (exit_code || result.stop != STREAMKV_STOP_LIMIT)
		return exit_code;
	/* At the seam where the text was cut, the prompt's last tokens may be other ones than the text's. */
	subject->n_prompt = result.prompt_tokens;
	subject->n_generate = subject->n_tokens > result.prompt_tokens
				      ? subject->n_tokens - result.prompt_tokens
				      : 1;
	return 0;
}

int sk_measure_speed(struct streamkv *kv, const struct sk_subject *subject,
		     struct sk_measure *measure)
{
	struct streamkv_result r;

	int exit_code =
		generate(kv, subject, measure, "generating", subject->n_generate, false, &r);
	if (exit_code || r.stop != STREAMKV_STOP_LIMIT)
		return exit_code;
	measure->ttft_ms[measure->n_timed] = (double)r.first_token_ns * 1e-6;
	measure->tpot_ms[measure->n_timed] =
		r.generated_tokens > 1
			? (double)r.decode_ns * 1e-6 / (double)(r.generated_tokens - 1)
			: NAN;
	measure->n_timed++;
	if (r.cache_bytes > measure->cache_bytes)
		measure->cache_bytes = r.cache_bytes;
	return 0;
}

int sk_measure_attention(struct streamkv *kv, const struct sk_subject *subject,
			 struct sk_measure *measure)
{
	struct streamkv_result r;

	int exit_code =
		generate(kv, subject, measure, "timing attention", subject->n_generate, true, &r);
	if (exit_code || r.stop != STREAMKV_STOP_LIMIT)
		return exit_code;
	measure->n_profiled_steps = r.steps;
	measure->attention_ns = r.attention_ns;
	return 0;
}

/* --- Values --- */

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Of n numbers, none of them NaN, or all. */
static double statistic_of(const double *numbers, unsigned n, enum sk_statistic statistic)
{
	double sorted[SK_MEASURE_REPEAT_MOST];

	if (!n)
		return NAN;
	memcpy(sorted, numbers, n * sizeof *sorted);
	qsort(sorted, n, sizeof *sorted, compare_doubles);
	if (statistic == SK_LEAST)
		return sorted[0];
	if (statistic == SK_MOST)
		return sorted[n - 1];
	return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

static double tokens_per_s(const struct sk_measure *measure, enum sk_statistic statistic)
{
	double numbers[SK_MEASURE_REPEAT_MOST];

	for (unsigned i = 0; i < measure->n_timed; i++)
		numbers[i] = 1000 / measure->tpot_ms[i];
	return statistic_of(numbers, measure->n_timed, statistic);
}

/* Steps through section 2's rule: the tokens after the prompt, but for the last one drawn, which no step runs. */
static double mean_live(const struct streamkv_policy *policy, uint64_t n_prompt,
			uint64_t n_generate)
{
	uint64_t live = 0, sum = 0, n_tokens = n_prompt + n_generate - 1;

	if (n_generate < 2)
		return NAN;
	for (uint64_t t = 0; t < n_tokens; t++) {
		sum += t >= n_prompt ? live : 0;
		live++;
		if (policy->mode != STREAMKV_DENSE &&
		    live > (uint64_t)(policy->sink + policy->window + policy->slack))
			live = (uint64_t)(policy->sink + policy->window);
	}
	return (double)sum / (double)(n_generate - 1);
}

static double mean_live_of(const struct sk_measure *measure, const struct sk_subject *subject)
{
	return mean_live(&measure->policy, subject->n_prompt, subject->n_generate);
}

/* Two for each parameter of a matrix; in attention two for scores and two for values, of the entries cached and of the
 * token itself. */
static double flops_per_token(const struct streamkv_model *model, double live)
{
	return 2 * (double)model->matrix_parameters +
	       4. * model->layers * model->heads * model->head_dim * (live + 1);
}

static double cache_bytes(const struct sk_measure *measure, const struct sk_subject *subject)
{
	if (!subject->has_speed)
		return measure->scores.is_whole ? (double)measure->scores.result.cache_bytes : NAN;
	return measure->n_timed ? (double)measure->cache_bytes : NAN;
}

static double or_nan(uint64_t value)
{
	return value ? (double)value : NAN;
}

double sk_measure_value(const struct sk_measure *measure, const struct sk_subject *subject,
			enum sk_quantity quantity, enum sk_statistic statistic)
{
	const struct streamkv_model *model = &subject->model;

	switch (quantity) {
	case SK_PERPLEXITY:
		return measure->scores.is_whole ? sk_scores_perplexity(&measure->scores) : NAN;
	case SK_WEIGHT_BYTES:
		return (double)model->weight_bytes;
	case SK_CACHE_BYTES:
		return cache_bytes(measure, subject);
	case SK_SCRATCH_BYTES:
		return or_nan(subject->status.scratch_bytes);
	case SK_TOTAL_BYTES:
		return (double)model->weight_bytes + cache_bytes(measure, subject) +
		       or_nan(subject->status.scratch_bytes);
	case SK_TOKENS_PER_S:
		return tokens_per_s(measure, statistic);
	case SK_TTFT_MS:
		return statistic_of(measure->ttft_ms, measure->n_timed, statistic);
	case SK_TPOT_MS:
		return statistic_of(measure->tpot_ms, measure->n_timed, statistic);
	case SK_ATTENTION_MS:
		return (double)measure->attention_ns * 1e-6 / or_nan(measure->n_profiled_steps);
	case SK_PARAMETERS:
		return (double)model->parameters;
	case SK_MEAN_LIVE:
		return mean_live_of(measure, subject);
	case SK_FLOPS_PER_TOKEN:
		return flops_per_token(model, mean_live_of(measure, subject));
	case SK_CACHE_BYTES_PER_TOKEN:
		return (double)model->kv_bytes_per_token;
	}
	return NAN;
}

double sk_measure_change(const struct sk_measure *measure, const struct sk_measure *baseline,
			 const struct sk_subject *subject, enum sk_quantity quantity)
{
	double base = sk_measure_value(baseline, subject, quantity, SK_MEDIAN);

	return 100 * (sk_measure_value(measure, subject, quantity, SK_MEDIAN) / base - 1);
}
