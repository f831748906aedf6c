/* Frames from portions of bytes of any size. */
#include "sk_test.h"

#include "proto/frame.h"

#include <errno.h>
#include <string.h>

struct stream {
	uint8_t *bytes;
	size_t n_bytes;
	size_t starts[16]; /* of each frame; then the end */
	unsigned n_frames;
};

static uint8_t message_byte(unsigned frame, size_t i)
{
	return (uint8_t)(frame * 31 + i * 7 + (i >> 8));
}

static struct stream stream_create(const size_t *lengths, unsigned n_frames)
{
	struct stream s = {.n_frames = n_frames};

	for (unsigned f = 0; f < n_frames; f++) {
		s.starts[f] = s.n_bytes;
		s.n_bytes += SK_FRAME_HEADER_BYTES + lengths[f];
	}
	s.starts[n_frames] = s.n_bytes;
	s.bytes = test_malloc(s.n_bytes);
	for (unsigned f = 0; f < n_frames; f++) {
		uint8_t *at = s.bytes + s.starts[f];
		sk_frame_header_write(at, (uint32_t)lengths[f]);
		for (size_t i = 0; i < lengths[f]; i++)
			at[SK_FRAME_HEADER_BYTES + i] = message_byte(f, i);
	}
	return s;
}

/* What must hold of a reader between any two calls. */
static void check_reader(const struct sk_frame_reader *reader)
{
	assert_true(reader->n_taken <= reader->n_whole);
	assert_true(reader->n_whole <= reader->n_bytes);
	assert_true(reader->n_bytes <= reader->n_allocated);
	assert_int_equal(reader->bytes == NULL, reader->n_allocated == 0);
	assert_int_equal(sk_frame_reader_is_inside(reader), reader->n_whole < reader->n_bytes);
}

/* Takes all whole frames, compares them and counts on in *frame. */
static void take_all(struct sk_frame_reader *reader, const struct stream *s, unsigned *frame)
{
	const uint8_t *message;
	size_t n_bytes;
	int r;

	while ((r = sk_frame_reader_next(reader, &message, &n_bytes)) == 1) {
		assert_true(*frame < s->n_frames);
		assert_int_equal(n_bytes,
				 s->starts[*frame + 1] - s->starts[*frame] - SK_FRAME_HEADER_BYTES);
		assert_memory_equal(message, s->bytes + s->starts[*frame] + SK_FRAME_HEADER_BYTES,
				    n_bytes);
		++*frame;
		check_reader(reader);
	}
	assert_int_equal(r, 0);
}

/* Pushes bytes [0, end) in the portions given by `cuts`, and takes what is whole after each. */
static void feed(const struct stream *s, const size_t *cuts, unsigned n_cuts, size_t end)
{
	struct sk_frame_reader reader = {0};
	unsigned frame = 0, n_whole = 0;
	size_t from = 0;
	int inside = 1;

	for (unsigned c = 0; c <= n_cuts; c++) {
		size_t to = c < n_cuts ? cuts[c] : end;
		assert_int_equal(sk_frame_reader_push(&reader, s->bytes + from, to - from), 0);
		check_reader(&reader);
		take_all(&reader, s, &frame);
		from = to;
	}
	for (unsigned f = 0; f <= s->n_frames; f++) {
		n_whole += f && s->starts[f] <= end;
		inside = inside && s->starts[f] != end;
	}
	assert_int_equal(frame, n_whole);
	assert_int_equal(sk_frame_reader_is_inside(&reader), inside);
	assert_int_equal(reader.n_begun, n_whole + (unsigned)inside);
	sk_frame_reader_finish(&reader);
}

static void every_split_and_truncation(void **state)
{
	(void)state;
	static const size_t lengths[] = {1, 5, 2, 11};
	struct stream s = stream_create(lengths, 4);

	for (size_t end = 0; end <= s.n_bytes; end++)
		for (size_t a = 0; a <= end; a++)
			for (size_t b = a; b <= end; b++)
				feed(&s, (size_t[]){a, b}, 2, end);
	test_free(s.bytes);
}

static void a_byte_at_a_time(void **state)
{
	(void)state;
	static const size_t lengths[] = {300, 1, 65536, 7, 1000};
	struct stream s = stream_create(lengths, 5);
	struct sk_frame_reader reader = {0};
	unsigned frame = 0;

	for (size_t i = 0; i < s.n_bytes; i++) {
		assert_int_equal(sk_frame_reader_push(&reader, s.bytes + i, 1), 0);
		take_all(&reader, &s, &frame);
		assert_int_equal(frame < s.n_frames && i + 1 == s.starts[frame],
				 !sk_frame_reader_is_inside(&reader) && frame < s.n_frames);
	}
	assert_int_equal(frame, s.n_frames);
	sk_frame_reader_finish(&reader);
	test_free(s.bytes);
}

