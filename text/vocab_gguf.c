/* The tokenizer in a GGUF file's metadata: byte-level BPE ("gpt2") and score-merged BPE with byte
 * fallback ("llama"). Key names: GGUF specification. */
#include "base/cleanup.h"
#include "model/gguf.h"
#include "text/tokenizer_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum token_type {
	TOKEN_NORMAL = 1,
	TOKEN_UNKNOWN,
	TOKEN_CONTROL,
	TOKEN_USER,
	TOKEN_UNUSED,
	TOKEN_BYTE
};

struct reader {
	struct sk_tokenizer *tokenizer;
	const struct sk_gguf *gguf;
	struct sk_diag *diag;
};

static int malformed(struct reader *reader, const char *key, const char *reason)
{
	return sk_diag_fail(reader->diag, EINVAL, "%s: tokenizer.ggml.%s: %s",
			    sk_gguf_path(reader->gguf), key, reason);
}

static int add_special(struct reader *reader, int32_t id, const char *text, size_t n_bytes,
		       bool is_special)
{
	struct sk_added_token token = {
		.id = id, .content = text, .n_bytes = (uint32_t)n_bytes, .is_special = is_special};
	reader->tokenizer->vocab.tokens[id].is_special = is_special;
	return sk_added_tokens_add(&reader->tokenizer->added, &token);
}

static int set_token(struct reader *reader, int32_t id, const struct sk_gguf_string *spelt,
		     int64_t type)
{
	struct sk_vocab *vocab = &reader->tokenizer->vocab;
	size_t n_bytes = spelt->n_bytes;
	bool is_model = type == TOKEN_NORMAL || type == TOKEN_UNUSED || type == TOKEN_BYTE ||
			type == TOKEN_UNKNOWN;
	sk_autofree uint8_t *bytes = malloc(n_bytes + 1);

	if (!bytes)
		return -ENOMEM;
	memcpy(bytes, spelt->text, n_bytes);
	if (is_model && vocab->is_byte_level && !sk_vocab_unspell(bytes, &n_bytes)) {
		n_bytes = spelt->n_bytes;
		memcpy(bytes, spelt->text, n_bytes);
	}
	if (is_model && !vocab->is_byte_level)
		sk_vocab_unmark(bytes, &n_bytes);
	int byte = type == TOKEN_BYTE ? sk_vocab_byte_name(spelt->text, spelt->n_bytes) : -1;
	if (byte >= 0) {
		bytes[0] = (uint8_t)byte;
		n_bytes = 1;
		vocab->byte_ids[byte] = id;
	}
	int err = sk_vocab_set(vocab, id, bytes, n_bytes, is_model);
	if (err < 0)
		return err;
	if (type == TOKEN_UNKNOWN && vocab->unk_id < 0)
		vocab->unk_id = id;
	if (type == TOKEN_CONTROL || type == TOKEN_USER)
		return add_special(reader, id, spelt->text, spelt->n_bytes, type == TOKEN_CONTROL);
	return 0;
}

static int read_tokens(struct reader *reader)
{
	struct sk_vocab *vocab = &reader->tokenizer->vocab;
	struct sk_gguf_array tokens, types, scores;
	bool has_types = sk_gguf_get_array(reader->gguf, "tokenizer.ggml.token_type", &types) == 0;
	bool has_scores = sk_gguf_get_array(reader->gguf, "tokenizer.ggml.scores", &scores) == 0;

	if (sk_gguf_get_array(reader->gguf, "tokenizer.ggml.tokens", &tokens) < 0 ||
	    !tokens.n_items)
		return malformed(reader, "tokens", "there are none");
	if (tokens.n_items > SK_VOCAB_MOST_IDS)
		return malformed(reader, "tokens", "there are more than any model has");
	if ((has_types && types.n_items != tokens.n_items) ||
	    (has_scores && scores.n_items != tokens.n_items))
		return malformed(reader, "token_type", "not one for each token");
	if (vocab->merges_by_score && !has_scores)
		return malformed(reader, "scores", "there are none");
	for (uint64_t i = 0; i < tokens.n_items; i++) {
		struct sk_gguf_string spelt;
		int64_t type = TOKEN_NORMAL;
		double score = 0;
		if (sk_gguf_next_string(&tokens, &spelt) < 0 ||
		    (has_types && sk_gguf_next_int(&types, &type) < 0) ||
		    (has_scores && sk_gguf_next_float(&scores, &score) < 0))
			return malformed(reader, "tokens",
					 "items of another type than they should be");
		int err = set_token(reader, (int32_t)i, &spelt, type);
		if (err < 0)
			return err;
		vocab->tokens[i].score = (float)score;
	}
	return sk_vocab_index(vocab);
}

