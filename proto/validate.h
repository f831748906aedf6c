/* From frames to messages that can be trusted: unpacked with a bounded allocator, then every field
 * checked against its range. What passes here needs no second look anywhere.
 */
#pragma once

#include "base/diag.h"
#include "proto/channel.h"
#include "proto/payload.h"

/* Unpacks, and checks what makes the message one at all: exactly one known body, fields given once
 * and of their types, known enum values, clean strings, the number of descriptors beside the frame
 * that the message wants. Else -EBADMSG and a sentence, and the connection ends. An allocation
 * bound (a small multiple of the frame) keeps a hostile frame from growing in memory: -ENOMEM. Free
 * with sk__client_message__free_unpacked(m, NULL). */
int sk_client_message_unpack(const struct sk_frame *frame, Sk__ClientMessage **ret_message,
			     struct sk_diag *diag);
/* The same for what the daemon says, with its sizes checked too: there is no further check of it.
 * Welcome, Model and every session have a policy; names of sessions are names. Other strings may be other than UTF-8
 * (file names). */
int sk_server_message_unpack(const struct sk_frame *frame, Sk__ServerMessage **ret_message,
			     struct sk_diag *diag);

/* The caps that the daemon announces in Welcome, and holds requests to. */
struct sk_limits {
	uint64_t max_prompt_bytes;  /* of a prompt, a system turn, a text, a list of ids */
	uint32_t max_window_tokens; /* sink + window + slack at most */
	uint32_t max_ring_slots;
	uint64_t max_saved_bytes; /* of a saved session that is loaded */
};
/* Ranges and meaning of an unpacked message: sampling values finite and in range, sink + window +
 * slack within limits, stop strings not empty and at most 16 of 256 bytes, session names
 * [A-Za-z0-9._-]{1,64}, request ids not 0, sizes consistent with in_memfd. -EINVAL and a sentence
 * that names the field, its value and what is allowed; it is plain ASCII, and the connection can go
 * on. */
int sk_client_message_check(const Sk__ClientMessage *message, const struct sk_limits *limits,
			    struct sk_diag *diag);
