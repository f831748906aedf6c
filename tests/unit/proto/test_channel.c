/* Frames over a real socket, against a channel and against raw sendmsg calls. */
#include "channel_pair.h"

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
