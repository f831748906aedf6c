/* A JSON value on standard output, with a newline. */
#pragma once

#include <jansson.h>

/* Takes `value` over, which may be NULL for want of memory. flags: jansson's. 0, or the exit code of what has been said. */
int sk_json_print(json_t *value, size_t flags);
