/* Several streams of one connection, through the library as others link it: none loses a token to another. Run by
 * test_streams.py, with a daemon at $STREAMKV_SOCKET. One long file, since all of it is one connection's. */
#include "sk_test.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include <streamkv.h>

#define N_STREAMS  5
#define N_MOST     400
#define TIMEOUT_MS 400000

/* Of different lengths, so that they end one by one. */
static const struct {
	const char *prompt;
	unsigned n_tokens;
} asks[N_STREAMS] = {
	{"It was a dark night", 40}, {"The king", 90}, {"Once upon a time", 7},
	{"There was a ship", 140},   {"She said", 65},
};

struct text {
	unsigned n_tokens;
	int32_t ids[N_MOST];
	size_t n_bytes;
	char bytes[16 * N_MOST];
};

static struct text alone[N_STREAMS]; /* what each says when nothing else runs */
static struct streamkv *kv;
static uint64_t begun_ns; /* the first of all */

static uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static struct streamkv_stream *begin(unsigned i)
{
	struct streamkv_generate ask = STREAMKV_GENERATE_INIT;
	struct streamkv_stream *stream;
	struct streamkv_error error;

	ask.prompt = asks[i].prompt;
	ask.n_prompt_bytes = strlen(asks[i].prompt);
	ask.max_tokens = asks[i].n_tokens;
	ask.ignore_eos = true;
	if (streamkv_generate(kv, &ask, &stream, &error) < 0)
		fail_msg("%s", error.text);
	return stream;
}

static void add(struct text *text, const struct streamkv_token *token)
{
	if (token->id >= 0) {
		assert_true(text->n_tokens < N_MOST);
		assert_int_equal(token->position, text->n_tokens);
		text->ids[text->n_tokens++] = token->id;
	}
	assert_true(text->n_bytes + token->n_text_bytes <= sizeof text->bytes);
	memcpy(text->bytes + text->n_bytes, token->text, token->n_text_bytes);
	text->n_bytes += token->n_text_bytes;
}

static void assert_alone(const struct text *text, unsigned i)
{
	assert_int_equal(text->n_tokens, asks[i].n_tokens);
	assert_memory_equal(text->ids, alone[i].ids, text->n_tokens * sizeof *text->ids);
	assert_int_equal(text->n_bytes, alone[i].n_bytes);
	assert_memory_equal(text->bytes, alone[i].bytes, text->n_bytes);
}

/* Reads one to its end, and closes it. */
static void read_out(struct streamkv_stream *stream, struct text *text)
{
	struct streamkv_error error = {""};
	struct streamkv_token token;
	int got;

	while ((got = streamkv_next(stream, TIMEOUT_MS, &token, &error)) == 1)
		add(text, &token);
	if (got < 0)
		fail_msg("%s", error.text);
	assert_int_equal(streamkv_result(stream)->stop, STREAMKV_STOP_LIMIT);
	assert_int_equal(streamkv_result(stream)->generated_tokens, text->n_tokens);
	assert_int_equal(streamkv_next(stream, 0, &token, &error), 0); /* and stays so */
	streamkv_stream_close(stream);
}

static int setup(void **state)
{
	struct streamkv_error error;
	(void)state;
	begun_ns = now_ns();
	if (streamkv_connect(NULL, TIMEOUT_MS, &kv, &error) < 0) {
		print_error("%s\n", error.text);
		return -1;
	}
	for (unsigned i = 0; i < N_STREAMS; i++)
		read_out(begin(i), &alone[i]);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	streamkv_close(kv);
	return 0;
}

/* All run; they are read one after the other, whatever comes for the others meanwhile. */
static void test_one_after_the_other(void **state)
{
	static const unsigned orders[][N_STREAMS] = {{0, 1, 2, 3, 4}, {3, 4, 1, 0, 2}};
	(void)state;
	for (unsigned order = 0; order < 2; order++) {
		struct streamkv_stream *streams[N_STREAMS];
		for (unsigned i = 0; i < N_STREAMS; i++)
			streams[i] = begin(i);
		for (unsigned i = 0; i < N_STREAMS; i++) {
			static struct text text;
			memset(&text, 0, sizeof text);
			read_out(streams[orders[order][i]], &text);
			assert_alone(&text, orders[order][i]);
		}
	}
}

