#include "text/added_tokens.h"

#include "text/normalizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void sk_added_tokens_finish(struct sk_added_tokens *added)
{
	for (uint32_t i = 0; i < added->n_tokens; i++)
		free((char *)added->tokens[i].content);
	free(added->tokens);
	*added = (struct sk_added_tokens){0};
}

int sk_added_tokens_add(struct sk_added_tokens *added, const struct sk_added_token *token)
{
	if (!token->n_bytes)
		return 0;
	if (added->n_tokens == added->n_allocated) {
		uint32_t n = 2 * added->n_allocated + 64;
		struct sk_added_token *grown = realloc(added->tokens, n * sizeof *grown);
		if (!grown)
			return -ENOMEM;
		added->tokens = grown;
		added->n_allocated = n;
	}
	char *content = malloc(token->n_bytes + 1);
	if (!content)
		return -ENOMEM;
	memcpy(content, token->content, token->n_bytes);
	content[token->n_bytes] = '\0';
	added->tokens[added->n_tokens] = *token;
	added->tokens[added->n_tokens++].content = content;
	return 0;
}

static int by_byte_then_longest(const void *pa, const void *pb)
{
	const struct sk_added_token *a = pa, *b = pb;
	uint8_t x = (uint8_t)a->content[0], y = (uint8_t)b->content[0];
	if (x != y)
		return x < y ? -1 : 1;
	if (a->n_bytes != b->n_bytes)
		return a->n_bytes > b->n_bytes ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

void sk_added_tokens_index(struct sk_added_tokens *added)
{
	if (added->n_tokens)
		qsort(added->tokens, added->n_tokens, sizeof *added->tokens, by_byte_then_longest);
	memset(added->begins, 0, sizeof added->begins);
	for (uint32_t i = 0; i < added->n_tokens; i++)
		added->begins[(uint8_t)added->tokens[i].content[0] + 1]++;
	for (int b = 0; b < 256; b++)
		added->begins[b + 1] += added->begins[b];
}

static bool is_space(utf8proc_int32_t c)
{
	if ((c >= 9 && c <= 13) || c == 0x85)
		return true;
	utf8proc_category_t category = utf8proc_category(c);
	return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
	       category == UTF8PROC_CATEGORY_ZP;
}

/* Letters, marks, digits, connectors, the joiners, and the circled letters. */
static bool is_word(utf8proc_int32_t c)
{
	if (c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9))
		return true;
	switch (utf8proc_category(c)) {
	case UTF8PROC_CATEGORY_LU:
	case UTF8PROC_CATEGORY_LL:
	case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_LO:
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME:
	case UTF8PROC_CATEGORY_ND:
	case UTF8PROC_CATEGORY_NL:
	case UTF8PROC_CATEGORY_PC:
		return true;
	default:
		return false;
	}
}

/* The character that begins at `at`, or that ends there; 0 and length 0 where there is none. */
static size_t character_at(const uint8_t *text, size_t n_bytes, size_t at,
			   utf8proc_int32_t *ret_character)
{
	*ret_character = 0;
	utf8proc_ssize_t n =
		utf8proc_iterate(text + at, (utf8proc_ssize_t)(n_bytes - at), ret_character);
	return at < n_bytes && n > 0 ? (size_t)n : 0;
}

static size_t character_before(const uint8_t *text, size_t at, utf8proc_int32_t *ret_character)
{
	for (size_t n = 1; n <= 4 && n <= at; n++) {
		if (character_at(text, at, at - n, ret_character) == n)
			return n;
	}
	*ret_character = 0;
	return 0;
}

static bool matches(const struct sk_added_token *token, const uint8_t *text, size_t n_bytes,
		    size_t at)
{
	return token->n_bytes <= n_bytes - at &&
	       memcmp(text + at, token->content, token->n_bytes) == 0;
}

static bool stands_alone(const uint8_t *text, size_t n_bytes, size_t begin, size_t end)
{
	utf8proc_int32_t before, after;
	bool has_before = character_before(text, begin, &before),
	     has_after = character_at(text, n_bytes, end, &after);
	return !(has_before && is_word(before)) && !(has_after && is_word(after));
}

bool sk_added_tokens_find(const struct sk_added_tokens *added, const uint8_t *text, size_t n_bytes,
			  size_t at, bool normalized, bool plain, const atomic_bool *is_cancelled,
			  struct sk_added_match *ret_match)
{
	if (!added->n_tokens)
		return false;
	for (size_t i = at; i < n_bytes && !sk_is_cancelled(is_cancelled); i++) {
		const struct sk_added_token *found = NULL;
		for (uint32_t k = added->begins[text[i]]; k < added->begins[text[i] + 1] && !found;
		     k++) {
			const struct sk_added_token *token = &added->tokens[k];
			if (token->is_normalized == normalized && !(plain && token->is_special) &&
			    matches(token, text, n_bytes, i))
				found = token;
		}
		if (!found)
			continue;
		size_t begin = i, end = i + found->n_bytes, n;
		if (found->is_single_word && !stands_alone(text, n_bytes, begin, end)) {
			i = end - 1; /* the whole match is passed over */
			continue;
		}
		/* White space may be most of the text. */
		utf8proc_int32_t c;
		while (found->strips_left && begin > at && !sk_is_cancelled(is_cancelled) &&
		       (n = character_before(text, begin, &c)) && is_space(c) && begin - n >= at)
			begin -= n;
		while (found->strips_right && !sk_is_cancelled(is_cancelled) &&
		       (n = character_at(text, n_bytes, end, &c)) && is_space(c))
			end += n;
		*ret_match = (struct sk_added_match){.begin = begin, .end = end, .id = found->id};
		return true;
	}
	return false;
}
