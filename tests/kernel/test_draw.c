/* Drawn tokens against the definition (struct sk_draw), by sorting: every device draws the same id from the same logits,
 * whatever was asked for. The weights are those of the kernels, one by one; they are compared to exp() as well.
 */
#include "kernel.h"

#define ONE (1u << 30)

static uint32_t weigh(float x)
{
	volatile float shifted, k, r, p, y; /* rounded one by one */
	const float series[] = {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, .5f, 1, 1};
	uint32_t bits;
	x = x > -24 ? x : -24;
	y = x * 1.44269504f;
	shifted = y + 12582912.f;
	k = shifted - 12582912.f;
	y = k * 0.693359375f;
	r = x - y;
	y = k * 2.12194440e-4f;
	r = r + y;
	p = 1.f / 5040;
	for (int i = 0; i < 7; i++) {
		y = p * r;
		p = y + series[i];
	}
	bits = (uint32_t)((int)k + 127 + 30) << 23;
	float power;
	memcpy(&power, &bits, sizeof power);
	y = p * power;
	return (uint32_t)y;
}

static void test_weights(void **state)
{
	(void)state;
	for (float x = 0; x > -30; x -= 0.0137f) {
		const double expected = exp((double)x), got = weigh(x) / (double)ONE;
		if (fabs(got - expected) > 1.5 / ONE + 4e-7 * expected)
			fail_msg("e^%g: %g, %g expected", (double)x, got, expected);
	}
	assert_int_equal(weigh(0), ONE);
	assert_int_equal(weigh(-INFINITY), 0);
}

/* --- The definition ------------------------------------------------------------------------------ */

struct member {
	uint32_t weight, id;
};

static int heavier_first(const void *one, const void *two)
{
	const struct member *a = one, *b = two;
	if (a->weight != b->weight)
		return a->weight < b->weight ? 1 : -1;
	return a->id < b->id ? -1 : 1;
}

static int by_id(const void *one, const void *two)
{
	return ((const struct member *)one)->id < ((const struct member *)two)->id ? -1 : 1;
}

static uint64_t weight_of(const struct member *members, uint32_t n)
{
	uint64_t sum = 0;
	for (uint32_t i = 0; i < n; i++)
		sum += members[i].weight;
	return sum;
}

static int32_t expected_id(const float *logits, const struct sk_draw *draw)
{
	const uint32_t n_ids = draw->n_ids;
	float *x = malloc(n_ids * sizeof *x), top = -INFINITY;
	struct member *members = malloc(n_ids * sizeof *members);
	assert_non_null(x);
	assert_non_null(members);
	memcpy(x, logits, n_ids * sizeof *x);
	for (uint32_t i = 0; i < draw->n_recent && draw->repeat_penalty != 1; i++) {
		const int32_t id = draw->recent[i];
		x[id] = logits[id] > 0 ? logits[id] / draw->repeat_penalty
				       : logits[id] * draw->repeat_penalty;
	}
	int32_t best = 0;
	for (uint32_t i = 0; i < n_ids; i++) {
		top = x[i] > top ? x[i] : top;
		best = x[i] > x[best] ? (int32_t)i : best;
	}
	if (draw->temperature != 0) {
		for (uint32_t i = 0; i < n_ids; i++) {
			const float scale = 1 / draw->temperature;
			volatile float below = x[i] - top, scaled = below * scale;
			members[i] = (struct member){weigh(scaled), i};
		}
		qsort(members, n_ids, sizeof *members, heavier_first);
		uint32_t n = draw->top_k && draw->top_k < n_ids ? draw->top_k : n_ids;
		if (draw->top_p < 1) {
			const double mass =
				ceil((double)draw->top_p * (double)weight_of(members, n));
			uint64_t sum = 0;
			uint32_t k = 0;
			while (k < n && (k == 0 || (double)sum < mass))
				sum += members[k++].weight;
			n = k;
		}
		while (n > 1 && (double)members[n - 1].weight < (double)draw->min_p * ONE)
			n--;
		const uint64_t total = weight_of(members, n);
		uint64_t target = (uint64_t)(draw->random * (double)total);
		target = target < total ? target : total - 1;
		qsort(members, n, sizeof *members, by_id);
		uint32_t at = 0;
		while (target >= members[at].weight)
			target -= members[at++].weight;
		best = (int32_t)members[at].id;
	}
	free(members);
	free(x);
	return best;
}

