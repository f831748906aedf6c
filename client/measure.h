/* What one way of cutting the cache comes to on a text: how well the model then predicts it, the memory
 * that it takes, and how fast it generates. Every run goes through the daemon in a session of its own; in
 * what order they come is the caller's business, and so is the printing.
 */
#pragma once

#include "client/scores.h"

#define SK_MEASURE_REPEAT_MOST 100
#define SK_MEASURE_LABEL_BYTES 64

/* What is measured, on the same text for all; the caller owns what it points to. */
struct sk_subject {
	const char *file; /* its name for people */
	struct sk_input text;
	uint64_t n_tokens; /* of the text: its first so many */
	struct sk_input prompt;
	uint64_t n_prompt, n_generate; /* tokens of the speed runs; settled by the first warm-up */
	unsigned repeat;
	bool has_speed, plain, quiet;
	unsigned run, n_runs; /* which one now, of how many, for the progress bar */
	struct streamkv_model model;
	struct streamkv_status status;
};

struct sk_measure {
	struct streamkv_policy policy;
	struct sk_scores scores; /* is_whole: it has been scored */
	unsigned n_timed;        /* speed runs that are complete */
	double ttft_ms[SK_MEASURE_REPEAT_MOST], tpot_ms[SK_MEASURE_REPEAT_MOST];
	uint64_t cache_bytes, n_profiled_steps, attention_ns;
};

/* One run each: 0, also where a signal ended it (then it has left nothing), or the exit code of what has been
 * said. A warm-up also tells how many tokens the prompt is. */
int sk_measure_perplexity(struct streamkv *kv, const struct sk_subject *subject,
			  struct sk_measure *measure);
int sk_measure_warm_up(struct streamkv *kv, struct sk_subject *subject, struct sk_measure *measure);
int sk_measure_speed(struct streamkv *kv, const struct sk_subject *subject,
		     struct sk_measure *measure);
int sk_measure_attention(struct streamkv *kv, const struct sk_subject *subject,
			 struct sk_measure *measure);

enum sk_quantity {
	SK_PERPLEXITY,
	SK_WEIGHT_BYTES,
	SK_CACHE_BYTES, /* of the speed runs; without them, of the evaluation in small chunks */
	SK_SCRATCH_BYTES,
	SK_TOTAL_BYTES,
	SK_TOKENS_PER_S,
	SK_TTFT_MS,
	SK_TPOT_MS,
	SK_ATTENTION_MS, /* a step, the prompt's among them */
	SK_PARAMETERS,
	SK_MEAN_LIVE, /* entries cached before a decode step; computed (design section 2) */
	SK_FLOPS_PER_TOKEN,
	SK_CACHE_BYTES_PER_TOKEN,
};
enum sk_statistic { SK_MEDIAN, SK_LEAST, SK_MOST };

/* NaN where it was not measured. The statistic matters where there are several runs. */
double sk_measure_value(const struct sk_measure *measure, const struct sk_subject *subject,
			enum sk_quantity quantity, enum sk_statistic statistic);
/* By how much it is more than the baseline's, in %. */
double sk_measure_change(const struct sk_measure *measure, const struct sk_measure *baseline,
			 const struct sk_subject *subject, enum sk_quantity quantity);

/* "dense", "window 256", "streaming 8+248" */
void sk_measure_label(const struct sk_measure *measure, char ret_text[SK_MEASURE_LABEL_BYTES]);
