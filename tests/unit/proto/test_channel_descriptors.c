/* Descriptors beside frames: each comes with its own frame, and what is not in its place is a fault. */
#include "channel_pair.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(descriptors_come_with_their_frame),
		cmocka_unit_test(frames_may_wait_with_their_descriptors),
		cmocka_unit_test(too_many_descriptors_are_a_fault),
		cmocka_unit_test(descriptors_inside_a_frame_are_a_fault),
	};
	return sk_test_run(tests, NULL, NULL);
}
