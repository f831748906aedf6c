/* A channel and its other end, which is a channel too or a plain socket, with what tests send from either. */
#pragma once

#include "sk_test.h"

#include "proto/channel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* Two ends; `raw` is the other end as a plain socket where `b` is not made. */
struct pair {
	struct sk_channel *a, *b;
	int raw;
	unsigned n_open_before;
};

static inline unsigned count_open(void)
{
	unsigned n = 0;
	DIR *dir = opendir("/proc/self/fd");
	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static inline struct pair pair_create(bool both)
{
	struct pair p = {.raw = -1, .n_open_before = count_open()};
	int sockets[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	assert_int_equal(sk_channel_create(sockets[0], &p.a), 0);
	if (both)
		assert_int_equal(sk_channel_create(sockets[1], &p.b), 0);
	else
		p.raw = sockets[1];
	return p;
}

/* Also says that no descriptor was left open anywhere. */
static inline void pair_finish(struct pair *p)
{
	sk_channel_destroy(p->a);
	sk_channel_destroy(p->b);
	if (p->raw >= 0)
		close(p->raw);
	assert_int_equal(count_open(), p->n_open_before);
}

static inline int send_status(struct sk_channel *channel, uint32_t request, const int *fds,
			      unsigned n_fds)
{
	Sk__StatusRequest status = SK__STATUS_REQUEST__INIT;
	Sk__ClientMessage message = SK__CLIENT_MESSAGE__INIT;
	message.request = request;
	message.body_case = SK__CLIENT_MESSAGE__BODY_STATUS;
	message.status = &status;
	return sk_channel_send(channel, &message.base, fds, n_fds);
}

static inline int send_prompt(struct sk_channel *channel, uint32_t request, uint8_t *prompt,
			      size_t n_bytes)
{
	Sk__Generate generate = SK__GENERATE__INIT;
	Sk__ClientMessage message = SK__CLIENT_MESSAGE__INIT;
	generate.source_case = SK__GENERATE__SOURCE_PROMPT;
	generate.prompt = (ProtobufCBinaryData){n_bytes, prompt};
	message.request = request;
	message.body_case = SK__CLIENT_MESSAGE__BODY_GENERATE;
	message.generate = &generate;
	return sk_channel_send(channel, &message.base, NULL, 0);
}

static inline uint32_t request_of(const struct sk_frame *frame)
{
	Sk__ClientMessage *m = sk__client_message__unpack(NULL, frame->n_bytes, frame->message);
	assert_non_null(m);
	uint32_t request = m->request;
	sk__client_message__free_unpacked(m, NULL);
	return request;
}

/* A file of our own whose inode tells it from others. */
static inline int marker(ino_t *ret_inode)
{
	struct stat st;
	int fds[2];
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	close(fds[1]);
	assert_int_equal(fstat(fds[0], &st), 0);
	*ret_inode = st.st_ino;
	return fds[0];
}

static inline ino_t inode_of(int fd)
{
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

static inline ssize_t raw_send(int socket, const void *bytes, size_t n_bytes, const int *fds,
			       unsigned n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(16 * sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)bytes, .iov_len = n_bytes};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n_fds) {
		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
	}
	return sendmsg(socket, &header, MSG_NOSIGNAL);
}

/* A frame of n_message bytes that mean nothing here. */
static inline size_t raw_frame(uint8_t *out, size_t n_message)
{
	sk_frame_header_write(out, (uint32_t)n_message);
	memset(out + SK_FRAME_HEADER_BYTES, 'x', n_message);
	return SK_FRAME_HEADER_BYTES + n_message;
}
