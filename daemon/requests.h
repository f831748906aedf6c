/* From checked messages to requests of the engine. */
#pragma once

#include "daemon/connection.h"
#include "proto/streamkv.pb-c.h"

/* Builds the request for a message that the engine answers; takes the memfd out of `frame` where
 * there is one. -ENOMEM, -EBADMSG (the memfd), each with a sentence. */
int sk_request_of(const struct sk_connection *connection, const Sk__ClientMessage *message,
		  struct sk_frame *frame, struct sk_request **ret_request, struct sk_diag *diag);

/* Whether that user is shown everybody's, as one who could see it anyway: root, and who runs the daemon. */
bool sk_sees_all(uid_t uid);
