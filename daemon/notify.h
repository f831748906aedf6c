/* What the service manager is told (sd_notify). Nothing happens where there is none. */
#pragma once

void sk_notify(const char *format, ...) __attribute__((format(printf, 1, 2)));
