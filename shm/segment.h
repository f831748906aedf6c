/* Shared memory with one writer: a memfd whose owner keeps the only writable map. Sealed against
 * resizing and, for the peer, against new writable maps (F_SEAL_FUTURE_WRITE) before it is sent.
 */
#pragma once

#include <stddef.h>

struct sk_segment {
	void *data;
	size_t n_bytes;
	int fd;
};

/* Creates a zeroed segment with a writable map. peer_may_write: size seals only. */
int sk_segment_create(const char *name, size_t n_bytes, int peer_may_write,
		      struct sk_segment *ret_segment);
/* Maps a peer's segment (takes the descriptor over, also on failure). Checks that it is a memfd of
 * exactly n_bytes that cannot change its size: -EBADMSG. With `writable` for the segments that
 * their owner opened to us. */
int sk_segment_attach(int fd, size_t n_bytes, int writable, struct sk_segment *ret_segment);
void sk_segment_finish(struct sk_segment *segment); /* zeroed segments (fd 0, data NULL) and
						       finished ones are accepted */
