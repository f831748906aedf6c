#include "engine/sampler.h"

#include <errno.h>
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

int sk_sampler_init(struct sk_sampler *sampler, const struct sk_sampling *sampling, uint32_t n_ids)
{
	*sampler = (struct sk_sampler){.sampling = *sampling, .n_ids = n_ids};
	if (sampler->sampling.repeat_last > SK_REPEAT_MOST)
		sampler->sampling.repeat_last = SK_REPEAT_MOST;
	uint64_t state = sampling->seed;
	for (int i = 0; i < 4; i++)
		sampler->random[i] = splitmix(&state);
	const size_t n = sampler->sampling.repeat_last + 1;
	sampler->recent = malloc(n * sizeof *sampler->recent);
	sampler->listed = malloc(n * sizeof *sampler->listed);
	if (!sampler->recent || !sampler->listed) {
		sk_sampler_finish(sampler);
		return -ENOMEM;
	}
	return 0;
}

void sk_sampler_finish(struct sk_sampler *sampler)
{
	free(sampler->recent);
	free(sampler->listed);
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

static int32_t recent_at(const struct sk_sampler *sampler, uint32_t i) /* the oldest is the first */
{
	const uint32_t n = sampler->n_recent, most = sampler->sampling.repeat_last;
	return sampler->recent[(sampler->recent_next + most - n + i) % most];
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
	const uint32_t n = sampler->n_recent;
	int32_t *recent = malloc((n + 1) * sizeof *recent);
	if (!recent)
		return;
	for (uint32_t i = 0; i < n; i++)
		recent[i] = recent_at(sampler, i);
	free(memory->recent);
	memory->recent = recent;
	memory->n_recent = n;
	memory->has_random = true;
	memory->seed = sampler->sampling.seed;
	memcpy(memory->random, sampler->random, sizeof memory->random);
}

/* --- Draws --- */

void sk_sampler_next(struct sk_sampler *sampler, struct sk_draw *ret_draw)
{
	const struct sk_sampling *s = &sampler->sampling;
	*ret_draw = (struct sk_draw){
		.n_ids = sampler->n_ids,
		.temperature = s->temperature,
		.top_k = s->top_k,
		.top_p = s->top_p,
		.min_p = s->min_p,
		.repeat_penalty = s->repeat_penalty,
		.recent = sampler->listed,
		.random = s->temperature != 0 ? draw(sampler->random) : 0,
	};
	for (uint32_t i = 0; i < sampler->n_recent && s->repeat_penalty != 1; i++) {
		const int32_t id = recent_at(sampler, i);
		if (id >= 0 && (uint32_t)id < sampler->n_ids)
			sampler->listed[ret_draw->n_recent++] = id;
	}
}
