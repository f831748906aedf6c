/* Attention over a paged cache against the rule of the paper: keys rotated at their place in the cache
 * and the query at the place after them, all raw and in double precision. The backend rotates keys once,
 * at their place in the text (design section 2.1); both must agree. Queries and keys are scaled up until
 * attention is peaked: flat attention hides errors of position. One long file: half of it is the rule that all is compared to. */
#include "kernel.h"

#define MAX_TOKENS    1200
#define MAX_SESSIONS  3
#define LAST_AHEAD    10
#define POOL_PAGES    64
#define SESSION_PAGES (MAX_TOKENS / SK_PAGE_TOKENS + 1)

struct session {
	uint32_t n_sink, window, slack; /* capacity n_sink + window */
	uint64_t origin;
	uint32_t n_tokens;              /* to feed */
	uint32_t pages[SESSION_PAGES];  /* from page 0 of the session on */
	struct sk_row rows[MAX_TOKENS]; /* what each token sees */
};

struct setup {
	struct sk_backend_shape shape;
	uint32_t n_sessions;
	uint32_t
		n_ahead; /* tokens of each that are fed in large steps, and but for the last not looked at */
	struct session sessions[MAX_SESSIONS];
	float *qkv; /* (n_sessions * MAX_TOKENS, width), for layer 0; layer 1 takes them from the end */
};

static uint32_t qkv_width(const struct sk_backend_shape *shape)
{
	return (shape->n_heads + 2 * shape->n_kv_heads) * shape->head_dim;
}

/* Section 2, one token at a time. */
static void plan(struct session *session, uint32_t index)
{
	uint64_t first = session->n_sink, capacity = session->n_sink + session->window;
	for (uint32_t t = 0; t < session->n_tokens; t++) {
		struct sk_row *row = &session->rows[t];
		*row = (struct sk_row){.entry = t, .id = (int32_t)(index * MAX_TOKENS + t)};
		row->n_sink = t < session->n_sink ? t : session->n_sink;
		row->first = first < t ? first : t;
		uint64_t live = row->n_sink + (row->entry - row->first) + 1;
		if (live > capacity + session->slack)
			first += live - capacity;
	}
}

static const float *qkv_of(const struct setup *setup, int32_t id, uint32_t layer)
{
	uint32_t n = setup->n_sessions * MAX_TOKENS,
		 row = layer ? n - 1 - (uint32_t)id : (uint32_t)id;
	return setup->qkv + (size_t)row * qkv_width(&setup->shape);
}

/* Dim i of a head rotated to `place`. */
static double rotated(const struct sk_backend_shape *shape, const float *head, uint32_t i,
		      double place)
{
	uint32_t half = shape->n_rot / 2;
	if (i >= shape->n_rot)
		return head[i];
	uint32_t pair = i % half;
	double angle = place * pow(shape->rope_base, -2.0 * pair / shape->n_rot);
	double a = head[pair], b = head[pair + half];
	return i < half ? a * cos(angle) - b * sin(angle) : b * cos(angle) + a * sin(angle);
}

/* --- What a cache of 16 bits may cost ---
 *
 * Rounding to the nearest of p significant bits changes a number by at most 2^-p of it: p is 11 for F16, 8 for BF16.
 * (Numbers below F16's normal ones: by 2^-25, which is far below TOLERANCE.) Values and dims that are not rotated are
 * rounded here as well, and cost nothing. Rotated dims are rounded as they lie in the cache, at another angle than here: so
 * a score is off by at most D = 2^-p sum over pairs of |q pair| |k pair| / sqrt(head_dim), which no angle changes; a
 * weight of the softmax by a factor from e^(-2 D) to e^(2 D), as their sum moves too; an output, as weights sum to 1, by
 * at most (e^(2 D) - 1) sum of w |v - out|, which is at most (e^(2 D) - 1) times the deviation of the values.
 */
static double rounding_of_score(const struct sk_backend_shape *shape, const float *query,
				const float *key)
{
	const uint32_t half = shape->n_rot / 2;
	double sum = 0;
	for (uint32_t i = 0; i < half; i++)
		sum += hypot((double)query[i], (double)query[i + half]) *
		       hypot((double)key[i], (double)key[i + half]);
	return sum / sqrt(shape->head_dim) *
	       (shape->kv_format == SK_KV_F16    ? 0x1p-11
		: shape->kv_format == SK_KV_BF16 ? 0x1p-8
						 : 0);
}

