/* A daemon that the test plays in a thread, for libstreamkv: it says Welcome, and what it answers is the test's. */
#pragma once

#include "client/streamkv.h"
#include "sk_test.h"

#include "proto/channel.h"
#include "proto/payload.h"
#include "proto/validate.h"
#include "shm/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

static const struct sk_limits limits = {.max_prompt_bytes = 1000, .max_saved_bytes = 1 << 20};

/* What the daemon does with the request that comes; it has passed validation. */
typedef void answer_function(struct sk_channel *channel, const Sk__ClientMessage *message,
			     struct sk_frame *frame);

static char path[64];
static int listener;
static answer_function *answer;
static pthread_t thread;
static struct streamkv *kv;
static struct streamkv_error error;

static inline void send_message(struct sk_channel *channel, const Sk__ServerMessage *message,
				const int *fds, unsigned n_fds)
{
	if (sk_channel_send(channel, &message->base, fds, n_fds) || sk_channel_flush(channel))
		abort();
}

static inline void welcome(struct sk_channel *channel, struct sk_ring_writer **ret_ring)
{
	Sk__ServerMessage message = SK__SERVER_MESSAGE__INIT;
	Sk__Welcome body = SK__WELCOME__INIT;
	Sk__Policy policy = SK__POLICY__INIT;
	int fds[4];

	if (sk_ring_writer_create(256, ret_ring) < 0)
		abort();
	sk_ring_writer_fds(*ret_ring, fds);
	body.ring_slots = 256;
	body.policy = &policy;
	message.body_case = SK__SERVER_MESSAGE__BODY_WELCOME;
	message.welcome = &body;
	send_message(channel, &message, fds, 4);
}

static inline void *daemon_main(void *context)
{
	struct sk_ring_writer *ring = NULL;
	struct sk_channel *channel;
	struct sk_frame frame;
	struct sk_diag diag;
	Sk__ClientMessage *message;
	(void)context;

	if (sk_channel_create(accept(listener, NULL, NULL), &channel) < 0)
		abort();
	for (int filled = 0; !filled;) {
		struct pollfd fd = {.fd = sk_channel_fd(channel), .events = POLLIN};
		poll(&fd, 1, -1);
		filled = sk_channel_fill(channel);
		while (sk_channel_next(channel, &frame) == 1) {
			if (sk_client_message_unpack(&frame, &message, &diag) < 0)
				abort();
			if (message->body_case == SK__CLIENT_MESSAGE__BODY_HELLO)
				welcome(channel, &ring);
			else if (sk_client_message_check(message, &limits, &diag) < 0)
				abort();
			else
				answer(channel, message, &frame);
			sk__client_message__free_unpacked(message, NULL);
			sk_frame_finish(&frame);
		}
	}
	sk_channel_destroy(channel);
	sk_ring_writer_destroy(ring);
	return NULL;
}

static inline void begin(answer_function *function)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(path, sizeof path, "/tmp/streamkv-calls-%d", (int)getpid());
	unlink(path);
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(listener, 1), 0);
	answer = function;
	assert_int_equal(pthread_create(&thread, NULL, daemon_main, NULL), 0);
	assert_int_equal(streamkv_connect(path, -1, &kv, &error), 0);
}

static inline void end(void)
{
	streamkv_close(kv);
	pthread_join(thread, NULL);
	close(listener);
	unlink(path);
}
