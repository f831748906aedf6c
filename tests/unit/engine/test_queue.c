/* The order of those who wait, against what it promises. */
#include "engine/queue.h"
#include "engine/user.h"
#include "sk_test.h"

#include <stdlib.h>
#include <string.h>

#define MOST 64

static struct sk_queue queue;
static struct sk_scheduler scheduler;
static struct sk_user users[3];
static struct sk_list everybody;
static struct sk_request *requests[MOST];

static int begin(void **state)
{
	(void)state;
	sk_queue_init(&queue);
	memset(&scheduler, 0, sizeof scheduler);
	memset(users, 0, sizeof users);
	sk_list_init(&everybody);
	for (int i = 0; i < 3; i++) {
		users[i].tenant.weight = 1;
		sk_list_append(&everybody, &users[i].node);
	}
	for (int i = 0; i < MOST; i++)
		requests[i] = sk_request_create(SK_REQUEST_GENERATE);
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
	sk_queue_add(&queue, requests[i]);
}

static int serve(void)
{
	struct sk_request *first = sk_queue_order(&queue, &everybody, &scheduler);
	for (int i = 0; first && i < MOST; i++)
		if (requests[i] == first) {
			sk_queue_remove(&queue, first);
			sk_queue_charge(&scheduler, first->user, first->n_pages, true);
			return i;
		}
	return -1;
}

static void test_one_user_keeps_its_order(void **state)
{
	(void)state;
	for (int i = 0; i < 8; i++)
		add(i, 0, 1 + (uint32_t)(i * 7 % 5));
	sk_queue_order(&queue, &everybody, &scheduler);
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
	sk_queue_order(&queue, &everybody, &scheduler);
	for (uint32_t i = 0; i < 12; i++)
		assert_int_equal(requests[expected[i]]->place, i + 1);
	for (int i = 0; i < 12; i++)
		assert_int_equal(serve(), expected[i]);
}

/* Pages are what counts, by weight: of two who always have a request of other sizes waiting. */
static void test_pages_are_shared_by_weight(void **state)
{
	(void)state;
	uint64_t pages[2] = {0}, all = 0;
	users[1].tenant.weight = 3;
	for (int i = 0; i < 8; i++)
		add(i, i % 2, i % 2 ? 2 : 9);
	for (int round = 0; round < 4000; round++) {
		int i = serve();
		pages[i % 2] += requests[i]->n_pages;
		all += requests[i]->n_pages;
		add(i, i % 2, 1 + (uint32_t)rand() % 9);
	}
	assert_in_range(pages[1] * 1000 / all, 745, 755);
}

/* Who goes past the others all the time does not come first in the queue as well. */
static void test_going_past_costs(void **state)
{
	(void)state;
	sk_queue_charge(&scheduler, &users[0], 5, true);
	sk_queue_charge(&scheduler, &users[1], 4, true);
	add(0, 0, 4);
	add(1, 1, 4);
	for (int i = 0; i < 10; i++)
		sk_queue_charge(&scheduler, &users[0], 1, false);
	add(2, 1, 4);
	assert_int_equal(serve(), 1);
	assert_int_equal(serve(), 2);
	assert_int_equal(serve(), 0);
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
	assert_ptr_equal(sk_queue_order(&queue, &everybody, &scheduler), requests[1]);
	const int expected[] = {1, 3, 0, 2};
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(requests[expected[i]]->place, i + 1);
	assert_int_equal(serve(), 1);
	assert_true(sk_queue_is_waiting(&everybody));
	assert_int_equal(serve(), 3);
	assert_false(sk_queue_is_waiting(&everybody));
	assert_null(sk_queue_order(&queue, &everybody, &scheduler));
	assert_int_equal(requests[0]->place, 1);
	users[0].is_held = false;
	assert_true(sk_queue_is_waiting(&everybody));
	assert_int_equal(serve(), 0);
	assert_int_equal(serve(), 2);
}

static void test_who_makes_room(void **state)
{
	(void)state;
	assert_null(sk_queue_victim(&queue, &users[0]));
	for (int i = 0; i < 6; i++)
		add(i, 0, 1);
	assert_null(sk_queue_victim(&queue, &users[0])); /* the new one has to go */
	assert_ptr_equal(sk_queue_victim(&queue, &users[1]), requests[5]);
	add(6, 1, 1);
	add(7, 1, 1);
	assert_ptr_equal(sk_queue_victim(&queue, &users[1]), requests[5]); /* 5 and 3 */
	sk_queue_remove(&queue, requests[5]);
	add(8, 1, 1);
	assert_ptr_equal(sk_queue_victim(&queue, &users[1]), requests[4]); /* 4 and 4 */
	sk_queue_remove(&queue, requests[4]);
	add(9, 1, 1);
	assert_null(sk_queue_victim(&queue, &users[1])); /* they are even */
	assert_non_null(sk_queue_victim(&queue, &users[2]));
	users[0].tenant.weight = 4;
	assert_ptr_equal(sk_queue_victim(&queue, &users[0]), requests[9]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_one_user_keeps_its_order, begin, finish),
		cmocka_unit_test_setup_teardown(test_users_take_turns, begin, finish),
		cmocka_unit_test_setup_teardown(test_pages_are_shared_by_weight, begin, finish),
		cmocka_unit_test_setup_teardown(test_going_past_costs, begin, finish),
		cmocka_unit_test_setup_teardown(test_who_is_held_comes_last, begin, finish),
		cmocka_unit_test_setup_teardown(test_who_makes_room, begin, finish),
	};
	return sk_test_run(tests, NULL, NULL);
}
