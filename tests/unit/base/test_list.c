/* The intrusive list. */
#include "base/list.h"

#include "sk_test.h"

struct thing {
	int value;
	struct sk_list link;
};

static int sum_in_order(struct sk_list *head)
{
	int sum = 0;
	sk_list_for_each (node, head)
		sum = sum * 10 + sk_container_of(node, struct thing, link)->value;
	return sum;
}

static void keeps_the_order_of_appending(void **state)
{
	(void)state;
	struct sk_list head = SK_LIST_INIT(head);
	struct thing a = {.value = 1}, b = {.value = 2}, c = {.value = 3};
	assert_true(sk_list_is_empty(&head));
	sk_list_append(&head, &a.link);
	sk_list_append(&head, &b.link);
	sk_list_append(&head, &c.link);
	assert_false(sk_list_is_empty(&head));
	assert_int_equal(sum_in_order(&head), 123);
	sk_list_remove(&b.link);
	assert_int_equal(sum_in_order(&head), 13);
	sk_list_remove(&b.link); /* already out */
	assert_int_equal(sum_in_order(&head), 13);
	sk_list_append(&head, &b.link);
	assert_int_equal(sum_in_order(&head), 132);
}

static void pops_from_the_front(void **state)
{
	(void)state;
	struct sk_list head;
	struct thing a = {.value = 1}, b = {.value = 2};
	sk_list_init(&head);
	assert_null(sk_list_pop(&head));
	sk_list_append(&head, &a.link);
	sk_list_append(&head, &b.link);
	assert_ptr_equal(sk_list_pop(&head), &a.link);
	assert_true(sk_list_is_empty(&a.link));
	assert_ptr_equal(sk_list_pop(&head), &b.link);
	assert_null(sk_list_pop(&head));
	assert_true(sk_list_is_empty(&head));
}

static void a_loop_may_remove_its_node(void **state)
{
	(void)state;
	struct sk_list head = SK_LIST_INIT(head);
	struct thing things[5];
	for (int i = 0; i < 5; i++) {
		things[i].value = i;
		sk_list_append(&head, &things[i].link);
	}
	sk_list_for_each (node, &head) {
		if (sk_container_of(node, struct thing, link)->value % 2 == 0)
			sk_list_remove(node);
	}
	assert_int_equal(sum_in_order(&head), 13);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeps_the_order_of_appending),
		cmocka_unit_test(pops_from_the_front),
		cmocka_unit_test(a_loop_may_remove_its_node),
	};
	return sk_test_run(tests, NULL, NULL);
}
