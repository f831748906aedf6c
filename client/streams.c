/* The streams of a connection: they share its socket and its ring, and what comes is told apart by the request's
 * number. Whoever reads one stream takes the others' slots out of its way, into their queues, so that nothing is
 * lost or changes its order.
 */
#include "client/connection.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

static struct streamkv_stream *find(struct streamkv *kv, uint32_t request)
{
	sk_list_for_each (node, &kv->streams) {
		struct streamkv_stream *stream =
			sk_container_of(node, struct streamkv_stream, node);
		if (stream->request == request)
			return stream;
	}
	return NULL; /* it was closed before its end */
}

/* --- Messages --- */

void streamkv_hand_on(struct streamkv *kv, Sk__ServerMessage *message)
{
	struct streamkv_stream *stream = find(kv, message->request);

	if (stream)
		streamkv_stream_take(stream, message);
	else
		sk__server_message__free_unpacked(message, NULL);
}

int streamkv_take_messages(struct streamkv *kv, struct streamkv_error *error)
{
	struct sk_frame frame;
	Sk__ServerMessage *message;
	int got;

	while ((got = streamkv_receive(kv, &frame, &message, error)) == 1) {
		sk_frame_finish(&frame);
		streamkv_hand_on(kv, message);
	}
	return got;
}

/* --- Slots --- */

/* The 64 bits of time whose low end a slot has: the last such ones that have been. */
static uint64_t put_ns(const struct sk_slot *slot)
{
	uint64_t now_us = sk_clock_ns() / 1000;
	return (now_us - (uint32_t)((uint32_t)now_us - slot->put_us)) * 1000;
}

static int read_slot(struct streamkv *kv, struct streamkv_slot *ret_slot)
{
	int got = sk_ring_reader_next(kv->ring, &ret_slot->slot);
	if (got == 1)
		ret_slot->put_ns = put_ns(&ret_slot->slot);
	return got;
}

static bool has_queue(const struct streamkv_stream *stream)
{
	return stream->queue_at < stream->n_queue;
}

static int keep_slot(struct streamkv_stream *stream, const struct streamkv_slot *slot)
{
	if (!has_queue(stream))
		stream->queue_at = stream->n_queue = 0;
	if (stream->n_queue == stream->queue_allocated) {
		size_t n = 2 * stream->n_queue + 16;
		struct streamkv_slot *grown = realloc(stream->queue, n * sizeof *grown);
		if (!grown)
			return -ENOMEM;
		stream->queue = grown;
		stream->queue_allocated = n;
	}
	stream->queue[stream->n_queue++] = *slot;
	return 0;
}

int streamkv_take_slot(struct streamkv_stream *stream, struct streamkv_slot *ret_slot)
{
	struct streamkv_slot slot;
	int got;

	if (has_queue(stream)) {
		*ret_slot = stream->queue[stream->queue_at++];
		return 1;
	}
	while ((got = read_slot(stream->kv, &slot)) == 1) {
		struct streamkv_stream *owner = find(stream->kv, slot.slot.request);
		if (owner == stream) {
			*ret_slot = slot;
			return 1;
		}
		if (owner && keep_slot(owner, &slot) < 0) {
			stream->kv->is_broken = true; /* that slot is lost */
			return -ENOMEM;
		}
	}
	return got;
}

/* --- Whichever comes first --- */

static struct streamkv_stream *find_queued(struct streamkv *kv)
{
	sk_list_for_each (node, &kv->streams) {
		struct streamkv_stream *stream =
			sk_container_of(node, struct streamkv_stream, node);
		if (has_queue(stream))
			return stream;
	}
	return NULL;
}

/* One that has ended and whose caller does not know. */
static struct streamkv_stream *find_ended(struct streamkv *kv, bool *ret_has_any)
{
	*ret_has_any = false;
	sk_list_for_each (node, &kv->streams) {
		struct streamkv_stream *stream =
			sk_container_of(node, struct streamkv_stream, node);
		if (stream->is_told)
			continue;
		*ret_has_any = true;
		if (stream->is_finished)
			return stream;
	}
	return NULL;
}

static int take_any(struct streamkv *kv, struct streamkv_stream **ret_stream,
		    struct streamkv_token *token, struct streamkv_error *error)
{
	struct streamkv_stream *stream;
	struct streamkv_slot slot;
	int got = 1;

	while (!(stream = find_queued(kv)) && (got = read_slot(kv, &slot)) == 1) {
		stream = find(kv, slot.slot.request);
		if (stream && keep_slot(stream, &slot) < 0) {
			kv->is_broken = true;
			return streamkv_fail(error, ENOMEM, "not enough memory");
		}
	}
	if (!stream)
		return got < 0 ? streamkv_fail(error, EPROTO,
					       "the daemon's token ring is not of this protocol")
			       : 0;
	*ret_stream = stream;
	return streamkv_stream_token(stream, token, error);
}

int streamkv_next_any(struct streamkv *kv, int timeout_ms, struct streamkv_stream **ret_stream,
		      struct streamkv_token *ret_token, struct streamkv_error *error)
{
	bool has_any;

	*ret_stream = NULL;
	for (;;) {
		int got = take_any(kv, ret_stream, ret_token, error);
		if (got != 0)
			return got;
		struct streamkv_stream *ended = find_ended(kv, &has_any);
		if (ended) {
			*ret_stream = ended;
			return streamkv_stream_end(ended, error);
		}
		if (!has_any)
			return streamkv_fail(error, ENOENT, "no stream runs on this connection");
		if (sk_ring_reader_wait(kv->ring))
			continue;
		got = streamkv_take_messages(kv, error);
		if (find_ended(kv, &has_any))
			continue;
		if (got < 0) {
			struct streamkv_error ignored;
			int rest = take_any(kv, ret_stream, ret_token, &ignored);
			return rest == 1 ? 1 : got;
		}
		got = streamkv_wait(kv, sk_ring_reader_doorbell(kv->ring), timeout_ms, error);
		if (got < 0)
			return got;
	}
}

bool streamkv_poll_fds(struct streamkv *kv, struct pollfd ret_fds[2])
{
	bool has_any;

	ret_fds[0] = (struct pollfd){.fd = sk_channel_fd(kv->channel), .events = POLLIN};
	ret_fds[1] = (struct pollfd){.fd = sk_ring_reader_doorbell(kv->ring), .events = POLLIN};
	/* A call may have read more from the socket than its own answer. */
	return streamkv_take_messages(kv, NULL) < 0 || find_ended(kv, &has_any) ||
	       find_queued(kv) || sk_ring_reader_wait(kv->ring);
}
