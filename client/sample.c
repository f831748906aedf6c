#include "client/sample.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

int sk_sample_add(struct sk_sample *sample, double value)
{
	if (sample->n == sample->n_allocated) {
		size_t n = 2 * sample->n + 64;
		double *grown = realloc(sample->values, n * sizeof *grown);
		if (!grown)
			return -ENOMEM;
		sample->values = grown;
		sample->n_allocated = n;
	}
	sample->values[sample->n++] = value;
	sample->is_sorted = false;
	return 0;
}

void sk_sample_finish(struct sk_sample *sample)
{
	free(sample->values);
	*sample = (struct sk_sample){0};
}

double sk_sample_mean(const struct sk_sample *sample)
{
	double sum = 0;

	for (size_t i = 0; i < sample->n; i++)
		sum += sample->values[i];
	return sample->n ? sum / (double)sample->n : NAN;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

double sk_sample_percentile(struct sk_sample *sample, double percent)
{
	if (!sample->n)
		return NAN;
	if (!sample->is_sorted)
		qsort(sample->values, sample->n, sizeof *sample->values, compare);
	sample->is_sorted = true;
	double place = percent / 100 * (double)(sample->n - 1);
	size_t below = (size_t)place, above = below + 1 < sample->n ? below + 1 : below;
	double part = place - (double)below;
	return sample->values[below] * (1 - part) + sample->values[above] * part;
}

double sk_jain(const double *shares, size_t n)
{
	double sum = 0, squares = 0;

	for (size_t i = 0; i < n; i++) {
		sum += shares[i];
		squares += shares[i] * shares[i];
	}
	return squares > 0 ? sum * sum / ((double)n * squares) : NAN;
}
