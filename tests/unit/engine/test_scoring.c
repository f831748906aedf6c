/* Which rows a text runs as and what each scores: against lists written out from the definition, and against
 * the window's arithmetic, which must let a row see just the tokens that its prediction is made from. */
#include "engine/scoring.h"
#include "kv/window.h"
#include "sk_test.h"

#define MOST_IDS   40
#define MOST_BLOCK 12
#define MOST_ROWS  (MOST_IDS * MOST_BLOCK)

struct row {
	uint64_t token, target; /* target 0: it scores nothing */
};

static uint64_t run_once(uint64_t n_ids, struct row *rows)
{
	uint64_t n = 0;
	for (uint64_t token = 0; token + 1 < n_ids; token++)
		rows[n++] = (struct row){token, token + 1};
	return n;
}

/* Every token is predicted from the `block` tokens before it. Those that have no more than that before them share
 * the first block, in which each row sees all before it; each other one has a block to itself. */
static uint64_t run_blocks(uint64_t n_ids, uint64_t block, struct row *rows)
{
	uint64_t n_shared = n_ids - 1 < block ? n_ids - 1 : block, n = 0;

	for (uint64_t token = 0; token < n_shared; token++)
		rows[n++] = (struct row){token, token + 1};
	for (uint64_t target = n_shared + 1; target < n_ids; target++) {
		for (uint64_t token = target - block; token < target; token++)
			rows[n++] = (struct row){token, token + 1 == target ? target : 0};
	}
	return n;
}

static void test_equals_the_definition(void **state)
{
	(void)state;
	for (uint64_t n_ids = 1; n_ids <= MOST_IDS; n_ids++) {
		for (uint64_t block = 0; block <= MOST_BLOCK; block++) {
			struct sk_scoring scoring = {.n_ids = n_ids, .block = block};
			struct row rows[MOST_ROWS];
			uint64_t n = block ? run_blocks(n_ids, block, rows) : run_once(n_ids, rows);

			assert_int_equal(sk_scoring_n_rows(&scoring), n);
			for (uint64_t i = 0; i < n; i++) {
				assert_int_equal(sk_scoring_token(&scoring, i), rows[i].token);
				assert_int_equal(sk_scoring_target(&scoring, i), rows[i].target);
			}
		}
	}
}

static void test_every_token_is_scored_once_and_in_order(void **state)
{
	(void)state;
	for (uint64_t n_ids = 1; n_ids <= MOST_IDS; n_ids++) {
		for (uint64_t block = 0; block <= MOST_BLOCK; block++) {
			struct sk_scoring scoring = {.n_ids = n_ids, .block = block};
			uint64_t next = 1;

			for (uint64_t i = 0; i < sk_scoring_n_rows(&scoring); i++) {
				uint64_t target = sk_scoring_target(&scoring, i);
				assert_true(sk_scoring_token(&scoring, i) < n_ids - 1);
				if (!target)
					continue;
				assert_int_equal(target, next++);
				/* A token is predicted by the one before it, never by itself. */
				assert_int_equal(sk_scoring_token(&scoring, i), target - 1);
			}
			assert_int_equal(next, n_ids); /* the last one too */
		}
	}
}

/* The policy under which the rows run: what drops the cache must do so where a block ends. */
static struct sk_policy policy_of(uint64_t block, uint32_t sink)
{
	struct sk_policy policy = {.mode = SK_MODE_DENSE, .window = 1};
	if (block) {
		policy.mode = SK_MODE_RECOMPUTE;
		policy.sink = sink;
		policy.window = (uint32_t)block - sink;
		policy.slack = 7; /* means nothing here */
	}
	return policy;
}

/* Place `place` of what a row sees: which row's token it is. */
static uint64_t entry_at(const struct sk_view *view, uint64_t place)
{
	return place < view->n_sink ? place : view->first + (place - view->n_sink);
}

static void check_what_is_seen(const struct sk_scoring *scoring, const struct sk_policy *policy)
{
	struct sk_window window;
	struct sk_view view;

	sk_window_init(&window, policy);
	for (uint64_t i = 0; i < sk_scoring_n_rows(scoring); i++) {
		uint64_t target = sk_scoring_target(scoring, i);
		sk_window_step(&window, &view);
		assert_int_equal(view.entry, i);
		if (!target)
			continue;
		uint64_t n_seen =
			scoring->block && target > scoring->block ? scoring->block : target;
		assert_int_equal(view.live + 1, n_seen);
		for (uint64_t place = 0; place < n_seen; place++)
			assert_int_equal(sk_scoring_token(scoring, entry_at(&view, place)),
					 target - n_seen + place);
	}
}

/* However the block is divided into sinks and window. */
static void test_a_prediction_sees_the_last_block(void **state)
{
	(void)state;
	for (uint64_t n_ids = 1; n_ids <= MOST_IDS; n_ids++) {
		for (uint64_t block = 0; block <= MOST_BLOCK; block++) {
			struct sk_scoring scoring = {.n_ids = n_ids, .block = block};
			for (uint32_t sink = 0; sink == 0 || sink < block; sink++) {
				struct sk_policy policy = policy_of(block, sink);
				check_what_is_seen(&scoring, &policy);
			}
		}
	}
}

/* A text of ten million tokens in blocks of a thousand: more rows than 32 bits count. */
static void test_long_texts(void **state)
{
	(void)state;
	struct sk_scoring scoring = {.n_ids = 10000001, .block = 1000};
	uint64_t n_rows = sk_scoring_n_rows(&scoring);

	assert_int_equal(n_rows, (10000000ull - 1000 + 1) * 1000);
	assert_int_equal(sk_scoring_token(&scoring, n_rows - 1), 9999999);
	assert_int_equal(sk_scoring_target(&scoring, n_rows - 1), 10000000);
	assert_int_equal(sk_scoring_target(&scoring, n_rows - 2), 0);
	assert_int_equal(sk_scoring_token(&scoring, n_rows - 1000), 9999000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equals_the_definition),
		cmocka_unit_test(test_every_token_is_scored_once_and_in_order),
		cmocka_unit_test(test_a_prediction_sees_the_last_block),
		cmocka_unit_test(test_long_texts),
	};
	return sk_test_run(tests, NULL, NULL);
}
