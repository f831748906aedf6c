/* How many tokens of prompts ride in a step while others decode: so many that they take a given part of its time, and the
 * streams keep the rest of their speed, whatever the machine, the model and the number of streams. What a step takes without
 * prompts, and what a token of a prompt adds, is learned from the steps themselves; now and then, and where it is not known,
 * one runs without. What prompts have not used they may use later, for up to five steps' worth: so a short prompt that
 * comes alone is through soon. The part is at least the one that was configured; where many wait with prompts and few decode
 * it is as large as theirs among all, up to three quarters: else places stay empty while prompts queue. Pure policy: numbers
 * and times in, numbers out. (The bound that Sarathi-Serve sets by a time that it is told: Agrawal et al., OSDI 2024.)
 */
#pragma once

#include <stdint.h>

struct sk_pace {
	double prompt_share;        /* of a step's time at least, above 0; 1 or more: no bound */
	double share;               /* as of the last step */
	double token_ns;            /* that a prompt's token adds; 0: not known */
	double left_ns;             /* of what prompts may take */
	uint64_t n_steps, tried_at; /* n_steps then */
	struct sk_pace_step {       /* without prompts */
		double ns;          /* 0: not known */
		uint64_t at;        /* n_steps then */
	} * steps;                  /* (n_most + 1), by how many decode */
	uint32_t n_most;
};

/* 0 or -ENOMEM. n_most: sessions in a step. */
int sk_pace_init(struct sk_pace *pace, double prompt_share, uint32_t n_most);
void sk_pace_finish(struct sk_pace *pace);

/* Tokens that prompts may have of a step in which n_decoding, at least 1, decode. asked: the part of those that want to run,
 * by users' weights, who have prompts. 0: this one shall tell what a step takes without. */
uint32_t sk_pace_most(struct sk_pace *pace, uint32_t n_decoding, double asked);
/* What a step took. */
void sk_pace_learn(struct sk_pace *pace, uint32_t n_decoding, uint32_t n_prompt, uint64_t ns);