/* rounding: how far from `out` the cache's format alone may lead. */
static void naive_attend(const struct setup *setup, const struct session *session,
			 const struct sk_row *row, uint32_t layer, double *out, double *rounding)
{
	const struct sk_backend_shape *shape = &setup->shape;
	const uint32_t d = shape->head_dim,
		       live = row->n_sink + (uint32_t)(row->entry - row->first);
	const uint32_t shared = shape->n_heads / shape->n_kv_heads;
	double *scores = malloc((live + 1) * sizeof *scores), *query = malloc(d * sizeof *query);
	assert_non_null(scores);
	assert_non_null(query);
	memset(out, 0, shape->n_heads * d * sizeof *out);
	memset(rounding, 0, shape->n_heads * d * sizeof *rounding);

	for (uint32_t h = 0; h < shape->n_heads; h++) {
		double most = -INFINITY, weight = 0, off = 0;
		uint32_t kv_head = shape->n_heads + h / shared;
		const float *raw = qkv_of(setup, row->id, layer) + h * d;
		for (uint32_t i = 0; i < d; i++)
			query[i] = rotated(shape, raw, i, live) / sqrt(d);
		for (uint32_t place = 0; place <= live; place++) {
			uint64_t entry =
				place < row->n_sink ? place : row->first + (place - row->n_sink);
			const float *key =
				qkv_of(setup, session->rows[entry].id, layer) + kv_head * d;
			scores[place] = 0;
			for (uint32_t i = 0; i < d; i++)
				scores[place] +=
					query[i] *
					(i < shape->n_rot ? rotated(shape, key, i, place)
							  : (double)kept(shape->kv_format, key[i]));
			most = fmax(most, scores[place]);
			off = fmax(off, rounding_of_score(shape, raw, key));
		}
		for (uint32_t place = 0; place <= live; place++)
			weight += exp(scores[place] - most);
		for (uint32_t place = 0; place <= live; place++) {
			uint64_t entry =
				place < row->n_sink ? place : row->first + (place - row->n_sink);
			const float *value = qkv_of(setup, session->rows[entry].id, layer) +
					     (kv_head + shape->n_kv_heads) * d;
			const double w = exp(scores[place] - most) / weight;
			for (uint32_t i = 0; i < d; i++) {
				double v = (double)kept(shape->kv_format, value[i]);
				out[h * d + i] += w * v;
				rounding[h * d + i] += w * v * v;
			}
		}
		for (uint32_t i = h * d; i < (h + 1) * d; i++)
			rounding[i] = expm1(2 * off) * sqrt(fmax(0, rounding[i] - out[i] * out[i]));
	}
	free(scores);
	free(query);
}

/* Pages that were evicted go back and are given out again as they are: nobody may look at what is left. */
struct pool {
	bool taken[POOL_PAGES];
};

static uint32_t take_page(struct pool *pool)
{
	for (uint32_t tries = 0; tries < 100000; tries++) {
		uint32_t page = random_below(POOL_PAGES);
		if (!pool->taken[page]) {
			pool->taken[page] = true;
			return page;
		}
	}
	fail_msg("no page left");
	return 0;
}

static void prepare_pages(struct pool *pool, struct session *session, uint64_t first, uint64_t end)
{
	uint32_t sink_pages = (session->n_sink + SK_PAGE_TOKENS - 1) / SK_PAGE_TOKENS;
	for (uint32_t p = 0; p < SESSION_PAGES; p++) {
		bool wanted = p < sink_pages
				      ? p <= end / SK_PAGE_TOKENS
				      : p >= first / SK_PAGE_TOKENS && p <= end / SK_PAGE_TOKENS;
		if (wanted && session->pages[p] == SK_NO_PAGE) {
			session->pages[p] = take_page(pool);
		} else if (!wanted && session->pages[p] != SK_NO_PAGE) {
			pool->taken[session->pages[p]] = false;
			session->pages[p] = SK_NO_PAGE;
		}
	}
}

/* Feeds all tokens of all sessions in steps of up to max_chunk a session; results (n_layers, n_sessions *
 * MAX_TOKENS, n_heads * head_dim). */
