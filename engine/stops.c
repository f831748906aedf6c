#include "engine/stops.h"

#include <string.h>

void sk_stops_init(struct sk_stops *stops, const struct sk_stop *list, uint32_t n_stops)
{
	*stops = (struct sk_stops){.stops = list, .n_stops = n_stops};
}

/* Bytes at the end of text that begin `stop` without finishing it. */
static size_t open_end(const struct sk_stop *stop, const uint8_t *text, size_t n_bytes)
{
	size_t n = stop->n_bytes - 1 < n_bytes ? stop->n_bytes - 1 : n_bytes;
	while (n && memcmp(text + n_bytes - n, stop->bytes, n) != 0)
		n--;
	return n;
}

size_t sk_stops_push(struct sk_stops *stops, const uint8_t *text, size_t n_bytes, uint8_t *out,
		     int *ret_matched)
{
	memcpy(out, stops->held, stops->n_held);
	memcpy(out + stops->n_held, text, n_bytes);
	size_t n = stops->n_held + n_bytes, n_open = 0;
	const uint8_t *earliest = NULL;

	*ret_matched = -1;
	stops->n_held = 0;
	for (uint32_t i = 0; i < stops->n_stops; i++) {
		const struct sk_stop *stop = &stops->stops[i];
		const uint8_t *found = memmem(out, n, stop->bytes, stop->n_bytes);
		if (found && (!earliest || found < earliest)) {
			earliest = found;
			*ret_matched = (int)i;
		}
		size_t open = open_end(stop, out, n);
		n_open = open > n_open ? open : n_open;
	}
	if (earliest)
		return (size_t)(earliest - out);
	memcpy(stops->held, out + n - n_open, n_open);
	stops->n_held = (uint32_t)n_open;
	return n - n_open;
}

size_t sk_stops_flush(struct sk_stops *stops, uint8_t *out)
{
	size_t n = stops->n_held;
	memcpy(out, stops->held, n);
	stops->n_held = 0;
	return n;
}