static double expected_logprob(const float *logits, uint32_t n, int32_t id)
{
	double most = -INFINITY, sum = 0;
	for (uint32_t i = 0; i < n; i++)
		most = logits[i] > most ? logits[i] : most;
	for (uint32_t i = 0; i < n; i++)
		sum += exp((double)logits[i] - most);
	return (double)logits[id] - most - log(sum);
}

/* --- Draws --------------------------------------------------------------------------------------- */

#define MOST_RECENT 40

static struct sk_draw random_draw(uint32_t n, int32_t *recent)
{
	static const float temperatures[] = {0, 0.1f, 0.8f, 1, 5},
			   top_ps[] = {1, 0.95f, 0.5f, 1e-6f, 0}, min_ps[] = {0, 0, 0.05f, 1},
			   penalties[] = {1, 1, 1.3f, 0.5f};
	const uint32_t top_ks[] = {0, 0, 1, 5, 40, n + 3};
	struct sk_draw draw = {
		.n_ids = random_below(3) ? n : 1 + random_below(n),
		.temperature = temperatures[random_below(5)],
		.top_k = top_ks[random_below(6)],
		.top_p = top_ps[random_below(5)],
		.min_p = min_ps[random_below(4)],
		.repeat_penalty = penalties[random_below(4)],
		.recent = recent,
		.n_recent = random_below(MOST_RECENT + 1),
		.random = random_below(8) ? random_bits() * 0x1p-32 : 1 - 0x1p-53,
	};
	for (uint32_t i = 0; i < draw.n_recent; i++)
		recent[i] = (int32_t)random_below(draw.n_ids < 9 ? draw.n_ids : draw.n_ids / 3);
	return draw;
}

/* Some sharp, some flat, some with many equals, some with what cannot be. */
static void random_logits(float *logits, uint32_t n)
{
	static const float scales[] = {0.01f, 1, 4, 30};
	const float scale = scales[random_below(4)];
	const bool rough = random_below(3) == 0, holes = random_below(4) == 0;
	for (uint32_t i = 0; i < n; i++) {
		logits[i] = random_float() * scale;
		if (rough)
			logits[i] = roundf(logits[i]);
		if (holes && random_below(3) == 0)
			logits[i] = -INFINITY;
	}
	logits[random_below(n)] = 0.5f; /* one at least is a number */
}

/* A step that draws from n_rows rows of n logits, which reach the device as a table's rows do. rows: where they are there. */
static struct sk_buffer *draw_rows(struct sk_backend *backend, const float *logits, uint32_t n_rows,
				   uint32_t n, const struct sk_draw *draws, uint32_t most_recent,
				   struct sk_buffer **rows)
{
	struct plain_batch plain;
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	assert_int_equal(sk_backend_reserve_draws(backend, n, most_recent), 0);
	struct sk_linear *table = pack_floats(backend, logits, n_rows, n);
	struct sk_buffer *drawn = buffer_of(backend, n_rows, SK_DRAWN_WIDTH);
	*rows = buffer_of(backend, n_rows, n);
	begin_plain(backend, &plain, n_rows, 0);
	sk_backend_embed(backend, *rows, table);
	sk_backend_draw(backend, drawn, *rows, draws);
	assert_int_equal(sk_backend_end_step(backend), 0);
	return drawn;
}

/* What is told of a draw begins with a double, wherever an odd number of ids was told before. */
static void test_after_a_gather(void **state)
{
	enum { N_ROWS = 2, N = 64, HIGH = 37 };
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(*state, 2, false, &shape);
	struct plain_batch plain;
	float logits[N_ROWS * N] = {[N + HIGH] = 9};
	const struct sk_draw draw = {.n_ids = N, .top_p = 1, .repeat_penalty = 1};
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	assert_int_equal(sk_backend_reserve_draws(backend, N, 0), 0);
	struct sk_linear *table = pack_floats(backend, logits, N_ROWS, N);
	struct sk_buffer *drawn = buffer_of(backend, N_ROWS, SK_DRAWN_WIDTH),
			 *rows = buffer_of(backend, N_ROWS, N),
			 *some = buffer_of(backend, N_ROWS, N);
	begin_plain(backend, &plain, N_ROWS, 0);
	sk_backend_embed(backend, rows, table);
	sk_backend_gather(backend, some, rows, (uint32_t[]){1}, 1);
	sk_backend_draw(backend, drawn, some, &draw);
	assert_int_equal(sk_backend_end_step(backend), 0);
	assert_int_equal(sk_backend_drawn(backend, drawn, 0).id, HIGH);
	sk_backend_close(backend);
}

