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
	MOST_WIDTH = 64,
	PAGES = 20,
	LAST = 613,
	STEPS = 2
};

struct layer {
	struct sk_linear *qkv, *out, *up, *down;
	struct sk_norm *norms[2];
};

struct stack {
	struct sk_backend *backend;
	uint32_t width, n_rows;
	bool subtract_mean;
	struct sk_linear *input;
	struct layer layers[LAYERS];
	struct sk_buffer *x, *h, *q, *both, *att, *wide, *act, *other;
};

struct result {
	float x[STEPS][MOST_ROWS][MOST_WIDTH];
};

/* dtype: F16 or BF16, in which it stays. */
static struct sk_linear *pack_halves(struct sk_backend *backend, enum sk_dtype dtype,
				     uint32_t n_rows, uint32_t n_cols)
{
	const size_t n = (size_t)n_rows * n_cols;
	float *w = random_floats(n, 1 / sqrtf((float)n_cols)), *b = random_floats(n_rows, 1);
	uint16_t *halves = malloc(n * sizeof *halves);
	assert_non_null(halves);
	for (size_t i = 0; i < n; i++)
		halves[i] =
			dtype == SK_DTYPE_F16 ? sk_half_from_float(w[i]) : sk_bf16_from_float(w[i]);
	struct sk_tensor tensor = {"halves", dtype, n_rows, n_cols, halves},
			 bias_tensor = float_tensor(b, n_rows, 1);
	struct sk_matrix matrix = matrix_of(&tensor), bias = matrix_of(&bias_tensor);
	struct sk_linear *linear = NULL;
	assert_int_equal(sk_backend_pack_linear(backend, &matrix, &bias, SK_WEIGHTS_AUTO, &linear),
			 0);
	free(halves);
	free(w);
	free(b);
	return linear;
}

static struct sk_norm *pack_vectors(struct sk_backend *backend, uint32_t width)
{
	float *w = random_floats(width, 1), *b = random_floats(width, 1);
	struct sk_tensor weight_tensor = float_tensor(w, width, 1),
			 bias_tensor = float_tensor(b, width, 1);
	struct sk_matrix weight = matrix_of(&weight_tensor), bias = matrix_of(&bias_tensor);
	struct sk_norm *norm = NULL;
	assert_int_equal(sk_backend_pack_norm(backend, &weight, &bias, &norm), 0);
	free(w);
	free(b);
	return norm;
}

static void run_layer(const struct stack *s, uint32_t number, bool apart)
{
	const struct layer *l = &s->layers[number];
	sk_backend_norm(s->backend, s->h, s->x, l->norms[0], 1e-5f, s->subtract_mean);
	sk_backend_matmul(s->backend, s->both, s->h, l->qkv);
	sk_backend_append(s->backend, s->q, s->both, number);
	sk_backend_attend(s->backend, s->att, s->q, number);
	if (apart)
		sk_backend_embed(s->backend, s->other, s->input);
	sk_backend_norm(s->backend, s->h, s->x, l->norms[1], 1e-5f, s->subtract_mean);
	sk_backend_matmul_add(s->backend, s->x, s->att, l->out);
	sk_backend_matmul(s->backend, s->wide, s->h, l->up);
	sk_backend_activate(s->backend, s->act, s->wide, SK_ACT_GELU);
	sk_backend_matmul_add(s->backend, s->x, s->act, l->down);
}

/* Rows of one session, or of a session each; the second step reads what the first left in the pages. What lies in them else are
 * the same random keys and values each time. */