static int read_merges(struct reader *reader)
{
	struct sk_vocab *vocab = &reader->tokenizer->vocab;
	struct sk_gguf_array merges;
	struct sk_gguf_string merge;

	if (sk_gguf_get_array(reader->gguf, "tokenizer.ggml.merges", &merges) < 0)
		return malformed(reader, "merges", "there are none");
	for (uint32_t rank = 0; rank < merges.n_items; rank++) {
		if (sk_gguf_next_string(&merges, &merge) < 0)
			return malformed(reader, "merges", "an item is no string");
		/* A space may be a token's only in spellings that have none, so the first one
		 * divides. */
		const char *space =
			merge.n_bytes ? memchr(merge.text + 1, ' ', merge.n_bytes - 1) : NULL;
		uint8_t left[512], right[512];
		size_t n_left = space ? (size_t)(space - merge.text) : 0;
		size_t n_right = space ? merge.n_bytes - n_left - 1 : 0;
		if (!space || n_left > sizeof left || n_right > sizeof right)
			return malformed(reader, "merges", "a merge is not two tokens");
		memcpy(left, merge.text, n_left);
		memcpy(right, space + 1, n_right);
		int err = -EINVAL;
		if (sk_vocab_unspell(left, &n_left) && sk_vocab_unspell(right, &n_right))
			err = sk_vocab_add_merge(vocab, sk_vocab_find(vocab, left, n_left),
						 sk_vocab_find(vocab, right, n_right), rank);
		if (err == -EINVAL || err == -ENOENT)
			return sk_diag_fail(reader->diag, EINVAL,
					    "%s: tokenizer.ggml.merges: merge %u names a token "
					    "that is not in the vocabulary",
					    sk_gguf_path(reader->gguf), rank);
		if (err < 0)
			return err;
	}
	for (uint32_t id = 0; id < vocab->n_tokens; id++) {
		const struct sk_vocab_token *token = &vocab->tokens[id];
		if (token->is_model && token->n_bytes == 1)
			vocab->byte_ids[vocab->bytes[token->at]] = (int32_t)id;
	}
	return 0;
}

/* How each model's text is split before BPE, by the name in tokenizer.ggml.pre. */
static const struct {
	const char *name;
	bool splits_digits; /* every digit a piece of its own, first */
	const char *pattern;
	bool ignores_merges;
	int form;
} pretokenizers[] = {
	{"gpt-2", false, sk_pattern_gpt2, false, SK_NORMALIZE_NONE},
	{"default", false, sk_pattern_gpt2, false, SK_NORMALIZE_NONE},
	{"mpt", false, sk_pattern_gpt2, false, SK_NFC},
	{"olmo", false, sk_pattern_gpt2, false, SK_NFC},
	{"gpt-neox", false, sk_pattern_gpt2, false, SK_NFC},
	{"stablelm", false, sk_pattern_gpt2, false, SK_NFC},
	{"smollm", true, sk_pattern_gpt2, false, SK_NORMALIZE_NONE},
	{"starcoder", true, sk_pattern_gpt2, false, SK_NORMALIZE_NONE},
	{"refact", true, sk_pattern_gpt2, false, SK_NORMALIZE_NONE},
	{"command-r", true, sk_pattern_gpt2, false, SK_NFC},
	{"llama-bpe", false, sk_pattern_llama3, true, SK_NORMALIZE_NONE},
	{"llama3", false, sk_pattern_llama3, true, SK_NORMALIZE_NONE},
	{"qwen2", false, sk_pattern_qwen2, false, SK_NFC},
};

