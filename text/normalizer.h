/* Unicode normalisation of text that may hold anything: valid UTF-8 is normalised, other bytes
 * stay. */
#pragma once

#include "text/cancel.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sk_normalizer {
	enum { SK_NORMALIZE_NONE, SK_NFC, SK_NFD, SK_NFKC, SK_NFKD } form;
	bool prepends_space; /* before every text, also where added tokens divide it */
};

struct sk_bytes {
	uint8_t *bytes;
	size_t n_bytes, n_allocated;
};
int sk_bytes_append(struct sk_bytes *bytes, const void *from, size_t n); /* 0 or -ENOMEM */
void sk_bytes_finish(struct sk_bytes *bytes);

/* The length of the valid UTF-8 character at text, or 0. */
size_t sk_utf8_length(const uint8_t *text, size_t n_bytes);

/* Whether normalising leaves every text as it is (quickly told ones included): then out is not
 * touched. */
bool sk_normalizer_changes(const struct sk_normalizer *normalizer, const uint8_t *text,
			   size_t n_bytes);
/* Appends the normalised text to *out. 0, -ENOMEM or -ECANCELED. (After some thousand bytes of combining marks without
 * a letter, those that follow are not brought into one order with them: they would take the square of their number.) */
int sk_normalizer_apply(const struct sk_normalizer *normalizer, const uint8_t *text, size_t n_bytes,
			const atomic_bool *is_cancelled, struct sk_bytes *out);
