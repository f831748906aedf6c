/* The ring between two processes: descriptors handed over as in Welcome, then ten million tokens,
 * each one checked on the other side, with both sides asleep whenever they cannot go on.
 */
#include "sk_test.h"

#include "proto/validate.h"
#include "ring_traffic.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* Waits for the next frame of a blocking conversation. */
static int receive(struct sk_channel *channel, struct sk_frame *ret_frame)
{
	for (;;) {
		int r = sk_channel_next(channel, ret_frame);
		if (r)
			return r;
		struct pollfd p = {.fd = sk_channel_fd(channel), .events = POLLIN};
		if (poll(&p, 1, TRAFFIC_PATIENCE_MS) != 1)
			return -ETIMEDOUT;
		r = sk_channel_fill(channel);
		if (r < 0)
			return r;
	}
}

/* The client: exits 0 when every token was right. */
static int run_client(int socket, uint64_t n_tokens)
{
	struct sk_channel *channel;
	struct sk_frame frame;
	struct sk_diag diag = {""};
	Sk__ServerMessage *message;
	struct sk_ring_reader *reader;
	struct traffic_count count = {0};

	if (sk_channel_create(socket, &channel) < 0 || receive(channel, &frame) != 1)
		return 2;
	if (sk_server_message_unpack(&frame, &message, &diag) < 0) {
		fprintf(stderr, "%s\n", diag.text);
		return 3;
	}
	int r = sk_ring_reader_create(frame.fds, message->welcome->ring_slots, &reader);
	for (int i = 0; i < 4; i++)
		frame.fds[i] = -1;
	sk_frame_finish(&frame);
	sk__server_message__free_unpacked(message, NULL);
	if (r < 0)
		return 4;
	if (traffic_read(reader, n_tokens, &count) < 0)
		return 5;
	fprintf(stderr, "reader: %llu tokens in %llu slots, %llu sleeps\n",
		(unsigned long long)count.n_tokens, (unsigned long long)count.n_slots,
		(unsigned long long)count.n_sleeps);
	sk_ring_reader_destroy(reader);
	sk_channel_destroy(channel);
	return count.n_sleeps ? 0 : 6;
}

static void pass_tokens(uint32_t n_slots, uint64_t n_tokens)
{
	int sockets[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(sockets[0]);
		_exit(run_client(sockets[1], n_tokens));
	}
	close(sockets[1]);

	struct sk_ring_writer *writer;
	struct sk_channel *channel;
	int fds[4];
	assert_int_equal(sk_ring_writer_create(n_slots, &writer), 0);
	sk_ring_writer_fds(writer, fds);
	assert_int_equal(sk_channel_create(sockets[0], &channel), 0);
	Sk__Policy policy = SK__POLICY__INIT;
	Sk__Welcome welcome = SK__WELCOME__INIT;
	Sk__ServerMessage message = SK__SERVER_MESSAGE__INIT;
	welcome.ring_slots = n_slots;
	welcome.policy = &policy;
	message.body_case = SK__SERVER_MESSAGE__BODY_WELCOME;
	message.welcome = &welcome;
	assert_int_equal(sk_channel_send(channel, &message.base, fds, 4), 0);
	assert_int_equal(sk_channel_flush(channel), 0);

	struct traffic_count count = {0};
	int r = traffic_write(writer, n_tokens, &count);
	int status = -1;
	sk_channel_destroy(channel);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	fprintf(stderr, "writer: %llu tokens through %u slots, %llu sleeps\n",
		(unsigned long long)count.n_tokens, n_slots, (unsigned long long)count.n_sleeps);
	assert_int_equal(r, 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	/* The reader frees its last slots after the last token, so there is always room again. */
	assert_int_equal(sk_ring_writer_room(writer) >= 0, 1);
	sk_ring_writer_destroy(writer);
}

static void ten_million_tokens(void **state)
{
	(void)state;
	pass_tokens(SK_RING_DEFAULT_SLOTS, traffic_n_tokens());
}

/* Full and empty all the time: every token is a chance to lose a wake-up. */
static void smallest_ring(void **state)
{
	(void)state;
	pass_tokens(SK_RING_LEAST_SLOTS, traffic_n_tokens() / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ten_million_tokens),
		cmocka_unit_test(smallest_ring),
	};
	return sk_test_run(tests, NULL, NULL);
}
