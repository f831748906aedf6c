/* One end of a connection on a Unix socket: frames with descriptors beside them, in both
 * directions, never blocking on its own account. Both daemon and client use it; neither libevent
 * nor protobuf-c pass descriptors, so sendmsg and recvmsg are called here and nowhere else.
 *
 * A descriptor belongs to the frame that was sent with it: it arrives with that frame's first byte.
 * A frame with descriptors is therefore written by a sendmsg of its own. More descriptors than
 * SK_CHANNEL_MOST_FDS in one frame are closed and are a fault, as are those that come inside a
 * frame; those that no message claims are a fault in proto/validate.h. All are opened
 * close-on-exec. One thread.
 */
#pragma once

#include "proto/frame.h"
#include "proto/streamkv.pb-c.h"

#include <stdbool.h>
#include <sys/types.h>

#define SK_CHANNEL_MOST_FDS           4
#define SK_CHANNEL_MOST_WAITING_BYTES (64u << 20) /* frames that the peer does not read */
#define SK_CHANNEL_MOST_WAITING_FDS   64          /* and descriptors beside them */

struct sk_channel;

/* Takes the socket over (also on failure); makes it non-blocking. */
int sk_channel_create(int fd, struct sk_channel **ret_channel);
void sk_channel_destroy(
	struct sk_channel *channel); /* closes the socket and every waiting descriptor */
int sk_channel_fd(const struct sk_channel *channel);

/* The peer's uid and pid as the kernel knows them (SO_PEERCRED). */
int sk_channel_peer(const struct sk_channel *channel, uid_t *ret_uid, pid_t *ret_pid);

/* Appends a message (packed now) and descriptors (duplicated; the caller keeps its own) to what is
 * to be sent. -EMSGSIZE past the frame cap, -EINVAL too many descriptors, -ENOMEM, -EMFILE,
 * -ENOBUFS when the peer has let too much wait. */
int sk_channel_send(struct sk_channel *channel, const ProtobufCMessage *message, const int *fds,
		    unsigned n_fds);
/* Writes what can be written: 0 all is out, -EAGAIN more waits (poll for writing), -EPIPE, ... */
int sk_channel_flush(struct sk_channel *channel);
bool sk_channel_wants_write(const struct sk_channel *channel);
/* Whether the peer has taken all that was sent out of its socket. */
bool sk_channel_is_read(const struct sk_channel *channel);

/* Reads what has come, at most one socket buffer: 0 something (or nothing yet), -ENODATA the peer
 * has hung up between frames, -ECONNRESET inside one, -EMSGSIZE, -EBADMSG descriptors too many or
 * out of place, -ENOMEM. A fault stays: what came whole before it can still be taken. */
int sk_channel_fill(struct sk_channel *channel);

struct sk_frame {
	const uint8_t *message; /* valid until the next fill */
	size_t n_bytes;
	int fds[SK_CHANNEL_MOST_FDS]; /* take one by setting it to -1; finish closes the rest */
	unsigned n_fds;
};
/* The next whole frame: 1, 0 none, -EMSGSIZE, -EBADMSG. */
int sk_channel_next(struct sk_channel *channel, struct sk_frame *ret_frame);
void sk_frame_finish(struct sk_frame *frame);
