#include "engine/sampler.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- Random numbers: xoshiro256** (Blackman and Vigna), seeded by splitmix64 --- */

static uint64_t splitmix(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static uint64_t rotated(uint64_t x, int k)
{
	return x << k | x >> (64 - k);
}

/* Uniform in [0, 1). */
static double draw(uint64_t s[4])
{
	uint64_t result = rotated(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;
	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotated(s[3], 45);
	return (double)(result >> 11) * 0x1p-53;
}

int sk_sampler_init(struct sk_sampler *sampler, const struct sk_sampling *sampling, uint32_t n_ids,
		    uint32_t n_vocab)
{
	*sampler = (struct sk_sampler){.sampling = *sampling, .n_ids = n_ids, .n_vocab = n_vocab};
	if (sampler->sampling.repeat_last > SK_REPEAT_MOST)
		sampler->sampling.repeat_last = SK_REPEAT_MOST;
	uint64_t state = sampling->seed;
	for (int i = 0; i < 4; i++)
		sampler->random[i] = splitmix(&state);
	sampler->candidates = malloc(n_ids * sizeof *sampler->candidates);
	sampler->recent = malloc((sampler->sampling.repeat_last + 1) * sizeof *sampler->recent);
	if (!sampler->candidates || !sampler->recent) {
		sk_sampler_finish(sampler);
		return -ENOMEM;
	}
	return 0;
}

void sk_sampler_finish(struct sk_sampler *sampler)
{
	free(sampler->candidates);
	free(sampler->recent);
	*sampler = (struct sk_sampler){0};
}

void sk_sampler_saw(struct sk_sampler *sampler, int32_t id)
{
	uint32_t most = sampler->sampling.repeat_last;
	if (!most)
		return;
	sampler->recent[sampler->recent_next] = id;
	sampler->recent_next = (sampler->recent_next + 1) % most;
	if (sampler->n_recent < most)
		sampler->n_recent++;
}

void sk_sampler_unsee(struct sk_sampler *sampler, uint64_t n)
{
	const uint32_t most = sampler->sampling.repeat_last;
	if (n > sampler->n_recent)
		n = sampler->n_recent;
	if (!n)
		return;
	sampler->n_recent -= (uint32_t)n;
	sampler->recent_next = (uint32_t)((sampler->recent_next + most - n) % most);
}

/* --- From one generation of a session to the next --- */

int sk_sampler_memory_set(struct sk_sampler_memory *memory, const int32_t *recent,
			  uint32_t n_recent)
{
	int32_t *copy = malloc((n_recent + 1) * sizeof *copy);
	if (!copy)
		return -ENOMEM;
	if (n_recent)
		memcpy(copy, recent, n_recent * sizeof *copy);
	free(memory->recent);
	memory->recent = copy;
	memory->n_recent = n_recent;
	return 0;
}

void sk_sampler_memory_finish(struct sk_sampler_memory *memory)
{
	free(memory->recent);
	*memory = (struct sk_sampler_memory){0};
}

void sk_sampler_resume(struct sk_sampler *sampler, const struct sk_sampler_memory *memory)
{
	for (uint32_t i = 0; i < memory->n_recent; i++)
		sk_sampler_saw(sampler, memory->recent[i]);
	if (!memory->has_random || sampler->sampling.has_seed)
		return;
	sampler->sampling.seed = memory->seed;
	memcpy(sampler->random, memory->random, sizeof sampler->random);
}

void sk_sampler_remember(const struct sk_sampler *sampler, struct sk_sampler_memory *memory)
{
	const uint32_t n = sampler->n_recent, most = sampler->sampling.repeat_last;
	int32_t *recent = malloc((n + 1) * sizeof *recent);
	if (!recent)
		return;
	for (uint32_t i = 0; i < n; i++)
		recent[i] = sampler->recent[(sampler->recent_next + most - n + i) % most];
	free(memory->recent);
	memory->recent = recent;
	memory->n_recent = n;
	memory->has_random = true;
	memory->seed = sampler->sampling.seed;
	memcpy(memory->random, sampler->random, sizeof memory->random);
}

/* --- Order: by logit, then the lower id, so that ties fall the same way everywhere --- */

static int is_before(const struct sk_candidate *a, const struct sk_candidate *b)
{
	return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void sift_down(struct sk_candidate *heap, uint32_t n, uint32_t at)
{
	struct sk_candidate moved = heap[at];
	for (;;) {
		uint32_t child = 2 * at + 1;
		if (child >= n)
			break;
		if (child + 1 < n && is_before(&heap[child + 1], &heap[child]))
			child++;
		if (!is_before(&heap[child], &moved))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = moved;
}

/* Moves the first of the heap behind its end. Popped ones so lie at the array's end, best last. */
static struct sk_candidate *pop(struct sk_candidate *heap, uint32_t *n)
{
	struct sk_candidate best = heap[0];
	heap[0] = heap[--*n];
	if (*n)
		sift_down(heap, *n, 0);
	heap[*n] = best;
	return &heap[*n];
}

static void penalise(struct sk_sampler *sampler)
{
	float penalty = sampler->sampling.repeat_penalty;
	for (uint32_t i = 0; i < sampler->n_recent; i++) {
		int32_t id = sampler->recent[i];
		if (id < 0 || (uint32_t)id >= sampler->n_ids)
			continue;
		struct sk_candidate *c = &sampler->candidates[id];
		if (c->id < 0)
			continue; /* done already */
		c->logit = c->logit > 0 ? c->logit / penalty : c->logit * penalty;
		c->id = -1 - c->id; /* marked, until the loop below */
	}
	for (uint32_t i = 0; i < sampler->n_recent; i++) {
		int32_t id = sampler->recent[i];
		if (id >= 0 && (uint32_t)id < sampler->n_ids)
			sampler->candidates[id].id = id;
	}
}

/* Draws from candidates[at, n) with weights exp((logit - best) / temperature). */
static int32_t draw_from(struct sk_sampler *sampler, uint32_t at, uint32_t n, float best)
{
	const struct sk_candidate *c = sampler->candidates;
	double scale = 1 / (double)sampler->sampling.temperature, total = 0;
	double least = sampler->sampling.min_p;

	for (uint32_t i = at; i < n; i++) {
		double weight = exp(((double)c[i].logit - (double)best) * scale);
		total += weight >= least ? weight : 0;
	}
	double left = draw(sampler->random) * total;
	int32_t id = -1;
	for (uint32_t i = at; i < n; i++) {
		double weight = exp(((double)c[i].logit - (double)best) * scale);
		if (weight < least)
			continue;
		id = c[i].id;
		left -= weight;
		if (left < 0)
			break;
	}
	return id;
}

static int32_t pick(struct sk_sampler *sampler, const float *logits)
{
	const struct sk_sampling *s = &sampler->sampling;
	struct sk_candidate *c = sampler->candidates;
	uint32_t n = sampler->n_ids;

	for (uint32_t i = 0; i < n; i++)
		c[i] = (struct sk_candidate){.id = (int32_t)i, .logit = logits[i]};
	if (s->repeat_penalty != 1)
		penalise(sampler);

	uint32_t best = 0;
	for (uint32_t i = 1; i < n; i++) {
		if (is_before(&c[i], &c[best]))
			best = i;
	}
	if (s->temperature == 0)
		return c[best].id;

	float most = c[best].logit;
	bool cut_p = s->top_p < 1, cut_k = s->top_k && s->top_k < n;
	if (!cut_p && !cut_k)
		return draw_from(sampler, 0, n, most);

	/* A heap gives the best one by one: the cost is of those that stay, not of the vocabulary
	 * sorted. */
	for (uint32_t i = n / 2; i-- > 0;)
		sift_down(c, n, i);
	uint32_t n_heap = n, n_most = cut_k ? s->top_k : n;
	double scale = 1 / (double)s->temperature, total = 0;
	if (cut_p && cut_k) {
		while (n - n_heap < n_most)
			total += exp(((double)pop(c, &n_heap)->logit - (double)most) * scale);
		double sum = 0;
		uint32_t at = n;
		while (at > n_heap && sum < (double)s->top_p * total)
			sum += exp(((double)c[--at].logit - (double)most) * scale);
		return draw_from(sampler, at < n ? at : n - 1, n, most);
	}
	if (cut_p) {
		for (uint32_t i = 0; i < n; i++)
			total += exp(((double)c[i].logit - (double)most) * scale);
	}
	double sum = 0;
	do {
		sum += exp(((double)pop(c, &n_heap)->logit - (double)most) * scale);
	} while (n - n_heap < n_most && n_heap && (!cut_p || sum < (double)s->top_p * total));
	return draw_from(sampler, n_heap, n, most);
}

int sk_sampler_pick(struct sk_sampler *sampler, const float *logits, int32_t *ret_id,
		    float *ret_logprob)
{
	float most = -INFINITY;
	bool numbers = true;
	for (uint32_t i = 0; i < sampler->n_vocab; i++) {
		numbers &= !isnan(logits[i]);
		most = logits[i] > most ? logits[i] : most;
	}
	if (!numbers || !isfinite(most))
		return -EDOM;
	double total = 0;
	for (uint32_t i = 0; i < sampler->n_vocab; i++)
		total += exp((double)(logits[i] - most));

	int32_t id = pick(sampler, logits);
	if (id < 0)
		return -EDOM;
	*ret_id = id;
	*ret_logprob = (float)((double)(logits[id] - most) - log(total));
	return 0;
}
