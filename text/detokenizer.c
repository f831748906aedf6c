#include "text/detokenizer.h"

#include <string.h>

static const uint8_t replacement[] = {0xef, 0xbf, 0xbd}; /* U+FFFD */

void sk_detokenizer_init(struct sk_detokenizer *detokenizer, const struct sk_tokenizer *tokenizer,
			 bool show_special)
{
	*detokenizer =
		(struct sk_detokenizer){.tokenizer = tokenizer, .show_special = show_special};
}

/* Bytes of the character that begins with `lead`; 0 for what begins none. */
static uint8_t character_bytes(uint8_t lead)
{
	if (lead < 0x80)
		return 1;
	if (lead >= 0xc2 && lead <= 0xdf)
		return 2;
	if (lead >= 0xe0 && lead <= 0xef)
		return 3;
	if (lead >= 0xf0 && lead <= 0xf4)
		return 4;
	return 0;
}

/* Whether `byte` carries on the character whose first n bytes are here. */
static bool goes_on(const uint8_t *begun, uint8_t n, uint8_t byte)
{
	uint8_t low = 0x80, high = 0xbf;

	/* The second byte's range is narrower after some leads: no overlong forms, no surrogates,
	 * nothing past U+10FFFF. */
	if (n == 1 && begun[0] == 0xe0)
		low = 0xa0;
	else if (n == 1 && begun[0] == 0xed)
		high = 0x9f;
	else if (n == 1 && begun[0] == 0xf0)
		low = 0x90;
	else if (n == 1 && begun[0] == 0xf4)
		high = 0x8f;
	return byte >= low && byte <= high;
}

struct output {
	uint8_t *bytes;
	size_t n_bytes;
	bool is_full;
};

/* A whole character, or not at all. */
static void put(struct output *out, const uint8_t *bytes, size_t n)
{
	out->is_full |= n > SK_DETOKENIZER_MOST - out->n_bytes;
	if (out->is_full)
		return;
	memcpy(out->bytes + out->n_bytes, bytes, n);
	out->n_bytes += n;
}

static void push_byte(struct sk_detokenizer *detokenizer, uint8_t byte, struct output *out)
{
	uint8_t *waiting = detokenizer->waiting;

	/* What it ends before it was whole is one U+FFFD, however many bytes it had; the byte itself
	 * may begin something. */
	if (detokenizer->n_waiting && !goes_on(waiting, detokenizer->n_waiting, byte)) {
		put(out, replacement, sizeof replacement);
		detokenizer->n_waiting = 0;
	}
	waiting[detokenizer->n_waiting++] = byte;
	uint8_t n = character_bytes(waiting[0]);
	if (n == 0)
		put(out, replacement, sizeof replacement);
	else if (n == detokenizer->n_waiting)
		put(out, waiting, n);
	else
		return;
	detokenizer->n_waiting = 0;
}

size_t sk_detokenizer_push(struct sk_detokenizer *detokenizer, int32_t id, uint8_t *out)
{
	struct output output = {.bytes = out};
	size_t n_bytes;
	const uint8_t *bytes = sk_tokenizer_bytes(detokenizer->tokenizer, id, &n_bytes);

	if (!detokenizer->show_special && sk_tokenizer_is_special(detokenizer->tokenizer, id))
		return 0;
	for (size_t i = 0; i < n_bytes && !output.is_full; i++)
		push_byte(detokenizer, bytes[i], &output);
	if (output.is_full)
		detokenizer->n_waiting = 0;
	return output.n_bytes;
}

size_t sk_detokenizer_flush(struct sk_detokenizer *detokenizer, uint8_t *out)
{
	struct output output = {.bytes = out};

	if (detokenizer->n_waiting)
		put(&output, replacement, sizeof replacement);
	detokenizer->n_waiting = 0;
	return output.n_bytes;
}
