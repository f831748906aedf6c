/* Streams of several users in one engine with a store, for tests of which gives way to which: each with a client of its own,
 * whose reader reads as long as it is not deaf.
 */
#pragma once

#include "engine_test.h"

#define MOST_STREAMS 14

static struct stream {
	struct client client;
	struct answer answer;
	bool runs, is_finished, is_deaf;
	uint32_t n_told; /* places in the queue, once it had begun */
	uint64_t place;  /* the last */
	struct sk_result result;
	char reason[512];
} streams[MOST_STREAMS];

static const char *const prompts[] = {"It was a dark night", "The old man said that",
				      "In the beginning of the year"};

/* Stream i's request, which begins it when it is submitted. */
static inline struct sk_request *stream_of(unsigned i, uid_t uid, const char *prompt, uint64_t n)
{
	struct stream *stream = &streams[i];
	memset(stream, 0, sizeof *stream);
	connect_client(&stream->client, 1024);
	struct sk_request *request = ask(&stream->client, 1, prompt, n);
	request->uid = uid;
	stream->runs = true;
	return request;
}

static inline void take(const struct sk_event *event)
{
	for (unsigned i = 0; i < MOST_STREAMS; i++) {
		struct stream *stream = &streams[i];
		if (!stream->runs || stream->client.connection != event->connection)
			continue;
		if (event->kind == SK_EVENT_PROGRESS) {
			stream->place = event->progress.queue_place;
			stream->n_told += stream->place && event->progress.evaluated_tokens;
		}
		if (event->kind != SK_EVENT_FINISHED)
			return;
		stream->is_finished = true;
		stream->result = event->result;
		strcpy(stream->reason, event->reason);
	}
}

/* Everybody reads what there is, and a moment is waited for more. */
static inline void read_all(void)
{
	struct pollfd fd = {.fd = sk_engine_event_fd(engine), .events = POLLIN};
	for (struct sk_event *event; (event = sk_engine_next_event(engine));) {
		take(event);
		sk_event_destroy(event);
	}
	for (unsigned i = 0; i < MOST_STREAMS; i++)
		if (streams[i].runs && !streams[i].is_deaf) {
			drain(&streams[i].client, &streams[i].answer);
			(void)sk_ring_reader_wait(streams[i].client.reader); /* tells the writer */
		}
	sk_engine_nudge(engine);
	poll(&fd, 1, 1);
}

static inline void end(unsigned i)
{
	if (streams[i].runs)
		disconnect_client(&streams[i].client);
	streams[i].runs = false;
}

static inline void begin_named(unsigned i, uid_t uid, const char *session, const char *prompt,
			       uint64_t n)
{
	struct sk_request *request = stream_of(i, uid, prompt, n);
	strcpy(request->session, session);
	sk_engine_submit(engine, request);
}

static inline void finish_stream(unsigned i)
{
	while (!streams[i].is_finished)
		read_all();
	drain(&streams[i].client, &streams[i].answer);
}

static inline void assert_told(unsigned i, uint64_t n)
{
	const struct stream *stream = &streams[i];
	if (stream->result.stop != SK_STOP_LIMIT || stream->answer.n_ids != n)
		fail_msg("stream %u: %zu tokens, stop %d: %s", i, stream->answer.n_ids,
			 stream->result.stop, stream->reason);
}
