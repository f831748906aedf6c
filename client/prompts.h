/* Prompts of an exact number of tokens, cut from a text where the model's tokenizer has a seam: before a space and a
 * letter. There, what precedes does not change which tokens follow. A value to embed; one thread.
 */
#pragma once

#include "client/command.h"

struct sk_prompts {
	char *text;
	size_t *starts;   /* of each token, in bytes, and the text's end: n_tokens + 1 */
	bool *has_seam;   /* before each token, and at the end */
	size_t n_tokens;  /* 1 or more */
	size_t n_bos;     /* tokens that the model puts before every prompt */
	bool drops_space; /* of a prompt's beginning: the model puts one there itself */
};

/* From `text`, or from common words at random where that is NULL. 0, or the exit code of what has been said. */
int sk_prompts_init(struct streamkv *kv, const struct sk_input *text, uint64_t seed,
		    struct sk_prompts *ret_prompts);
void sk_prompts_finish(struct sk_prompts *prompts);
/* One of n_tokens as the daemon counts them, or as near as it goes; the seed says from where. A text that is too short is
 * repeated. *ret_text lives until the next one is cut. -ENOMEM. */
int sk_prompts_cut(struct sk_prompts *prompts, uint64_t n_tokens, uint64_t seed,
		   const char **ret_text, size_t *ret_n_bytes);