/* A token of each in turn. */
static void test_in_turns(void **state)
{
	static struct text texts[N_STREAMS];
	struct streamkv_stream *streams[N_STREAMS];
	struct streamkv_error error;
	struct streamkv_token token;
	unsigned n_left = N_STREAMS;
	(void)state;

	memset(texts, 0, sizeof texts);
	for (unsigned i = 0; i < N_STREAMS; i++)
		streams[i] = begin(i);
	while (n_left) {
		for (unsigned i = 0; i < N_STREAMS; i++) {
			if (!streams[i])
				continue;
			int got = streamkv_next(streams[i], TIMEOUT_MS, &token, &error);
			assert_true(got >= 0);
			if (got == 1) {
				add(&texts[i], &token);
				continue;
			}
			streamkv_stream_close(streams[i]);
			streams[i] = NULL;
			n_left--;
		}
	}
	for (unsigned i = 0; i < N_STREAMS; i++)
		assert_alone(&texts[i], i);
}

/* Whichever comes first, with a poll() of one's own around it: 1, 0 all have ended, -ETIMEDOUT nothing more now. */
static int read_one(struct text texts[N_STREAMS])
{
	struct streamkv_stream *stream;
	struct streamkv_error error;
	struct streamkv_token token;

	int got = streamkv_next_any(kv, 0, &stream, &token, &error);
	if (got == -ETIMEDOUT || got == -ENOENT)
		return got == -ENOENT ? 0 : got;
	if (got < 0)
		fail_msg("%s", error.text);
	struct text *text = streamkv_context(stream);
	if (got == 1) {
		assert_in_range(token.handed_ns, begun_ns - 1000, now_ns());
		add(text, &token);
	} else {
		assert_int_equal(streamkv_result(stream)->generated_tokens,
				 asks[text - texts].n_tokens);
		streamkv_stream_close(stream);
	}
	return 1;
}

static void read_any(struct text texts[N_STREAMS])
{
	struct pollfd fds[2];
	int got;

	do {
		if (!streamkv_poll_fds(kv, fds))
			assert_true(poll(fds, 2, TIMEOUT_MS) > 0);
		do
			got = read_one(texts);
		while (got == 1);
	} while (got);
}

static void test_whichever_comes(void **state)
{
	static struct text texts[N_STREAMS];
	(void)state;

	memset(texts, 0, sizeof texts);
	for (unsigned i = 0; i < N_STREAMS; i++)
		streamkv_set_context(begin(i), &texts[i]);
	read_any(texts);
	for (unsigned i = 0; i < N_STREAMS; i++)
		assert_alone(&texts[i], i);
}

/* Whatever else is asked of a connection takes nothing from its streams, their ends among it. */
static void test_calls_meanwhile(void **state)
{
	static struct text texts[N_STREAMS];
	struct streamkv_status status;
	struct streamkv_error error;
	int32_t *ids;
	size_t n_ids;
	(void)state;

	memset(texts, 0, sizeof texts);
	for (unsigned i = 0; i < N_STREAMS; i++)
		streamkv_set_context(begin(i), &texts[i]);
	do {
		assert_int_equal(streamkv_status(kv, &status, &error), 0);
		assert_int_equal(
			streamkv_tokenize(kv, "The king", 8, true, false, &ids, &n_ids, &error), 0);
		assert_int_equal(n_ids, 2);
		free(ids);
	} while (status.running);
	read_any(texts);
	for (unsigned i = 0; i < N_STREAMS; i++)
		assert_alone(&texts[i], i);
}

