/* Many measurements of one quantity, and what they come to. A value to embed; zeroed is empty. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct sk_sample {
	double *values;
	size_t n, n_allocated;
	bool is_sorted;
};

int sk_sample_add(struct sk_sample *sample, double value); /* -ENOMEM: it is left out */
void sk_sample_finish(struct sk_sample *sample);
/* NaN of none. */
double sk_sample_mean(const struct sk_sample *sample);
/* The value that `percent` of them do not exceed, between two of them in proportion; 0 the least, 100 the most.
 * Sorts. */
double sk_sample_percentile(struct sk_sample *sample, double percent);

/* Jain's index of fairness: 1 where all have the same, 1/n where one has all; NaN where nobody has anything. */
double sk_jain(const double *shares, size_t n);
