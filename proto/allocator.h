/* A budget for unpacking one message, so that a hostile frame cannot grow in memory. Private to
 * proto/. Memory comes from malloc() and is counted with malloc's own overhead; what is freed is
 * not credited, so the budget bounds the sum, not only the peak. A message that was unpacked with
 * it is freed as any other (allocator NULL), after the budget is gone.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#define SK_BUDGET_LEAST_BYTES    16384
#define SK_BUDGET_TIMES_FRAME    16
#define SK_BUDGET_OVERHEAD_BYTES 16 /* charged for each allocation */

struct sk_budget {
	ProtobufCAllocator allocator; /* points into the struct: do not move it after init */
	size_t n_left;
	bool is_spent; /* an allocation was refused */
};

void sk_budget_init(struct sk_budget *budget, size_t n_frame_bytes);
