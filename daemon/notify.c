#include "daemon/notify.h"

#include <stdarg.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>

void sk_notify(const char *format, ...)
{
	char state[512];
	va_list args;
	va_start(args, format);
	vsnprintf(state, sizeof state, format, args);
	va_end(args);
	(void)sd_notify(0, state);
}
