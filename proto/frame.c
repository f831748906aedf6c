/* Cutting a stream of bytes into frames. The buffer holds, in this order: frames already handed
 * out, whole frames, the beginning of one that is not whole.
 */
#include "proto/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* An empty buffer larger than this is given back, so that one large prompt does not stay for ever.
 */
#define KEPT_BYTES ((size_t)128 << 10)

void sk_frame_reader_finish(struct sk_frame_reader *reader)
{
	free(reader->bytes);
	*reader = (struct sk_frame_reader){0};
}

static uint32_t header_read(const uint8_t *header)
{
	return (uint32_t)header[0] | (uint32_t)header[1] << 8 | (uint32_t)header[2] << 16 |
	       (uint32_t)header[3] << 24;
}

/* Bytes of the frame that begins at `offset`, header included: 0 where its header is not whole yet.
 */
static int frame_size(const struct sk_frame_reader *reader, size_t offset, size_t *ret_n_bytes)
{
	if (reader->n_bytes - offset < SK_FRAME_HEADER_BYTES) {
		*ret_n_bytes = 0;
		return 0;
	}
	uint32_t n_message = header_read(reader->bytes + offset);
	if (n_message == 0 || n_message > SK_FRAME_MOST_BYTES)
		return -EMSGSIZE;
	*ret_n_bytes = SK_FRAME_HEADER_BYTES + (size_t)n_message;
	return 0;
}

static void drop_taken(struct sk_frame_reader *reader)
{
	size_t n_left = reader->n_bytes - reader->n_taken;

	if (n_left == 0 && reader->n_allocated > KEPT_BYTES) {
		free(reader->bytes);
		reader->bytes = NULL;
		reader->n_allocated = 0;
	} else if (n_left && reader->n_taken) {
		memmove(reader->bytes, reader->bytes + reader->n_taken, n_left);
	}
	reader->n_whole -= reader->n_taken;
	reader->n_bytes = n_left;
	reader->n_taken = 0;
}

static int reserve(struct sk_frame_reader *reader, size_t n_bytes)
{
	if (n_bytes > SIZE_MAX / 2 - reader->n_bytes)
		return -ENOMEM;
	size_t n_needed = reader->n_bytes + n_bytes;
	if (n_needed <= reader->n_allocated)
		return 0;
	size_t n_allocated = reader->n_allocated * 2;
	if (n_allocated < n_needed)
		n_allocated = n_needed;
	uint8_t *grown = realloc(reader->bytes, n_allocated);
	if (!grown)
		return -ENOMEM;
	reader->bytes = grown;
	reader->n_allocated = n_allocated;
	return 0;
}

int sk_frame_reader_push(struct sk_frame_reader *reader, const void *bytes, size_t n_bytes)
{
	size_t n_frame;
	int r;

	r = frame_size(reader, reader->n_whole, &n_frame);
	if (r < 0)
		return r; /* faulty since an earlier push */
	drop_taken(reader);
	if (n_bytes == 0)
		return 0;
	r = reserve(reader, n_bytes);
	if (r < 0)
		return r;

	/* A frame that had begun was counted then. */
	int inside = reader->n_bytes > reader->n_whole;
	memcpy(reader->bytes + reader->n_bytes, bytes, n_bytes);
	reader->n_bytes += n_bytes;
	while (reader->n_whole < reader->n_bytes) {
		if (!inside)
			reader->n_begun++;
		r = frame_size(reader, reader->n_whole, &n_frame);
		if (r < 0)
			return r;
		if (n_frame == 0 || n_frame > reader->n_bytes - reader->n_whole)
			break;
		reader->n_whole += n_frame;
		inside = 0;
	}
	return 0;
}

int sk_frame_reader_next(struct sk_frame_reader *reader, const uint8_t **ret_message,
			 size_t *ret_n_bytes)
{
	size_t n_frame;
	int r = frame_size(reader, reader->n_taken, &n_frame);

	if (r < 0)
		return r;
	if (reader->n_taken >= reader->n_whole)
		return 0;
	*ret_message = reader->bytes + reader->n_taken + SK_FRAME_HEADER_BYTES;
	*ret_n_bytes = n_frame - SK_FRAME_HEADER_BYTES;
	reader->n_taken += n_frame;
	return 1;
}

int sk_frame_reader_is_inside(const struct sk_frame_reader *reader)
{
	return reader->n_bytes > reader->n_whole;
}
