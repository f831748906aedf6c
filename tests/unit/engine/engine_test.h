/* An engine on a real model and real rings, for tests: the test plays the loop thread. */
#pragma once

#include "base/clock.h"
#include "engine/engine.h"
#include "engine/store.h"
#include "sk_test_backend.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct sk_model *model;
static struct sk_tokenizer *tokenizer;
static struct sk_engine *engine;
static uint64_t n_connections;

#ifndef ENGINE_KV_BYTES
#define ENGINE_KV_BYTES (64 << 20)
#endif
#ifndef ENGINE_STALL_NS
#define ENGINE_STALL_NS UINT64_C(300000000)
#endif

static uint64_t engine_kv_bytes = ENGINE_KV_BYTES;
static uint32_t engine_max_batch = 8;
static uint64_t engine_queue_timeout_ns = 600000000000;
static struct sk_store *engine_store; /* NULL: none */
static struct sk_parking *engine_parking;
static struct sk_limits_table engine_limits;

struct client {
	uint64_t connection;
	struct sk_ring_writer *writer;
	struct sk_ring_reader *reader;
};

static inline int open_engine(void **state)
{
	(void)state;
	struct sk_diag diag = {""};
	struct sk_engine_options options = {
		.backend = sk_test_backend(),
		.kv_memory_bytes = engine_kv_bytes,
		.max_batch = engine_max_batch,
		.step_tokens = 64,
		.policy = {SK_MODE_STREAMING, 4, 100, 0},
		.stall_timeout_ns = ENGINE_STALL_NS,
		.queue_most = 4,
		.queue_timeout_ns = engine_queue_timeout_ns,
		.store = engine_store,
		.parking = engine_parking,
		.limits = engine_limits,
	};
	if (sk_model_open(sk_test_model("pythia-books"), &model, &diag) < 0 ||
	    sk_tokenizer_open(model, &tokenizer, &diag) < 0 ||
	    sk_engine_create(model, tokenizer, &options, &engine, &diag) < 0) {
		print_error("%s\n", diag.text);
		return -1;
	}
	return sk_engine_start(engine);
}

static inline int close_engine(void **state)
{
	(void)state;
	sk_engine_destroy(engine);
	sk_tokenizer_close(tokenizer);
	sk_model_close(model);
	return 0;
}

static char engine_state_dir[40];

/* A store in a folder of its own, for the engine that is opened next. */
static inline void open_store(void)
{
	struct sk_diag diag = {""};
	uint8_t fingerprint[SK_FINGERPRINT_BYTES];
	struct sk_model *same;

	strcpy(engine_state_dir, "/tmp/streamkv-engine-XXXXXX");
	assert_non_null(mkdtemp(engine_state_dir));
	if (sk_model_open(sk_test_model("pythia-books"), &same, &diag) < 0)
		fail_msg("%s", diag.text);
	assert_int_equal(sk_model_fingerprint(same, fingerprint), 0);
	sk_model_close(same);
	if (sk_store_open(engine_state_dir, fingerprint, &engine_store, &diag) < 0)
		fail_msg("%s", diag.text);
}

static inline void close_store(void)
{
	char command[60];
	sk_store_close(engine_store);
	snprintf(command, sizeof command, "rm -r %s", engine_state_dir);
	assert_int_equal(system(command), 0);
}

static inline int open_stored_engine(void **state)
{
	open_store();
	return open_engine(state);
}

static inline int close_stored_engine(void **state)
{
	close_engine(state);
	close_store();
	return 0;
}

static inline void connect_client(struct client *client, uint32_t n_slots)
{
	int fds[4];
	client->connection = ++n_connections;
	assert_int_equal(sk_ring_writer_create(n_slots, &client->writer), 0);
	sk_ring_writer_fds(client->writer, fds);
	for (int i = 0; i < 4; i++)
		fds[i] = dup(fds[i]);
	assert_int_equal(sk_ring_reader_create(fds, n_slots, &client->reader), 0);
	assert_int_equal(sk_engine_connect(engine, client->connection), 0);
}

static inline struct sk_request *ask(const struct client *client, uint32_t id, const char *prompt,
				     uint64_t max_tokens)
{
	struct sk_request *request = sk_request_create(SK_REQUEST_GENERATE);
	assert_non_null(request);
	request->connection = client->connection;
	request->id = id;
	request->uid = 1000;
	request->arrived_ns = sk_clock_ns();
	request->input = prompt;
	request->n_input_bytes = strlen(prompt);
	request->ring = client->writer;
	request->max_tokens = max_tokens;
	return request;
}

static inline struct sk_request *ask_text(const struct client *client, enum sk_request_kind kind,
					  uint32_t id, const void *input, size_t n_bytes)
{
	struct sk_request *request = sk_request_create(kind);
	assert_non_null(request);
	request->connection = client->connection;
	request->id = id;
	request->uid = 1000;
	request->input = input;
	request->n_input_bytes = n_bytes;
	return request;
}

static inline bool is_by_the_way(const struct sk_event *event)
{
	return event->kind == SK_EVENT_PROGRESS || event->kind == SK_EVENT_WARNING;
}