static float *run_all(const char *instructions, uint32_t n_threads, struct setup *setup,
		      uint32_t max_chunk)
{
	const struct sk_backend_shape *shape = &setup->shape;
	const uint32_t n_all = setup->n_sessions * MAX_TOKENS,
		       width = shape->n_heads * shape->head_dim;
	struct sk_backend *backend = open_or_skip(instructions, n_threads, true, shape);
	assert_int_equal(sk_backend_reserve_pages(backend, POOL_PAGES), 0);
	struct sk_buffer *qkv = buffer_of(backend, MAX_ROWS, qkv_width(shape));
	struct sk_buffer *q = buffer_of(backend, MAX_ROWS, 2 * width);
	struct sk_buffer *out[2] = {buffer_of(backend, MAX_ROWS, width),
				    buffer_of(backend, MAX_ROWS, width)};
	struct sk_linear *tables[2] = {pack_floats(backend, setup->qkv, n_all, qkv_width(shape))};
	float *reversed = malloc((size_t)n_all * qkv_width(shape) * sizeof *reversed);
	float *results = calloc((size_t)shape->n_layers * n_all * width, sizeof *results);
	assert_non_null(reversed);
	assert_non_null(results);
	for (uint32_t i = 0; i < n_all; i++)
		memcpy(reversed + (size_t)i * qkv_width(shape), qkv_of(setup, (int32_t)i, 1),
		       qkv_width(shape) * sizeof *reversed);
	tables[1] = pack_floats(backend, reversed, n_all, qkv_width(shape));
	free(reversed);

	struct pool pool = {0};
	uint32_t fed[MAX_SESSIONS] = {0}, left = 0;
	for (uint32_t s = 0; s < setup->n_sessions; s++) {
		for (uint32_t p = 0; p < SESSION_PAGES; p++)
			setup->sessions[s].pages[p] = SK_NO_PAGE;
		left += setup->sessions[s].n_tokens;
	}
	while (left) {
		bool attends = false;
		struct sk_row rows[MAX_ROWS];
		struct sk_span spans[MAX_SESSIONS];
		struct sk_batch batch = {0, 0, rows, spans};
		for (uint32_t s = 0; s < setup->n_sessions; s++) {
			struct session *session = &setup->sessions[s];
			uint32_t n = fed[s] < setup->n_ahead ? setup->n_ahead - fed[s]
							     : 1 + random_below(max_chunk);
			if (n > session->n_tokens - fed[s])
				n = session->n_tokens - fed[s];
			if (n > shape->max_rows - batch.n_rows)
				n = shape->max_rows - batch.n_rows;
			if (n == 0)
				continue;
			uint64_t first = session->rows[fed[s]].first;
			prepare_pages(&pool, session, first, fed[s] + n - 1);
			memcpy(rows + batch.n_rows, session->rows + fed[s], n * sizeof *rows);
			spans[batch.n_spans++] = (struct sk_span){
				.row = batch.n_rows,
				.n_rows = n,
				.origin = session->origin,
				.sink_pages = session->pages,
				.n_sink_pages =
					(session->n_sink + SK_PAGE_TOKENS - 1) / SK_PAGE_TOKENS,
				.pages = session->pages + first / SK_PAGE_TOKENS,
				.n_pages = SESSION_PAGES - (uint32_t)(first / SK_PAGE_TOKENS),
				.page0 = first / SK_PAGE_TOKENS,
			};
			batch.n_rows += n;
			fed[s] += n;
			attends |= fed[s] + LAST_AHEAD >= setup->n_ahead;
			left -= n;
		}
		assert_int_equal(sk_backend_begin_step(backend, &batch), 0);
		for (uint32_t layer = 0; layer < shape->n_layers; layer++) {
			sk_backend_embed(backend, qkv, tables[layer]);
			sk_backend_append(backend, q, qkv, layer);
			if (attends)
				sk_backend_attend(backend, out[layer], q, layer);
		}
		assert_int_equal(sk_backend_end_step(backend), 0);
		for (uint32_t layer = 0; attends && layer < shape->n_layers; layer++)
			for (uint32_t i = 0; i < batch.n_rows; i++)
				memcpy(results + ((size_t)layer * n_all + (uint32_t)rows[i].id) *
							 width,
				       sk_backend_read(backend, out[layer], i),
				       width * sizeof *results);
	}
	sk_backend_close(backend);
	return results;
}

#define TOLERANCE 1e-4 /* of what is computed in floats */
/* BF16 holds keys that F16 makes infinite; queries are as much smaller, and scores the same. */
#define LARGE 0x1p20f

