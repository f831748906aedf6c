/* Words of a file made fit for a sentence on a terminal: a copy with bytes outside printable ASCII
 * as '?', cut to the buffer. sk_printable() is used as an argument of one sentence.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct sk_printable {
	char text[96];
};

static inline const char *sk_printable(struct sk_printable *out, const char *text, size_t n_bytes)
{
	size_t n = n_bytes < sizeof out->text - 1 ? n_bytes : sizeof out->text - 1;
	for (size_t i = 0; i < n; i++)
		out->text[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
	out->text[n] = '\0';
	return out->text;
}

/* Tensor names are ASCII in every model; anything else is refused, so that names can be printed. */
enum { SK_NAME_MAX_BYTES = 255 };

static inline bool sk_name_is_good(const char *text, size_t n_bytes)
{
	for (size_t i = 0; i < n_bytes; i++) {
		if (text[i] < ' ' || text[i] > '~')
			return false;
	}
	return n_bytes > 0 && n_bytes <= SK_NAME_MAX_BYTES;
}
