/* Layers whose MLP reads what their attention reads. A device may make fewer launches of them than they have operations: the
 * results are those of the operations one by one, which is what they are when something foreign lies between.
 */
#include "kernel.h"

enum {
	HEAD = 16,
	HEADS = 2,
	INNER = 1568,
	LAYERS = 2,
	MOST_ROWS = 3,
	WIDE = 1568, /* of which a row of 16 bits is two parts, and whose tiles of 16 are more than a warp's lanes */
	MOST_WIDTH = 2 * WIDE, /* so are those of 8 bits */
	PAGES = 20,
	LAST = 613, /* in the second segment of a row's pages; the next session's is in the first */
	LESS = 200,
	SINKS = 34, /* the window has some of their second page, too */
	STEPS = 2
};

struct kind { /* 0: as most have it */
	const enum sk_dtype *
		dtypes; /* of QKV, of attention's output, of the MLP's first matrix, of its second */
	uint32_t width, inner, n_rows, n_heads, n_kv_heads, n_sink;
	enum sk_kv_format kv_format;
	bool subtract_mean, one_buffer; /* of attention's output and the MLP's */
};

struct layer {
	struct sk_linear *qkv, *out, *up, *down;
	struct sk_norm *norms[2];
};

struct stack {
	struct sk_backend *backend;
	struct kind kind;
	struct sk_linear *input;
	struct layer layers[LAYERS];
	struct sk_buffer *x, *h, *q, *both, *att, *wide, *act, *other;
};

struct result {
	float x[STEPS][MOST_ROWS][MOST_WIDTH];
};

/* dtype: F16, BF16, or those of codes, in which it stays. */
static struct sk_linear *pack_as(struct sk_backend *backend, enum sk_dtype dtype, uint32_t n_rows,
				 uint32_t n_cols)
{
	const size_t n = (size_t)n_rows * n_cols;
	float *w = random_floats(n, 1 / sqrtf((float)n_cols)), *b = random_floats(n_rows, 1);
	uint16_t *halves = malloc(n * sizeof *halves);
	assert_non_null(halves);
	for (size_t i = 0; i < n; i++)
		halves[i] =
			dtype == SK_DTYPE_F16 ? sk_half_from_float(w[i]) : sk_bf16_from_float(w[i]);
	const bool are_codes = sk_dtype_info(dtype)->block_elements > 1;
	struct sk_tensor tensor = {"weights", are_codes ? SK_DTYPE_F32 : dtype, n_rows, n_cols,
				   are_codes ? (void *)w : halves},
			 bias_tensor = float_tensor(b, n_rows, 1);
	struct sk_matrix matrix = matrix_of(&tensor), bias = matrix_of(&bias_tensor);
	struct sk_linear *linear = NULL;
	assert_int_equal(sk_backend_pack_linear(backend, &matrix, &bias,
						dtype == SK_DTYPE_Q8_0   ? SK_WEIGHTS_Q8
						: dtype == SK_DTYPE_Q4_0 ? SK_WEIGHTS_Q4
									 : SK_WEIGHTS_AUTO,
						&linear),
			 0);
	free(halves);
	free(w);
	free(b);
	return linear;
}

static struct sk_norm *pack_vectors(struct sk_backend *backend, uint32_t width, bool has_bias)
{
	float *w = random_floats(width, 1), *b = random_floats(width, 1);
	struct sk_tensor weight_tensor = float_tensor(w, width, 1),
			 bias_tensor = float_tensor(b, width, 1);
	struct sk_matrix weight = matrix_of(&weight_tensor), bias = matrix_of(&bias_tensor);
	struct sk_norm *norm = NULL;
	assert_int_equal(sk_backend_pack_norm(backend, &weight, has_bias ? &bias : NULL, &norm), 0);
	free(w);
	free(b);
	return norm;
}

