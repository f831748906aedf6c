/* Norms, activation functions and log-probabilities against double precision. */
#include "kernel.h"

static const uint32_t widths[] = {1, 5, 16, 100, 576, 2560};

static void check_norm(const char *instructions, uint32_t width, bool subtract_mean, bool with_bias,
		       float offset)
{
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(instructions, 2, true, &shape);
	const uint32_t n_rows = 9;
	const float eps = 1e-5f;
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	float *x = random_floats((size_t)n_rows * width, 3), *weight = random_floats(width, 1);
	float *bias = random_floats(width, 1);
	for (uint32_t i = 0; i < n_rows * width; i++)
		x[i] += offset;
	struct sk_tensor tensors[2] = {float_tensor(weight, width, 1),
				       float_tensor(bias, width, 1)};
	struct sk_matrix w = matrix_of(&tensors[0]), b = matrix_of(&tensors[1]);
	struct sk_norm *norm;
	assert_int_equal(sk_backend_pack_norm(backend, &w, with_bias ? &b : NULL, &norm), 0);
	struct sk_buffer *in = buffer_of(backend, n_rows, width),
			 *out = buffer_of(backend, n_rows, width);
	struct plain_batch plain;
	begin_plain(backend, &plain, n_rows, 0);
	sk_backend_embed(backend, in, pack_floats(backend, x, n_rows, width));
	sk_backend_norm(backend, out, in, norm, eps, subtract_mean);
	assert_int_equal(sk_backend_end_step(backend), 0);

	for (uint32_t r = 0; r < n_rows; r++) {
		const float *row = x + (size_t)r * width, *got = sk_backend_read(backend, out, r);
		double mean = 0, square = 0;
		for (uint32_t i = 0; subtract_mean && i < width; i++)
			mean += (double)row[i] / width;
		for (uint32_t i = 0; i < width; i++)
			square += (row[i] - mean) * (row[i] - mean) / width;
		for (uint32_t i = 0; i < width; i++) {
			const double scale = weight[i] / sqrt(square + (double)eps);
			double y = (row[i] - mean) * scale;
			/* the mean is a float, and is off by some of its last bits */
			double room = 1e-6 * fabs(y) + 2e-7 * fabs(mean * scale) + 1e-6;
			y += with_bias ? bias[i] : 0;
			assert_true(fabs(y - got[i]) <= room);
		}
	}
	free(x);
	free(weight);
	free(bias);
	sk_backend_close(backend);
}

static void test_norms(void **state)
{
	for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
		for (int how = 0; how < 8; how++)
			check_norm(*state, widths[i], how & 1, how & 2, how & 4 ? 300 : 0);
}

static double expected(double x, double up, enum sk_act act)
{
	switch (act) {
	case SK_ACT_GELU:
		return 0.5 * x * (1 + erf(x * M_SQRT1_2));
	case SK_ACT_GELU_TANH:
		return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
	case SK_ACT_SWIGLU:
		return x / (1 + exp(-x)) * up;
	}
	return NAN;
}

static void check_activation(const char *instructions, enum sk_act act, uint32_t width)
{
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(instructions, 2, true, &shape);
	const uint32_t n_rows = 3, in_width = act == SK_ACT_SWIGLU ? 2 * width : width;
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	float *x = random_floats((size_t)n_rows * in_width, 1);
	for (uint32_t r = 0; r < n_rows; r++) /* a sweep over all that matters, then far out */
		for (uint32_t i = 0; i < width; i++)
			x[(size_t)r * in_width + i] =
				-14 + 28 * ((float)i + (float)r / 3) / (float)width;
	x[0] = -200;
	x[width - 1] = 200;
	struct sk_buffer *in = buffer_of(backend, n_rows, in_width),
			 *out = buffer_of(backend, n_rows, width);
	struct plain_batch plain;
	begin_plain(backend, &plain, n_rows, 0);
	sk_backend_embed(backend, in, pack_floats(backend, x, n_rows, in_width));
	sk_backend_activate(backend, out, in, act);
	assert_int_equal(sk_backend_end_step(backend), 0);
	for (uint32_t r = 0; r < n_rows; r++)
		for (uint32_t i = 0; i < width; i++) {
			const float *row = x + (size_t)r * in_width;
			double up = act == SK_ACT_SWIGLU ? row[width + i] : 1;
			double y = expected(row[i], up, act),
			       got = sk_backend_read(backend, out, r)[i];
			assert_true(fabs(got - y) <=
				    2e-7 * fmax(1, fabs(row[i])) * fmax(1, fabs(up)));
		}
	free(x);
	sk_backend_close(backend);
}

static void test_activations(void **state)
{
	for (int act = SK_ACT_GELU; act <= SK_ACT_SWIGLU; act++) {
		check_activation(*state, (enum sk_act)act, 9001);
		check_activation(*state, (enum sk_act)act, 4096);
		check_activation(*state, (enum sk_act)act, 96);
		check_activation(*state, (enum sk_act)act, 3);
	}
}

static void check_score(const char *instructions, uint32_t n_vocab, float scale)
{
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(instructions, 2, true, &shape);
	const uint32_t n_rows = 5, at = 3;
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	float *x = random_floats((size_t)n_rows * n_vocab, scale);
	int32_t ids[5];
	for (uint32_t r = 0; r < n_rows; r++)
		ids[r] = r ? (int32_t)random_below(n_vocab) : (int32_t)n_vocab - 1;
	float *last = x + (size_t)(n_rows - 1) * n_vocab; /* one that is no number, anywhere */
	last[random_below(n_vocab)] = NAN;
	struct sk_buffer *logits = buffer_of(backend, n_rows, n_vocab),
			 *scores = buffer_of(backend, at + n_rows, 1);
	struct plain_batch plain;
	begin_plain(backend, &plain, n_rows, 0);
	sk_backend_embed(backend, logits, pack_floats(backend, x, n_rows, n_vocab));
	sk_backend_score(backend, scores, at, logits, ids);
	assert_int_equal(sk_backend_end_step(backend), 0);

	for (uint32_t r = 0; r + 1 < n_rows; r++) {
		const float *row = x + (size_t)r * n_vocab;
		double top = -INFINITY, sum = 0;
		for (uint32_t i = 0; i < n_vocab; i++)
			top = fmax(top, row[i]);
		for (uint32_t i = 0; i < n_vocab; i++)
			sum += exp(row[i] - top);
		double expect = row[ids[r]] - top - log(sum);
		assert_true(fabs(*sk_backend_read(backend, scores, at + r) - expect) <=
			    2e-6 + 2e-7 * fabs(expect));
	}
	assert_true(isnan(*sk_backend_read(backend, scores, at + n_rows - 1)));
	free(x);
	sk_backend_close(backend);
}

static void test_scores(void **state)
{
	const uint32_t vocabularies[] = {1, 3, 16, 17, 1000, 1025, 50304};
	for (size_t i = 0; i < sizeof vocabularies / sizeof *vocabularies; i++)
		for (float scale = 1; scale <= 100; scale *= 10)
			check_score(*state, vocabularies[i], scale);
}

int main(void)
{
	const struct CMUnitTest tests[] = {KERNEL_TEST(test_norms), KERNEL_TEST(test_scores),
					   KERNEL_TEST(test_activations)};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
