#include "text/detokenizer.h"

#include <string.h>

void sk_detokenizer_init(struct sk_detokenizer *detokenizer, const struct sk_tokenizer *tokenizer,
			 bool show_special)
{
	*detokenizer =
		(struct sk_detokenizer){.tokenizer = tokenizer, .show_special = show_special};
}

/* Bytes that a sequence beginning with `lead` has; 1 for what begins none. */
static size_t sequence_bytes(uint8_t lead)
{
	if (lead >= 0xc2 && lead <= 0xdf)
		return 2;
	if (lead >= 0xe0 && lead <= 0xef)
		return 3;
	if (lead >= 0xf0 && lead <= 0xf4)
		return 4;
	return 1;
}

/* Bytes at the end of text that begin a sequence which more bytes could make whole. */
static size_t open_bytes(const uint8_t *text, size_t n_bytes)
{
	for (size_t n = 1; n <= 3 && n <= n_bytes; n++) {
		uint8_t byte = text[n_bytes - n];
		if ((byte & 0xc0) == 0x80)
			continue;
		if (n >= sequence_bytes(byte))
			return 0;
		if (n >= 2) {
			/* The second byte's range is narrower after some leads (no overlong forms,
			 * surrogates, ...). */
			uint8_t second = text[n_bytes - n + 1];
			if ((byte == 0xe0 && second < 0xa0) || (byte == 0xed && second > 0x9f) ||
			    (byte == 0xf0 && second < 0x90) || (byte == 0xf4 && second > 0x8f))
				return 0;
		}
		return n;
	}
	return 0;
}

size_t sk_detokenizer_push(struct sk_detokenizer *detokenizer, int32_t id, uint8_t *out)
{
	size_t n_token, n = detokenizer->n_waiting;
	const uint8_t *bytes = sk_tokenizer_bytes(detokenizer->tokenizer, id, &n_token);

	if (!detokenizer->show_special && sk_tokenizer_is_special(detokenizer->tokenizer, id))
		return 0;
	memcpy(out, detokenizer->waiting, n);
	if (n_token > SK_DETOKENIZER_MOST - n) {
		n_token = SK_DETOKENIZER_MOST - n;
		n_token -= open_bytes(bytes, n_token);
	}
	if (n_token)
		memcpy(out + n, bytes, n_token);
	n += n_token;
	detokenizer->n_waiting = (uint8_t)open_bytes(out, n);
	n -= detokenizer->n_waiting;
	memcpy(detokenizer->waiting, out + n, detokenizer->n_waiting);
	return n;
}

size_t sk_detokenizer_flush(struct sk_detokenizer *detokenizer, uint8_t *out)
{
	size_t n = detokenizer->n_waiting;
	memcpy(out, detokenizer->waiting, n);
	detokenizer->n_waiting = 0;
	return n;
}