/* The next event that is neither progress nor a warning, waited for. */
static inline struct sk_event *next_event(void)
{
	for (;;) {
		struct sk_event *event = sk_engine_next_event(engine);
		if (event && !is_by_the_way(event))
			return event;
		sk_event_destroy(event);
		if (event)
			continue;
		struct pollfd fd = {.fd = sk_engine_event_fd(engine), .events = POLLIN};
		if (poll(&fd, 1, 600000) != 1) /* a sanitizer on a busy machine is slow */
			fail_msg("no event for ten minutes");
	}
}

static inline void disconnect_client(struct client *client)
{
	sk_engine_disconnect(engine, client->connection);
	for (;;) {
		struct sk_event *event = next_event();
		bool closed =
			event->kind == SK_EVENT_CLOSED && event->connection == client->connection;
		sk_event_destroy(event);
		if (closed)
			break;
	}
	sk_ring_writer_destroy(client->writer);
	sk_ring_reader_destroy(client->reader);
}

struct answer {
	int32_t ids[4096];
	size_t n_ids;
	char text[65536];
	size_t n_text;
	bool is_last;
};

/* Takes what the ring holds. */
static inline void drain(struct client *client, struct answer *answer)
{
	struct sk_slot slot;
	int err;
	while ((err = sk_ring_reader_next(client->reader, &slot)) == 1) {
		assert_false(answer->is_last);
		memcpy(answer->text + answer->n_text, slot.text, slot.n_text_bytes);
		answer->n_text += slot.n_text_bytes;
		if (!(slot.flags & (SK_SLOT_CONTINUES | SK_SLOT_NO_TOKEN)))
			answer->ids[answer->n_ids++] = slot.id;
		answer->is_last = (slot.flags & SK_SLOT_LAST) && !(slot.flags & SK_SLOT_MORE);
	}
	assert_int_equal(err, 0);
	answer->text[answer->n_text] = '\0';
}

/* Submits, reads until FINISHED, and hands that event over. */
static inline struct sk_event *run(struct client *client, struct sk_request *request,
				   struct answer *answer)
{
	memset(answer, 0, sizeof *answer);
	sk_engine_submit(engine, request);
	for (;;) {
		struct sk_event *event = sk_engine_next_event(engine);
		if (event && !is_by_the_way(event)) {
			if (event->kind != SK_EVENT_FINISHED)
				fail_msg("%s", event->reason);
			drain(client, answer);
			return event;
		}
		sk_event_destroy(event);
		drain(client, answer);
		/* The loop thread would watch the engine's events and the writer's doorbell. */
		struct pollfd fds[3] = {
			{.fd = sk_engine_event_fd(engine), .events = POLLIN},
			{.fd = sk_ring_reader_doorbell(client->reader), .events = POLLIN},
			{.fd = sk_ring_writer_doorbell(client->writer), .events = POLLIN},
		};
		if (!event && !sk_ring_reader_wait(client->reader))
			assert_true(poll(fds, 3, 600000) > 0);
		if (fds[2].revents)
			sk_engine_nudge(engine);
	}
}

static inline struct sk_stats stats(void)
{
	struct sk_request *request = sk_request_create(SK_REQUEST_STATS);
	request->sees_all = true;
	sk_engine_submit(engine, request);
	struct sk_event *event = next_event();
	assert_int_equal(event->kind, SK_EVENT_STATS);
	struct sk_stats result = event->stats;
	sk_event_destroy(event);
	return result;
}

/* Asked by nobody that is connected. */
static inline void delete_session(const char *name, uid_t uid)
{
	struct sk_request *request = sk_request_create(SK_REQUEST_SESSION);
	request->uid = uid;
	request->verb = SK_SESSION_DELETE;
	strcpy(request->session, name);
	sk_engine_submit(engine, request);
	struct sk_event *event = next_event();
	assert_int_equal(event->kind, SK_EVENT_SESSION);
	sk_event_destroy(event);
}

/* A moment in the middle of a prompt, looked for: how long after its submission, on this machine. */
struct moment {
	useconds_t us;
};

static inline void wait_for_moment(const struct moment *moment)
{
	usleep(moment->us);
}

/* Whether the request, cancelled then, was; else the moment is another one the next time. */
static inline bool was_at_moment(struct moment *moment, const struct sk_event *event)
{
	const bool is_cancelled = event->result.stop == SK_STOP_CANCELLED;
	if (is_cancelled && event->result.evaluated_tokens &&
	    event->result.evaluated_tokens < event->result.prompt_tokens)
		return true;
	moment->us = is_cancelled ? moment->us + moment->us / 4 + 100 : moment->us / 2;
	return false;
}

static inline void assert_idle(void)
{
	struct sk_stats s = stats();
	assert_int_equal(s.n_running, 0);
	assert_int_equal(s.n_sessions, 0);
	assert_int_equal(s.n_pages_used, 0);
}

static inline void wait_for_tokens(struct client *client, struct answer *answer, size_t n)
{
	while (answer->n_ids < n) {
		/* The loop thread would watch the writer's doorbell. */
		struct pollfd fds[2] = {
			{.fd = sk_ring_reader_doorbell(client->reader), .events = POLLIN},
			{.fd = sk_ring_writer_doorbell(client->writer), .events = POLLIN},
		};
		if (!sk_ring_reader_wait(client->reader))
			assert_true(poll(fds, 2, 600000) > 0);
		if (fds[1].revents)
			sk_engine_nudge(engine);
		drain(client, answer);
	}
}