static void run_layer(const struct stack *s, uint32_t number, bool apart)
{
	const struct layer *l = &s->layers[number];
	const float eps = 0.1f * (float)(1 + number);
	sk_backend_norm(s->backend, s->h, s->x, l->norms[0], eps, s->kind.subtract_mean);
	sk_backend_matmul(s->backend, s->both, s->h, l->qkv);
	sk_backend_append(s->backend, s->q, s->both, number);
	sk_backend_attend(s->backend, s->att, s->q, number);
	if (apart)
		sk_backend_embed(s->backend, s->other, s->input);
	sk_backend_norm(s->backend, s->h, s->x, l->norms[1], eps, s->kind.subtract_mean);
	sk_backend_matmul_add(s->backend, s->x, s->att, l->out);
	sk_backend_matmul(s->backend, s->wide, s->h, l->up);
	sk_backend_activate(s->backend, s->act, s->wide, SK_ACT_GELU);
	sk_backend_matmul_add(s->backend, s->x, s->act, l->down);
}

/* Each with others of the same numbers. */
static void fill_pages(const struct stack *s)
{
	const enum sk_kv_format format = s->kind.kv_format;
	const size_t n = sk_backend_page_bytes(s->backend) / sizeof(uint16_t) + MOST_ROWS * PAGES;
	float *floats = random_floats(n, 1);
	uint16_t *halves = malloc(n * sizeof *halves);
	assert_non_null(halves);
	for (size_t i = 0; i < n; i++)
		halves[i] = format == SK_KV_F16 ? sk_half_from_float(floats[i])
						: sk_bf16_from_float(floats[i]);
	for (uint32_t i = 0; i < MOST_ROWS * PAGES; i++) {
		const void *page = format == SK_KV_F32 ? (void *)(floats + i) : halves + i;
		assert_int_equal(sk_backend_write_page(s->backend, i, page), 0);
	}
	free(halves);
	free(floats);
}

/* Rows of one session, or of a session each; the second step reads what the first left in the pages. What lies in them else are
 * the same random keys and values each time. */
static void run(const struct stack *s, bool of_one, bool apart, struct result *ret)
{
	uint32_t pages[MOST_ROWS][PAGES];
	struct sk_row rows[MOST_ROWS];
	struct sk_span spans[MOST_ROWS];
	const uint32_t n_rows = s->kind.n_rows, n_sink = s->kind.n_sink ? s->kind.n_sink : SINKS,
		       last = s->kind.n_sink ? n_sink : LAST;
	for (uint32_t i = 0; i < MOST_ROWS * PAGES; i++)
		pages[i / PAGES][i % PAGES] = i;
	fill_pages(s);
	for (uint32_t step = 0; step < STEPS; step++) {
		for (uint32_t i = 0; i < n_rows; i++) {
			rows[i] = (struct sk_row){.entry = of_one ? last + step * n_rows + i
								  : last + step - i * LESS,
						  .first = n_sink > 40 ? n_sink : 40,
						  .n_sink = n_sink,
						  .id = (int32_t)i};
			spans[i] = (struct sk_span){.row = i,
						    .n_rows = 1,
						    .origin = 7,
						    .sink_pages = pages[i],
						    .n_sink_pages = PAGES,
						    .pages = pages[i],
						    .n_pages = PAGES};
		}
		if (of_one)
			spans[0].n_rows = n_rows;
		struct sk_batch batch = {n_rows, of_one ? 1 : n_rows, rows, spans};
		assert_int_equal(sk_backend_begin_step(s->backend, &batch), 0);
		sk_backend_embed(s->backend, s->x, s->input);
		for (uint32_t i = 0; i < LAYERS; i++)
			run_layer(s, i, apart);
		assert_int_equal(sk_backend_end_step(s->backend), 0);
		for (uint32_t i = 0; i < n_rows; i++)
			memcpy(ret->x[step][i], sk_backend_read(s->backend, s->x, i),
			       s->kind.width * sizeof(float));
	}
}

/* Of cusim, where it takes the device's place. */
extern long cusim_n_launches(void) __attribute__((weak));

static long n_launches(void)
{
	return cusim_n_launches ? cusim_n_launches() : 0;
}

