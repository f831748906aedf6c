#include "engine/pace.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#define OLD_STEPS   64 /* after so many, what a step takes is looked at again */
#define TRY_STEPS   16 /* but not sooner than so many after the last look */
#define SAVED_STEPS 4 /* so many shares that were not used can be used at once, with the next one */
#define FIRST_TRY   8 /* tokens, where nothing is known of them */
#define MOST_SHARE  0.75 /* whatever is asked: streams go on at a quarter of their speed */
#define WHOLE_CHUNK                                                                                \
	32 /* tokens without streams that tell what one adds: fewer are mostly the reading of weights */

int sk_pace_init(struct sk_pace *pace, double prompt_share, uint32_t n_most)
{
	*pace = (struct sk_pace){
		.prompt_share = prompt_share, .share = prompt_share, .n_most = n_most};
	pace->steps = calloc(n_most + 1, sizeof *pace->steps);
	return pace->steps ? 0 : -ENOMEM;
}

void sk_pace_finish(struct sk_pace *pace)
{
	free(pace->steps);
	pace->steps = NULL;
}

/* What a step takes where so many decode: as measured, or as with fewer, or as each token's part of one with more. Too
 * little rather than too much: streams come first. 0: nothing is known. */
static double step_ns(const struct sk_pace *pace, uint32_t n)
{
	for (uint32_t i = n; i; i--)
		if (pace->steps[i].ns > 0)
			return pace->steps[i].ns;
	for (uint32_t i = n + 1; i <= pace->n_most; i++)
		if (pace->steps[i].ns > 0)
			return pace->steps[i].ns * n / i;
	return 0;
}

/* What prompts may take beside a step of ns without, in the long run. */
static double share_ns(const struct sk_pace *pace, double ns)
{
	return pace->share / (1 - pace->share) * ns;
}

uint32_t sk_pace_most(struct sk_pace *pace, uint32_t n_decoding, double asked)
{
	const uint32_t n = n_decoding < pace->n_most ? n_decoding : pace->n_most;
	const struct sk_pace_step *step = &pace->steps[n];

	if (pace->prompt_share >= 1)
		return UINT32_MAX;
	pace->share = fmax(pace->prompt_share, fmin(asked, MOST_SHARE));
	const double ns = step_ns(pace, n);
	if (ns == 0 || ((step->ns == 0 || pace->n_steps - step->at > OLD_STEPS) &&
			pace->n_steps - pace->tried_at >= TRY_STEPS)) {
		pace->tried_at = pace->n_steps;
		return 0;
	}
	if (pace->token_ns == 0)
		return FIRST_TRY;
	const double most = (pace->left_ns + share_ns(pace, ns)) / pace->token_ns;
	return most < 1 ? 1 : most < UINT32_MAX ? (uint32_t)most : UINT32_MAX;
}

static double towards(double old, double ns, double part)
{
	return old > 0 ? old + (fmin(fmax(ns, old / 2), old * 2) - old) * part : ns;
}

void sk_pace_learn(struct sk_pace *pace, uint32_t n_decoding, uint32_t n_prompt, uint64_t ns)
{
	const uint32_t n = n_decoding < pace->n_most ? n_decoding : pace->n_most;

	const bool was_try =
		pace->tried_at == pace->n_steps++; /* saves nothing: prompts wanted more */
	if (n && pace->prompt_share < 1 && !was_try) {
		const double share = share_ns(pace, step_ns(pace, n));
		pace->left_ns =
			fmin(fmax(pace->left_ns + share - n_prompt * pace->token_ns, -share),
			     SAVED_STEPS * share);
	}
	if (!n_prompt && n) {
		pace->steps[n].ns = towards(pace->steps[n].ns, (double)ns, 0.25);
		pace->steps[n].at = pace->n_steps;
	} else if (n && pace->steps[n].ns > 0) {
		const double more = (double)ns - pace->steps[n].ns;
		if (more > 0 || pace->token_ns > 0)
			pace->token_ns = towards(pace->token_ns, more / n_prompt, 0.125);
	} else if (n_prompt >= WHOLE_CHUNK && pace->token_ns == 0) {
		pace->token_ns = (double)ns / n_prompt;
	}
}
