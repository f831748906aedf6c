/* Bytes beside a frame: a memfd that nobody can change any more. Source: proto/streamkv.proto. */
#pragma once

#include "base/diag.h"

#include <stddef.h>
#include <stdint.h>

/* Sends: a new memfd with these bytes, sealed against every change. */
int sk_payload_create(const void *bytes, size_t n_bytes, int *ret_fd);
/* The same with all that can be read from `from` (a file, a pipe) until its end. -ENOMEM and -ENOSPC for want of memory,
 * else what reading failed with; a signal does not end it. */
int sk_payload_read(int from, int *ret_fd, uint64_t *ret_n_bytes);

/* Receives: maps n_bytes of a peer's memfd (the caller keeps the descriptor) after checking that it
 * is one, its size, and that it can neither shrink nor be written any more (F_SEAL_SHRINK and
 * F_SEAL_WRITE); else -EBADMSG and a sentence. Unmap with sk_payload_unmap(). */
int sk_payload_map(int fd, uint64_t n_bytes, const void **ret_bytes, struct sk_diag *diag);
void sk_payload_unmap(const void *bytes, uint64_t n_bytes);
