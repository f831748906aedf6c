/* sendmsg and recvmsg with descriptors.
 *
 * Which frame do received descriptors belong to? A recvmsg on a stream socket may glue bytes of
 * earlier sendmsg calls in front of the call that carried descriptors, but it stops behind the
 * piece that they came with. So the last byte read belongs to that piece; and as the sender starts
 * a sendmsg at the first byte of a frame with descriptors and puts no other frame into it, the last
 * byte read belongs to their frame, and that frame began in this read. Anything else is a fault.
 */
#include "proto/channel.h"

#include "base/cleanup.h"
#include "base/list.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define READ_BYTES    65536
#define MOST_GATHERED 16 /* frames in one sendmsg */

/* A frame that waits to be sent. */
struct out_frame {
	struct sk_list node;
	size_t n_bytes, n_sent;
	int fds[SK_CHANNEL_MOST_FDS]; /* closed as soon as they are sent */
	unsigned n_fds;
	uint8_t bytes[];
};

/* Descriptors that wait for their frame to be taken. */
struct in_fds {
	struct sk_list node;
	uint64_t frame; /* counted from 1 */
	int fds[SK_CHANNEL_MOST_FDS];
	unsigned n_fds;
};

struct sk_channel {
	int fd;
	int fault; /* what fill found wrong for good, or 0 */
	struct sk_frame_reader reader;
	uint64_t n_frames_taken;
	struct sk_list in_fds;
	struct sk_list out;
	size_t n_out_bytes;
	unsigned n_out_fds;
};

static void close_fds(int *fds, unsigned n_fds)
{
	for (unsigned i = 0; i < n_fds; i++) {
		sk_cleanup_close(&fds[i]);
		fds[i] = -1;
	}
}

int sk_channel_create(int fd, struct sk_channel **ret_channel)
{
	sk_autoclose int owned = fd;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	struct sk_channel *channel = calloc(1, sizeof *channel);
	if (!channel)
		return -ENOMEM;
	channel->fd = sk_steal_fd(&owned);
	sk_list_init(&channel->in_fds);
	sk_list_init(&channel->out);
	*ret_channel = channel;
	return 0;
}

static void out_frame_destroy(struct sk_channel *channel, struct out_frame *frame)
{
	sk_list_remove(&frame->node);
	channel->n_out_bytes -= frame->n_bytes;
	channel->n_out_fds -= frame->n_fds;
	close_fds(frame->fds, frame->n_fds);
	free(frame);
}

void sk_channel_destroy(struct sk_channel *channel)
{
	if (!channel)
		return;
	sk_list_for_each (node, &channel->out)
		out_frame_destroy(channel, sk_container_of(node, struct out_frame, node));
	sk_list_for_each (node, &channel->in_fds) {
		struct in_fds *in = sk_container_of(node, struct in_fds, node);
		sk_list_remove(node);
		close_fds(in->fds, in->n_fds);
		free(in);
	}
	sk_frame_reader_finish(&channel->reader);
	sk_cleanup_close(&channel->fd);
	free(channel);
}

int sk_channel_fd(const struct sk_channel *channel)
{
	return channel->fd;
}

int sk_channel_peer(const struct sk_channel *channel, uid_t *ret_uid, pid_t *ret_pid)
{
	struct ucred ucred;
	socklen_t n_bytes = sizeof ucred;

	if (getsockopt(channel->fd, SOL_SOCKET, SO_PEERCRED, &ucred, &n_bytes) < 0)
		return -errno;
	*ret_uid = ucred.uid;
	*ret_pid = ucred.pid;
	return 0;
}

/* --- Sending --- */

int sk_channel_send(struct sk_channel *channel, const ProtobufCMessage *message, const int *fds,
		    unsigned n_fds)
{
	size_t n_message = protobuf_c_message_get_packed_size(message);
	size_t n_bytes = SK_FRAME_HEADER_BYTES + n_message;

	if (n_fds > SK_CHANNEL_MOST_FDS)
		return -EINVAL;
	if (n_message == 0 || n_message > SK_FRAME_MOST_BYTES)
		return -EMSGSIZE;
	if (n_bytes > SK_CHANNEL_MOST_WAITING_BYTES - channel->n_out_bytes ||
	    n_fds > SK_CHANNEL_MOST_WAITING_FDS - channel->n_out_fds)
		return -ENOBUFS;

	struct out_frame *frame = malloc(sizeof *frame + n_bytes);
	if (!frame)
		return -ENOMEM;
	frame->n_bytes = n_bytes;
	frame->n_sent = 0;
	for (frame->n_fds = 0; frame->n_fds < n_fds; frame->n_fds++) {
		int copy = fcntl(fds[frame->n_fds], F_DUPFD_CLOEXEC, 0);
		if (copy < 0) {
			int error = errno;
			close_fds(frame->fds, frame->n_fds);
			free(frame);
			return -error;
		}
		frame->fds[frame->n_fds] = copy;
	}
	sk_frame_header_write(frame->bytes, (uint32_t)n_message);
	protobuf_c_message_pack(message, frame->bytes + SK_FRAME_HEADER_BYTES);
	sk_list_append(&channel->out, &frame->node);
	channel->n_out_bytes += n_bytes;
	channel->n_out_fds += n_fds;
	return 0;
}

