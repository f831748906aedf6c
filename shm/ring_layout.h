/* How the two segments of a ring are laid out. Private to shm/; shm/ring.h has the picture.
 *
 * Fields that the two sides change lie on cache lines of their own. The sequentially consistent
 * order of `head` and `waiting` (and of `tail` and the other `waiting`) is what makes sleeping
 * safe: one side stores its cursor, then looks whether the other waits; the other stores that it
 * waits, then looks at the cursor. In one total order, at least one of them sees the other.
 */
#pragma once

#include "shm/ring.h"

#include <stdalign.h>
#include <stdatomic.h>

#define SK_RING_MAGIC      UINT64_C(0x31676e69726b73ff) /* "\xffskring1" */
#define SK_RING_LINE_BYTES 64

/* The writer's: the reader cannot write it. */
struct sk_ring_slots {
	uint64_t magic;
	uint32_t n_slots;
	alignas(SK_RING_LINE_BYTES) _Atomic uint64_t head; /* slots written since the start */
	alignas(SK_RING_LINE_BYTES) _Atomic uint32_t
		waiting; /* not 0: the writer wants to be rung */
	alignas(SK_RING_LINE_BYTES) struct sk_slot slots[];
};
_Static_assert(sizeof(struct sk_ring_slots) == 192, "three lines before the slots");

/* The reader's: the writer believes nothing in it. */
struct sk_ring_cursor {
	alignas(SK_RING_LINE_BYTES) _Atomic uint64_t tail; /* slots read since the start */
	alignas(SK_RING_LINE_BYTES) _Atomic uint32_t
		waiting; /* not 0: the reader wants to be rung */
};

#define SK_RING_CURSOR_BYTES 4096

static inline size_t sk_ring_slots_bytes(uint32_t n_slots)
{
	return sizeof(struct sk_ring_slots) + (size_t)n_slots * sizeof(struct sk_slot);
}

/* A power of two, so that the cursors may wrap around 2^64, and within the bounds. */
static inline bool sk_ring_n_slots_is_good(uint32_t n_slots)
{
	return n_slots >= SK_RING_LEAST_SLOTS && n_slots <= SK_RING_MOST_SLOTS &&
	       (n_slots & (n_slots - 1)) == 0;
}
