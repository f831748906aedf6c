/* The order of those who wait, against what it promises. */
#include "engine/queue.h"
#include "engine/user.h"
#include "sk_test.h"

#include <string.h>

#define MOST 64

static struct sk_queue queue;
static struct sk_user users[3];
static struct sk_list everybody;
static struct sk_request *requests[MOST];
static uint64_t now_ns;

#define SECOND 1000000000u

static int begin(void **state)
{
	(void)state;
	sk_queue_init(&queue, 15ull * SECOND);
	memset(users, 0, sizeof users);
	sk_list_init(&everybody);
	for (int i = 0; i < 3; i++) {
		users[i].tenant.weight = 1;
		sk_list_append(&everybody, &users[i].node);
	}
	for (int i = 0; i < MOST; i++)
		requests[i] = sk_request_create(SK_REQUEST_GENERATE);
	now_ns = SECOND;
	return 0;
}

static int finish(void **state)
{
	(void)state;
	for (int i = 0; i < MOST; i++)
		sk_request_destroy(requests[i]);
	return 0;
}

static void add(int i, int user, uint32_t n_pages)
{
	requests[i]->user = &users[user];
	requests[i]->n_pages = n_pages;
	requests[i]->queued_ns = ++now_ns;
	sk_queue_add(&queue, requests[i]);
}

static void pass(uint64_t ns, uint32_t n_free)
{
	now_ns += ns;
	sk_queue_count(&queue, &everybody, n_free, now_ns);
}

static struct sk_request *order(void)
{
	sk_queue_order(&queue, &everybody);
	return queue.n ? sk_container_of(queue.requests.next, struct sk_request, queued) : NULL;
}

static int serve(void)
{
	struct sk_request *first = order();
	for (int i = 0; first && i < MOST; i++)
		if (requests[i] == first) {
			sk_queue_remove(&queue, first);
			first->user->n_pages += first->n_pages;
			return i;
		}
	return -1;
}

static void test_one_user_keeps_its_order(void **state)
{
	(void)state;
	for (int i = 0; i < 8; i++)
		add(i, 0, 1 + (uint32_t)(i * 7 % 5));
	order();
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(requests[i]->place, i + 1);
	for (int i = 0; i < 8; i++)
		assert_int_equal(serve(), i);
	assert_int_equal(serve(), -1);
	assert_int_equal(users[0].n_queued, 0);
}

/* Ten of one user, then two of another: these are not behind all of the ten. */
static void test_users_take_turns(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++)
		add(i, 0, 4);
	add(10, 1, 4);
	add(11, 1, 4);
	const int expected[] = {0, 10, 1, 11, 2, 3, 4, 5, 6, 7, 8, 9};
	order();
	for (uint32_t i = 0; i < 12; i++)
		assert_int_equal(requests[expected[i]]->place, i + 1);
	for (int i = 0; i < 12; i++)
		assert_int_equal(serve(), expected[i]);
}

/* Who holds less now comes first, and of two who hold as much, who held less before. */
static void test_who_has_least_is_first(void **state)
{
	(void)state;
	users[0].n_pages = 6;
	users[1].n_pages = 4;
	add(0, 0, 3);
	add(1, 0, 3);
	add(2, 1, 3);
	assert_int_equal(serve(), 2); /* 6 and 7 now */
	assert_int_equal(serve(), 0); /* 9 and 7 */
	add(3, 1, 3);
	users[0].n_pages = users[1].n_pages = 7;
	assert_int_equal(serve(), 1); /* as it came */
	users[0].n_pages = 9;
	users[1].n_pages = 7;
	add(4, 0, 3);
	pass(SECOND, 0);
	users[0].n_pages = users[1].n_pages = 7;
	add(5, 1, 3);
	assert_int_equal(serve(), 3);
	users[1].tenant.weight = 2; /* 7 and 10, of which it may have twice as many */
	assert_int_equal(serve(), 5);
	assert_int_equal(serve(), 4);
}

/* Where nobody waits, nothing that one has or has not is held against one later, nor for one. */
static void test_nothing_scarce_is_forgotten(void **state)
{
	(void)state;
	users[0].n_pages = 9;
	add(0, 1, 1);
	pass(5ull * SECOND, 0);
	assert_int_equal(serve(), 0);
	users[1].n_pages = 0;
	pass(5ull * SECOND, 0);
	users[0].n_pages = 0;
	add(1, 1, 1);
	add(2, 0, 1);
	add(3, 1, 1);
	assert_int_equal(serve(), 1);
	assert_int_equal(serve(), 2);
}

