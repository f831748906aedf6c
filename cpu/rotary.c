/* Rotary angles in fixed-point turns. */
#include "cpu/rotary.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

int sk_rotary_init(struct sk_rotary *rotary, uint32_t n_rot, double base)
{
	uint32_t n_pairs = n_rot / 2;
	uint64_t *steps = calloc(n_pairs ? n_pairs : 1, sizeof *steps);
	if (!steps)
		return -ENOMEM;
	for (uint32_t i = 0; i < n_pairs; i++) {
		double turns = pow(base, -2.0 * i / n_rot) / (2 * M_PI);
		turns -= floor(turns); /* a base below 1 gives more than a turn */
		double fixed = ldexp(turns, 64);
		steps[i] = fixed < 0x1p64 ? (uint64_t)fixed : 0;
	}
	*rotary = (struct sk_rotary){steps, n_pairs};
	return 0;
}

void sk_rotary_finish(struct sk_rotary *rotary)
{
	free(rotary->steps);
	*rotary = (struct sk_rotary){0};
}

void sk_rotary_angles(const struct sk_rotary *rotary, uint64_t position, float *angles)
{
	for (uint32_t i = 0; i < rotary->n_pairs; i++) {
		/* Signed, so that small negative turns keep their accuracy too. */
		double turns = ldexp((double)(int64_t)(position * rotary->steps[i]), -64);
		angles[i] = (float)cos(turns * (2 * M_PI));
		angles[rotary->n_pairs + i] = (float)sin(turns * (2 * M_PI));
	}
}
