#include "text/normalizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

int sk_bytes_append(struct sk_bytes *bytes, const void *from, size_t n)
{
	if (bytes->n_bytes + n > bytes->n_allocated) {
		size_t wanted = 2 * (bytes->n_bytes + n) + 256;
		uint8_t *grown = realloc(bytes->bytes, wanted);
		if (!grown)
			return -ENOMEM;
		bytes->bytes = grown;
		bytes->n_allocated = wanted;
	}
	if (n)
		memcpy(bytes->bytes + bytes->n_bytes, from, n);
	bytes->n_bytes += n;
	return 0;
}

void sk_bytes_finish(struct sk_bytes *bytes)
{
	free(bytes->bytes);
	*bytes = (struct sk_bytes){0};
}

size_t sk_utf8_length(const uint8_t *text, size_t n_bytes)
{
	utf8proc_int32_t character;
	if (n_bytes && text[0] < 0x80)
		return 1;
	utf8proc_ssize_t n =
		utf8proc_iterate(text, (utf8proc_ssize_t)(n_bytes < 4 ? n_bytes : 4), &character);
	return n > 0 ? (size_t)n : 0;
}

/* Below U+0300 NFC changes nothing; the other forms leave only ASCII alone. Told by the first byte.
 */
static uint8_t first_unsafe(const struct sk_normalizer *normalizer)
{
	return normalizer->form == SK_NFC ? 0xcc : 0x80;
}

bool sk_normalizer_changes(const struct sk_normalizer *normalizer, const uint8_t *text,
			   size_t n_bytes)
{
	if (normalizer->prepends_space)
		return true;
	if (normalizer->form == SK_NORMALIZE_NONE)
		return false;
	uint8_t unsafe = first_unsafe(normalizer);
	for (size_t i = 0; i < n_bytes; i++) {
		if (text[i] >= unsafe)
			return true;
	}
	return false;
}

static int append_normal(const struct sk_normalizer *normalizer, const uint8_t *text,
			 size_t n_bytes, struct sk_bytes *out)
{
	static const utf8proc_option_t forms[] = {
		[SK_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
		[SK_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
		[SK_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
		[SK_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
	};
	utf8proc_uint8_t *normal = NULL;
	utf8proc_ssize_t n =
		utf8proc_map(text, (utf8proc_ssize_t)n_bytes, &normal, forms[normalizer->form]);
	int err = n < 0 ? -ENOMEM : sk_bytes_append(out, normal, (size_t)n);
	free(normal);
	return err;
}

/* Whether nothing that stands before this character ever joins with it. What does is a mark, a vowel or final of
 * Hangul, or (since Unicode 16) a vowel of Kirat Rai, or decomposes into one. */
static bool stands_apart(utf8proc_int32_t character)
{
	utf8proc_int32_t parts[32];
	int bound_class = 0;
	utf8proc_ssize_t n = utf8proc_decompose_char(
		character, parts, 32, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT, &bound_class);
	utf8proc_int32_t c = n > 0 ? parts[0] : character;
	switch (utf8proc_category(c)) {
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME:
		return false;
	default:
		return !(c >= 0x1160 && c <= 0x11ff) && !(c >= 0x16d63 && c <= 0x16d6a);
	}
}

#define STRETCH_BYTES 1024 /* then it ends where it can */
#define STRETCH_MOST_BYTES                                                                         \
	4096 /* and then anywhere: sorting marks takes the square of their number */

/* The end of a stretch that is normalised as one: valid UTF-8 up to the next ASCII character, which
 * never joins with what stands before it, or another such. So memory stays small however long the
 * text is, and it can be cancelled. */
static size_t stretch_end(const uint8_t *text, size_t n_bytes, size_t begin)
{
	size_t at = begin + sk_utf8_length(text + begin, n_bytes - begin);
	while (at < n_bytes && text[at] >= 0x80 && at - begin < STRETCH_MOST_BYTES) {
		utf8proc_int32_t character;
		utf8proc_ssize_t n =
			utf8proc_iterate(text + at, (utf8proc_ssize_t)(n_bytes - at), &character);
		if (n <= 0 || (at - begin >= STRETCH_BYTES && stands_apart(character)))
			break;
		at += (size_t)n;
	}
	return at;
}

static int append_form(const struct sk_normalizer *normalizer, const uint8_t *text, size_t n_bytes,
		       const atomic_bool *is_cancelled, struct sk_bytes *out)
{
	uint8_t unsafe = first_unsafe(normalizer);
	size_t done = 0;
	int err = 0;

	if (normalizer->form == SK_NORMALIZE_NONE)
		return sk_bytes_append(out, text, n_bytes);
	for (size_t at = 0; at < n_bytes && !err;) {
		if (sk_is_cancelled(is_cancelled))
			return -ECANCELED;
		size_t n = sk_utf8_length(text + at, n_bytes - at);
		size_t next = at + (n ? n : 1);
		bool joins = next < n_bytes && text[next] >= unsafe &&
			     sk_utf8_length(text + next, n_bytes - next);
		if (!n || (text[at] < unsafe && !joins)) {
			at = next;
			continue;
		}
		err = sk_bytes_append(out, text + done, at - done);
		done = stretch_end(text, n_bytes, at);
		if (!err)
			err = append_normal(normalizer, text + at, done - at, out);
		at = done;
	}
	return err ? err : sk_bytes_append(out, text + done, n_bytes - done);
}

int sk_normalizer_apply(const struct sk_normalizer *normalizer, const uint8_t *text, size_t n_bytes,
			const atomic_bool *is_cancelled, struct sk_bytes *out)
{
	int err = normalizer->prepends_space ? sk_bytes_append(out, " ", 1) : 0;
	return err ? err : append_form(normalizer, text, n_bytes, is_cancelled, out);
}
