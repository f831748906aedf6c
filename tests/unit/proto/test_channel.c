/* Frames and descriptors over a real socket, against a channel and against raw sendmsg calls. */
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

static unsigned count_open(void)
{
	unsigned n = 0;
	DIR *dir = opendir("/proc/self/fd");
	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static struct pair pair_create(bool both)
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
static void pair_finish(struct pair *p)
{
	sk_channel_destroy(p->a);
	sk_channel_destroy(p->b);
	if (p->raw >= 0)
		close(p->raw);
	assert_int_equal(count_open(), p->n_open_before);
}

static int send_status(struct sk_channel *channel, uint32_t request, const int *fds, unsigned n_fds)
{
	Sk__StatusRequest status = SK__STATUS_REQUEST__INIT;
	Sk__ClientMessage message = SK__CLIENT_MESSAGE__INIT;
	message.request = request;
	message.body_case = SK__CLIENT_MESSAGE__BODY_STATUS;
	message.status = &status;
	return sk_channel_send(channel, &message.base, fds, n_fds);
}

static int send_prompt(struct sk_channel *channel, uint32_t request, uint8_t *prompt,
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

static uint32_t request_of(const struct sk_frame *frame)
{
	Sk__ClientMessage *m = sk__client_message__unpack(NULL, frame->n_bytes, frame->message);
	assert_non_null(m);
	uint32_t request = m->request;
	sk__client_message__free_unpacked(m, NULL);
	return request;
}

/* A file of our own whose inode tells it from others. */
static int marker(ino_t *ret_inode)
{
	struct stat st;
	int fds[2];
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	close(fds[1]);
	assert_int_equal(fstat(fds[0], &st), 0);
	*ret_inode = st.st_ino;
	return fds[0];
}

static ino_t inode_of(int fd)
{
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

/* Frames with 0 to 4 descriptors in every order of three, read only when all are on the way. */
static void descriptors_come_with_their_frame(void **state)
{
	(void)state;
	for (unsigned shape = 0; shape < 5 * 5 * 5 * 5; shape++) {
		struct pair p = pair_create(true);
		unsigned n_wanted[4] = {shape % 5, shape / 5 % 5, shape / 25 % 5, shape / 125};
		ino_t inodes[4][4];

		for (uint32_t f = 0; f < 4; f++) {
			int fds[4];
			for (unsigned i = 0; i < n_wanted[f]; i++)
				fds[i] = marker(&inodes[f][i]);
			assert_int_equal(send_status(p.a, f + 1, fds, n_wanted[f]), 0);
			for (unsigned i = 0; i < n_wanted[f]; i++)
				close(fds[i]); /* the channel has its own */
		}
		assert_true(sk_channel_wants_write(p.a));
		assert_int_equal(sk_channel_flush(p.a), 0);
		assert_false(sk_channel_wants_write(p.a));
		for (uint32_t f = 0; f < 4; f++) {
			struct sk_frame frame;
			while (sk_channel_next(p.b, &frame) == 0)
				assert_int_equal(sk_channel_fill(p.b), 0);
			assert_int_equal(request_of(&frame), f + 1);
			assert_int_equal(frame.n_fds, n_wanted[f]);
			for (unsigned i = 0; i < frame.n_fds; i++) {
				assert_int_equal(inode_of(frame.fds[i]), inodes[f][i]);
				assert_int_equal(fcntl(frame.fds[i], F_GETFD), FD_CLOEXEC);
			}
			if (frame.n_fds) { /* one is taken */
				close(frame.fds[0]);
				frame.fds[0] = -1;
			}
			sk_frame_finish(&frame);
			sk_frame_finish(&frame);
		}
		pair_finish(&p);
	}
}

/* All frames arrive in one fill each, none is taken before the end: the books must still be right.
 */
static void frames_may_wait_with_their_descriptors(void **state)
{
	(void)state;
	struct pair p = pair_create(true);
	ino_t inodes[6];

	for (uint32_t f = 0; f < 6; f++) {
		int fd = marker(&inodes[f]);
		assert_int_equal(send_status(p.a, f + 1, &fd, f % 2), 0);
		close(fd);
	}
	assert_int_equal(sk_channel_flush(p.a), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(sk_channel_fill(p.b), 0);
	for (uint32_t f = 0; f < 3; f++) {
		struct sk_frame frame;
		assert_int_equal(sk_channel_next(p.b, &frame), 1);
		assert_int_equal(request_of(&frame), f + 1);
		assert_int_equal(frame.n_fds, f % 2);
		if (frame.n_fds)
			assert_int_equal(inode_of(frame.fds[0]), inodes[f]);
		sk_frame_finish(&frame);
	}
	pair_finish(&p); /* the rest was never taken */
}

static ssize_t raw_send(int socket, const void *bytes, size_t n_bytes, const int *fds,
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
static size_t raw_frame(uint8_t *out, size_t n_message)
{
	sk_frame_header_write(out, (uint32_t)n_message);
	memset(out + SK_FRAME_HEADER_BYTES, 'x', n_message);
	return SK_FRAME_HEADER_BYTES + n_message;
}

static void too_many_descriptors_are_a_fault(void **state)
{
	(void)state;
	for (unsigned n_fds = 4; n_fds <= 16; n_fds++) {
		struct pair p = pair_create(false);
		uint8_t bytes[64];
		int fds[16];
		struct sk_frame frame;

		for (unsigned i = 0; i < n_fds; i++)
			fds[i] = p.raw;
		size_t n = raw_frame(bytes, 10);
		assert_int_equal(raw_send(p.raw, bytes, n, NULL, 0), n);
		assert_int_equal(raw_send(p.raw, bytes, n, fds, n_fds), n);
		int r = sk_channel_fill(p.a);
		assert_int_equal(r, n_fds == 4 ? 0 : -EBADMSG);
		if (r < 0) {
			assert_int_equal(sk_channel_fill(p.a), -EBADMSG);
			while ((r = sk_channel_next(p.a, &frame)) == 1) {
				assert_int_equal(frame.n_fds, 0);
				sk_frame_finish(&frame);
			}
			assert_int_equal(r, -EBADMSG);
		}
		pair_finish(&p);
	}
	int sockets[2], fds[5] = {0};
	struct sk_channel *channel;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	assert_int_equal(sk_channel_create(sockets[0], &channel), 0);
	assert_int_equal(send_status(channel, 1, fds, 5), -EINVAL);
	sk_channel_destroy(channel);
	close(sockets[1]);
}

/* Cut a frame in two, put a descriptor beside the second part: only at cut 0 is it in its place. */
static void descriptors_inside_a_frame_are_a_fault(void **state)
{
	(void)state;
	uint8_t bytes[64];
	size_t n = raw_frame(bytes, 10);

	for (int read_between = 0; read_between < 2; read_between++)
		for (size_t cut = 0; cut < n; cut++) {
			struct pair p = pair_create(false);
			if (cut)
				assert_int_equal(raw_send(p.raw, bytes, cut, NULL, 0), cut);
			if (read_between)
				assert_int_equal(sk_channel_fill(p.a), 0);
			assert_int_equal(raw_send(p.raw, bytes + cut, n - cut, &p.raw, 1), n - cut);
			/* Read at once, the two parts cannot be told apart and are one frame that
			 * begins here. */
			int expected = cut && read_between ? -EBADMSG : 0;
			assert_int_equal(sk_channel_fill(p.a), expected);
			pair_finish(&p);
		}
}

/* The whole of a frame before, glued to a frame with a descriptor, in one read. */
static void glued_reads_keep_frames_apart(void **state)
{
	(void)state;
	struct pair p = pair_create(false);
	uint8_t bytes[64];
	struct sk_frame frame;
	size_t n = raw_frame(bytes, 10);

	assert_int_equal(raw_send(p.raw, bytes, n, NULL, 0), n);
	assert_int_equal(raw_send(p.raw, bytes, n, &p.raw, 1), n);
	assert_int_equal(raw_send(p.raw, bytes, n, NULL, 0), n);
	assert_int_equal(raw_send(p.raw, bytes, n, (int[]){p.raw, p.raw}, 2), n);
	static const unsigned n_fds[] = {0, 1, 0, 2};
	for (int i = 0; i < 4; i++) {
		while (sk_channel_next(p.a, &frame) == 0)
			assert_int_equal(sk_channel_fill(p.a), 0);
		assert_int_equal(frame.n_fds, n_fds[i]);
		sk_frame_finish(&frame);
	}
	pair_finish(&p);
}

static void hang_up_between_and_inside_frames(void **state)
{
	(void)state;
	uint8_t bytes[64];
	size_t n = raw_frame(bytes, 10);

	for (size_t n_sent = 0; n_sent <= 2 * n; n_sent++) {
		struct pair p = pair_create(false);
		uint8_t two[64];
		struct sk_frame frame;
		memcpy(two, bytes, n);
		memcpy(two + n, bytes, n);
		if (n_sent)
			assert_int_equal(raw_send(p.raw, two, n_sent, NULL, 0), n_sent);
		close(p.raw);
		p.raw = -1;
		int r = 0;
		while (r == 0)
			r = sk_channel_fill(p.a);
		assert_int_equal(r, n_sent % n ? -ECONNRESET : -ENODATA);
		assert_int_equal(sk_channel_fill(p.a), r);
		for (size_t i = 0; i < n_sent / n; i++)
			assert_int_equal(sk_channel_next(p.a, &frame), 1);
		assert_int_equal(sk_channel_next(p.a, &frame), 0);
		pair_finish(&p);
	}
}

static void a_bad_length_ends_it(void **state)
{
	(void)state;
	struct pair p = pair_create(false);
	struct sk_frame frame;
	assert_int_equal(raw_send(p.raw, "\1\0\0\0x\0\0\0\0", 9, &p.raw, 1), 9);
	assert_int_equal(sk_channel_fill(p.a), -EMSGSIZE);
	assert_int_equal(sk_channel_next(p.a, &frame), 1);
	assert_int_equal(frame.n_fds, 0); /* closed: what they belong to is a fault */
	assert_int_equal(sk_channel_next(p.a, &frame), -EMSGSIZE);
	pair_finish(&p);
}

/* Little goes through at a time; large and small frames, some with descriptors, all in order. */
static void partial_writes(void **state)
{
	(void)state;
	struct pair p = pair_create(true);
	int n_buffer = 1; /* the kernel takes the least it allows */
	uint8_t *prompt = test_malloc(200000);
	uint32_t n_sent = 0, n_received = 0;
	unsigned n_waits = 0;
	ino_t inode;
	int fd = marker(&inode);

	memset(prompt, 'p', 200000);
	assert_int_equal(
		setsockopt(sk_channel_fd(p.a), SOL_SOCKET, SO_SNDBUF, &n_buffer, sizeof n_buffer),
		0);
	while (n_sent < 60) {
		n_sent++;
		if (n_sent % 3 == 0)
			assert_int_equal(send_prompt(p.a, n_sent, prompt, n_sent * 3000), 0);
		else
			assert_int_equal(send_status(p.a, n_sent, &fd, n_sent % 3 - 1), 0);
	}
	while (n_received < n_sent) {
		int r = sk_channel_flush(p.a);
		assert_true(r == 0 || r == -EAGAIN);
		assert_int_equal(sk_channel_wants_write(p.a), r == -EAGAIN);
		n_waits += r == -EAGAIN;
		assert_int_equal(sk_channel_fill(p.b), 0);
		struct sk_frame frame;
		while (sk_channel_next(p.b, &frame) == 1) {
			n_received++;
			assert_int_equal(request_of(&frame), n_received);
			assert_int_equal(frame.n_fds, n_received % 3 == 2);
			if (frame.n_fds)
				assert_int_equal(inode_of(frame.fds[0]), inode);
			sk_frame_finish(&frame);
		}
	}
	assert_true(n_waits > 10);
	close(fd);
	test_free(prompt);
	pair_finish(&p);
}

static void a_peer_that_does_not_read_is_bounded(void **state)
{
	(void)state;
	struct pair p = pair_create(false);
	size_t n_prompt = 1000000, n_queued = 0;
	uint8_t *prompt = test_malloc(n_prompt);
	int r;

	memset(prompt, 'p', n_prompt);
	while ((r = send_prompt(p.a, 1, prompt, n_prompt)) == 0) {
		n_queued += n_prompt;
		assert_true(n_queued <= SK_CHANNEL_MOST_WAITING_BYTES);
	}
	assert_int_equal(r, -ENOBUFS);
	assert_true(n_queued > SK_CHANNEL_MOST_WAITING_BYTES - 2 * n_prompt);
	test_free(prompt);
	pair_finish(&p);

	p = pair_create(false);
	unsigned n_fds = 0;
	while ((r = send_status(p.a, 1, &p.raw, 1)) == 0)
		n_fds++;
	assert_int_equal(r, -ENOBUFS);
	assert_int_equal(n_fds, SK_CHANNEL_MOST_WAITING_FDS);
	assert_int_equal(sk_channel_flush(p.a), 0); /* and what went out counts no more */
	assert_int_equal(send_status(p.a, 1, &p.raw, 1), 0);
	pair_finish(&p);
}

static void a_message_past_the_cap(void **state)
{
	(void)state;
	struct pair p = pair_create(false);
	size_t n_prompt = SK_FRAME_MOST_BYTES;
	uint8_t *prompt = test_malloc(n_prompt);
	memset(prompt, 'p', n_prompt);
	assert_int_equal(send_prompt(p.a, 1, prompt, n_prompt), -EMSGSIZE);
	assert_int_equal(send_prompt(p.a, 1, prompt, n_prompt - 64), 0);
	Sk__ClientMessage nothing = SK__CLIENT_MESSAGE__INIT;
	assert_int_equal(sk_channel_send(p.a, &nothing.base, NULL, 0), -EMSGSIZE);
	assert_int_equal(send_status(p.a, 1, (int[]){-1}, 1), -EBADF);
	test_free(prompt);
	pair_finish(&p);
}

static void a_peer_that_is_gone_does_not_kill(void **state)
{
	(void)state;
	struct pair p = pair_create(false);
	close(p.raw);
	p.raw = -1;
	assert_int_equal(send_status(p.a, 1, NULL, 0), 0);
	assert_int_equal(sk_channel_flush(p.a), -EPIPE);
	assert_true(sk_channel_wants_write(p.a));
	pair_finish(&p);
}

static void nothing_yet_and_the_peer_is_known(void **state)
{
	(void)state;
	struct pair p = pair_create(true);
	struct sk_frame frame;
	uid_t uid;
	pid_t pid;
	assert_int_equal(sk_channel_fill(p.a), 0);
	assert_int_equal(sk_channel_next(p.a, &frame), 0);
	assert_int_equal(sk_channel_flush(p.a), 0);
	assert_true(fcntl(sk_channel_fd(p.a), F_GETFL) & O_NONBLOCK);
	assert_int_equal(sk_channel_peer(p.a, &uid, &pid), 0);
	assert_int_equal(uid, getuid());
	assert_int_equal(pid, getpid());
	struct sk_channel *channel;
	assert_int_equal(sk_channel_create(-1, &channel), -EBADF);
	pair_finish(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(descriptors_come_with_their_frame),
		cmocka_unit_test(frames_may_wait_with_their_descriptors),
		cmocka_unit_test(too_many_descriptors_are_a_fault),
		cmocka_unit_test(descriptors_inside_a_frame_are_a_fault),
		cmocka_unit_test(glued_reads_keep_frames_apart),
		cmocka_unit_test(hang_up_between_and_inside_frames),
		cmocka_unit_test(a_bad_length_ends_it),
		cmocka_unit_test(partial_writes),
		cmocka_unit_test(a_peer_that_does_not_read_is_bounded),
		cmocka_unit_test(a_message_past_the_cap),
		cmocka_unit_test(a_peer_that_is_gone_does_not_kill),
		cmocka_unit_test(nothing_yet_and_the_peer_is_known),
	};
	return sk_test_run(tests, NULL, NULL);
}