/* One that is closed, cancelled or refused leaves the others as they are. */
static void test_one_goes(void **state)
{
	struct streamkv_generate bad = STREAMKV_GENERATE_INIT;
	struct streamkv_stream *closed = begin(3), *stays = begin(1), *cancelled = begin(3),
			       *refused;
	struct streamkv_error error;
	struct streamkv_token token;
	static struct text text;
	int got;
	(void)state;

	bad.prompt = "x", bad.n_prompt_bytes = 1, bad.chat = "nonsense";
	assert_int_equal(streamkv_generate(kv, &bad, &refused, &error), 0);
	assert_int_equal(streamkv_next(closed, TIMEOUT_MS, &token, &error), 1);
	streamkv_stream_close(closed);
	assert_int_equal(streamkv_cancel(cancelled, &error), 0);
	memset(&text, 0, sizeof text);
	read_out(stays, &text);
	assert_alone(&text, 1);
	while ((got = streamkv_next(cancelled, TIMEOUT_MS, &token, &error)) == 1) {
	}
	assert_int_equal(got, 0);
	assert_int_equal(streamkv_result(cancelled)->stop, STREAMKV_STOP_CANCELLED);
	streamkv_stream_close(cancelled);
	got = streamkv_next(refused, TIMEOUT_MS, &token, &error);
	assert_true(got < 0 || streamkv_result(refused)->stop == STREAMKV_STOP_REFUSED);
	if (got < 0)
		assert_non_null(strstr(error.text, "nonsense"));
	streamkv_stream_close(refused);
	struct streamkv_stream *any;
	assert_int_equal(streamkv_next_any(kv, 0, &any, &token, &error), -ENOENT);
}

static void await_paused(struct streamkv *other)
{
	struct streamkv_status status;
	struct streamkv_error error;

	do
		assert_int_equal(streamkv_status(other, &status, &error), 0);
	while (!status.paused);
}

/* The least ring, and streams that outrun it: they wait for their reader, and lose nothing. */
static void test_small_ring(void **state)
{
	struct streamkv *usual = kv;
	struct streamkv_error error;
	static struct text texts[N_STREAMS];
	(void)state;

	assert_int_equal(streamkv_connect_ring(NULL, 256, TIMEOUT_MS, &kv, &error), 0);
	memset(texts, 0, sizeof texts);
	for (unsigned i = 0; i < N_STREAMS; i++) /* 342 slots in all */
		streamkv_set_context(begin(i), &texts[i]);
	await_paused(usual);
	read_any(texts);
	for (unsigned i = 0; i < N_STREAMS; i++)
		assert_alone(&texts[i], i);
	streamkv_close(kv);
	kv = usual;
}

/* Nobody wakes a reader of what it could have read before it slept. */
static void test_no_sleep_before_a_full_ring(void **state)
{
	struct streamkv_generate ask = STREAMKV_GENERATE_INIT;
	struct streamkv_stream *stream;
	struct streamkv_error error;
	struct streamkv_token token;
	struct streamkv *small;
	struct pollfd fds[2];
	(void)state;

	assert_int_equal(streamkv_connect_ring(NULL, 256, TIMEOUT_MS, &small, &error), 0);
	ask.prompt = "It was", ask.n_prompt_bytes = 6, ask.endless = true;
	assert_int_equal(streamkv_generate(small, &ask, &stream, &error), 0);
	await_paused(kv);
	assert_true(streamkv_poll_fds(small, fds));
	assert_int_equal(streamkv_next(stream, 0, &token, &error), 1);
	streamkv_stream_close(stream);
	streamkv_close(small);
}

/* What outlives its connection can only be closed. */
static void test_left_over(void **state)
{
	struct streamkv *usual = kv;
	struct streamkv_error error;
	struct streamkv_token token;
	(void)state;

	assert_int_equal(streamkv_connect(NULL, TIMEOUT_MS, &kv, &error), 0);
	struct streamkv_stream *one = begin(3), *two = begin(3);
	assert_int_equal(streamkv_next(two, TIMEOUT_MS, &token, &error), 1);
	streamkv_close(kv);
	assert_int_equal(streamkv_next(one, 0, &token, &error), -ECONNRESET);
	streamkv_stream_close(one);
	streamkv_stream_close(two);
	kv = usual;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_after_the_other),
		cmocka_unit_test(test_in_turns),
		cmocka_unit_test(test_whichever_comes),
		cmocka_unit_test(test_calls_meanwhile),
		cmocka_unit_test(test_one_goes),
		cmocka_unit_test(test_small_ring),
		cmocka_unit_test(test_no_sleep_before_a_full_ring),
		cmocka_unit_test(test_left_over),
	};
	return sk_test_run(tests, setup, teardown);
}