static void check_draws(const char *instructions, uint32_t n, uint32_t n_rows)
{
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(instructions, 2, false, &shape);
	struct sk_draw draws[MAX_ROWS];
	int32_t recent[MAX_ROWS][MOST_RECENT];
	float *logits = malloc((size_t)n * n_rows * sizeof *logits);
	assert_non_null(logits);
	for (uint32_t row = 0; row < n_rows; row++) {
		random_logits(logits + (size_t)row * n, n);
		draws[row] = random_draw(n, recent[row]);
		/* A row whose ids that may be drawn are all impossible is another test's. */
		logits[(size_t)row * n + random_below(draws[row].n_ids)] = 0.25f;
	}
	struct sk_buffer *rows,
		*drawn = draw_rows(backend, logits, n_rows, n, draws, MOST_RECENT, &rows);
	for (uint32_t row = 0; row < n_rows; row++) {
		const float *x = logits + (size_t)row * n;
		const struct sk_draw *d = &draws[row];
		const struct sk_drawn got = sk_backend_drawn(backend, drawn, row);
		const int32_t expected = expected_id(x, d);
		if (got.id != expected)
			fail_msg("%u of %u ids, temperature %g, top-k %u, top-p %g, min-p %g, "
				 "penalty %g of %u, "
				 "random %.17g: %d drawn, %d expected",
				 d->n_ids, n, (double)d->temperature, d->top_k, (double)d->top_p,
				 (double)d->min_p, (double)d->repeat_penalty, d->n_recent,
				 d->random, got.id, expected);
		const double logprob = expected_logprob(x, n, expected);
		if (fabs(got.logprob - logprob) > 2e-5 + 1e-6 * fabs(logprob))
			fail_msg("log-probability %.7f, %.7f expected", (double)got.logprob,
				 logprob);
		assert_memory_equal(sk_backend_read(backend, rows, row), x, n * sizeof *x);
	}
	sk_backend_close(backend);
	free(logits);
}

static void test_draws(void **state)
{
	const char *instructions = *state;
	const bool is_slow = strcmp(instructions, "cuda") == 0 && getenv("STREAMKV_SEED") == NULL;
	static const uint32_t sizes[] = {1, 2, 31, 200, 1030, 2049};
	need(instructions);
	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
		for (int k = 0; k < (is_slow ? 2 : 12); k++)
			check_draws(instructions, sizes[i], 1 + random_below(7));
	check_draws(instructions, 50304, is_slow ? 1 : 6);
}

/* Where cuts and draws fall on a boundary: nearly equal weights, of which each bin of a cut has many; and a few that are
 * equal, whose shares are exact. */
static void test_boundaries(void **state)
{
	enum { N = 3000, N_ROWS = 24 };
	const char *instructions = *state;
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(instructions, 2, false, &shape);
	struct sk_draw draws[N_ROWS];
	float *logits = random_floats(N_ROWS * N, 0.01f);
	for (uint32_t row = 0; row < N_ROWS; row++) {
		const uint32_t n_equal = 2 + row % 3;
		draws[row] = (struct sk_draw){.n_ids = N,
					      .temperature = 1,
					      .top_k = row % 2 ? 1 + random_below(N - 1) : 0,
					      .top_p = row % 3 ? random_bits() * 0x1p-32f : 1,
					      .repeat_penalty = 1,
					      .random = random_bits() * 0x1p-32};
		if (row % 4)
			continue;
		for (uint32_t i = 0; i < N; i++)
			logits[row * N + i] = i * n_equal % N < n_equal ? 7 : -90;
		draws[row].top_k = row % 8 ? n_equal - 1 : 0;
		draws[row].top_p = 1;
		draws[row].random =
			(double)(1 + row / 4 % (n_equal - 1)) / (row % 8 ? n_equal - 1 : n_equal);
		if (draws[row].random >= 1)
			draws[row].random = 0;
	}
	struct sk_buffer *rows, *drawn = draw_rows(backend, logits, N_ROWS, N, draws, 0, &rows);
	for (uint32_t row = 0; row < N_ROWS; row++) {
		const int32_t got = sk_backend_drawn(backend, drawn, row).id,
			      expected = expected_id(logits + row * N, &draws[row]);
		if (got != expected)
			fail_msg("row %u, top-k %u, top-p %g, random %g: %d drawn, %d expected",
				 row, draws[row].top_k, (double)draws[row].top_p, draws[row].random,
				 got, expected);
	}
	sk_backend_close(backend);
	free(logits);
}

