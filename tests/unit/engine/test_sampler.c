/* What a sampler asks for, drawn by the CPU backend: against the definitions, by counting draws. */
#include "cpu/cpu.h"
#include "engine/sampler.h"
#include "sk_test.h"

#include <math.h>
#include <string.h>

#define N 200

static float logits[N];

/* A backend that holds a table of one row, which is the logits. */
static struct {
	struct sk_backend *backend;
	struct sk_linear *table;
	struct sk_buffer *row, *drawn;
} device;

static void device_open(void)
{
	static const struct sk_backend_shape shape = {.n_layers = 1,
						      .n_heads = 1,
						      .n_kv_heads = 1,
						      .head_dim = 16,
						      .rope_base = 10000,
						      .max_rows = 1};
	const struct sk_backend_options options = {.n_threads = 1};
	const struct sk_tensor tensor = {"logits", SK_DTYPE_F32, 1, N, logits};
	const struct sk_matrix matrix = {.n_rows = 1,
					 .n_cols = N,
					 .n_parts = 1,
					 .parts = {{.tensor = &tensor, .n_rows = 1}}};
	struct sk_diag diag;
	assert_int_equal(sk_backend_open(&sk_cpu_backend, &options, &shape, &device.backend, &diag),
			 0);
	assert_int_equal(sk_backend_pack_linear(device.backend, &matrix, NULL, SK_WEIGHTS_F32,
						&device.table),
			 0);
	assert_int_equal(sk_backend_alloc(device.backend, 1, N, &device.row), 0);
	assert_int_equal(sk_backend_alloc(device.backend, 1, SK_DRAWN_WIDTH, &device.drawn), 0);
	assert_int_equal(sk_backend_reserve_pages(device.backend, 1), 0);
	assert_int_equal(sk_backend_reserve_draws(device.backend, N, 64), 0);
}

static void device_close(void)
{
	sk_backend_close(device.backend);
}

/* As a step does it. -1: the logits are no numbers. */
static int32_t pick(struct sk_sampler *sampler, float *ret_logprob)
{
	static const uint32_t page = 0;
	const struct sk_row row = {0};
	const struct sk_span span = {.n_rows = 1, .pages = &page, .n_pages = 1};
	const struct sk_batch batch = {1, 1, &row, &span};
	struct sk_draw draw;
	sk_sampler_next(sampler, &draw);
	assert_int_equal(sk_backend_begin_step(device.backend, &batch), 0);
	sk_backend_embed(device.backend, device.row, device.table);
	sk_backend_draw(device.backend, device.drawn, device.row, &draw);
	assert_int_equal(sk_backend_end_step(device.backend), 0);
	assert_memory_equal(sk_backend_read(device.backend, device.row, 0), logits, sizeof logits);
	struct sk_drawn drawn = sk_backend_drawn(device.backend, device.drawn, 0);
	*ret_logprob = drawn.logprob;
	return drawn.id;
}

static void fill(void)
{
	for (int i = 0; i < N; i++)
		logits[i] = 3 * sinf((float)(i * i)) + (float)(i % 7) * 0.25f;
}

static struct sk_sampling sampling(float temperature, uint64_t seed)
{
	return (struct sk_sampling){.temperature = temperature,
				    .top_p = 1,
				    .repeat_penalty = 1,
				    .repeat_last = 64,
				    .seed = seed};
}

/* Draws n times; counts (N) how often each id came. */
static void count(const struct sk_sampling *how, unsigned n, unsigned *counts)
{
	struct sk_sampler sampler;
	assert_int_equal(sk_sampler_init(&sampler, how, N), 0);
	device_open();
	memset(counts, 0, N * sizeof *counts);
	while (n--) {
		float logprob;
		int32_t id = pick(&sampler, &logprob);
		assert_true(id >= 0 && id < N);
		counts[id]++;
	}
	device_close();
	sk_sampler_finish(&sampler);
}

/* Probabilities at a temperature, and ids from the likeliest down. */
static void sorted(double temperature, double *p, int *order)
{
	double total = 0;
	for (int i = 0; i < N; i++)
		total += p[i] = exp((double)logits[i] / temperature);
	for (int i = 0; i < N; i++) {
		p[i] /= total;
		order[i] = i;
	}
	for (int i = 1; i < N; i++) {
		for (int j = i; j && p[order[j]] > p[order[j - 1]]; j--) {
			int k = order[j];
			order[j] = order[j - 1];
			order[j - 1] = k;
		}
	}
}

/* The kept ids, and no others, in proportion to p. */
static void check_counts(const unsigned *counts, unsigned n, const double *p, const int *order,
			 int n_kept)
{
	double total = 0;
	for (int i = 0; i < n_kept; i++)
		total += p[order[i]];
	for (int i = 0; i < N; i++) {
		int id = order[i];
		if (i >= n_kept) {
			assert_int_equal(counts[id], 0);
			continue;
		}
		double expected = p[id] / total * n;
		if (fabs(counts[id] - expected) > 6 * sqrt(expected) + 3)
			fail_msg("id %d came %u times, expected %.1f", id, counts[id], expected);
	}
}

static void test_greedy(void **state)
{
	(void)state;
	double p[N], total = 0;
	int order[N];
	struct sk_sampling how = sampling(0, 1);
	struct sk_sampler sampler;
	float logprob;

	fill();
	sorted(1, p, order);
	for (int i = 0; i < N; i++)
		total += exp((double)logits[i]);
	assert_int_equal(sk_sampler_init(&sampler, &how, N), 0);
	device_open();
	assert_int_equal(pick(&sampler, &logprob), order[0]);
	const int32_t id = order[0];
	assert_true(fabs((double)logprob - ((double)logits[id] - log(total))) < 1e-5);
	device_close();
	logits[3] = logits[150] = 50; /* of equals, the lower id */
	device_open();
	assert_int_equal(pick(&sampler, &logprob), 3);
	device_close();
	sk_sampler_finish(&sampler);
}

