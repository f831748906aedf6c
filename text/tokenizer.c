#include "text/tokenizer.h"

#include "base/cleanup.h"
#include "model/gguf.h"
#include "text/bpe.h"
#include "text/tokenizer_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int sk_ids_append(struct sk_ids *ids, int32_t id)
{
	if (ids->n_ids == ids->n_allocated) {
		size_t n = 2 * ids->n_allocated + 64;
		int32_t *grown = realloc(ids->ids, n * sizeof *grown);
		if (!grown)
			return -ENOMEM;
		ids->ids = grown;
		ids->n_allocated = n;
	}
	ids->ids[ids->n_ids++] = id;
	return 0;
}

void sk_ids_finish(struct sk_ids *ids)
{
	free(ids->ids);
	*ids = (struct sk_ids){0};
}

/* --- Opening
 * --------------------------------------------------------------------------------------- */

static struct sk_tokenizer *create(void)
{
	struct sk_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
	if (!tokenizer)
		return NULL;
	sk_vocab_init(&tokenizer->vocab);
	tokenizer->bos = tokenizer->eos = -1;
	return tokenizer;
}

void sk_tokenizer_close(struct sk_tokenizer *tokenizer)
{
	if (!tokenizer)
		return;
	sk_vocab_finish(&tokenizer->vocab);
	sk_added_tokens_finish(&tokenizer->added);
	sk_pretokenizer_finish(&tokenizer->pretokenizer);
	free(tokenizer->chat_template);
	free(tokenizer);
}

static void add_end(struct sk_tokenizer *tokenizer, int32_t id)
{
	if (id >= 0 && !sk_tokenizer_is_end(tokenizer, id) && tokenizer->n_ends < SK_MOST_ENDS)
		tokenizer->ends[tokenizer->n_ends++] = id;
}

/* Ends of a turn, by the names that models give them. */
static void find_ends(struct sk_tokenizer *tokenizer)
{
	static const char *const names[] = {"<|im_end|>",    "<|eot_id|>",      "<|eom_id|>",
					    "<|end|>",       "<end_of_turn>",   "<|end_of_text|>",
					    "<|endoftext|>", "<|end_of_turn|>", "</s>"};
	add_end(tokenizer, tokenizer->eos);
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
		add_end(tokenizer, sk_tokenizer_find(tokenizer, names[i]));
}

/* Added tokens that are looked for in normalised text are normalised as it is. */
static int normalize_added(struct sk_tokenizer *tokenizer)
{
	for (uint32_t i = 0; i < tokenizer->added.n_tokens; i++) {
		struct sk_added_token *token = &tokenizer->added.tokens[i];
		struct sk_bytes normal = {0};
		if (!token->is_normalized ||
		    !sk_normalizer_changes(&tokenizer->normalizer, (const uint8_t *)token->content,
					   token->n_bytes))
			continue;
		int err =
			sk_normalizer_apply(&tokenizer->normalizer, (const uint8_t *)token->content,
					    token->n_bytes, NULL, &normal);
		if (err < 0 || !normal.n_bytes) {
			sk_bytes_finish(&normal);
			if (err < 0)
				return err;
			continue;
		}
		free((char *)token->content);
		token->content = (char *)normal.bytes;
		token->n_bytes = (uint32_t)normal.n_bytes;
	}
	return 0;
}

/* After the file's part, all that follows from it. */
static int finish_opening(struct sk_tokenizer *tokenizer, int err,
			  struct sk_tokenizer **ret_tokenizer, struct sk_diag *diag)
{
	if (!err && normalize_added(tokenizer) < 0)
		err = sk_diag_fail(diag, ENOMEM, "the tokenizer: not enough memory");
	if (err < 0) {
		sk_tokenizer_close(tokenizer);
		return err;
	}
	sk_added_tokens_index(&tokenizer->added);
	find_ends(tokenizer);
	*ret_tokenizer = tokenizer;
	return 0;
}

