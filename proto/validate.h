/* From frames to messages that can be trusted: unpacked with a bounded allocator, then every field
 * checked against its range. What passes here needs no second look anywhere.
 */
#pragma once

#include "base/diag.h"
#include "proto/channel.h"

/* Unpacks; NULL fields, unknown enums, two bodies or none: -EBADMSG and a sentence. An allocation bound (a small multiple
 * of the frame) keeps a hostile frame from growing in memory: -ENOMEM. Free with sk__client_message__free_unpacked(m, NULL). */
int sk_client_message_unpack(const struct sk_frame *frame, Sk__ClientMessage **ret_message, struct sk_diag *diag);
int sk_server_message_unpack(const struct sk_frame *frame, Sk__ServerMessage **ret_message, struct sk_diag *diag);

/* The caps that the daemon announces in Welcome, and holds requests to. */
struct sk_limits {
	uint64_t max_prompt_bytes;
	uint32_t max_window_tokens; /* sink + window + slack at most */
	uint32_t max_ring_slots;
};
/* Ranges and meaning: sampling values finite and in range, sink + window + slack within limits, stop strings not empty and
 * at most 16 of 256 bytes, session names [A-Za-z0-9._-]{1,64}, request ids not 0, sizes consistent with in_memfd.
 * -EINVAL and a sentence that names the field, its value and what is allowed. */
int sk_client_message_check(const Sk__ClientMessage *message, const struct sk_limits *limits, struct sk_diag *diag);

/* Bytes beside a frame. Sends: a new memfd with these bytes, sealed against every change. */
int sk_payload_create(const void *bytes, size_t n_bytes, int *ret_fd);
/* Receives: maps n_bytes of a peer's memfd after checking that it is one, its size, and that it can neither shrink nor be
 * written any more (F_SEAL_SHRINK and F_SEAL_WRITE); else -EBADMSG and a sentence. Unmap with sk_payload_unmap(). */
int sk_payload_map(int fd, uint64_t n_bytes, const void **ret_bytes, struct sk_diag *diag);
void sk_payload_unmap(const void *bytes, uint64_t n_bytes);