static void many_frames_in_a_push(void **state)
{
	(void)state;
	static const size_t lengths[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
	struct stream s = stream_create(lengths, 14);
	feed(&s, NULL, 0, s.n_bytes);

	/* And taken only after several pushes. */
	struct sk_frame_reader reader = {0};
	unsigned frame = 0;
	for (size_t from = 0; from < s.n_bytes; from += 10) {
		size_t n = s.n_bytes - from < 10 ? s.n_bytes - from : 10;
		assert_int_equal(sk_frame_reader_push(&reader, s.bytes + from, n), 0);
		check_reader(&reader);
	}
	assert_int_equal(reader.n_begun, 14);
	take_all(&reader, &s, &frame);
	assert_int_equal(frame, 14);
	sk_frame_reader_finish(&reader);
	test_free(s.bytes);
}

static void the_largest_frame(void **state)
{
	(void)state;
	static const size_t lengths[] = {SK_FRAME_MOST_BYTES, 3};
	struct stream s = stream_create(lengths, 2);
	feed(&s, NULL, 0, s.n_bytes);
	feed(&s, (size_t[]){3, 70000}, 2, s.n_bytes);
	test_free(s.bytes);
}

static void a_bad_length_is_found_at_once(void **state)
{
	(void)state;
	static const uint32_t bad[] = {0, SK_FRAME_MOST_BYTES + 1, 0x7fffffff, 0x80000000,
				       0xffffffff};
	static const size_t lengths[] = {4, 9};
	struct stream s = stream_create(lengths, 2);

	for (size_t b = 0; b < sizeof bad / sizeof *bad; b++) {
		uint8_t bytes[64];
		memcpy(bytes, s.bytes, s.n_bytes);
		sk_frame_header_write(bytes + s.n_bytes, bad[b]);
		size_t n_bytes = s.n_bytes + SK_FRAME_HEADER_BYTES;

		for (size_t cut = 0; cut < n_bytes; cut++) {
			struct sk_frame_reader reader = {0};
			const uint8_t *message;
			size_t n_message;
			unsigned frame = 0;
			/* The header's last byte is what tells. */
			assert_int_equal(sk_frame_reader_push(&reader, bytes, cut), 0);
			if (cut % 2)
				take_all(&reader, &s, &frame);
			assert_int_equal(sk_frame_reader_push(&reader, bytes + cut, n_bytes - cut),
					 -EMSGSIZE);
			check_reader(&reader);
			/* What came before it is good. */
			while (frame < 2) {
				assert_int_equal(
					sk_frame_reader_next(&reader, &message, &n_message), 1);
				assert_int_equal(n_message, lengths[frame++]);
			}
			assert_int_equal(sk_frame_reader_next(&reader, &message, &n_message),
					 -EMSGSIZE);
			assert_int_equal(sk_frame_reader_push(&reader, "x", 1), -EMSGSIZE);
			assert_int_equal(sk_frame_reader_next(&reader, &message, &n_message),
					 -EMSGSIZE);
			sk_frame_reader_finish(&reader);
		}
	}
	test_free(s.bytes);
}

/* A header costs the peer four bytes and must cost us no more than a few. */
static void promises_are_not_allocated(void **state)
{
	(void)state;
	struct sk_frame_reader reader = {0};
	uint8_t header[SK_FRAME_HEADER_BYTES];

	sk_frame_header_write(header, SK_FRAME_MOST_BYTES);
	assert_int_equal(sk_frame_reader_push(&reader, header, sizeof header), 0);
	assert_true(reader.n_allocated <= 64);
	sk_frame_reader_finish(&reader);
	assert_null(reader.bytes);
	sk_frame_reader_finish(&reader);
}

static void a_large_buffer_is_given_back(void **state)
{
	(void)state;
	static const size_t lengths[] = {SK_FRAME_MOST_BYTES};
	struct stream s = stream_create(lengths, 1);
	struct sk_frame_reader reader = {0};
	unsigned frame = 0;

	assert_int_equal(sk_frame_reader_push(&reader, s.bytes, s.n_bytes), 0);
	take_all(&reader, &s, &frame);
	assert_true(reader.n_allocated > SK_FRAME_MOST_BYTES);
	assert_int_equal(sk_frame_reader_push(&reader, s.bytes, 1), 0);
	assert_true(reader.n_allocated <= 64);
	sk_frame_reader_finish(&reader);
	test_free(s.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_split_and_truncation),
		cmocka_unit_test(a_byte_at_a_time),
		cmocka_unit_test(many_frames_in_a_push),
		cmocka_unit_test(the_largest_frame),
		cmocka_unit_test(a_bad_length_is_found_at_once),
		cmocka_unit_test(promises_are_not_allocated),
		cmocka_unit_test(a_large_buffer_is_given_back),
	};
	return sk_test_run(tests, NULL, NULL);
}
