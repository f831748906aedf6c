/* What must agree with itself, on real weights: chunkings, batches, text positions, changes of
 * mode. */
#include "harness.h"

#define N_IDS 400

static struct harness h;
static int32_t ids[N_IDS];
static size_t n_ids; /* of them, of a text that is run whole */

/* The model and its weights that the tests look at, and whether activations are exact. */
static const struct subject {
	const char *model;
	enum sk_weight_format weights;
	bool exact;
} subjects[] = {
	{"pythia-books", SK_WEIGHTS_F32, true},   {"tiny-llama", SK_WEIGHTS_F32, true},
	{"pythia-books", SK_WEIGHTS_Q8, false},   {"pythia-books", SK_WEIGHTS_Q4, false},
	{"pythia-books", SK_WEIGHTS_BF16, false}, {"tiny-neox-serial", SK_WEIGHTS_BF16, false},
};
static const struct subject *subject = subjects;

static int open_model(void **state)
{
	(void)state;
	print_message("  %s, weights %d\n", subject->model, subject->weights);
	harness_open(&h, sk_test_model(subject->model), subject->weights, SK_KV_F32, NULL,
		     subject->exact, 512);
	n_ids = sk_test_is_short() ? 130 : N_IDS;
	uint32_t random = 12345;
	for (int i = 0; i < N_IDS; i++) {
		random = random * 1664525u + 1013904223u;
		ids[i] = (int32_t)((random >> 12) % h.n_vocab);
	}
	return 0;
}

static int close_model(void **state)
{
	(void)state;
	harness_close(&h);
	return 0;
}

static void keep(void *context, size_t index, const struct sk_view *view, const float *logits)
{
	(void)view;
	memcpy((float *)context + index * h.n_vocab, logits, h.n_vocab * sizeof *logits);
}

static double largest_difference(const float *a, const float *b, size_t n)
{
	double most = 0;
	for (size_t i = 0; i < n; i++) {
		double d = fabs((double)a[i] - (double)b[i]);
		most = d > most || isnan(d) ? d : most;
	}
	return most;
}

static float *logits_of(struct sk_session *session, const int32_t *tokens, size_t n, uint32_t chunk)
{
	float *logits = calloc(n * h.n_vocab, sizeof *logits);
	assert_non_null(logits);
	harness_run(&h, session, tokens, n, chunk, keep, logits);
	sk_session_destroy(session);
	return logits;
}

/* What CUDA's rounding of many rows' activations may cost, where it is not told to be exact. */
static double close_enough(void)
{
	return sk_test_backend() != &sk_cpu_backend && !subject->exact ? 0.2 : 1e-4;
}

static void test_chunkings_agree(void **state)
{
	(void)state;
	const struct sk_policy policies[] = {
		{SK_MODE_STREAMING, 0, 56, 0}, {SK_MODE_STREAMING, 0, 56, 64},
		{SK_MODE_STREAMING, 1, 56, 0}, {SK_MODE_STREAMING, 1, 56, 64},
		{SK_MODE_STREAMING, 4, 56, 0}, {SK_MODE_STREAMING, 4, 56, 64},
		{SK_MODE_STREAMING, 8, 56, 0}, {SK_MODE_STREAMING, 8, 56, 64},
		{SK_MODE_WINDOW, 4, 60, 0},    {SK_MODE_DENSE, 4, 1, 0},
	};
	const uint32_t chunks[] = {7, 64, (uint32_t)n_ids};
	for (unsigned p = 0; p < sizeof policies / sizeof *policies;
	     p += sk_test_is_short() ? 3 : 1) {
		const struct sk_policy *q = &policies[p];
		float *one = logits_of(harness_session(&h, q->mode, q->sink, q->window, q->slack),
				       ids, n_ids, 1);
		for (unsigned c = 0; c < 3; c++) {
			float *other = logits_of(
				harness_session(&h, q->mode, q->sink, q->window, q->slack), ids,
				n_ids, chunks[c]);
			double d = largest_difference(one, other, (size_t)n_ids * h.n_vocab);
			print_message("policy %u, chunks of %u: %.2e\n", p, chunks[c], d);
			/* CUDA multiplies many rows in another way than few, and rounds their activations */
			if (sk_test_backend() == &sk_cpu_backend)
				assert_true(d == 0);
			else
				assert_true(d <= close_enough());
			free(other);
		}
		free(one);
	}
}

static void test_text_position_does_not_matter(void **state)
{
	(void)state;
	const uint64_t origins[] = {3000, 3000000, 3000000000u};
	float *logits[3];
	for (int i = 0; i < 3; i++) {
		struct sk_session *session = harness_session(&h, SK_MODE_STREAMING, 4, 56, 0);
		session->origin = origins[i];
		logits[i] = logits_of(session, ids, n_ids, 64);
	}
	for (int i = 1; i < 3; i++) {
		double d = largest_difference(logits[0], logits[i], (size_t)n_ids * h.n_vocab);
		print_message("position %llu against 3000: %.2e\n", (unsigned long long)origins[i],
			      d);
		/* where activations are rounded, a last bit of an angle may tip one over: steps of some hundredths */
		assert_true(d <= (subject->exact ? 1e-3 : 0.1));
	}
	for (int i = 0; i < 3; i++)
		free(logits[i]);
}

