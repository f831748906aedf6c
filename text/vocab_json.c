/* tokenizer.json, the file of the `tokenizers` package: what streamkv knows of it, and a sentence
 * for what it does not. */
#include "base/cleanup.h"
#include "text/tokenizer_impl.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

struct reader {
	struct sk_tokenizer *tokenizer;
	const char *name; /* of the file */
	struct sk_diag *diag;
	bool is_metaspace;   /* spaces are written as U+2581 */
	bool has_byte_names; /* tokens <0x00> ... <0xFF> stand for bytes */
};

static int malformed(struct reader *reader, const char *key, const char *reason)
{
	return sk_diag_fail(reader->diag, EINVAL, "%s: \"%s\": %s", reader->name, key, reason);
}

static int unknown(struct reader *reader, const char *kind, const char *type)
{
	return sk_diag_fail(reader->diag, ENOTSUP, "%s: the %s '%s' is not supported", reader->name,
			    kind, type);
}

static const char *string_at(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text ? text : "";
}

static bool is_set(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}

/* --- Normalizer
 * ------------------------------------------------------------------------------------ */

static int read_normalizer(struct reader *reader, const json_t *node)
{
	struct sk_normalizer *normalizer = &reader->tokenizer->normalizer;
	static const struct {
		const char *name;
		int form;
	} forms[] = {{"NFC", SK_NFC}, {"NFD", SK_NFD}, {"NFKC", SK_NFKC}, {"NFKD", SK_NFKD}};

	if (!node || json_is_null(node))
		return 0;
	const char *type = string_at(node, "type");
	for (unsigned i = 0; i < 4; i++) {
		if (strcmp(type, forms[i].name) == 0) {
			normalizer->form = forms[i].form;
			return 0;
		}
	}
	if (strcmp(type, "Sequence") == 0) {
		const json_t *steps = json_object_get(node, "normalizers"), *step;
		size_t i;
		if (!json_is_array(steps))
			return malformed(reader, "normalizer", "a sequence without its steps");
		json_array_foreach (steps, i, step) {
			int err = read_normalizer(reader, step);
			if (err < 0)
				return err;
		}
		return 0;
	}
	if (strcmp(type, "Prepend") == 0 &&
	    strcmp(string_at(node, "prepend"), "\xe2\x96\x81") == 0) {
		normalizer->prepends_space = true;
		return 0;
	}
	if (strcmp(type, "Replace") == 0 &&
	    strcmp(string_at(node, "content"), "\xe2\x96\x81") == 0 &&
	    strcmp(string_at(json_object_get(node, "pattern"), "String"), " ") == 0) {
		reader->is_metaspace = true;
		return 0;
	}
	return unknown(reader, "normalizer", type);
}

/* --- Pre-tokenizer
 * --------------------------------------------------------------------------------- */

static int add_step(struct reader *reader, const char *pattern, enum sk_split_behavior behavior,
		    bool is_inverted)
{
	struct sk_diag reason;
	int err = sk_pretokenizer_add(&reader->tokenizer->pretokenizer, pattern, behavior,
				      is_inverted, &reason);
	return err < 0 ? sk_diag_fail(reader->diag, -err, "%s: %s", reader->name, reason.text) : 0;
}

/* A space that a step behind others puts before each of their pieces is not known here: only the
 * text's own is. */
static int set_prefix(struct reader *reader, const char *type, enum sk_prefix prefix)
{
	struct sk_pretokenizer *pretokenizer = &reader->tokenizer->pretokenizer;
	if (prefix != SK_PREFIX_NONE && pretokenizer->n_steps)
		return sk_diag_fail(reader->diag, ENOTSUP,
				    "%s: the pre-tokenizer '%s' is not supported with a prefix "
				    "space behind other steps",
				    reader->name, type);
	if (prefix != SK_PREFIX_NONE)
		pretokenizer->prefix = prefix;
	return 0;
}

