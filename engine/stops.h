/* Stop strings in a stream of text: what could be the beginning of one is held back until it is
 * clear that it is not. A stop string itself is never delivered. A value to embed.
 */
#pragma once

#include "engine/request.h"
#include "text/detokenizer.h"

#define SK_STOPS_MOST_OUT (SK_DETOKENIZER_MOST + SK_STOP_MOST_BYTES)

struct sk_stops {
	const struct sk_stop *stops;
	uint32_t n_stops;
	uint32_t n_held;
	uint8_t held[SK_STOP_MOST_BYTES];
};

void sk_stops_init(struct sk_stops *stops, const struct sk_stop *list, uint32_t n_stops);

/* Adds text (at most SK_DETOKENIZER_MOST bytes) and writes what may be delivered to
 * out[SK_STOPS_MOST_OUT]; returns how many bytes. *ret_matched: which stop string has come, or -1;
 * after one, nothing more may be pushed. */
size_t sk_stops_push(struct sk_stops *stops, const uint8_t *text, size_t n_bytes, uint8_t *out,
		     int *ret_matched);
/* The stream has ended without a match: what was held. */
size_t sk_stops_flush(struct sk_stops *stops, uint8_t *out);
