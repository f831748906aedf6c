/* The allocator that protobuf-c unpacks with. */
#include "proto/allocator.h"

#include <stdlib.h>

static void *budget_alloc(void *data, size_t n_bytes)
{
	struct sk_budget *budget = data;
	size_t n_charged = n_bytes + SK_BUDGET_OVERHEAD_BYTES;

	if (n_charged < n_bytes || n_charged > budget->n_left) {
		budget->is_spent = true;
		return NULL;
	}
	void *p = malloc(n_bytes);
	if (p)
		budget->n_left -= n_charged;
	return p;
}

static void budget_free(void *data, void *p)
{
	(void)data;
	free(p);
}

void sk_budget_init(struct sk_budget *budget, size_t n_frame_bytes)
{
	*budget = (struct sk_budget){
		.allocator = {budget_alloc, budget_free, budget},
		.n_left = SK_BUDGET_LEAST_BYTES + SK_BUDGET_TIMES_FRAME * n_frame_bytes,
	};
}