/* One sendmsg: a frame with its descriptors alone, or a run of frames without. */
static ssize_t send_some(struct sk_channel *channel)
{
	struct out_frame *first = sk_container_of(channel->out.next, struct out_frame, node);
	struct iovec iov[MOST_GATHERED];
	struct msghdr header = {.msg_iov = iov};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof first->fds)];
	} control;

	sk_list_for_each (node, &channel->out) {
		struct out_frame *frame = sk_container_of(node, struct out_frame, node);
		if (header.msg_iovlen == MOST_GATHERED || (frame != first && frame->n_fds))
			break;
		iov[header.msg_iovlen++] = (struct iovec){
			.iov_base = frame->bytes + frame->n_sent,
			.iov_len = frame->n_bytes - frame->n_sent,
		};
		if (frame->n_fds)
			break;
	}
	if (first->n_fds) {
		size_t n_bytes = first->n_fds * sizeof first->fds[0];
		memset(&control, 0, sizeof control);
		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(n_bytes);
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_bytes);
		memcpy(CMSG_DATA(cmsg), first->fds, n_bytes);
	}
	ssize_t n_sent;
	do {
		n_sent = sendmsg(channel->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n_sent < 0 && errno == EINTR);
	return n_sent < 0 ? -errno : n_sent;
}

int sk_channel_flush(struct sk_channel *channel)
{
	while (!sk_list_is_empty(&channel->out)) {
		ssize_t n_sent = send_some(channel);
		if (n_sent < 0)
			return (int)n_sent;

		sk_list_for_each (node, &channel->out) {
			struct out_frame *frame = sk_container_of(node, struct out_frame, node);
			if (n_sent == 0)
				break;
			/* The descriptors went with the first byte. */
			close_fds(frame->fds, frame->n_fds);
			channel->n_out_fds -= frame->n_fds;
			frame->n_fds = 0;
			size_t n_left = frame->n_bytes - frame->n_sent;
			if ((size_t)n_sent < n_left) {
				frame->n_sent += (size_t)n_sent;
				break;
			}
			n_sent -= (ssize_t)n_left;
			out_frame_destroy(channel, frame);
		}
	}
	return 0;
}

bool sk_channel_wants_write(const struct sk_channel *channel)
{
	return !sk_list_is_empty(&channel->out);
}

bool sk_channel_is_read(const struct sk_channel *channel)
{
	int n_unread;
	return !sk_channel_wants_write(channel) && ioctl(channel->fd, SIOCOUTQ, &n_unread) == 0 &&
	       n_unread == 0;
}

/* --- Receiving --- */

/* Moves the descriptors of a received header into `in`, as many as it holds, and closes the others.
 * The kernel has filled in no more than the control buffer has room for. */
static void collect_fds(struct msghdr *header, struct in_fds *in)
{
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(header); cmsg; cmsg = CMSG_NXTHDR(header, cmsg)) {
		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		unsigned n_fds = (unsigned)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (unsigned i = 0; i < n_fds; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof fd, sizeof fd);
			if (in->n_fds < SK_CHANNEL_MOST_FDS)
				in->fds[in->n_fds++] = fd;
			else
				close(fd);
		}
	}
}

static int receive(struct sk_channel *channel)
{
	uint8_t bytes[READ_BYTES];
	struct in_fds got = {0};
	struct iovec iov = {.iov_base = bytes, .iov_len = sizeof bytes};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof got.fds)];
	} control;
	struct msghdr header = {.msg_iov = &iov,
				.msg_iovlen = 1,
				.msg_control = &control,
				.msg_controllen = sizeof control};
	ssize_t n_read;

	do {
		n_read = recvmsg(channel->fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	} while (n_read < 0 && errno == EINTR);
	if (n_read < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
	collect_fds(&header, &got);
	if (n_read == 0) {
		close_fds(got.fds, got.n_fds);
		return sk_frame_reader_is_inside(&channel->reader) ? -ECONNRESET : -ENODATA;
	}

	uint64_t n_begun = channel->reader.n_begun;
	int r = sk_frame_reader_push(&channel->reader, bytes, (size_t)n_read);
	/* Truncated: there were more than fit, or no room in our table of descriptors. */
	if (r == 0 && header.msg_flags & MSG_CTRUNC)
		r = -EBADMSG;
	if (r == 0 && got.n_fds && channel->reader.n_begun == n_begun)
		r = -EBADMSG;
	struct in_fds *in = NULL;
	if (r == 0 && got.n_fds && !(in = malloc(sizeof *in)))
		r = -ENOMEM;
	if (r < 0) {
		close_fds(got.fds, got.n_fds);
		return r;
	}
	if (in) {
		*in = got;
		in->frame = channel->reader.n_begun;
		sk_list_append(&channel->in_fds, &in->node);
	}
	return 0;
}

int sk_channel_fill(struct sk_channel *channel)
{
	if (channel->fault == 0)
		channel->fault = receive(channel);
	return channel->fault;
}

int sk_channel_next(struct sk_channel *channel, struct sk_frame *ret_frame)
{
	struct sk_frame frame = {0};
	int r = sk_frame_reader_next(&channel->reader, &frame.message, &frame.n_bytes);

	if (r < 0)
		return r;
	if (r == 0)
		return channel->fault == -EBADMSG ? -EBADMSG : 0;
	channel->n_frames_taken++;
	if (!sk_list_is_empty(&channel->in_fds)) {
		struct in_fds *in = sk_container_of(channel->in_fds.next, struct in_fds, node);
		if (in->frame == channel->n_frames_taken) {
			memcpy(frame.fds, in->fds, sizeof frame.fds);
			frame.n_fds = in->n_fds;
			sk_list_remove(&in->node);
			free(in);
		}
	}
	*ret_frame = frame;
	return 1;
}

void sk_frame_finish(struct sk_frame *frame)
{
	if (!frame)
		return;
	close_fds(frame->fds, frame->n_fds);
	frame->n_fds = 0;
}