int sk_tokenizer_open_json_memory(const char *text, size_t n_bytes, const char *name,
				  struct sk_tokenizer **ret_tokenizer, struct sk_diag *diag)
{
	struct sk_tokenizer *tokenizer = create();
	if (!tokenizer)
		return sk_diag_fail(diag, ENOMEM, "%s: not enough memory", name);
	return finish_opening(tokenizer,
			      sk_tokenizer_fill_json(tokenizer, text, n_bytes, name, diag),
			      ret_tokenizer, diag);
}

static int read_file(const char *path, struct sk_bytes *ret_bytes, struct sk_diag *diag)
{
	char portion[65536];
	size_t n;
	int err = 0;
	FILE *file = fopen(path, "re");
	if (!file)
		return sk_diag_fail(diag, errno, "%s: %s", path, strerror(errno));
	while (!err && (n = fread(portion, 1, sizeof portion, file)) > 0)
		err = ret_bytes->n_bytes > (256u << 20) ? -EFBIG
							: sk_bytes_append(ret_bytes, portion, n);
	if (!err && ferror(file))
		err = -EIO;
	fclose(file);
	return err ? sk_diag_fail(diag, -err, "%s: %s", path, strerror(-err)) : 0;
}

static int open_json(const char *path, const char *directory, struct sk_tokenizer **ret_tokenizer,
		     struct sk_diag *diag)
{
	struct sk_bytes bytes = {0};
	struct sk_tokenizer *tokenizer = create();
	if (!tokenizer)
		return sk_diag_fail(diag, ENOMEM, "%s: not enough memory", path);
	int err = read_file(path, &bytes, diag);
	if (!err)
		err = sk_tokenizer_fill_json(tokenizer, (const char *)bytes.bytes, bytes.n_bytes,
					     path, diag);
	sk_bytes_finish(&bytes);
	if (!err && directory)
		err = sk_tokenizer_read_directory(tokenizer, directory, diag);
	return finish_opening(tokenizer, err, ret_tokenizer, diag);
}

int sk_tokenizer_open_json(const char *path, struct sk_tokenizer **ret_tokenizer,
			   struct sk_diag *diag)
{
	return open_json(path, NULL, ret_tokenizer, diag);
}

int sk_tokenizer_open_gguf(const struct sk_gguf *gguf, struct sk_tokenizer **ret_tokenizer,
			   struct sk_diag *diag)
{
	struct sk_tokenizer *tokenizer = create();
	if (!tokenizer)
		return sk_diag_fail(diag, ENOMEM, "%s: not enough memory", sk_gguf_path(gguf));
	return finish_opening(tokenizer, sk_tokenizer_fill_gguf(tokenizer, gguf, diag),
			      ret_tokenizer, diag);
}

int sk_tokenizer_open(const struct sk_model *model, struct sk_tokenizer **ret_tokenizer,
		      struct sk_diag *diag)
{
	const struct sk_model_config *config = sk_model_config(model);
	const char *directory = sk_model_directory(model);
	struct sk_tokenizer *tokenizer;
	int err;

	if (sk_model_gguf(model)) {
		err = sk_tokenizer_open_gguf(sk_model_gguf(model), &tokenizer, diag);
	} else {
		sk_autofree char *path = NULL;
		if (asprintf(&path, "%s/tokenizer.json", directory) < 0) {
			path = NULL;
			return sk_diag_fail(diag, ENOMEM, "%s: not enough memory", directory);
		}
		err = open_json(path, directory, &tokenizer, diag);
	}
	if (err < 0)
		return err;
	if (tokenizer->bos < 0)
		tokenizer->bos = config->bos_id;
	if (tokenizer->eos < 0)
		tokenizer->eos = config->eos_id;
	add_end(tokenizer, tokenizer->eos);
	*ret_tokenizer = tokenizer;
	return 0;
}

/* --- Encoding
 * -------------------------------------------------------------------------------------- */

struct encoder {
	const struct sk_tokenizer *tokenizer;
	const atomic_bool *is_cancelled;
	struct sk_pretokenizer_scratch scratch;
	struct sk_bpe bpe;
	struct sk_bytes normal; /* of the section in work */
	struct sk_ids *ids;
	bool plain;
	bool is_first; /* nothing has been encoded yet, of this text or one that it goes on with */
};