static void check(const char *instructions, struct setup *setup)
{
	const struct sk_backend_shape *shape = &setup->shape;
	const uint32_t n_all = setup->n_sessions * MAX_TOKENS,
		       width = shape->n_heads * shape->head_dim;
	const size_t size = (size_t)shape->n_layers * n_all * width * sizeof(float);
	setup->qkv = random_floats((size_t)n_all * qkv_width(shape), 1);
	const float large = shape->kv_format == SK_KV_BF16 ? LARGE : 1;
	for (uint32_t i = 0; i < n_all; i++) /* queries and keys; values stay */
		for (uint32_t j = 0; j < (shape->n_heads + shape->n_kv_heads) * shape->head_dim;
		     j++)
			setup->qkv[(size_t)i * qkv_width(shape) + j] *=
				j < width ? 2 / large : 2 * large;
	for (uint32_t s = 0; s < setup->n_sessions; s++)
		plan(&setup->sessions[s], s);

	float *chunks = run_all(instructions, 3, setup, 40);
	const uint32_t first = setup->n_ahead ? setup->n_ahead - LAST_AHEAD : 0;
	double *expected = malloc(width * sizeof *expected),
	       *rounding = malloc(width * sizeof *rounding);
	assert_non_null(expected);
	assert_non_null(rounding);
	for (uint32_t layer = 0; layer < shape->n_layers; layer++)
		for (uint32_t s = 0; s < setup->n_sessions; s++)
			for (uint32_t t = first; t < setup->sessions[s].n_tokens;
			     t += 1 + random_below(7)) {
				const struct sk_row *row = &setup->sessions[s].rows[t];
				const float *got =
					chunks +
					((size_t)layer * n_all + (uint32_t)row->id) * width;
				naive_attend(setup, &setup->sessions[s], row, layer, expected,
					     rounding);
				for (uint32_t i = 0; i < width; i++)
					assert_true(fabs(expected[i] - (double)got[i]) <=
						    TOLERANCE + rounding[i]);
			}

	float *singles =
		run_all(instructions, 1, setup, 1); /* the same bits, one token at a time */
	assert_memory_equal(chunks, singles, size);
	/* shared out among many threads; a simulated device has one way alone */
	float *segments = cusim_n_errors ? NULL : run_all(instructions, 8, setup, 1);
	if (segments)
		assert_memory_equal(segments, singles, size);
	free(expected);
	free(rounding);
	free(chunks);
	free(singles);
	free(segments);
	free(setup->qkv);
}

/* Three sessions: a given one, one that never evicts, and one that slides without sinks. */
static void run_case(const char *instructions, uint32_t n_heads, uint32_t n_kv_heads,
		     uint32_t head_dim, uint32_t n_rot, enum sk_kv_format format, uint32_t n_sink,
		     uint64_t origin)
{
	need(instructions);
	struct setup *setup = calloc(1, sizeof *setup);
	assert_non_null(setup);
	setup->shape = (struct sk_backend_shape){.n_layers = 2,
						 .n_heads = n_heads,
						 .n_kv_heads = n_kv_heads,
						 .head_dim = head_dim,
						 .n_rot = n_rot,
						 .rope_base = 10000,
						 .kv_format = format,
						 .max_rows = MAX_ROWS};
	setup->n_sessions = 3;
	setup->sessions[0] = (struct session){.n_sink = n_sink,
					      .window = 50,
					      .slack = random_below(20),
					      .origin = origin,
					      .n_tokens = sk_test_some(300, 110)};
	/* its window is cut into three segments and more */
	setup->sessions[1] = (struct session){.n_sink = n_sink,
					      .window = 500,
					      .origin = origin,
					      .n_tokens = sk_test_some(390, 140)};
	setup->sessions[2] = (struct session){
		.window = 33, .origin = origin / 2, .n_tokens = sk_test_some(120, 50)};
	check(instructions, setup);
	free(setup);
}

static void test_sinks(void **state)
{
	static const uint32_t sinks[] = {0, 1, 4, 8, 32, 40, 70};
	for (size_t i = 0; i < sizeof sinks / sizeof *sinks; i += sk_test_some(1, 3))
		run_case(*state, 2, 2, 16, 16, SK_KV_F32, sinks[i], 0);
}

static void test_origins(void **state)
{
	static const uint64_t origins[] = {3000000, (uint64_t)1 << 33, (uint64_t)1 << 40};
	for (size_t i = 0; i < sizeof origins / sizeof *origins; i += sk_test_some(1, 2))
		run_case(*state, 2, 1, 32, 32, SK_KV_F32, 4, origins[i]);
}

static void test_shapes(void **state)
{
	run_case(*state, 3, 1, 64, 64, SK_KV_F32, 4, 0);
	run_case(*state, 2, 2, 80, 20, SK_KV_F32, 4, 100);
	run_case(*state, 6, 2, 20, 10, SK_KV_F32, 4, 100);
	run_case(*state, 2, 1, 7, 0, SK_KV_F32, 4, 0);
	run_case(*state, 40, 1, 8, 8, SK_KV_F32, 4, 0);
	run_case(*state, 10, 2, 8, 8, SK_KV_F32, 4, 0);
}