static void run(const struct stack *s, bool of_one, bool apart, struct result *ret)
{
	uint32_t pages[MOST_ROWS][PAGES];
	struct sk_row rows[MOST_ROWS];
	struct sk_span spans[MOST_ROWS];
	const size_t page_bytes = sk_backend_page_bytes(s->backend);
	float *floats = random_floats(page_bytes / sizeof(float), 1);
	for (uint32_t i = 0; i < MOST_ROWS * PAGES; i++) {
		pages[i / PAGES][i % PAGES] = i;
		assert_int_equal(sk_backend_write_page(s->backend, i, floats), 0);
	}
	free(floats);
	for (uint32_t step = 0; step < STEPS; step++) {
		const uint64_t entry = LAST + step * (of_one ? s->n_rows : 1);
		for (uint32_t i = 0; i < s->n_rows; i++) {
			rows[i] = (struct sk_row){
				.entry = entry + (of_one ? i : 0), .first = 40, .id = (int32_t)i};
			spans[i] = (struct sk_span){.row = i,
						    .n_rows = 1,
						    .origin = 7,
						    .pages = pages[i],
						    .n_pages = PAGES};
		}
		if (of_one)
			spans[0].n_rows = s->n_rows;
		struct sk_batch batch = {s->n_rows, of_one ? 1 : s->n_rows, rows, spans};
		assert_int_equal(sk_backend_begin_step(s->backend, &batch), 0);
		sk_backend_embed(s->backend, s->x, s->input);
		for (uint32_t i = 0; i < LAYERS; i++)
			run_layer(s, i, apart);
		assert_int_equal(sk_backend_end_step(s->backend), 0);
		for (uint32_t i = 0; i < s->n_rows; i++)
			memcpy(ret->x[step][i], sk_backend_read(s->backend, s->x, i),
			       s->width * sizeof(float));
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
	for (uint32_t step = 0; step < STEPS; step++)
		for (uint32_t i = 0; i < s->n_rows; i++)
			for (uint32_t k = 0; k < s->width; k++)
				assert_true(fabsf(whole.x[step][i][k] - apart.x[step][i][k]) <=
					    1e-4f);
}

/* dtypes: of QKV, of attention's output, of the MLP's first matrix, of its second. */
static void check_layers(const char *instructions, const enum sk_dtype dtypes[4], uint32_t width,
			 uint32_t n_rows, bool subtract_mean, long n_wanted)
{
	struct sk_backend_shape shape = default_shape();
	shape.n_layers = LAYERS;
	shape.n_heads = shape.n_kv_heads = HEADS;
	struct sk_backend *backend = open_or_skip(instructions, 2, false, &shape);
	assert_int_equal(sk_backend_reserve_pages(backend, MOST_ROWS * PAGES), 0);
	float *x = random_floats((size_t)n_rows * width, 1);
	x[0] = 100; /* far from all others */
	struct stack s = {
		.backend = backend,
		.width = width,
		.n_rows = n_rows,
		.subtract_mean = subtract_mean,
		.input = pack_floats(backend, x, n_rows, width),
		.x = buffer_of(backend, n_rows, width),
		.h = buffer_of(backend, n_rows, width),
		.q = buffer_of(backend, n_rows, 2 * HEADS * HEAD),
		.both = buffer_of(backend, n_rows, 3 * HEADS * HEAD),
		.att = buffer_of(backend, n_rows, HEADS * HEAD),
		.wide = buffer_of(backend, n_rows, INNER),
		.act = buffer_of(backend, n_rows, INNER),
		.other = buffer_of(backend, n_rows, width),
	};
	for (uint32_t i = 0; i < LAYERS; i++)
		s.layers[i] = (struct layer){
			.qkv = pack_halves(backend, dtypes[0], 3 * HEADS * HEAD, width),
			.out = pack_halves(backend, dtypes[1], width, HEADS * HEAD),
			.up = pack_halves(backend, dtypes[2], INNER, width),
			.down = pack_halves(backend, dtypes[3], width, INNER),
			.norms = {pack_vectors(backend, width), pack_vectors(backend, width)},
		};
	check(&s, false, n_wanted);
	if (n_rows == MOST_ROWS) /* and each layer has the way into the pages */
		check(&s, true, n_wanted + LAYERS);
	free(x);
	sk_backend_close(backend);
}

#define H SK_DTYPE_F16
#define B SK_DTYPE_BF16

#define THREE_A_LAYER (1 + 1 + 3 * LAYERS) /* and the embedding, and the first norm */
#define FOUR_A_LAYER  (1 + 4 * LAYERS)
#define ONE_BY_ONE    (1 + 9 * LAYERS)

static const enum sk_dtype halves[] = {H, H, H, H}, bfloats[] = {B, B, B, B};

static void test_one_row(void **state)
{
	check_layers(*state, halves, MOST_WIDTH, 1, true, THREE_A_LAYER);
}

static void test_rows(void **state)
{
	check_layers(*state, bfloats, MOST_WIDTH, MOST_ROWS, true, THREE_A_LAYER);
}

/* Products do not take this width as it is: each layer has its norm. */
static void test_padded(void **state)
{
	check_layers(*state, halves, 48, MOST_ROWS, true, FOUR_A_LAYER);
}

static void test_without_mean(void **state)
{
	check_layers(*state, halves, MOST_WIDTH, 2, false, THREE_A_LAYER);
}

/* A model may keep its matrices in formats of their own: only of the last have those of one launch the same. */
static void test_formats(void **state)
{
	static const enum sk_dtype dtypes[][4] = {
		{H, H, B, B}, {B, B, H, H}, {B, H, B, B}, {H, H, B, H}, {B, H, B, H}};
	const size_t n = sizeof dtypes / sizeof *dtypes;
	for (size_t i = 0; i < n; i++)
		check_layers(*state, dtypes[i], MOST_WIDTH, 1, true,
			     i + 1 < n ? ONE_BY_ONE : THREE_A_LAYER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KERNEL_TEST(test_one_row),      KERNEL_TEST(test_rows),    KERNEL_TEST(test_padded),
		KERNEL_TEST(test_without_mean), KERNEL_TEST(test_formats),
	};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
