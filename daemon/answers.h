/* What the daemon says: messages built from the engine's events and from what the server knows.
 * Each is put into the connection's channel: 0, or a negative errno with which the connection
 * cannot go on.
 */
#pragma once

#include "daemon/connection.h"

int sk_answer_welcome(struct sk_connection *connection, uint32_t n_slots);
int sk_answer_progress(struct sk_connection *connection, const struct sk_event *event);
/* `request` is what ran, for its stop strings. */
int sk_answer_finished(struct sk_connection *connection, const struct sk_event *event,
		       const struct sk_connection_request *request);
int sk_answer_ids(struct sk_connection *connection, const struct sk_event *event);
int sk_answer_text(struct sk_connection *connection, const struct sk_event *event);
int sk_answer_status(struct sk_connection *connection, const struct sk_event *event);
int sk_answer_session(struct sk_connection *connection, const struct sk_event *event);
int sk_answer_listing(struct sk_connection *connection, const struct sk_event *event);
int sk_answer_model(struct sk_connection *connection, uint32_t request);
int sk_answer_failed(struct sk_connection *connection, uint32_t request, int error,
		     const char *reason);

/* --- What the files of answers share --- */

int sk_answer_send(struct sk_connection *connection, Sk__ServerMessage *message, const int *fds,
		   unsigned n_fds);
void sk_answer_fill_policy(Sk__Policy *to, const struct sk_policy *from);