/* n_wanted: launches a step, of a device. */
static void check(const struct stack *s, bool of_one, long n_wanted)
{
	static struct result whole, apart;
	const uint64_t random = random_state;
	const long before = n_launches();
	run(s, of_one, false, &whole);
	assert_true(!cusim_n_launches || n_launches() - before == STEPS * n_wanted);
	random_state = random;
	run(s, of_one, true, &apart);
	/* a page of 16 bits rounds what differs in the last bits of a float to its own neighbours */
	const float most = s->kind.kv_format == SK_KV_F32 ? 1e-4f : 1e-3f;
	for (uint32_t step = 0; step < STEPS; step++)
		for (uint32_t i = 0; i < s->kind.n_rows; i++)
			for (uint32_t k = 0; k < s->kind.width; k++)
				assert_true(fabsf(whole.x[step][i][k] - apart.x[step][i][k]) <=
					    most);
}

static void check_layers(const char *instructions, struct kind kind, long n_wanted)
{
	const uint32_t width = kind.width, n_rows = kind.n_rows,
		       inner = kind.inner ? kind.inner : INNER,
		       n_heads = kind.n_heads ? kind.n_heads : HEADS,
		       n_kv_heads = kind.n_heads ? kind.n_kv_heads : HEADS,
		       n_qkv = (n_heads + 2 * n_kv_heads) * HEAD;
	struct sk_backend_shape shape = default_shape();
	shape.n_layers = LAYERS;
	shape.n_heads = n_heads;
	shape.n_kv_heads = n_kv_heads;
	shape.kv_format = kind.kv_format;
	struct sk_backend *backend = open_or_skip(instructions, 2, false, &shape);
	assert_int_equal(sk_backend_reserve_pages(backend, MOST_ROWS * PAGES), 0);
	float *x = random_floats((size_t)n_rows * width, 1);
	x[0] = 100; /* far from all others */
	struct stack s = {
		.backend = backend,
		.kind = kind,
		.input = pack_floats(backend, x, n_rows, width),
		.x = buffer_of(backend, n_rows, width),
		.h = buffer_of(backend, n_rows, width),
		.q = buffer_of(backend, n_rows, 2 * n_heads * HEAD),
		.both = buffer_of(backend, n_rows, n_qkv),
		.att = buffer_of(backend, n_rows, n_heads * HEAD),
		.wide = buffer_of(backend, n_rows, inner),
		.other = buffer_of(backend, n_rows, width),
	};
	s.act = kind.one_buffer ? s.att : buffer_of(backend, n_rows, inner);
	for (uint32_t i = 0; i < LAYERS; i++)
		s.layers[i] = (struct layer){
			.qkv = pack_as(backend, kind.dtypes[0], n_qkv, width),
			.out = pack_as(backend, kind.dtypes[1], width, n_heads * HEAD),
			.up = pack_as(backend, kind.dtypes[2], inner, width),
			.down = pack_as(backend, kind.dtypes[3], width, inner),
			.norms = {pack_vectors(backend, width, kind.subtract_mean),
				  pack_vectors(backend, width, kind.subtract_mean)},
		};
	check(&s, false, n_wanted);
	if (n_rows == MOST_ROWS) /* and each layer has the way into the pages */
		check(&s, true, n_wanted + LAYERS);
	free(x);
	sk_backend_close(backend);
}

#define H  SK_DTYPE_F16
#define B  SK_DTYPE_BF16
#define Q8 SK_DTYPE_Q8_0
#define Q4 SK_DTYPE_Q4_0

#define THREE_A_LAYER (1 + 1 + 3 * LAYERS) /* and the embedding, and the first norm */
#define FOUR_A_LAYER  (1 + 4 * LAYERS)
#define ONE_BY_ONE    (1 + 9 * LAYERS)

static const enum sk_dtype halves[] = {H, H, H, H}, bfloats[] = {B, B, B, B},
			   bytes[] = {Q8, Q8, Q8, Q8}, nibbles[] = {Q4, Q4, Q4, Q4};

#define NARROW 64

static void test_one_row(void **state)
{
	check_layers(*state, (struct kind){halves, NARROW, .n_rows = 1, .subtract_mean = true},
		     THREE_A_LAYER);
}

static void test_rows(void **state)
{
	check_layers(*state,
		     (struct kind){bfloats, NARROW, .n_rows = MOST_ROWS, .subtract_mean = true},
		     THREE_A_LAYER);
}