static void test_f16(void **state)
{
	run_case(*state, 3, 1, 64, 64, SK_KV_F16, 4, 0);
	run_case(*state, 2, 2, 20, 8, SK_KV_F16, 40, 3000000);
	run_case(*state, 2, 1, 10, 0, SK_KV_F16, 4, 0); /* nothing rotated: as exact as F32 */
}

static void test_bf16(void **state)
{
	run_case(*state, 3, 1, 64, 64, SK_KV_BF16, 4, 0);
	run_case(*state, 2, 2, 20, 8, SK_KV_BF16, 40, 3000000);
	run_case(*state, 2, 1, 10, 0, SK_KV_BF16, 4, 0);
}

/* More pages than a block of threads takes at once: one of many rows goes on and on, and for few rows several share. */
static void test_long(void **state)
{
	static const uint32_t n_heads[] = {[SK_KV_F32] = 5, [SK_KV_F16] = 3, [SK_KV_BF16] = 4};
	need(*state);
	for (int format = SK_KV_F32; format <= SK_KV_BF16; format++) {
		struct setup *setup = calloc(1, sizeof *setup);
		assert_non_null(setup);
		setup->shape = (struct sk_backend_shape){.n_layers = 1,
							 .n_heads = n_heads[format],
							 .n_kv_heads = 1,
							 .head_dim = 8,
							 .n_rot = 8,
							 .rope_base = 10000,
							 .kv_format = (enum sk_kv_format)format,
							 .max_rows = MAX_ROWS};
		setup->n_sessions = 1;
		setup->n_ahead = 1070;
		setup->sessions[0] =
			(struct session){.n_sink = 4, .window = 1064, .slack = 9, .n_tokens = 1086};
		check(*state, setup);
		free(setup);
	}
}

/* Heads of more than 128 dims, several queries a key head, in segments; and steps of as many rows as a backend takes: what it
 * has set aside for them is just enough. */
static void test_large_heads(void **state)
{
	static const struct {
		uint32_t n_heads, head_dim, max_rows;
		enum sk_kv_format format;
	} cases[] = {{3, 136, 1, SK_KV_F16},
		     {4, 256, 1, SK_KV_BF16},
		     {5, 256, 1, SK_KV_F32},
		     {4, 136, 3, SK_KV_F32}};
	need(*state);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct setup *setup = calloc(1, sizeof *setup);
		assert_non_null(setup);
		setup->shape = (struct sk_backend_shape){.n_layers = 1,
							 .n_heads = cases[i].n_heads,
							 .n_kv_heads = 1,
							 .head_dim = cases[i].head_dim,
							 .n_rot = cases[i].head_dim / 2,
							 .rope_base = 10000,
							 .kv_format = cases[i].format,
							 .max_rows = cases[i].max_rows};
		setup->n_sessions = 1;
		setup->n_ahead = 530;
		setup->sessions[0] =
			(struct session){.n_sink = 4, .window = 525, .slack = 9, .n_tokens = 536};
		check(*state, setup);
		free(setup);
	}
}

/* Little of everything, for many orders of a simulated device: every format, heads that share keys, several pages. */
static void test_small(void **state)
{
	need(*state);
	for (int format = SK_KV_F32; format <= SK_KV_BF16; format++) {
		struct setup *setup = calloc(1, sizeof *setup);
		assert_non_null(setup);
		setup->shape = (struct sk_backend_shape){.n_layers = 2,
							 .n_heads = 3,
							 .n_kv_heads = 1,
							 .head_dim = 8,
							 .n_rot = 4,
							 .rope_base = 10000,
							 .kv_format = format,
							 .max_rows = MAX_ROWS};
		setup->n_sessions = 2;
		setup->sessions[0] = (struct session){
			.n_sink = 4, .window = 32, .slack = 2, .origin = 100, .n_tokens = 42};
		setup->sessions[1] = (struct session){.window = 9, .n_tokens = 14};
		check(*state, setup);
		free(setup);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KERNEL_TEST(test_sinks),       KERNEL_TEST(test_origins), KERNEL_TEST(test_shapes),
		KERNEL_TEST(test_f16),         KERNEL_TEST(test_bf16),    KERNEL_TEST(test_long),
		KERNEL_TEST(test_large_heads), KERNEL_TEST(test_small),
	};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
