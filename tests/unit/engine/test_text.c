/* Text on its way through the engine: what is generated is UTF-8 whatever is drawn. The test plays the loop thread. */
#include "base/clock.h"
#include "cpu/cpu.h"
#include "engine/engine.h"
#include "sk_test.h"
#include "text/normalizer.h"

#include <poll.h>
#include <string.h>
#include <utf8proc.h>

static struct sk_model *model;
static struct sk_tokenizer *tokenizer;
static struct sk_engine *engine;

static int open_engine(void **state)
{
	(void)state;
	struct sk_diag diag = {""};
	struct sk_engine_options options = {
		.backend = &sk_cpu_backend,
		.kv_memory_bytes = 64 << 20,
		.max_batch = 8,
		.step_tokens = 64,
		.policy = {SK_MODE_STREAMING, 4, 100, 0},
	};
	if (sk_model_open(sk_test_model("pythia-books"), &model, &diag) < 0 ||
	    sk_tokenizer_open(model, &tokenizer, &diag) < 0 ||
	    sk_engine_create(model, tokenizer, &options, &engine, &diag) < 0) {
		print_error("%s\n", diag.text);
		return -1;
	}
	return sk_engine_start(engine);
}

static int close_engine(void **state)
{
	(void)state;
	sk_engine_destroy(engine);
	sk_tokenizer_close(tokenizer);
	sk_model_close(model);
	return 0;
}

struct client {
	uint64_t connection;
	struct sk_ring_writer *writer;
	struct sk_ring_reader *reader;
};

static void connect_client(struct client *client)
{
	static uint64_t n_connections;
	int fds[4];
	client->connection = ++n_connections;
	assert_int_equal(sk_ring_writer_create(1024, &client->writer), 0);
	sk_ring_writer_fds(client->writer, fds);
	for (int i = 0; i < 4; i++)
		fds[i] = dup(fds[i]);
	assert_int_equal(sk_ring_reader_create(fds, 1024, &client->reader), 0);
	assert_int_equal(sk_engine_connect(engine, client->connection), 0);
}

/* The next event that is not progress, waited for. */
static struct sk_event *next_event(void)
{
	for (;;) {
		struct sk_event *event = sk_engine_next_event(engine);
		if (event && event->kind != SK_EVENT_PROGRESS)
			return event;
		sk_event_destroy(event);
		struct pollfd fd = {.fd = sk_engine_event_fd(engine), .events = POLLIN};
		if (!event && poll(&fd, 1, 600000) != 1)
			fail_msg("no event for ten minutes");
	}
}

static void finish_client(struct client *client)
{
	sk_ring_writer_destroy(client->writer);
	sk_ring_reader_destroy(client->reader);
}

static void disconnect_client(struct client *client)
{
	sk_engine_disconnect(engine, client->connection);
	struct sk_event *event = next_event();
	assert_int_equal(event->kind, SK_EVENT_CLOSED);
	sk_event_destroy(event);
	finish_client(client);
}

static struct sk_request *ask(const struct client *client, enum sk_request_kind kind, uint32_t id,
			      const void *input, size_t n_bytes)
{
	struct sk_request *request = sk_request_create(kind);
	assert_non_null(request);
	request->connection = client->connection;
	request->id = id;
	request->uid = 1000;
	request->arrived_ns = sk_clock_ns();
	request->input = input;
	request->n_input_bytes = n_bytes;
	request->ring = client->writer;
	request->max_tokens = 1;
	return request;
}

/* --- What is generated --- */

static void take_text(struct client *client, struct sk_bytes *text)
{
	struct sk_slot slot;
	while (sk_ring_reader_next(client->reader, &slot) == 1)
		assert_int_equal(sk_bytes_append(text, slot.text, slot.n_text_bytes), 0);
}

/* Drawn from all tokens alike, every few of them are a part of a character: a generation begins, goes on and ends with
 * such, and is UTF-8. */
static void test_generated_text_is_utf8(void **state)
{
	(void)state;
	struct client client;
	unsigned n_replaced = 0, n_replaced_at_end = 0;

	connect_client(&client);
	for (uint32_t seed = 1; seed <= 400; seed++) {
		struct sk_bytes text = {0};
		struct sk_request *request =
			ask(&client, SK_REQUEST_GENERATE, seed, "It was", strlen("It was"));
		request->sampling.temperature = 1e6f;
		request->sampling.seed = seed;
		request->max_tokens = 1 + seed % 4;
		request->show_special = seed % 8 == 0;
		sk_engine_submit(engine, request);
		struct sk_event *event = next_event();
		assert_int_equal(event->kind, SK_EVENT_FINISHED);
		sk_event_destroy(event);
		take_text(&client, &text);
		for (size_t at = 0; at < text.n_bytes;) {
			utf8proc_int32_t character;
			utf8proc_ssize_t n = utf8proc_iterate(
				text.bytes + at, (utf8proc_ssize_t)(text.n_bytes - at), &character);
			assert_true(n > 0);
			at += (size_t)n;
			n_replaced += character == 0xfffd;
			n_replaced_at_end += character == 0xfffd && at == text.n_bytes;
		}
		sk_bytes_finish(&text);
	}
	assert_true(n_replaced > n_replaced_at_end && n_replaced_at_end > 5); /* so it was tried */
	disconnect_client(&client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_generated_text_is_utf8),
	};
	return sk_test_run(tests, open_engine, close_engine);
}
