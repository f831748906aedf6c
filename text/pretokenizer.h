/* The pre-tokenizer: steps that split text into the pieces that BPE works on, mostly by regular
 * expressions (PCRE2, compiled by its JIT). Immutable after it is built; scratch is the caller's.
 */
#pragma once

#include "base/diag.h"
#include "text/cancel.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Source of the patterns: the tokenizers of the models named, as their files spell them. */
extern const char sk_pattern_gpt2[];
extern const char sk_pattern_llama3[];
extern const char sk_pattern_qwen2[];

enum sk_split_behavior { /* what becomes of the matches, as in the `tokenizers` package */
			 SK_SPLIT_ISOLATED,
			 SK_SPLIT_REMOVED,
			 SK_SPLIT_MERGED_WITH_PREVIOUS,
			 SK_SPLIT_MERGED_WITH_NEXT,
			 SK_SPLIT_CONTIGUOUS,
};

#define SK_PRETOKENIZER_MOST_STEPS 8

struct sk_pretokenizer_step {
	pcre2_code *code;
	enum sk_split_behavior behavior;
	bool is_inverted; /* what does not match counts as the match */
};

/* A space put before a text that begins with none, before the first step. */
enum sk_prefix {
	SK_PREFIX_NONE,
	SK_PREFIX_FIRST,  /* at the very beginning only */
	SK_PREFIX_ALWAYS, /* behind every added token too */
};

struct sk_pretokenizer {
	struct sk_pretokenizer_step steps[SK_PRETOKENIZER_MOST_STEPS];
	unsigned n_steps;
	enum sk_prefix prefix;
};

void sk_pretokenizer_finish(struct sk_pretokenizer *pretokenizer);
/* -EINVAL and a sentence for a pattern that does not compile, -E2BIG past the most steps. */
int sk_pretokenizer_add(struct sk_pretokenizer *pretokenizer, const char *pattern,
			enum sk_split_behavior behavior, bool is_inverted, struct sk_diag *diag);

/* Scratch of one thread. Zero it to begin. */
struct sk_pretokenizer_scratch {
	pcre2_match_data *match[SK_PRETOKENIZER_MOST_STEPS];
	pcre2_match_context *context;
	pcre2_jit_stack *stack;
	const atomic_bool *is_cancelled; /* or NULL */
};
int sk_pretokenizer_scratch_init(struct sk_pretokenizer_scratch *scratch,
				 const struct sk_pretokenizer *pretokenizer);
void sk_pretokenizer_scratch_finish(struct sk_pretokenizer_scratch *scratch);

/* Called for every piece in order; anything but 0 ends the split and is returned. */
typedef int sk_piece(void *context, const uint8_t *piece, size_t n_bytes);
/* Splits valid UTF-8. Where it is cancelled, what is left may come as one piece, or not at all. (A single match is not
 * interrupted: some nanoseconds a byte.) */
int sk_pretokenizer_split(const struct sk_pretokenizer *pretokenizer,
			  struct sk_pretokenizer_scratch *scratch, const uint8_t *text,
			  size_t n_bytes, sk_piece *piece, void *context);