static int read_pre(struct reader *reader)
{
	struct sk_tokenizer *tokenizer = reader->tokenizer;
	struct sk_gguf_string pre = {.text = "default", .n_bytes = 7};

	(void)sk_gguf_get_string(reader->gguf, "tokenizer.ggml.pre", &pre);
	for (unsigned i = 0; i < sizeof pretokenizers / sizeof *pretokenizers; i++) {
		const char *name = pretokenizers[i].name;
		if (strlen(name) != pre.n_bytes || memcmp(name, pre.text, pre.n_bytes) != 0)
			continue;
		int err = 0;
		if (pretokenizers[i].splits_digits)
			err = sk_pretokenizer_add(&tokenizer->pretokenizer, "\\p{N}",
						  SK_SPLIT_ISOLATED, false, reader->diag);
		tokenizer->vocab.ignore_merges = pretokenizers[i].ignores_merges;
		tokenizer->normalizer.form = pretokenizers[i].form;
		return err ? err
			   : sk_pretokenizer_add(&tokenizer->pretokenizer, pretokenizers[i].pattern,
						 SK_SPLIT_ISOLATED, false, reader->diag);
	}
	return sk_diag_fail(reader->diag, ENOTSUP, "%s: the pre-tokenizer '%.*s' is not supported",
			    sk_gguf_path(reader->gguf), (int)(pre.n_bytes < 64 ? pre.n_bytes : 64),
			    pre.text);
}

static int32_t id_at(struct reader *reader, const char *key)
{
	uint64_t id;
	if (sk_gguf_get_uint(reader->gguf, key, &id) < 0 || id >= reader->tokenizer->vocab.n_tokens)
		return -1;
	return (int32_t)id;
}

static int read_rest(struct reader *reader)
{
	struct sk_tokenizer *tokenizer = reader->tokenizer;
	struct sk_gguf_string chat;
	bool adds_prefix = false;

	tokenizer->bos = id_at(reader, "tokenizer.ggml.bos_token_id");
	tokenizer->eos = id_at(reader, "tokenizer.ggml.eos_token_id");
	tokenizer->begins_with_bos = tokenizer->vocab.merges_by_score;
	(void)sk_gguf_get_bool(reader->gguf, "tokenizer.ggml.add_bos_token",
			       &tokenizer->begins_with_bos);
	if (tokenizer->vocab.merges_by_score) {
		adds_prefix = true;
		(void)sk_gguf_get_bool(reader->gguf, "tokenizer.ggml.add_space_prefix",
				       &adds_prefix);
		tokenizer->normalizer.prepends_space = adds_prefix;
	}
	if (sk_gguf_get_string(reader->gguf, "tokenizer.chat_template", &chat) == 0) {
		tokenizer->chat_template = strndup(chat.text, chat.n_bytes);
		if (!tokenizer->chat_template)
			return -ENOMEM;
	}
	return 0;
}

int sk_tokenizer_fill_gguf(struct sk_tokenizer *tokenizer, const struct sk_gguf *gguf,
			   struct sk_diag *diag)
{
	struct reader reader = {.tokenizer = tokenizer, .gguf = gguf, .diag = diag};
	struct sk_gguf_string model;
	int err;

	if (sk_gguf_get_string(gguf, "tokenizer.ggml.model", &model) < 0)
		return malformed(&reader, "model", "the file has no tokenizer");
	if (model.n_bytes == 4 && memcmp(model.text, "gpt2", 4) == 0)
		tokenizer->vocab.is_byte_level = true;
	else if (model.n_bytes == 5 && memcmp(model.text, "llama", 5) == 0)
		tokenizer->vocab.merges_by_score = true;
	else
		return sk_diag_fail(diag, ENOTSUP,
				    "%s: the tokenizer model '%.*s' is not supported",
				    sk_gguf_path(gguf),
				    (int)(model.n_bytes < 64 ? model.n_bytes : 64), model.text);

	err = read_tokens(&reader);
	if (!err && tokenizer->vocab.is_byte_level)
		err = read_merges(&reader);
	if (!err && tokenizer->vocab.is_byte_level)
		err = read_pre(&reader);
	if (!err)
		err = read_rest(&reader);
	if (err == -ENOMEM)
		return sk_diag_fail(diag, ENOMEM, "%s: not enough memory", sk_gguf_path(gguf));
	return err;
}
