/* Angles of the rotary embedding at any position, to full accuracy.
 *
 * A frequency is kept as a fraction of a turn a position in 64-bit fixed point. The angle at a position
 * is then a product modulo 2^64: exactly linear in the position, so that the angle between two
 * positions does not depend on how far into the text they are.
 */
#pragma once

#include <stdint.h>

struct sk_rotary {
	uint64_t *steps; /* (n_pairs) turns a position, times 2^64 */
	uint32_t n_pairs;
};

int sk_rotary_init(struct sk_rotary *rotary, uint32_t n_rot, double base); /* -ENOMEM */
void sk_rotary_finish(struct sk_rotary *rotary);

/* cos in angles[0, n_pairs), sin in angles[n_pairs, 2 n_pairs) */
void sk_rotary_angles(const struct sk_rotary *rotary, uint64_t position, float *angles);
