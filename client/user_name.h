/* Users by name, for people. */
#pragma once

#include <stdint.h>

/* The name of that user as the system knows it, else the number; valid until the next call. Remembers some, since the
 * system may ask afar. */
const char *sk_user_name(uint32_t uid);