static int read_split(struct reader *reader, const json_t *node)
{
	static const char *const names[] = {
		[SK_SPLIT_ISOLATED] = "Isolated",
		[SK_SPLIT_REMOVED] = "Removed",
		[SK_SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
		[SK_SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
		[SK_SPLIT_CONTIGUOUS] = "Contiguous",
	};
	const json_t *pattern = json_object_get(node, "pattern");
	const char *behavior = string_at(node, "behavior"), *regex = string_at(pattern, "Regex");
	sk_autofree char *quoted = NULL;

	if (regex[0] && reader->is_metaspace)
		return sk_diag_fail(reader->diag, ENOTSUP,
				    "%s: a split by a regular expression is not supported where "
				    "spaces are written as U+2581",
				    reader->name);
	if (!regex[0]) {
		const char *plain = string_at(pattern, "String");
		if (!plain[0] || strstr(plain, "\\E"))
			return malformed(reader, "pre_tokenizer", "a split without a pattern");
		if (reader->is_metaspace && strcmp(plain, " ") == 0)
			return 0; /* no text has a space any more when it comes here */
		if (asprintf(&quoted, "\\Q%s\\E", plain) < 0) {
			quoted = NULL;
			return -ENOMEM;
		}
		regex = quoted;
	}
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		if (strcmp(behavior, names[i]) == 0)
			return add_step(reader, regex, (enum sk_split_behavior)i,
					is_set(node, "invert"));
	}
	return unknown(reader, "split behavior", behavior);
}

static int read_pretokenizer(struct reader *reader, const json_t *node)
{
	if (!node || json_is_null(node))
		return 0;
	const char *type = string_at(node, "type");
	if (strcmp(type, "Sequence") == 0) {
		const json_t *steps = json_object_get(node, "pretokenizers"), *step;
		size_t i;
		if (!json_is_array(steps))
			return malformed(reader, "pre_tokenizer", "a sequence without its steps");
		json_array_foreach (steps, i, step) {
			int err = read_pretokenizer(reader, step);
			if (err < 0)
				return err;
		}
		return 0;
	}
	if (strcmp(type, "ByteLevel") == 0) {
		const json_t *use_regex = json_object_get(node, "use_regex");
		reader->tokenizer->vocab.is_byte_level = true;
		int err = set_prefix(reader, type,
				     is_set(node, "add_prefix_space") ? SK_PREFIX_ALWAYS
								      : SK_PREFIX_NONE);
		if (err < 0 || (use_regex && !json_is_true(use_regex)))
			return err;
		return add_step(reader, sk_pattern_gpt2, SK_SPLIT_ISOLATED, false);
	}
	if (strcmp(type, "Digits") == 0)
		return add_step(reader, is_set(node, "individual_digits") ? "\\p{N}" : "\\p{N}+",
				SK_SPLIT_ISOLATED, false);
	if (strcmp(type, "Split") == 0)
		return read_split(reader, node);
	if (strcmp(type, "Metaspace") == 0 && !is_set(node, "split") &&
	    json_object_get(node, "split")) {
		const char *scheme = string_at(node, "prepend_scheme");
		reader->is_metaspace = true;
		return set_prefix(reader, type,
				  strcmp(scheme, "never") == 0   ? SK_PREFIX_NONE
				  : strcmp(scheme, "first") == 0 ? SK_PREFIX_FIRST
								 : SK_PREFIX_ALWAYS);
	}
	return unknown(reader, "pre-tokenizer", type);
}

/* --- Model
 * ----------------------------------------------------------------------------------------- */

/* Spells text back to bytes (byte-level), or marks back to spaces, in place. */
static bool to_bytes(const struct reader *reader, uint8_t *text, size_t *n_bytes)
{
	if (reader->tokenizer->vocab.is_byte_level)
		return sk_vocab_unspell(text, n_bytes);
	if (reader->is_metaspace)
		sk_vocab_unmark(text, n_bytes);
	return true;
}

static int set_token(struct reader *reader, const char *key, const json_t *value)
{
	struct sk_vocab *vocab = &reader->tokenizer->vocab;
	size_t n_bytes = strlen(key);
	sk_autofree uint8_t *bytes = (uint8_t *)strdup(key);

	if (!bytes)
		return -ENOMEM;
	if (!json_is_integer(value))
		return malformed(reader, "vocab", "an id is no whole number");
	/* What is not in the byte table stands for itself: an added token that is listed here too.
	 */
	if (!to_bytes(reader, bytes, &n_bytes)) {
		n_bytes = strlen(key);
		memcpy(bytes, key, n_bytes);
	}
	int byte = reader->has_byte_names ? sk_vocab_byte_name(key, n_bytes) : -1;
	if (byte >= 0) { /* not a character to merge, though it may look like one */
		bytes[0] = (uint8_t)byte;
		n_bytes = 1;
	}
	int err = sk_vocab_set(vocab, json_integer_value(value), bytes, n_bytes, byte < 0);
	if (!err && byte >= 0)
		vocab->byte_ids[byte] = (int32_t)json_integer_value(value);
	if (err == -ERANGE)
		return malformed(reader, "vocab", "an id is negative or beyond all reason");
	if (err == -EEXIST)
		return malformed(reader, "vocab", "an id is given twice");
	return err;
}

static int32_t find_spelt(const struct reader *reader, const char *text, size_t n_bytes)
{
	uint8_t bytes[1024];
	if (n_bytes > sizeof bytes)
		return -1;
	memcpy(bytes, text, n_bytes);
	if (!to_bytes(reader, bytes, &n_bytes))
		return -1;
	return sk_vocab_find(&reader->tokenizer->vocab, bytes, n_bytes);
}

static int add_merge(struct reader *reader, const json_t *merge, uint32_t rank)
{
	int32_t left, right;

	if (json_is_string(merge)) {
		const char *text = json_string_value(merge), *space = strchr(text, ' ');
		if (!space)
			return malformed(reader, "merges", "a merge is not two tokens");
		left = find_spelt(reader, text, (size_t)(space - text));
		right = find_spelt(reader, space + 1, strlen(space + 1));
	} else {
		const char *a = json_string_value(json_array_get(merge, 0)),
			   *b = json_string_value(json_array_get(merge, 1));
		if (!a || !b || json_array_size(merge) != 2)
			return malformed(reader, "merges", "a merge is not two tokens");
		left = find_spelt(reader, a, strlen(a));
		right = find_spelt(reader, b, strlen(b));
	}
	int err = sk_vocab_add_merge(&reader->tokenizer->vocab, left, right, rank);
	if (err == -EINVAL || err == -ENOENT)
		return sk_diag_fail(
			reader->diag, EINVAL,
			"%s: \"merges\": merge %u names a token that is not in the vocabulary",
			reader->name, rank);
	return err;
}

static void find_bytes(struct sk_vocab *vocab)
{
	for (uint32_t id = 0; id < vocab->n_tokens; id++) {
		const struct sk_vocab_token *token = &vocab->tokens[id];
		if (token->is_model && token->n_bytes == 1)
			vocab->byte_ids[vocab->bytes[token->at]] = (int32_t)id;
	}
}

static int read_model(struct reader *reader, const json_t *model)
{
	struct sk_vocab *vocab = &reader->tokenizer->vocab;
	const json_t *entries = json_object_get(model, "vocab"),
		     *merges = json_object_get(model, "merges");
	const char *type = string_at(model, "type"), *key;
	json_t *value;
	size_t i;
	int err;

	if (type[0] && strcmp(type, "BPE") != 0)
		return unknown(reader, "tokenizer model", type);
	if (!json_is_object(entries) || !json_object_size(entries))
		return malformed(reader, "vocab", "there is none");
	if (!json_is_array(merges))
		return malformed(reader, "merges", "there are none");
	if (string_at(model, "continuing_subword_prefix")[0] ||
	    string_at(model, "end_of_word_suffix")[0])
		return malformed(reader, "model",
				 "prefixes and suffixes of words are not supported");
	vocab->ignore_merges = is_set(model, "ignore_merges");
	vocab->fuse_unk = is_set(model, "fuse_unk");
	reader->has_byte_names = is_set(model, "byte_fallback");
	json_object_foreach ((json_t *)entries, key, value) {
		if ((err = set_token(reader, key, value)) < 0)
			return err;
	}
	if ((err = sk_vocab_index(vocab)) < 0)
		return err;
	json_array_foreach (merges, i, value) {
		if ((err = add_merge(reader, value, (uint32_t)i)) < 0)
			return err;
	}
	if (string_at(model, "unk_token")[0])
		vocab->unk_id = sk_vocab_find(vocab, string_at(model, "unk_token"),
					      strlen(string_at(model, "unk_token")));
	if (vocab->is_byte_level)
		find_bytes(vocab);
	return 0;
}

/* --- Added tokens, and the rest
 * -------------------------------------------------------------------- */

static int read_added(struct reader *reader, const json_t *list)
{
	struct sk_tokenizer *tokenizer = reader->tokenizer;
	size_t i;
	const json_t *node;

	if (list && !json_is_null(list) && !json_is_array(list))
		return malformed(reader, "added_tokens", "not a list");
	json_array_foreach (list, i, node) {
		const json_t *content = json_object_get(node, "content"),
			     *id = json_object_get(node, "id");
		if (!json_is_string(content) || !json_is_integer(id))
			return malformed(reader, "added_tokens",
					 "an entry has no content or no id");
		struct sk_added_token token = {
			.content = json_string_value(content),
			.n_bytes = (uint32_t)json_string_length(content),
			.is_special = is_set(node, "special"),
			.is_normalized = is_set(node, "normalized"),
			.strips_left = is_set(node, "lstrip"),
			.strips_right = is_set(node, "rstrip"),
			.is_single_word = is_set(node, "single_word"),
		};
		json_int_t wanted = json_integer_value(id);
		for (uint32_t k = 0; k < tokenizer->added.n_tokens; k++) {
			if (tokenizer->added.tokens[k].id == wanted)
				return malformed(reader, "added_tokens", "an id is given twice");
		}
		int err = sk_vocab_set(&tokenizer->vocab, wanted, token.content, token.n_bytes,
				       false);
		if (err == -ERANGE)
			return malformed(reader, "added_tokens",
					 "an id is negative or beyond all reason");
		token.id = (int32_t)wanted;
		if (!err)
			err = sk_added_tokens_add(&tokenizer->added, &token);
		if (err < 0)
			return err;
		tokenizer->vocab.tokens[wanted].is_special = token.is_special;
	}
	return 0;
}

/* A template that begins with a special token before the text: BOS. */
static void read_post_processor(struct reader *reader, const json_t *node)
{
	struct sk_tokenizer *tokenizer = reader->tokenizer;
	const char *type = string_at(node, "type");

	if (strcmp(type, "Sequence") == 0) {
		size_t i;
		const json_t *step;
		json_array_foreach (json_object_get(node, "processors"), i, step)
			read_post_processor(reader, step);
		return;
	}
	if (strcmp(type, "TemplateProcessing") != 0)
		return;
	const json_t *first = json_array_get(json_object_get(node, "single"), 0);
	const char *name = string_at(json_object_get(first, "SpecialToken"), "id");
	if (!name[0])
		return;
	for (uint32_t i = 0; i < tokenizer->added.n_tokens; i++) {
		if (strcmp(tokenizer->added.tokens[i].content, name) == 0) {
			tokenizer->bos = tokenizer->added.tokens[i].id;
			tokenizer->begins_with_bos = true;
		}
	}
}

int sk_tokenizer_fill_json(struct sk_tokenizer *tokenizer, const char *text, size_t n_bytes,
			   const char *name, struct sk_diag *diag)
{
	struct reader reader = {.tokenizer = tokenizer, .name = name, .diag = diag};
	json_error_t error;
	json_t *root = json_loadb(text, n_bytes, 0, &error);
	if (!root)
		return sk_diag_fail(diag, EINVAL, "%s: no JSON: %s in line %d", name, error.text,
				    error.line);

	int err = json_is_object(root) ? 0 : malformed(&reader, "", "not an object");
	if (!err)
		err = read_normalizer(&reader, json_object_get(root, "normalizer"));
	if (!err)
		err = read_pretokenizer(&reader, json_object_get(root, "pre_tokenizer"));
	if (!err)
		err = read_model(&reader, json_object_get(root, "model"));
	if (!err)
		err = read_added(&reader, json_object_get(root, "added_tokens"));
	if (!err)
		read_post_processor(&reader, json_object_get(root, "post_processor"));
	json_decref(root);
	if (err == -ENOMEM)
		return sk_diag_fail(diag, ENOMEM, "%s: not enough memory", name);
	return err;
}

/* --- tokenizer_config.json
 * ------------------------------------------------------------------------- */

/* A token's name is a string, or an object with the string as its content. */
static int32_t named_token(const struct sk_tokenizer *tokenizer, const json_t *config,
			   const char *key)
{
	const json_t *value = json_object_get(config, key);
	const char *name =
		json_is_object(value) ? string_at(value, "content") : json_string_value(value);
	return name && name[0] ? sk_tokenizer_find(tokenizer, name) : -1;
}

int sk_tokenizer_read_directory(struct sk_tokenizer *tokenizer, const char *directory,
				struct sk_diag *diag)
{
	sk_autofree char *path = NULL;
	json_error_t error;

	if (asprintf(&path, "%s/tokenizer_config.json", directory) < 0) {
		path = NULL;
		return sk_diag_fail(diag, ENOMEM, "%s: not enough memory", directory);
	}
	if (access(path, F_OK) != 0)
		return 0; /* config.json knows BOS and EOS too */
	json_t *config = json_load_file(path, 0, &error);
	if (!config)
		return sk_diag_fail(diag, EINVAL, "%s: no JSON: %s in line %d", path, error.text,
				    error.line);
	if (tokenizer->bos < 0)
		tokenizer->bos = named_token(tokenizer, config, "bos_token");
	tokenizer->eos = named_token(tokenizer, config, "eos_token");
	const char *chat = json_string_value(json_object_get(config, "chat_template"));
	int err = 0;
	if (chat && !(tokenizer->chat_template = strdup(chat)))
		err = sk_diag_fail(diag, ENOMEM, "%s: not enough memory", path);
	json_decref(config);
	return err;
}
