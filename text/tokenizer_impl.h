/* A tokenizer's insides, for the files of this room that fill it. */
#pragma once

#include "text/added_tokens.h"
#include "text/normalizer.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

#define SK_MOST_ENDS 16

struct sk_tokenizer {
	struct sk_vocab vocab;
	struct sk_added_tokens added;
	struct sk_normalizer normalizer;
	struct sk_pretokenizer pretokenizer;
	int32_t bos, eos; /* -1: none */
	bool begins_with_bos;
	int32_t ends[SK_MOST_ENDS];
	uint32_t n_ends;
	char *chat_template;
};

int sk_tokenizer_fill_json(struct sk_tokenizer *tokenizer, const char *text, size_t n_bytes,
			   const char *name, struct sk_diag *diag);
int sk_tokenizer_fill_gguf(struct sk_tokenizer *tokenizer, const struct sk_gguf *gguf,
			   struct sk_diag *diag);
/* What may stand beside tokenizer.json: names of BOS and EOS, the chat template. */
int sk_tokenizer_read_directory(struct sk_tokenizer *tokenizer, const char *directory,
				struct sk_diag *diag);

/* A tokenizer.json in memory (tests and fuzzers). */
int sk_tokenizer_open_json_memory(const char *text, size_t n_bytes, const char *name,
				  struct sk_tokenizer **ret_tokenizer, struct sk_diag *diag);