/* Cuts that are reached exactly: the next id stays out. By top-k it is the next lighter one, in the bin beside the last that is
 * kept, and comes before that; by top-p it is the third of four equals, of which two are half. */
static void test_exact_cuts(void **state)
{
	enum { N = 1030, LIKELIEST = 1, KEPT = N - 1, NEXT = 0, N_ROWS = 2 };
	static const struct sk_draw draws[N_ROWS] = {
		{.n_ids = N, .temperature = 1, .top_k = 2, .top_p = 1, .repeat_penalty = 1},
		{.n_ids = N, .temperature = 1, .top_p = .5f, .repeat_penalty = 1, .random = .9}};
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(*state, 2, false, &shape);
	float logits[N_ROWS][N];
	for (int i = 0; i < N; i++) {
		logits[0][i] = i == LIKELIEST ? 0
			       : i == KEPT    ? -10
			       : i == NEXT    ? -10.00002f
					      : -INFINITY;
		logits[1][i] = i < 4 ? 0 : -INFINITY;
	}
	const uint32_t kept = weigh(logits[0][KEPT]);
	assert_in_range(kept - weigh(logits[0][NEXT]), 1, kept % 32);
	struct sk_buffer *rows, *drawn = draw_rows(backend, logits[0], N_ROWS, N, draws, 0, &rows);
	assert_int_equal(sk_backend_drawn(backend, drawn, 0).id, LIKELIEST);
	assert_int_equal(sk_backend_drawn(backend, drawn, 1).id, 1);
	sk_backend_close(backend);
}

/* Every weight to the bit. Of two ids the first is drawn by just less than its share, the second by just more: where one of
 * them weighs one more or less than the definition says, one of both draws goes wrong. So products and sums that were fused
 * show, and a product in place of a quotient. */
