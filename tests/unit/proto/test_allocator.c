/* The budget that messages are unpacked with. */
#include "sk_test.h"

#include "proto/allocator.h"

static void the_sum_is_bounded(void **state)
{
	(void)state;
	static const size_t sizes[] = {0, 1, 16, 100, 4096};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct sk_budget budget;
		size_t n_charged = 0;
		void *p;
		sk_budget_init(&budget, 1000);
		ProtobufCAllocator *a = &budget.allocator;
		while ((p = a->alloc(a->allocator_data, sizes[i]))) {
			n_charged += sizes[i] + SK_BUDGET_OVERHEAD_BYTES;
			a->free(a->allocator_data, p); /* is no credit */
		}
		assert_true(budget.is_spent);
		assert_true(n_charged <= 16384 + 16 * 1000);
		assert_true(n_charged + sizes[i] + SK_BUDGET_OVERHEAD_BYTES > 16384 + 16 * 1000);
	}
}

static void sizes_near_the_end_do_not_wrap(void **state)
{
	(void)state;
	struct sk_budget budget;
	sk_budget_init(&budget, 0);
	ProtobufCAllocator *a = &budget.allocator;
	for (size_t less = 0; less < 40; less++) {
		budget.is_spent = false;
		assert_null(a->alloc(a->allocator_data, SIZE_MAX - less));
		assert_true(budget.is_spent); /* refused, and not by malloc */
	}
	/* A refusal is not charged. */
	void *p = a->alloc(a->allocator_data, 16384 - SK_BUDGET_OVERHEAD_BYTES);
	assert_non_null(p);
	free(p); /* plain memory */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_sum_is_bounded),
		cmocka_unit_test(sizes_near_the_end_do_not_wrap),
	};
	return sk_test_run(tests, NULL, NULL);
}