/* Products do not take this width as it is: each layer has its norm. */
static void test_padded(void **state)
{
	check_layers(*state, (struct kind){halves, 48, .n_rows = MOST_ROWS, .subtract_mean = true},
		     FOUR_A_LAYER);
}

static void test_without_mean(void **state)
{
	check_layers(*state, (struct kind){halves, NARROW, .n_rows = 2}, THREE_A_LAYER);
}

static void test_wide(void **state)
{
	check_layers(*state,
		     (struct kind){halves, WIDE, .inner = HEADS * HEAD, .n_rows = 1,
				   .subtract_mean = true},
		     THREE_A_LAYER);
}

/* Key heads of two queries each, in pages of every format. Of the first several blocks share a row's pages, of some rows more than
 * of others. */
static void test_pages(void **state)
{
	for (int format = SK_KV_F32; format <= SK_KV_BF16; format++) {
		const uint32_t n_kv_heads = format == SK_KV_F32 ? 1 : 2;
		check_layers(*state,
			     (struct kind){halves, 32, .inner = 32,
					   .n_rows = format == SK_KV_F32 ? MOST_ROWS : 1,
					   .n_heads = 2 * n_kv_heads, .n_kv_heads = n_kv_heads,
					   .kv_format = (enum sk_kv_format)format,
					   .subtract_mean = true},
			     THREE_A_LAYER);
	}
}

/* What is appended lies in the last page of the sinks, which is another block's. */
static void test_many_sinks(void **state)
{
	check_layers(*state,
		     (struct kind){halves, 32, .inner = 32, .n_rows = 1, .n_sink = 500,
				   .subtract_mean = true},
		     THREE_A_LAYER);
}

/* The MLP's product may have the buffer that attention's had: then it is not made sooner. */
static void test_one_buffer(void **state)
{
	check_layers(*state,
		     (struct kind){halves, 32, .inner = HEADS * HEAD, .n_rows = 1,
				   .subtract_mean = true, .one_buffer = true},
		     ONE_BY_ONE);
}

/* Codes have their norm in each layer. Rows end within a chunk, some of a single part and some of two; some matrices have tiles in
 * an odd number. */
static void test_codes(void **state)
{
	static const struct kind cases[] = {
		{bytes, .width = 544, .inner = 96, .n_rows = MOST_ROWS, .n_heads = 3,
		 .n_kv_heads = 3},
		{bytes, .width = MOST_WIDTH, .inner = 48, .n_rows = 1},
		{bytes, .width = NARROW, .inner = 3104, .n_rows = 1},
		{nibbles, .width = 48, .inner = 6176, .n_rows = 1},
		{nibbles, .width = 96, .inner = 32, .n_rows = 2, .subtract_mean = true},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		check_layers(*state, cases[i], FOUR_A_LAYER);
}

/* A model may keep its matrices in formats of their own: only those of one launch need to be in the same. */
static void test_formats(void **state)
{
	static const struct {
		enum sk_dtype dtypes[4];
		long n_launches;
	} cases[] = {
		{{H, H, B, B}, ONE_BY_ONE},       {{B, B, H, H}, ONE_BY_ONE},
		{{B, H, B, B}, ONE_BY_ONE},       {{H, H, B, H}, ONE_BY_ONE},
		{{Q8, H, H, H}, ONE_BY_ONE},      {{B, H, B, H}, THREE_A_LAYER},
		{{Q8, Q4, Q8, Q4}, FOUR_A_LAYER}, /* its norm is of inputs that are codes */
		{{H, Q4, H, Q4}, THREE_A_LAYER},  /* whose moments codes leave */
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		check_layers(
			*state,
			(struct kind){cases[i].dtypes, NARROW, .n_rows = 1, .subtract_mean = true},
			cases[i].n_launches);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KERNEL_TEST(test_one_row),    KERNEL_TEST(test_rows),
		KERNEL_TEST(test_padded),     KERNEL_TEST(test_without_mean),
		KERNEL_TEST(test_wide),       KERNEL_TEST(test_pages),
		KERNEL_TEST(test_many_sinks), KERNEL_TEST(test_one_buffer),
		KERNEL_TEST(test_codes),      KERNEL_TEST(test_formats),
	};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
