/* Durations as people write and read them. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SK_DURATION_MOST_NS (UINT64_C(36500) * 86400 * 1000000000) /* a hundred years */

/* "90s", "10m", "2h", "7d", "250ms", "1.5h"; a number alone is seconds. False where it is none of these, or longer than
 * the most. */
bool sk_duration_parse(const char *text, uint64_t *ret_ns);

#define SK_DURATION_BYTES 16
/* Short, for tables: "0.3s", "42s", "12m", "5h", "7d"; rounded down. Returns `ret_text`. */
const char *sk_duration_print(uint64_t ns, char ret_text[SK_DURATION_BYTES]);