static int encode_piece(void *context, const uint8_t *piece, size_t n_bytes)
{
	struct encoder *encoder = context;
	return sk_bpe_encode(&encoder->bpe, piece, n_bytes, encoder->ids);
}

/* Text without added tokens: runs of valid UTF-8 are split by the pre-tokenizer, other bytes go as
 * they are. */
static int encode_words(struct encoder *encoder, const uint8_t *text, size_t n_bytes)
{
	const struct sk_tokenizer *tokenizer = encoder->tokenizer;
	int err = 0;

	for (size_t at = 0; at < n_bytes && !err;) {
		size_t end = at, n;
		if (sk_is_cancelled(encoder->is_cancelled))
			return -ECANCELED;
		while (end < n_bytes && !sk_is_cancelled(encoder->is_cancelled) &&
		       (n = sk_utf8_length(text + end, n_bytes - end)))
			end += n;
		if (end > at) {
			err = sk_pretokenizer_split(&tokenizer->pretokenizer, &encoder->scratch,
						    text + at, end - at, encode_piece, encoder);
			at = end;
			continue;
		}
		while (end < n_bytes && !sk_is_cancelled(encoder->is_cancelled) &&
		       !sk_utf8_length(text + end, n_bytes - end))
			end++;
		err = sk_bpe_encode(&encoder->bpe, text + at, end - at, encoder->ids);
		at = end;
	}
	return err;
}

typedef int encode_section(struct encoder *encoder, const uint8_t *text, size_t n_bytes);

/* Cuts the added tokens of one kind out; `section` takes what lies between them. */
static int encode_around(struct encoder *encoder, const uint8_t *text, size_t n_bytes,
			 bool normalized, encode_section *section)
{
	struct sk_added_match match;
	size_t at = 0;
	int err = 0;

	while (!err &&
	       sk_added_tokens_find(&encoder->tokenizer->added, text, n_bytes, at, normalized,
				    encoder->plain, encoder->is_cancelled, &match)) {
		if (match.begin > at)
			err = section(encoder, text + at, match.begin - at);
		if (!err)
			err = sk_ids_append(encoder->ids, match.id);
		encoder->is_first = false;
		at = match.end;
	}
	if (!err && at < n_bytes)
		err = section(encoder, text + at, n_bytes - at);
	return err;
}

static int encode_normal(struct encoder *encoder, const uint8_t *text, size_t n_bytes)
{
	const struct sk_tokenizer *tokenizer = encoder->tokenizer;
	enum sk_prefix prefix = tokenizer->pretokenizer.prefix;
	bool wants_space =
		prefix == SK_PREFIX_ALWAYS || (prefix == SK_PREFIX_FIRST && encoder->is_first);
	if (!wants_space || (n_bytes && text[0] == ' '))
		return encode_words(encoder, text, n_bytes);

	struct sk_bytes spaced = {0};
	int err = sk_bytes_append(&spaced, " ", 1);
	if (!err)
		err = sk_bytes_append(&spaced, text, n_bytes);
	if (!err)
		err = encode_words(encoder, spaced.bytes, spaced.n_bytes);
	sk_bytes_finish(&spaced);
	return err;
}

static int encode_raw(struct encoder *encoder, const uint8_t *text, size_t n_bytes)
{
	const struct sk_normalizer *normalizer = &encoder->tokenizer->normalizer;
	int err = 0;

	if (sk_normalizer_changes(normalizer, text, n_bytes)) {
		encoder->normal.n_bytes = 0;
		err = sk_normalizer_apply(normalizer, text, n_bytes, encoder->is_cancelled,
					  &encoder->normal);
		text = encoder->normal.bytes;
		n_bytes = encoder->normal.n_bytes;
	}
	if (!err)
		err = encode_around(encoder, text, n_bytes, true, encode_normal);
	encoder->is_first = false;
	return err;
}

