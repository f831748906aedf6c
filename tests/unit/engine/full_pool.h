/* An engine whose pool streams fill that nobody reads, and what tests see of those who then wait. */
#pragma once

#define ENGINE_KV_BYTES (10 << 20)
#define ENGINE_STALL_NS 0 /* streams that nobody reads keep their pages until they are cancelled */
#include "engine_test.h"

#define N 200 /* tokens, for which a session needs all the pages that its window may have */

static struct client streams[8];
static uint32_t n_streams;

static inline struct sk_event *any_event(void)
{
	struct sk_event *event;
	while (!(event = sk_engine_next_event(engine))) {
		struct pollfd fd = {.fd = sk_engine_event_fd(engine), .events = POLLIN};
		assert_int_equal(poll(&fd, 1, 600000), 1);
	}
	return event;
}

/* The next that tells a place. */
static inline void assert_place(const struct client *client, uint32_t id, uint32_t place)
{
	for (;;) {
		struct sk_event *event = any_event();
		bool is_place = event->kind == SK_EVENT_PROGRESS && event->progress.queue_place;
		if (!is_place)
			assert_int_equal(event->kind, SK_EVENT_PROGRESS);
		if (is_place) {
			assert_int_equal(event->connection, client->connection);
			assert_int_equal(event->request, id);
			assert_int_equal(event->progress.queue_place, place);
		}
		sk_event_destroy(event);
		if (is_place)
			return;
	}
}

static inline void assert_finished(const struct client *client, uint32_t id,
				   enum sk_stop_reason stop)
{
	struct sk_event *event = next_event();
	assert_int_equal(event->kind, SK_EVENT_FINISHED);
	assert_int_equal(event->connection, client->connection);
	assert_int_equal(event->request, id);
	assert_int_equal(event->result.stop, stop);
	sk_event_destroy(event);
}

static inline void submit(const struct client *client, uint32_t id, uid_t uid, uint64_t n)
{
	struct sk_request *request = ask(client, id, "It was a dark night", n);
	request->uid = uid;
	sk_engine_submit(engine, request);
}

/* Streams of user 1000 that nobody reads, until another would not fit: at least so many. */
static inline void fill_beside(uint32_t at_least)
{
	for (n_streams = 0;; n_streams++) {
		struct client *stream = &streams[n_streams];
		assert_true(n_streams < 8);
		connect_client(stream, 256);
		submit(stream, 1, 1000, UINT64_MAX);
		while (stats().n_running + stats().n_queued <= n_streams) {
		}
		if (stats().n_queued)
			break;
	}
	assert_true(n_streams >= at_least);
	disconnect_client(&streams[n_streams]);
	assert_int_equal(stats().n_queued, 0);
}

static inline void fill(void)
{
	fill_beside(2);
}

static inline void end_stream(void)
{
	disconnect_client(&streams[--n_streams]);
}

static inline void end_streams(void)
{
	while (n_streams)
		end_stream();
}

static inline void wait_until_paused(void)
{
	while (stats().n_paused < n_streams) {
	}
}
