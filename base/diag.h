/* One sentence for the user, filled by whoever finds the fault (a loader, a validation) and shown
 * by whoever talks to the user (daemon/, client/). The rooms between pass it on and add nothing.
 *
 * Owned by the caller, usually on its stack; NULL is accepted everywhere and means "no words
 * wanted".
 */
#pragma once

struct sk_diag {
	char text[1024];
};

/* Writes the sentence (cut at the buffer's end) and returns -error, so that a fault is one line:
 *     return sk_diag_fail(diag, EINVAL, "%s: tensor '%s' has no rows", path, name);
 */
int sk_diag_fail(struct sk_diag *diag, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