static void test_sessions_of_one_batch_do_not_meet(void **state)
{
	(void)state;
	enum { N = 3, STEPS = 150 };
	struct sk_session *sessions[N];
	float *alone[N];
	const uint32_t sinks[N] = {4, 0, 8}, windows[N] = {40, 25, 60};
	for (int i = 0; i < N; i++) {
		alone[i] =
			logits_of(harness_session(&h, SK_MODE_STREAMING, sinks[i], windows[i], 3),
				  ids + 50 * i, STEPS, 1);
		sessions[i] = harness_session(&h, SK_MODE_STREAMING, sinks[i], windows[i], 3);
	}
	double most = 0;
	for (int t = 0; t < STEPS; t++) {
		struct sk_row rows[N];
		struct sk_span spans[N];
		uint32_t wanted[N];
		for (uint32_t i = 0; i < N; i++) {
			assert_int_equal(sk_session_advance(sessions[i], ids + 50 * i + t, 1,
							    &rows[i], NULL, &spans[i]),
					 0);
			spans[i].row = i;
			wanted[i] = i;
		}
		struct sk_batch batch = {.n_rows = N, .n_spans = N, .rows = rows, .spans = spans};
		assert_int_equal(sk_forward_run(&h.forward, &batch, wanted, NULL, N, NULL, 0), 0);
		for (uint32_t i = 0; i < N; i++) {
			double d = largest_difference(sk_forward_logits(&h.forward, i),
						      alone[i] + (size_t)t * h.n_vocab, h.n_vocab);
			most = d > most ? d : most;
			sk_session_trim(sessions[i]);
		}
	}
	print_message("three sessions together against each alone: %.2e\n", most);
	assert_true(most == 0);
	for (int i = 0; i < N; i++) {
		free(alone[i]);
		sk_session_destroy(sessions[i]);
	}
}

static void test_a_change_of_mode_costs_nothing(void **state)
{
	(void)state;
	const struct sk_policy wide = {SK_MODE_STREAMING, 4, 200, 0},
			       narrow = {SK_MODE_STREAMING, 4, 30, 0};
	const struct sk_policy dense = {SK_MODE_DENSE, 4, 30, 0};

	/* Dense, and streaming that has dropped nothing yet, are the same. */
	struct sk_session *session = harness_session(&h, SK_MODE_DENSE, 4, 30, 0);
	float *a = calloc((size_t)N_IDS * h.n_vocab, sizeof *a),
	      *b = calloc((size_t)N_IDS * h.n_vocab, sizeof *b);
	harness_run(&h, session, ids, 100, 64, keep, a);
	sk_window_set_policy(&session->window, &wide);
	harness_run(&h, session, ids + 100, 50, 1, keep, a + (size_t)100 * h.n_vocab);
	/* Narrow for a while, then dense again: only what was dropped is missing. */
	sk_window_set_policy(&session->window, &narrow);
	harness_run(&h, session, ids + 150, 50, 8, keep, a + (size_t)150 * h.n_vocab);
	assert_int_equal(sk_window_live(&session->window), 34);
	sk_window_set_policy(&session->window, &dense);
	harness_run(&h, session, ids + 200, 50, 8, keep, a + (size_t)200 * h.n_vocab);
	assert_int_equal(sk_window_live(&session->window), 84);
	sk_session_destroy(session);

	session = harness_session(&h, SK_MODE_STREAMING, 4, 200, 0);
	harness_run(&h, session, ids, 150, 150, keep, b);
	assert_true(largest_difference(a, b, (size_t)150 * h.n_vocab) <= close_enough());
	sk_session_destroy(session);

	/* Once narrow has been narrow for as long as its window is deep in every layer, only itself
	 * counts. */
	session = harness_session(&h, SK_MODE_STREAMING, 4, 30, 0);
	harness_run(&h, session, ids, 151, 1, keep, b);
	double d = largest_difference(a + (size_t)150 * h.n_vocab, b + (size_t)150 * h.n_vocab,
				      h.n_vocab);
	assert_true(d > 1e-3); /* the first narrow step still sees all 150 entries */
	sk_session_destroy(session);
	free(a);
	free(b);
}

static void test_sinks_matter(void **state)
{
	(void)state;
	/* The tests above would pass if sinks were never looked at. */
	float *with = logits_of(harness_session(&h, SK_MODE_STREAMING, 4, 56, 0), ids, n_ids, 64);
	float *without =
		logits_of(harness_session(&h, SK_MODE_STREAMING, 0, 60, 0), ids, n_ids, 64);
	size_t last = (size_t)(n_ids - 1) * h.n_vocab;
	assert_true(largest_difference(with + last, without + last, h.n_vocab) > 1e-2);
	free(with);
	free(without);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chunkings_agree),
		cmocka_unit_test(test_text_position_does_not_matter),
		cmocka_unit_test(test_sessions_of_one_batch_do_not_meet),
		cmocka_unit_test(test_a_change_of_mode_costs_nothing),
		cmocka_unit_test(test_sinks_matter),
	};
	int failed = 0;
	for (; subject < subjects + sizeof subjects / sizeof *subjects; subject++)
		if (!sk_test_is_short() || strncmp(subject->model, "tiny-", 5) == 0)
			failed |= sk_test_run(tests, open_model, close_model);
	return failed;
}
