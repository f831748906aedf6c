/* What a session must be promised, and no more. */
#include "engine/session.h"
#include "tiny_backend.h"

#include <errno.h>

static struct sk_backend *backend;

static int open_backend(void **state)
{
	(void)state;
	return open_tiny_backend(&backend);
}

static int close_backend(void **state)
{
	(void)state;
	sk_backend_close(backend);
	return 0;
}

/* A pool of just the pages that a policy can need (as the engine makes it) has room for one such session, for ever. */
static void test_a_pool_for_one_holds_one(void **state)
{
	(void)state;
	const struct sk_policy policies[] = {
		{SK_MODE_STREAMING, 4, 100, 0}, {SK_MODE_STREAMING, 33, 31, 64},
		{SK_MODE_STREAMING, 0, 64, 0},  {SK_MODE_WINDOW, 4, 60, 7},
		{SK_MODE_DENSE, 4, 100, 0},     {SK_MODE_RECOMPUTE, 4, 60, 0},
	};
	for (unsigned i = 0; i < sizeof policies / sizeof *policies; i++) {
		const struct sk_policy *policy = &policies[i];
		uint32_t n_wanted, n_pages = sk_pages_needed(sk_policy_sinks(policy),
							     sk_policy_most_live(policy, 512));
		struct sk_pool pool = {.n_pages = n_pages, .n_free = n_pages};
		struct sk_session *session = sk_session_create(&pool, 1, "", policy);
		assert_non_null(session);
		assert_int_equal(sk_session_reserve(session, 512, UINT64_MAX, &n_wanted), 0);
		assert_int_equal(n_wanted, n_pages);
		sk_session_destroy(session);
		pool.n_free--;
		struct sk_session *other = sk_session_create(&pool, 1, "", policy);
		assert_int_equal(sk_session_reserve(other, 512, UINT64_MAX, &n_wanted), -ENOSPC);
		sk_session_destroy(other);
		assert_int_equal(pool.n_promised, 0);
	}
}

/* A short request is promised what it can reach, not what its policy allows. */
static void test_a_short_request_needs_little(void **state)
{
	(void)state;
	struct sk_policy policy = {SK_MODE_STREAMING, 4, 1020, 0};
	struct sk_pool pool;
	uint32_t n_wanted;
	assert_int_equal(sk_pool_init(&pool, backend, 64), 0);
	struct sk_session *session = sk_session_create(&pool, 1, "", &policy);
	assert_int_equal(sk_session_reserve(session, 2048, 10, &n_wanted), 0);
	assert_true(n_wanted <= 3);
	sk_session_destroy(session);
	sk_pool_finish(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_pool_for_one_holds_one),
		cmocka_unit_test(test_a_short_request_needs_little),
	};
	return sk_test_run(tests, open_backend, close_backend);
}
