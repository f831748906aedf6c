/* A page that was given back is zero, byte by byte, when it comes to another session, of the same user as well, wherever that
 * one has not written yet. Read where the device keeps it. */
#include "engine_test.h"

#include "cpu/device.h"
#include "engine/state.h"

#define PROMPT "It was a dark night, and the king had gone to the sea. "
#define ALICE  1000
#define BOB    1001
#define FEW    8 /* slots, more than Bob fills */

static struct answer a;
static struct client client;

static int open_client(void **state)
{
	if (open_engine(state) < 0)
		return -1;
	connect_client(&client, 1024);
	return 0;
}

static int close_client(void **state)
{
	disconnect_client(&client);
	return close_engine(state);
}

/* Runs to its end; the session stays where it has a name. */
static uint64_t generate(uid_t uid, const char *session, const char *prompt, uint64_t n)
{
	static uint32_t id;
	struct sk_request *request = ask(&client, ++id, prompt, n);
	request->uid = uid;
	request->ignore_eos = true;
	strcpy(request->session, session);
	struct sk_event *event = run(&client, request, &a);
	assert_int_equal(event->result.stop, SK_STOP_LIMIT);
	uint64_t n_cached = event->result.position - 1; /* the last one is drawn, not run */
	sk_event_destroy(event);
	assert_int_equal(stats().n_running, 0); /* the engine sleeps: its books can be read */
	return n_cached;
}

/* Slots from `from` on, in every layer and head: how many of their values are not zero. */
static size_t n_not_zero(uint32_t page, uint32_t from)
{
	struct sk_cpu *cpu = sk_cpu_from(engine->backend);
	const struct sk_backend_shape *shape = &cpu->base.shape;
	const size_t width = shape->kv_format == SK_KV_F32 ? 4 : 2;
	size_t n = 0;

	assert_non_null(cpu);
	for (uint32_t layer = 0; layer < shape->n_layers; layer++) {
		for (uint32_t head = 0; head < shape->n_kv_heads; head++) {
			const char *keys = sk_cpu_pages_head(&cpu->pages, page, layer, head),
				   *values = keys + cpu->pages.key_bytes;
			static const char zero[4];
			for (uint32_t slot = from; slot < SK_PAGE_TOKENS; slot++) {
				for (uint32_t i = 0; i < shape->head_dim; i++)
					n += memcmp(keys + (i * SK_PAGE_TOKENS + slot) * width,
						    zero, width) != 0;
				for (uint32_t i = 0; i < cpu->pages.value_dim; i++)
					n += memcmp(values + (slot * cpu->pages.value_dim + i) *
								     width,
						    zero, width) != 0;
			}
		}
	}
	return n;
}

/* The free page that is given out next. */
static uint32_t next_page(void)
{
	assert_true(engine->pool.n_free > 0);
	return engine->pool.free_pages[engine->pool.n_free - 1];
}

static void assert_first_page(uid_t uid, const char *name, uint32_t page)
{
	const struct sk_session *session = sk_engine_find_session(engine, uid, name);
	assert_non_null(session);
	assert_int_equal(session->pages.window[session->pages.window_at], page);
}

static void test_a_page_comes_clean_to_another_user(void **state)
{
	(void)state;
	generate(ALICE, "", PROMPT PROMPT PROMPT PROMPT, 20); /* several pages, all given back */
	uint32_t page = next_page();
	assert_true(n_not_zero(page, FEW) > 0);

	uint64_t n_cached = generate(BOB, "his", "It", 3);
	assert_first_page(BOB, "his", page);
	assert_true(n_cached < FEW);
	assert_true(n_not_zero(page, (uint32_t)n_cached - 1) > 0);
	assert_int_equal(n_not_zero(page, (uint32_t)n_cached), 0);
}

static void test_a_page_comes_back_clean(void **state)
{
	(void)state;
	generate(ALICE, "", PROMPT PROMPT PROMPT PROMPT, 20);
	uint32_t page = next_page();
	uint64_t n_cached = generate(ALICE, "hers", "It", 3);
	assert_first_page(ALICE, "hers", page);
	assert_true(n_cached < FEW);
	assert_int_equal(n_not_zero(page, (uint32_t)n_cached), 0);
}

/* Also where it goes round by way of a window that moves on, while its session runs. */
static void test_pages_that_a_window_leaves_behind(void **state)
{
	(void)state;
	uint64_t n_cached = generate(ALICE, "long", PROMPT, 600);
	assert_true(n_cached > 5 * SK_PAGE_TOKENS);
	uint32_t page = next_page();
	assert_true(n_not_zero(page, FEW) > 0);
	n_cached = generate(BOB, "his-other", "It", 3);
	assert_first_page(BOB, "his-other", page);
	assert_int_equal(n_not_zero(page, (uint32_t)n_cached), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_page_comes_clean_to_another_user),
		cmocka_unit_test(test_a_page_comes_back_clean),
		cmocka_unit_test(test_pages_that_a_window_leaves_behind),
	};
	return sk_test_run(tests, open_client, close_client);
}