static void check_weights(const char *instructions, uint32_t n_vocab, uint32_t first,
			  uint32_t second)
{
	enum { N_STEPS = 10 };
	/* Where a single sum, from the second of the series on, or that of the reduction, shows when it is fused. The others
	 * do so for no float (all were tried, 2^-10 to 22). */
	static const float telling[] = {-0x1.fdb0ap-3f,  -0x1.002ecep-3f, -0x1.c8c81ap-3f,
					-0x1.2d3c16p-2f, -0x1.8a9c44p-3f, -0x1.487014p-2f,
					-0x1.09adb2p+1f};
	static const float penalties[] = {1.1f, 1.3f, 0.7f}, temperatures[] = {0.7f, 1.3f, 3};
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(instructions, 1, false, &shape);
	const uint32_t n_rows = N_STEPS * MAX_ROWS;
	float *logits = malloc((size_t)n_rows * n_vocab * sizeof *logits);
	struct sk_draw *draws = calloc(n_rows, sizeof *draws);
	int32_t recent = (int32_t)first;
	unsigned n_wrong = 0;
	assert_true(logits && draws);
	for (uint32_t i = 0; i < n_rows * n_vocab; i++)
		logits[i] = -INFINITY;
	for (uint32_t row = 0; row < n_rows; row += 2) {
		const bool is_plain = row % 4;
		const float u = (float)(random_bits() >> 8) * 0x1p-24f, top = is_plain ? 0 : 8,
			    x = !is_plain                                    ? top - 9 * u
				: row / 4 < sizeof telling / sizeof *telling ? telling[row / 4]
									     : -16 * u * u * u,
			    penalty = is_plain ? 1 : penalties[random_below(3)],
			    temperature = is_plain ? 1 : temperatures[random_below(3)],
			    scale = 1 / temperature;
		volatile float y = x > 0 ? x / penalty : x * penalty;
		const float most = y > top ? y : top;
		volatile float below = y - most, scaled = below * scale, less = top - most;
		const uint32_t weight = weigh(scaled), other = weigh(less * scale);
		const double total = (double)weight + other;
		assert_true(weight > 0 && other > 0);
		for (uint32_t i = 0; i < 2; i++) {
			float *at = logits + (size_t)(row + i) * n_vocab;
			at[first] = x;
			at[second] = top;
			draws[row + i] = (struct sk_draw){.n_ids = n_vocab,
							  .temperature = temperature,
							  .top_p = 1,
							  .repeat_penalty = penalty,
							  .recent = &recent,
							  .n_recent = 1,
							  .random = (weight - 0.5 + i) / total};
		}
	}
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	assert_int_equal(sk_backend_reserve_draws(backend, n_vocab, 1), 0);
	struct sk_linear *table = pack_floats(backend, logits, n_rows, n_vocab);
	struct sk_buffer *rows = buffer_of(backend, MAX_ROWS, n_vocab),
			 *drawn = buffer_of(backend, MAX_ROWS, SK_DRAWN_WIDTH);
	for (uint32_t row = 0; row < n_rows; row += MAX_ROWS) {
		struct plain_batch plain;
		begin_plain(backend, &plain, MAX_ROWS, (int32_t)row);
		sk_backend_embed(backend, rows, table);
		sk_backend_draw(backend, drawn, rows, draws + row);
		assert_int_equal(sk_backend_end_step(backend), 0);
		for (uint32_t i = 0; i < MAX_ROWS; i++) {
			const uint32_t expected = i % 2 ? second : first;
			n_wrong += sk_backend_drawn(backend, drawn, i).id != (int32_t)expected;
		}
	}
	if (n_wrong)
		fail_msg("%u of %u draws are wrong", n_wrong, n_rows);
	sk_backend_close(backend);
	free(logits);
	free(draws);
}

static void test_weights_to_the_bit(void **state)
{
	check_weights(*state, 2, 0, 1);
	check_weights(*state, 40, 3, 20); /* whole vectors */
}

/* Nothing is drawn where a logit is no number or all that may be drawn is impossible; a row beside is as it should be. */
static void test_no_numbers(void **state)
{
	enum { N = 77, N_ROWS = 5 };
	const char *instructions = *state;
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(instructions, 2, false, &shape);
	struct sk_draw draws[N_ROWS];
	float logits[N_ROWS][N];
	for (int row = 0; row < N_ROWS; row++) {
		for (int i = 0; i < N; i++)
			logits[row][i] = random_float();
		draws[row] = (struct sk_draw){.n_ids = N - 1,
					      .temperature = row % 2 ? 0 : 1,
					      .top_p = 1,
					      .repeat_penalty = 1};
	}
	logits[0][N - 1] = NAN;
	logits[1][3] = INFINITY;
	for (int i = 0; i < N; i++)
		logits[2][i] = -INFINITY;
	for (int i = 0; i < N - 1; i++)
		logits[3][i] = -INFINITY;
	struct sk_buffer *rows, *drawn = draw_rows(backend, logits[0], N_ROWS, N, draws, 0, &rows);
	for (uint32_t row = 0; row < 4; row++)
		assert_int_equal(sk_backend_drawn(backend, drawn, row).id, -1);
	assert_int_equal(sk_backend_drawn(backend, drawn, 4).id, expected_id(logits[4], &draws[4]));
	sk_backend_close(backend);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_weights),
		KERNEL_TEST(test_after_a_gather),
		KERNEL_TEST(test_draws),
		KERNEL_TEST(test_boundaries),
		KERNEL_TEST(test_exact_cuts),
		KERNEL_TEST(test_no_numbers),
		KERNEL_TEST(test_weights_to_the_bit),
	};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