int sk_tokenizer_encode_unless(const atomic_bool *is_cancelled,
			       const struct sk_tokenizer *tokenizer, const void *text,
			       size_t n_bytes, unsigned flags, struct sk_ids *ids)
{
	struct encoder encoder = {
		.tokenizer = tokenizer,
		.is_cancelled = is_cancelled,
		.bpe = {.vocab = &tokenizer->vocab, .is_cancelled = is_cancelled},
		.ids = ids,
		.plain = flags & SK_ENCODE_PLAIN,
		.is_first = !(flags & SK_ENCODE_GOES_ON),
	};
	size_t n_before = ids->n_ids;

	if (n_bytes >= INT32_MAX)
		return -EOVERFLOW;
	int err = sk_pretokenizer_scratch_init(&encoder.scratch, &tokenizer->pretokenizer);
	encoder.scratch.is_cancelled = is_cancelled;
	if (!err && (flags & SK_ENCODE_BOS) && tokenizer->begins_with_bos && tokenizer->bos >= 0)
		err = sk_ids_append(ids, tokenizer->bos);
	if (!err)
		err = encode_around(&encoder, text, n_bytes, false, encode_raw);
	/* Loops that cannot fail have ended early without saying so. */
	if (!err && sk_is_cancelled(is_cancelled))
		err = -ECANCELED;
	sk_pretokenizer_scratch_finish(&encoder.scratch);
	sk_bpe_finish(&encoder.bpe);
	sk_bytes_finish(&encoder.normal);
	if (err)
		ids->n_ids = n_before;
	return err;
}

int sk_tokenizer_encode(const struct sk_tokenizer *tokenizer, const void *text, size_t n_bytes,
			unsigned flags, struct sk_ids *ids)
{
	return sk_tokenizer_encode_unless(NULL, tokenizer, text, n_bytes, flags, ids);
}

/* --- Looking up
 * ------------------------------------------------------------------------------------ */

uint32_t sk_tokenizer_n_ids(const struct sk_tokenizer *tokenizer)
{
	return tokenizer->vocab.n_tokens;
}

int32_t sk_tokenizer_bos(const struct sk_tokenizer *tokenizer)
{
	return tokenizer->bos;
}

int32_t sk_tokenizer_eos(const struct sk_tokenizer *tokenizer)
{
	return tokenizer->eos;
}

bool sk_tokenizer_is_end(const struct sk_tokenizer *tokenizer, int32_t id)
{
	for (uint32_t i = 0; i < tokenizer->n_ends; i++) {
		if (tokenizer->ends[i] == id)
			return true;
	}
	return false;
}

bool sk_tokenizer_is_special(const struct sk_tokenizer *tokenizer, int32_t id)
{
	return id >= 0 && (uint32_t)id < tokenizer->vocab.n_tokens &&
	       tokenizer->vocab.tokens[id].is_special;
}

int32_t sk_tokenizer_find(const struct sk_tokenizer *tokenizer, const char *token)
{
	size_t n = strlen(token);
	for (uint32_t i = 0; i < tokenizer->added.n_tokens; i++) {
		int32_t id = tokenizer->added.tokens[i].id; /* its content may be normalised */
		size_t n_bytes;
		const uint8_t *bytes = sk_tokenizer_bytes(tokenizer, id, &n_bytes);
		if (n_bytes == n && memcmp(bytes, token, n) == 0)
			return id;
	}
	return sk_vocab_find(&tokenizer->vocab, token, n);
}

const uint8_t *sk_tokenizer_bytes(const struct sk_tokenizer *tokenizer, int32_t id,
				  size_t *ret_n_bytes)
{
	*ret_n_bytes = 0;
	if (id < 0 || (uint32_t)id >= tokenizer->vocab.n_tokens)
		return NULL;
	*ret_n_bytes = tokenizer->vocab.tokens[id].n_bytes;
	return tokenizer->vocab.bytes + tokenizer->vocab.tokens[id].at;
}

const char *sk_tokenizer_chat_template(const struct sk_tokenizer *tokenizer)
{
	return tokenizer->chat_template;
}