/* Free pages are kept for the first, its user is charged for them, and in the end it has to let others pass. */
static void test_the_first_has_pages_kept(void **state)
{
	(void)state;
	users[0].n_pages = 50;
	add(0, 1, 90);
	add(1, 2, 5);
	pass(0, 40);
	assert_ptr_equal(order(), requests[0]);
	assert_true(sk_queue_keeps(&queue, requests[0]));
	pass(10ull * SECOND, 40);
	assert_ptr_equal(order(), requests[0]);
	assert_true(sk_queue_keeps(&queue, requests[0]));
	assert_int_equal(sk_queue_keeps_until(&queue), now_ns + 5ull * SECOND);
	pass(5ull * SECOND, 40);
	assert_int_equal(sk_queue_keeps_until(&queue), now_ns);
	assert_false(sk_queue_keeps(&queue, requests[0]));
	assert_int_equal(sk_queue_keeps_until(&queue), UINT64_MAX);
	assert_ptr_equal(order(), requests[1]); /* now that its user has had 600 page-seconds */
	assert_true(sk_queue_keeps(&queue, requests[1]));
	sk_queue_remove(&queue, requests[1]);
	assert_false(sk_queue_keeps(&queue, requests[0])); /* nor again */
	add(2, 1, 1);
	add(3, 2, 1);
	assert_ptr_equal(order(), requests[3]);
}

/* Who has nothing yet and is first is not passed by one who lets go of pages. */
static void test_who_has_nothing_stays_first(void **state)
{
	(void)state;
	users[0].n_pages = 50;
	users[1].ahead = 100;
	add(0, 1, 90);
	add(1, 0, 5);
	add(2, 2, 60);
	assert_ptr_equal(order(), requests[2]);
	sk_queue_remove(&queue, requests[2]);
	assert_ptr_equal(order(), requests[0]);
	assert_true(sk_queue_keeps(&queue, requests[0]));
	users[0].n_pages = 0;
	assert_ptr_equal(order(), requests[0]);
	users[1].n_pages = 1;
	assert_ptr_equal(order(), requests[1]);
}

/* Nor does one for whom pages are kept pass those for whom they were: they have had least all the same. */
static void test_who_had_its_time_is_not_passed(void **state)
{
	(void)state;
	users[1].n_pages = 12;
	users[2].ahead = 100; /* it gave way to the others */
	add(0, 0, 6);
	add(1, 0, 6);
	add(2, 2, 6);
	for (int i = 0; i < 3; i++) {
		assert_ptr_equal(order(), requests[0]);
		for (int j = 0; j < i; j++)
			assert_false(sk_queue_keeps(&queue, requests[j]));
		assert_true(sk_queue_keeps(&queue, requests[i]));
		if (i < 2)
			pass(15ull * SECOND, 0);
	}
	for (int i = 0; i < 3; i++) {
		users[0].n_pages = 0; /* they are through as soon as they begin */
		assert_int_equal(serve(), i);
	}
}

/* Nor does a new one pass it, whether or not it has begun, though one that had its time would stand between them. */
static void test_who_comes_does_not_take_what_is_kept(void **state)
{
	(void)state;
	for (int has_begun = 0; has_begun < 2; has_begun++) {
		finish(NULL);
		begin(NULL);
		users[0].ahead = 10;
		users[2].ahead = 100;
		add(0, 0, 6);
		assert_true(sk_queue_keeps(&queue, requests[0]));
		pass(15ull * SECOND, 0);
		assert_false(sk_queue_keeps(&queue, requests[0]));
		requests[1]->generation = has_begun ? (struct sk_generation *)&queue : NULL;
		users[0].ahead = 10;
		users[2].ahead = 100;
		add(1, 2, 6);
		assert_ptr_equal(order(), requests[0]);
		assert_false(sk_queue_keeps(&queue, requests[0]));
		assert_true(sk_queue_keeps(&queue, requests[1]));
		add(2, 1, 1); /* its user has had nothing */
		assert_ptr_equal(order(), requests[0]);
		for (uint32_t i = 0; i < 3; i++)
			assert_int_equal(requests[i]->place, i + 1);
		requests[1]->generation = NULL;
	}
}

static void assert_goes(int i)
{
	assert_ptr_equal(sk_queue_victim(&queue), requests[i]);
	sk_queue_remove(&queue, requests[i]);
}

static void test_who_has_to_go(void **state)
{
	(void)state;
	assert_null(sk_queue_victim(&queue));
	for (int i = 0; i < 6; i++)
		add(i, 0, 1);
	assert_goes(5); /* the new one */
	add(6, 1, 1);
	assert_goes(4);
	add(7, 1, 1);
	assert_goes(3);
	add(8, 0, 1);
	assert_goes(8); /* 4 and 2 */
	add(9, 1, 1);
	assert_goes(9); /* 3 and 3: the new one */
	add(10, 2, 1);
	order(); /* whatever order they are served in */
	assert_goes(2);
	users[0].tenant.weight = 4;
	add(11, 0, 1);
	add(12, 0, 1);
	assert_goes(7);
}

