/* The formats of cached keys and values: what is kept of a number, and what a page of them is called. */
#include "kernel.h"

/* Ties, the least that becomes infinite (in F16 65520, in BF16 halfway to 2^128), then numbers of all sizes. */
static float some_value(uint32_t i)
{
	static const float values[] = {0x1.01p0f,  0x1.03p0f,       0x1.002p0f,  0x1.006p0f,
				       -0x1.01p0f, 0x1.010002p0f,   65504,       65519,
				       65520,      0x1.fefffep127f, 0x1.ffp127f, -1e30f};
	return i < sizeof values / sizeof *values
		       ? values[i]
		       : ldexpf(random_float(), (int)random_below(60) - 30);
}

/* A token that sees itself alone gets its value back as the cache keeps it: the same number, to the last bit. */
static void test_rounding(void **state)
{
	enum { DIM = 16, WIDTH = 3 * DIM };
	need(*state);
	for (int format = SK_KV_F32; format <= SK_KV_BF16; format++) {
		struct sk_backend_shape shape = default_shape();
		shape.kv_format = (enum sk_kv_format)format;
		struct sk_backend *backend = open_or_skip(*state, 2, true, &shape);
		float *qkv = random_floats(SK_PAGE_TOKENS * WIDTH, 1);
		for (uint32_t i = 0; i < SK_PAGE_TOKENS * DIM; i++)
			qkv[i / DIM * WIDTH + 2 * DIM + i % DIM] = some_value(i);
		struct sk_linear *table = pack_floats(backend, qkv, SK_PAGE_TOKENS, WIDTH);
		struct sk_buffer *in = buffer_of(backend, 1, WIDTH),
				 *q = buffer_of(backend, 1, 2 * DIM),
				 *out = buffer_of(backend, 1, DIM);
		assert_int_equal(sk_backend_reserve_pages(backend, 1), 0);
		for (uint32_t i = 0; i < SK_PAGE_TOKENS; i++) {
			struct sk_row row = {.entry = i, .first = i, .id = (int32_t)i};
			struct sk_span span = {.n_rows = 1, .pages = plain_pages, .n_pages = 1};
			struct sk_batch batch = {1, 1, &row, &span};
			assert_int_equal(sk_backend_begin_step(backend, &batch), 0);
			sk_backend_embed(backend, in, table);
			sk_backend_append(backend, q, in, 0);
			sk_backend_attend(backend, out, q, 0);
			assert_int_equal(sk_backend_end_step(backend), 0);
			const float *got = sk_backend_read(backend, out, 0),
				    *values = qkv + i * WIDTH + 2 * DIM;
			for (uint32_t d = 0; d < DIM; d++)
				assert_true(got[d] == kept(shape.kv_format, values[d]));
		}
		free(qkv);
		sk_backend_close(backend);
	}
}

/* A saved page goes where the name of its layout is the same: another format has another. */
static void test_layouts(void **state)
{
	static const char *const words[] = {
		[SK_KV_F32] = " f32", [SK_KV_F16] = " f16", [SK_KV_BF16] = " bf16"};
	for (int format = SK_KV_F32; format <= SK_KV_BF16; format++) {
		struct sk_backend_shape shape = default_shape();
		shape.kv_format = (enum sk_kv_format)format;
		struct sk_backend *backend = open_or_skip(*state, 1, false, &shape);
		const char *layout = sk_backend_page_layout(backend);
		assert_true(strlen(layout) <= 31);
		assert_non_null(strstr(layout, words[format]));
		assert_int_equal(sk_backend_page_bytes(backend),
				 2 * SK_PAGE_TOKENS * 16 * (format == SK_KV_F32 ? 4 : 2));
		sk_backend_close(backend);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		KERNEL_TEST(test_rounding),
		KERNEL_TEST(test_layouts),
	};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
