/* Frames: a 4-byte little-endian length, then that many bytes of one message. Pure bytes, no I/O.
 * Source: proto/streamkv.proto.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SK_FRAME_HEADER_BYTES 4
#define SK_FRAME_MOST_BYTES   (1u << 20) /* of the message */

static inline void sk_frame_header_write(uint8_t header[SK_FRAME_HEADER_BYTES], uint32_t n_bytes)
{
	for (int i = 0; i < SK_FRAME_HEADER_BYTES; i++)
		header[i] = (uint8_t)(n_bytes >> 8 * i);
}

/* Collects frames from a stream of bytes that arrives in any portions. Owned by its connection.
 * Allocates no more than has come (doubling), never on a header's promise. Zeroed is empty. */
struct sk_frame_reader {
	uint8_t *bytes;
	size_t n_bytes, n_allocated;
	size_t n_taken;   /* bytes of frames already handed out, dropped at the next push */
	size_t n_whole;   /* bytes of whole frames, handed out or not; then one that is not whole */
	uint64_t n_begun; /* frames whose first byte has come, since the start */
};

void sk_frame_reader_finish(struct sk_frame_reader *reader);
/* 0, -ENOMEM, -EMSGSIZE as soon as a header asks for more than the cap (or for nothing): the frames
 * before it can still be taken, nothing after it. */
int sk_frame_reader_push(struct sk_frame_reader *reader, const void *bytes, size_t n_bytes);
/* The next whole frame's message, valid until the next push: 1, 0 where none is whole, -EMSGSIZE.
 */
int sk_frame_reader_next(struct sk_frame_reader *reader, const uint8_t **ret_message,
			 size_t *ret_n_bytes);
/* Whether a frame has begun and is not whole: the peer hung up inside it. */
int sk_frame_reader_is_inside(const struct sk_frame_reader *reader);