static void test_cuts(void **state)
{
	(void)state;
	const unsigned n = 40000;
	unsigned counts[N];
	double p[N];
	int order[N], n_kept;

	fill();
	sorted(1, p, order);
	struct sk_sampling how = sampling(1, 7);
	count(&how, n, counts);
	check_counts(counts, n, p, order, N);

	how.top_k = 5;
	count(&how, n, counts);
	check_counts(counts, n, p, order, 5);

	how = sampling(1, 8);
	how.top_p = 0.5f;
	double sum = 0;
	for (n_kept = 0; sum < 0.5; n_kept++)
		sum += p[order[n_kept]];
	count(&how, n, counts);
	check_counts(counts, n, p, order, n_kept);

	/* Both: top-p of what top-k left. */
	how.top_k = 4;
	double of_k = p[order[0]] + p[order[1]] + p[order[2]] + p[order[3]];
	sum = 0;
	for (n_kept = 0; sum < 0.5 * of_k; n_kept++)
		sum += p[order[n_kept]];
	count(&how, n, counts);
	check_counts(counts, n, p, order, n_kept);

	how = sampling(1, 9);
	how.min_p = 0.3f;
	for (n_kept = 0; p[order[n_kept]] >= 0.3 * p[order[0]]; n_kept++)
		;
	count(&how, n, counts);
	check_counts(counts, n, p, order, n_kept);

	how = sampling(0.5f, 10);
	sorted(0.5, p, order);
	count(&how, n, counts);
	check_counts(counts, n, p, order, N);
}

static void test_a_tiny_top_p_is_greedy(void **state)
{
	(void)state;
	unsigned counts[N];
	double p[N];
	int order[N];
	fill();
	sorted(1, p, order);
	for (uint32_t k = 0; k < 3; k++) {
		struct sk_sampling how = sampling(1, 1);
		how.top_p = 1e-9f;
		how.top_k = k;
		count(&how, 50, counts);
		assert_int_equal(counts[order[0]], 50);
	}
}

static void test_same_seed_same_tokens(void **state)
{
	(void)state;
	struct sk_sampler a, b, c;
	struct sk_sampling how = sampling(1, 42), other = sampling(1, 43);
	unsigned n_same = 0;
	fill();
	assert_int_equal(sk_sampler_init(&a, &how, N), 0);
	assert_int_equal(sk_sampler_init(&b, &how, N), 0);
	assert_int_equal(sk_sampler_init(&c, &other, N), 0);
	device_open();
	for (int i = 0; i < 500; i++) {
		float logprob;
		const int32_t x = pick(&a, &logprob), y = pick(&b, &logprob),
			      z = pick(&c, &logprob);
		assert_int_equal(x, y);
		n_same += x == z;
	}
	device_close();
	assert_true(n_same < 250);
	sk_sampler_finish(&a);
	sk_sampler_finish(&b);
	sk_sampler_finish(&c);
}

static void test_repeat_penalty(void **state)
{
	(void)state;
	struct sk_sampling how = sampling(0, 1);
	struct sk_sampler sampler;
	float logprob;
	for (int i = 0; i < N; i++)
		logits[i] = -5;
	logits[10] = 4;
	logits[20] = 3;
	device_open();
	how.repeat_penalty = 2;
	how.repeat_last = 3;
	assert_int_equal(sk_sampler_init(&sampler, &how, N), 0);
	sk_sampler_saw(&sampler, 10);
	sk_sampler_saw(&sampler, 10); /* counts once */
	sk_sampler_saw(&sampler, -1);
	assert_int_equal(pick(&sampler, &logprob), 20);
	sk_sampler_saw(&sampler, 1);
	sk_sampler_saw(&sampler, 1);
	sk_sampler_saw(&sampler, N + 7); /* 10 is out of sight now */
	assert_int_equal(pick(&sampler, &logprob), 10);
	device_close();
	/* A negative logit is pushed further down. */
	for (int i = 0; i < N; i++)
		logits[i] = -1;
	logits[0] = -0.9f;
	device_open();
	sk_sampler_saw(&sampler, 0);
	assert_int_equal(pick(&sampler, &logprob), 2);
	assert_true(fabs((double)logprob - log(1 / (N - 1 + exp(0.1)))) <
		    1e-5); /* the model's own */
	device_close();
	sk_sampler_finish(&sampler);
}

static int32_t pick_alone(struct sk_sampler *sampler)
{
	float logprob;
	device_open();
	const int32_t id = pick(sampler, &logprob);
	device_close();
	return id;
}

static void test_no_numbers(void **state)
{
	(void)state;
	struct sk_sampling how = sampling(1, 1);
	struct sk_sampler sampler;
	fill();
	assert_int_equal(sk_sampler_init(&sampler, &how, N), 0);
	logits[17] = NAN;
	assert_int_equal(pick_alone(&sampler), -1);
	logits[17] = INFINITY;
	assert_int_equal(pick_alone(&sampler), -1);
	logits[17] = -INFINITY;
	assert_in_range(pick_alone(&sampler), 0, N - 1);
	sk_sampler_finish(&sampler);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_greedy),
		cmocka_unit_test(test_cuts),
		cmocka_unit_test(test_a_tiny_top_p_is_greedy),
		cmocka_unit_test(test_same_seed_same_tokens),
		cmocka_unit_test(test_repeat_penalty),
		cmocka_unit_test(test_no_numbers),
	};
	return sk_test_run(tests, NULL, NULL);
}
