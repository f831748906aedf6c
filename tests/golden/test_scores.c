/* Log-probabilities of a text, scored as Evaluate does it (engine/scoring.h, and the scores of engine/forward.h),
 * against the references in float64: every cache mode, recompute too, in steps of 1, 7, 64 and as many rows as a
 * step may have. */
#include "engine/scoring.h"
#include "harness.h"
#include "reference.h"

#include <glob.h>

#define MOST_TOKENS 600
#define MOST_LOGITS 16 /* fewer than a step's scores, so that they come in several helpings */
#define TOLERANCE   1e-3
#define AGREEMENT   1e-4 /* between steps of different sizes */

/* Steps of this many rows, over at most so many in all: a longer text is cut. */
struct steps {
	uint32_t n_rows;
	uint64_t most;
};

/* By the token that is scored: 1 to n_scored. */
struct scores {
	double logprob[MOST_TOKENS];
	uint64_t live[MOST_TOKENS]; /* cached before the row that predicts it */
	uint32_t n_scored;
};

static struct sk_policy policy_of(const struct sk_reference *r)
{
	static const enum sk_mode modes[] = {
		[SK_REFERENCE_DENSE] = SK_MODE_DENSE,
		[SK_REFERENCE_STREAMING] = SK_MODE_STREAMING,
		[SK_REFERENCE_RECOMPUTE] = SK_MODE_RECOMPUTE,
	};
	return (struct sk_policy){modes[r->mode], r->sink, r->window ? r->window : 1, r->slack};
}

/* The step's last row gave its logits beside the scores: they must tell the same. A step of one row scores alone. */
static void check_logits(struct harness *h, const struct sk_score *score, double logprob)
{
	const float *logits = sk_forward_logits(&h->forward, 0);
	double wanted = (double)logits[score->id] - log_sum_exp(logits, h->n_vocab);
	assert_true(fabs(logprob - wanted) < AGREEMENT);
}

static void score_rows(struct harness *h, struct sk_session *session,
		       const struct sk_scoring *scoring, uint64_t row, uint32_t n,
		       struct scores *scores)
{
	static int32_t ids[MOST_TOKENS];
	static struct sk_row rows[MOST_TOKENS];
	static struct sk_view views[MOST_TOKENS];
	static struct sk_score wanted[MOST_TOKENS];
	uint32_t n_wanted = 0, last = n - 1, n_logits = n > 1;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t target = sk_scoring_target(scoring, row + i);
		ids[i] = scoring->ids[sk_scoring_token(scoring, row + i)];
		if (target)
			wanted[n_wanted++] = (struct sk_score){i, scoring->ids[target]};
	}
	struct sk_span span;
	assert_int_equal(sk_session_advance(session, ids, n, rows, views, &span), 0);
	struct sk_batch batch = {.n_rows = n, .n_spans = 1, .rows = rows, .spans = &span};
	assert_int_equal(
		sk_forward_run(&h->forward, &batch, &last, NULL, n_logits, wanted, n_wanted), 0);
	sk_session_trim(session);

	for (uint32_t i = 0; i < n_wanted; i++) {
		uint64_t target = sk_scoring_target(scoring, row + wanted[i].row);
		assert_int_equal(target, ++scores->n_scored);
		scores->logprob[target] = (double)sk_forward_score(&h->forward, i);
		scores->live[target] = views[wanted[i].row].live;
		if (n_logits && wanted[i].row == last)
			check_logits(h, &wanted[i], scores->logprob[target]);
	}
}

static void score_text(struct harness *h, const struct sk_reference *r, const struct steps *steps,
		       struct scores *scores)
{
	struct sk_policy policy = policy_of(r);
	struct sk_session *session =
		harness_session(h, policy.mode, policy.sink, policy.window, policy.slack);
	struct sk_scoring scoring = {
		.ids = r->ids,
		.n_ids = r->n_tokens,
		.block = policy.mode == SK_MODE_RECOMPUTE ? sk_policy_capacity(&policy) : 0,
	};
	while (sk_scoring_n_rows(&scoring) > steps->most)
		scoring.n_ids--;
	uint64_t n_rows = sk_scoring_n_rows(&scoring);

	*scores = (struct scores){.n_scored = 0};
	for (uint64_t row = 0; row < n_rows;) {
		uint64_t left = n_rows - row;
		uint32_t n = left < steps->n_rows ? (uint32_t)left : steps->n_rows;
		score_rows(h, session, &scoring, row, n, scores);
		row += n;
	}
	assert_int_equal(scores->n_scored, scoring.n_ids - 1);
	sk_session_destroy(session);
}

