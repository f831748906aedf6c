#include "client/json_out.h"

#include "client/command.h"

#include <stdlib.h>
#include <string.h>

int sk_json_print(json_t *value, size_t flags)
{
	char *text = value ? json_dumps(value, flags) : NULL;
	json_decref(value);
	if (!text)
		return sk_said(EX_OSERR, "not enough memory");
	size_t n = strlen(text);
	text[n] = '\n'; /* one write, so that lines of several programs do not mix */
	int err = sk_write_out(text, n + 1);
	free(text);
	return err;
}
