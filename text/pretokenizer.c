#include "text/pretokenizer.h"

#include <errno.h>

const char sk_pattern_gpt2[] =
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char sk_pattern_llama3[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
				 "{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
				 "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char sk_pattern_qwen2[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
				" ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
				"\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

void sk_pretokenizer_finish(struct sk_pretokenizer *pretokenizer)
{
	for (unsigned i = 0; i < pretokenizer->n_steps; i++)
		pcre2_code_free(pretokenizer->steps[i].code);
	*pretokenizer = (struct sk_pretokenizer){0};
}

int sk_pretokenizer_add(struct sk_pretokenizer *pretokenizer, const char *pattern,
			enum sk_split_behavior behavior, bool is_inverted, struct sk_diag *diag)
{
	int error;
	PCRE2_SIZE offset;

	if (pretokenizer->n_steps == SK_PRETOKENIZER_MOST_STEPS)
		return sk_diag_fail(diag, E2BIG, "the pre-tokenizer has more than %d steps",
				    SK_PRETOKENIZER_MOST_STEPS);
	pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
					 PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error,
					 &offset, NULL); /* \C would cut characters */
	if (!code) {
		PCRE2_UCHAR words[128] = "";
		pcre2_get_error_message(error, words, sizeof words);
		return sk_diag_fail(
			diag, EINVAL,
			"the pre-tokenizer's pattern is no regular expression: %s at character %zu",
			(char *)words, (size_t)offset);
	}
	(void)pcre2_jit_compile(
		code, PCRE2_JIT_COMPLETE); /* where there is no JIT, the interpreter serves */
	pretokenizer->steps[pretokenizer->n_steps++] =
		(struct sk_pretokenizer_step){code, behavior, is_inverted};
	return 0;
}

int sk_pretokenizer_scratch_init(struct sk_pretokenizer_scratch *scratch,
				 const struct sk_pretokenizer *pretokenizer)
{
	*scratch = (struct sk_pretokenizer_scratch){0};
	scratch->context = pcre2_match_context_create(NULL);
	scratch->stack = pcre2_jit_stack_create(32 << 10, 4 << 20, NULL);
	bool whole = scratch->context && scratch->stack;
	for (unsigned i = 0; i < pretokenizer->n_steps; i++) {
		scratch->match[i] =
			pcre2_match_data_create_from_pattern(pretokenizer->steps[i].code, NULL);
		whole &= scratch->match[i] != NULL;
	}
	if (!whole) {
		sk_pretokenizer_scratch_finish(scratch);
		return -ENOMEM;
	}
	pcre2_jit_stack_assign(scratch->context, NULL, scratch->stack);
	return 0;
}

void sk_pretokenizer_scratch_finish(struct sk_pretokenizer_scratch *scratch)
{
	for (unsigned i = 0; i < SK_PRETOKENIZER_MOST_STEPS; i++)
		pcre2_match_data_free(scratch->match[i]);
	pcre2_match_context_free(scratch->context);
	pcre2_jit_stack_free(scratch->stack);
	*scratch = (struct sk_pretokenizer_scratch){0};
}

/* --- Splitting
 * ------------------------------------------------------------------------------------- */

struct splitter {
	const struct sk_pretokenizer *pretokenizer;
	struct sk_pretokenizer_scratch *scratch;
	sk_piece *piece;
	void *context;
};

static int split_from(struct splitter *splitter, unsigned step, const uint8_t *text,
		      size_t n_bytes);

static size_t next_character(const uint8_t *text, size_t n_bytes, size_t at)
{
	at++;
	while (at < n_bytes && (text[at] & 0xc0) == 0x80)
		at++;
	return at;
}

/* The next match at or after `at` that is not empty. A pattern that gives up (its limits, memory)
 * has no more. */
static bool next_match(struct splitter *splitter, unsigned step, const uint8_t *text,
		       size_t n_bytes, size_t at, size_t *ret_begin, size_t *ret_end)
{
	pcre2_match_data *match = splitter->scratch->match[step];
	const pcre2_code *code = splitter->pretokenizer->steps[step].code;

	while (at < n_bytes && !sk_is_cancelled(splitter->scratch->is_cancelled)) {
		int n = pcre2_match(code, text, n_bytes, at, PCRE2_NO_UTF_CHECK, match,
				    splitter->scratch->context);
		if (n == PCRE2_ERROR_JIT_STACKLIMIT)
			n = pcre2_match(code, text, n_bytes, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
					match, splitter->scratch->context);
		if (n < 0)
			return false;
		const PCRE2_SIZE *range = pcre2_get_ovector_pointer(match);
		if (range[1] > range[0]) {
			*ret_begin = range[0];
			*ret_end = range[1];
			return true;
		}
		at = next_character(text, n_bytes, range[0] > at ? range[0] : at);
	}
	return false;
}

/* Puts the stretches of a step (matches and what lies between them) together as its behaviour says.
 */
struct stretches {
	struct splitter *splitter;
	unsigned step;
	const uint8_t *text;
	size_t open, end; /* a piece that is not handed on yet: [open, end) */
	bool open_is_match;
};

static int hand_on(struct stretches *s)
{
	size_t begin = s->open;
	s->open = s->end;
	return s->end > begin
		       ? split_from(s->splitter, s->step + 1, s->text + begin, s->end - begin)
		       : 0;
}

static int add_stretch(struct stretches *s, size_t begin, size_t end, bool is_match)
{
	int err = 0;
	if (begin == end)
		return 0;
	bool had_match = s->open_is_match && s->end > s->open;

	switch (s->splitter->pretokenizer->steps[s->step].behavior) {
	case SK_SPLIT_ISOLATED:
	case SK_SPLIT_REMOVED:
		err = hand_on(s);
		break;
	case SK_SPLIT_MERGED_WITH_PREVIOUS:
		if (!is_match || had_match)
			err = hand_on(s);
		break;
	case SK_SPLIT_MERGED_WITH_NEXT:
		if (is_match || !had_match)
			err = hand_on(s);
		break;
	case SK_SPLIT_CONTIGUOUS:
		if (is_match != s->open_is_match)
			err = hand_on(s);
		break;
	}
	s->end = end;
	s->open_is_match = is_match;
	if (is_match && s->splitter->pretokenizer->steps[s->step].behavior == SK_SPLIT_REMOVED)
		s->open = s->end;
	return err;
}

static int split_from(struct splitter *splitter, unsigned step, const uint8_t *text, size_t n_bytes)
{
	if (step == splitter->pretokenizer->n_steps)
		return splitter->piece(splitter->context, text, n_bytes);

	struct stretches stretches = {.splitter = splitter, .step = step, .text = text};
	bool is_inverted = splitter->pretokenizer->steps[step].is_inverted;
	size_t at = 0, begin, end;
	int err = 0;
	while (!err && next_match(splitter, step, text, n_bytes, at, &begin, &end)) {
		err = add_stretch(&stretches, at, begin, is_inverted);
		if (!err)
			err = add_stretch(&stretches, begin, end, !is_inverted);
		at = end;
	}
	if (!err)
		err = add_stretch(&stretches, at, n_bytes, is_inverted);
	return err ? err : hand_on(&stretches);
}

int sk_pretokenizer_split(const struct sk_pretokenizer *pretokenizer,
			  struct sk_pretokenizer_scratch *scratch, const uint8_t *text,
			  size_t n_bytes, sk_piece *piece, void *context)
{
	struct splitter splitter = {pretokenizer, scratch, piece, context};
	return n_bytes ? split_from(&splitter, 0, text, n_bytes) : 0;
}
