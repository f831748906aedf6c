/* The backends that this build has: with backends.c, the one place that names cpu/ and gpu/. */
#pragma once

#include "backend/backend.h"
#include "base/diag.h"

/* `choice` of the --backend option. -ENODEV and a sentence where this build has none of that name.
 */
int sk_choose_backend(int choice, const struct sk_backend_kind **ret_kind, struct sk_diag *diag);

/* Whether that backend has the --instructions of that name here. -ENODEV and a sentence. */
int sk_check_instructions(int choice, const char *name, struct sk_diag *diag);
