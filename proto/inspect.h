/* Looks at a message's bytes before they are unpacked, for what protobuf-c accepts and this
 * protocol does not: a field given twice (two bodies of one message among them), enum values
 * without a name, strings with NUL inside (protobuf-c would cut them) and, on request, strings that
 * are not UTF-8. Private to proto/; driven by the generated descriptors; allocates nothing.
 */
#pragma once

#include "base/diag.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

/* -EBADMSG and a sentence. */
int sk_inspect(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t n_bytes,
	       bool demand_utf8, struct sk_diag *diag);

/* Whether the bytes are UTF-8 without NUL (and without surrogates or longer spellings than needed).
 */
bool sk_inspect_is_utf8(const uint8_t *bytes, size_t n_bytes);
