#include "base/diag.h"

#include <stdarg.h>
#include <stdio.h>

int sk_diag_fail(struct sk_diag *diag, int error, const char *format, ...)
{
	if (diag) {
		va_list args;
		va_start(args, format);
		vsnprintf(diag->text, sizeof diag->text, format, args);
		va_end(args);
	}
	return -error;
}