/* The farthest log-probability. The reference's row of a position holds the prediction made there. */
static double compare(const char *file, const struct sk_reference *r, const struct scores *scores,
		      uint32_t n_rows)
{
	double worst = 0;
	for (uint32_t i = 0; i < r->n_rows; i++) {
		uint32_t target = r->position[i] + 1;
		if (target > scores->n_scored)
			break;
		double d = fabs(scores->logprob[target] - r->logprob[i]);
		if (!(d <= TOLERANCE) || scores->live[target] != r->live[i])
			fail_msg("%s, steps of %u: token %u has %g and saw %llu cached, should be "
				 "%g and %u",
				 file, n_rows, target, scores->logprob[target],
				 (unsigned long long)scores->live[target], r->logprob[i],
				 r->live[i]);
		worst = d > worst ? d : worst;
	}
	return worst;
}

static void check_agreement(const char *file, const struct scores *whole,
			    const struct scores *scores, uint32_t n_rows)
{
	for (uint32_t target = 1; target <= scores->n_scored; target++) {
		if (!(fabs(whole->logprob[target] - scores->logprob[target]) <= AGREEMENT))
			fail_msg("%s: token %u has %g in steps of %u, and %g in large ones", file,
				 target, scores->logprob[target], n_rows, whole->logprob[target]);
	}
}

/* The first of the steps are of as many rows as there can be, and run as much of the text as any. */
static void check_file(struct harness *h, const char *path, const struct steps *steps)
{
	static struct scores whole, scores;
	const char *file = strrchr(path, '/') + 1;
	struct sk_reference r = {0};

	assert_int_equal(sk_reference_open(path, &r), 0);
	assert_int_equal(r.n_vocab, h->n_vocab);
	assert_true(r.n_tokens <= MOST_TOKENS);
	score_text(h, &r, steps, &whole);
	if (steps->most == UINT64_MAX)
		assert_int_equal(whole.n_scored, r.n_tokens - 1);
	double worst = compare(file, &r, &whole, steps->n_rows);
	while ((++steps)->n_rows) {
		score_text(h, &r, steps, &scores);
		double d = compare(file, &r, &scores, steps->n_rows);
		worst = d > worst ? d : worst;
		assert_true(scores.n_scored <= whole.n_scored);
		check_agreement(file, &whole, &scores, steps->n_rows);
	}
	print_message("  %-36s within %.1e\n", file, worst);
	sk_reference_close(&r);
}

/* All references of a model; at_least: how many there were when this was written. */
static void check_model(const char *name, size_t at_least, const struct steps *steps)
{
	struct harness h;
	struct sk_diag diag = {""};
	char pattern[64];
	glob_t found;

	harness_open(&h, sk_test_model(name), SK_WEIGHTS_F32, SK_KV_F32, NULL, true, MOST_TOKENS);
	sk_forward_finish(&h.forward);
	if (sk_forward_init(&h.forward, h.backend, h.model, SK_WEIGHTS_F32, MOST_LOGITS, NULL, NULL,
			    &diag) < 0)
		fail_msg("%s", diag.text);
	snprintf(pattern, sizeof pattern, "%s.*.ref", name);
	assert_int_equal(glob(sk_test_golden(pattern), 0, NULL, &found), 0);
	assert_true(found.gl_pathc >= at_least);
	for (size_t i = 0; i < found.gl_pathc; i++)
		check_file(&h, found.gl_pathv[i], steps);
	globfree(&found);
	harness_close(&h);
}

static const struct steps small[] = {
	{MOST_TOKENS, UINT64_MAX}, {1, UINT64_MAX}, {7, UINT64_MAX}, {64, UINT64_MAX}, {0, 0}};
/* A larger model, which a sanitized build runs slowly: every streaming text whole in large steps, in small ones past
 * an eviction; of recompute some blocks. */
static const struct steps large[] = {{MOST_TOKENS, 2400}, {1, 70}, {7, 135}, {64, 135}, {0, 0}};

/* On a simulated device: past an eviction. */
static const struct steps shortened[] = {{MOST_TOKENS, 400}, {1, 40}, {7, 135}, {64, 135}, {0, 0}};

static const struct steps *some_of(const struct steps *steps)
{
	return sk_test_is_short() ? shortened : steps;
}

static void test_gpt_neox(void **state)
{
	(void)state;
	check_model("pythia-books", 12, some_of(large));
}

static void test_gpt_neox_with_serial_residual(void **state)
{
	(void)state;
	check_model("tiny-neox-serial", 7, some_of(small));
}

static void test_llama(void **state)
{
	(void)state;
	check_model("tiny-llama", 11, some_of(small));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gpt_neox),
		cmocka_unit_test(test_gpt_neox_with_serial_residual),
		cmocka_unit_test(test_llama),
	};
	return sk_test_run(tests, NULL, NULL);
}