/* Who waits for pages of his own alone comes last, and does not stand in anybody's way; the order of others stays. */
static void test_who_is_held_comes_last(void **state)
{
	(void)state;
	assert_false(sk_queue_is_waiting(&everybody));
	add(0, 0, 2);
	add(1, 1, 4);
	add(2, 0, 2);
	add(3, 2, 4);
	assert_true(sk_queue_is_waiting(&everybody));
	users[0].is_held = true;
	order();
	const int expected[] = {1, 3, 0, 2};
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(requests[expected[i]]->place, i + 1);
	assert_int_equal(serve(), 1);
	assert_true(sk_queue_is_waiting(&everybody));
	assert_int_equal(serve(), 3);
	assert_false(sk_queue_is_waiting(&everybody));
	users[0].is_held = false;
	assert_true(sk_queue_is_waiting(&everybody));
	assert_int_equal(serve(), 0);
	assert_int_equal(serve(), 2);
}

/* Nor do the others count from where such a one is, who may have little; nor is anything kept for it. */
static void test_who_is_held_does_not_count(void **state)
{
	(void)state;
	const uint32_t n_pages[3] = {50, 40, 1};
	for (int i = 0; i < 3; i++) {
		users[i].n_pages = n_pages[i];
		add(i, i, 100);
	}
	users[2].is_held = true;
	pass(100ull * SECOND, 0); /* 5000 page-seconds, 4000 and 100 */
	assert_true(users[0].ahead > 999 && users[0].ahead < 1001);
	assert_true(users[1].ahead > -1 && users[1].ahead < 1);
	users[2].is_held = false;
	assert_true(sk_queue_keeps(&queue, requests[2]));
	pass(SECOND, 10);
	assert_int_equal(sk_queue_keeps_until(&queue), now_ns + 14ull * SECOND);
	users[2].is_held = true;
	pass(0, 10);
	assert_int_equal(sk_queue_keeps_until(&queue), UINT64_MAX);
	sk_queue_remove(&queue, requests[0]);
	sk_queue_remove(&queue, requests[1]);
	pass(100ull * SECOND, 10); /* it alone is left, and pages are not what it waits for */
	for (int i = 0; i < 3; i++)
		assert_true(users[i].ahead == 0);
}

/* Whose others are held for a limit of its own: one that gave way waits for pages all the same, and these are kept for it; but
 * for no longer than for others. */
static void test_one_that_gave_way_is_not_held(void **state)
{
	(void)state;
	users[1].n_pages = 50;
	requests[0]->generation = (struct sk_generation *)&queue;
	add(0, 0, 20);
	add(1, 0, 20);
	assert_true(sk_queue_is_waiting(&everybody));
	users[0].is_held = true;
	assert_true(sk_queue_is_waiting(&everybody));
	add(2, 2, 5);
	for (int s = 0; s <= 15; s++) { /* as waiting.c does */
		pass(s ? SECOND : 0, 10);
		users[0].is_held = false;
		users[0].is_held = order() == requests[1]; /* which meets the limit */
		assert_int_equal(sk_queue_keeps(&queue, requests[0]), s < 15);
		pass(0, 10);
	}
	users[0].is_held = users[0].is_all_held = true; /* it too */
	order();
	assert_int_equal(requests[0]->place, 2);
	assert_int_equal(requests[1]->place, 3);
	requests[0]->generation = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_one_user_keeps_its_order, begin, finish),
		cmocka_unit_test_setup_teardown(test_users_take_turns, begin, finish),
		cmocka_unit_test_setup_teardown(test_who_has_least_is_first, begin, finish),
		cmocka_unit_test_setup_teardown(test_nothing_scarce_is_forgotten, begin, finish),
		cmocka_unit_test_setup_teardown(test_the_first_has_pages_kept, begin, finish),
		cmocka_unit_test_setup_teardown(test_who_has_nothing_stays_first, begin, finish),
		cmocka_unit_test_setup_teardown(test_who_had_its_time_is_not_passed, begin, finish),
		cmocka_unit_test_setup_teardown(test_who_comes_does_not_take_what_is_kept, begin,
						finish),
		cmocka_unit_test_setup_teardown(test_who_has_to_go, begin, finish),
		cmocka_unit_test_setup_teardown(test_who_is_held_comes_last, begin, finish),
		cmocka_unit_test_setup_teardown(test_who_is_held_does_not_count, begin, finish),
		cmocka_unit_test_setup_teardown(test_one_that_gave_way_is_not_held, begin, finish),
	};
	return sk_test_run(tests, NULL, NULL);
}
