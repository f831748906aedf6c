/* Bytes that nobody meant, and frames that would grow: what they cost, and that it is given back. */
#include "wire_bytes.h"

#include <errno.h>
#include <malloc.h>

static const struct sk_limits limits = {
	.max_prompt_bytes = 1000, .max_window_tokens = 500, .max_ring_slots = 8192};

static uint64_t random_state;

static uint32_t random_below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 33) % n;
}

/* Heap in use, with some kilobytes of malloc's cache among it; 0 where the heap is a sanitizer's.
 */
static size_t heap_bytes(void)
{
	return mallinfo2().uordblks;
}

static void feed_hostile(const uint8_t *bytes, size_t n)
{
	struct sk_frame frame = {.message = bytes, .n_bytes = n};
	struct sk_diag diag;
	Sk__ClientMessage *c;
	Sk__ServerMessage *s;
	size_t before = heap_bytes();

	for (frame.n_fds = 0; frame.n_fds < 2; frame.n_fds++) {
		if (sk_client_message_unpack(&frame, &c, &diag) == 0) {
			size_t kept = heap_bytes() - before;
			assert_true(kept <= 16384 + 16 * n);
			(void)sk_client_message_check(c, &limits, &diag);
			sk__client_message__free_unpacked(c, NULL);
		}
		if (sk_server_message_unpack(&frame, &s, &diag) == 0)
			sk__server_message__free_unpacked(s, NULL);
	}
}

static void hostile_bytes(void **state)
{
	(void)state;
	const ProtobufCMessageDescriptor *types[] = {&sk__client_message__descriptor,
						     &sk__server_message__descriptor};
	size_t before = heap_bytes();
	random_state = 88172645463325252u;
	for (int round = 0; round < 20000; round++) {
		const ProtobufCMessageDescriptor *type = types[round % 2];
		struct bytes b = {.n = 0};
		put_envelope(&b, &type->fields[1 + random_below(type->n_fields - 1)], round % 3,
			     round % 2);
		for (uint32_t k = random_below(6); k; k--) {
			uint32_t at = random_below((uint32_t)b.n);
			switch (random_below(4)) {
			case 0:
				b.data[at] ^= (uint8_t)(1 << random_below(8));
				break;
			case 1:
				b.data[at] = (uint8_t)random_below(256);
				break;
			case 2:
				b.n = at + 1;
				break;
			default:
				memmove(b.data + at, b.data + random_below((uint32_t)b.n),
					b.n - at > 8 ? 8 : b.n - at);
			}
		}
		feed_hostile(b.data, b.n);
		for (size_t i = 0; i < b.n; i++)
			b.data[i] = (uint8_t)random_below(256);
		feed_hostile(b.data, b.n);
	}
	assert_true(heap_bytes() < before + 65536); /* all of it was freed */
}

/* Frames whose unpacked form is many times as large. */
static void frames_that_would_grow(void **state)
{
	(void)state;
	static const struct {
		const char *inside; /* repeated to fill the frame */
		size_t n;
		int expected;
	} cases[] = {
		{"\x4a\x00", 2, -ENOMEM},     /* empty stop strings, 2 bytes each */
		{"\x4a\x01x", 3, -ENOMEM},    /* allocations of one byte */
		{"\xa0\x06\x00", 3, -ENOMEM}, /* unknown fields */
	};
	size_t n_room = SK_FRAME_MOST_BYTES;
	uint8_t *bytes = test_malloc(n_room);

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		size_t n_inside = (n_room - 8) / cases[i].n * cases[i].n, n = 0;
		struct sk_diag diag = {""};
		Sk__ClientMessage *m;
		bytes[n++] = 0x1a;
		for (size_t v = n_inside; v; v >>= 7)
			bytes[n++] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
		for (size_t k = 0; k < n_inside; k += cases[i].n)
			memcpy(bytes + n + k, cases[i].inside, cases[i].n);
		struct sk_frame frame = {.message = bytes, .n_bytes = n + n_inside};
		size_t before = heap_bytes();
		assert_int_equal(sk_client_message_unpack(&frame, &m, &diag), cases[i].expected);
		assert_non_null(strstr(diag.text, "wants too much memory"));
		assert_true(heap_bytes() < before + 65536);
	}

	/* A frame full of ids grows fourfold, and that is fine. */
	size_t n_ids = 1000000, n = 0;
	struct sk_diag diag = {""};
	Sk__ClientMessage *m;
	struct bytes head = {.n = 0};
	put_number(&head, 1, 1);
	put_varint(&head, 5 << 3 | 2);
	put_varint(&head, n_ids + 4);
	put_varint(&head, 1 << 3 | 2);
	put_varint(&head, n_ids);
	memcpy(bytes, head.data, head.n);
	n = head.n + n_ids;
	memset(bytes + head.n, 9, n_ids);
	struct sk_frame frame = {.message = bytes, .n_bytes = n};
	assert_int_equal(sk_client_message_unpack(&frame, &m, &diag), 0);
	assert_int_equal(m->detokenize->n_ids, n_ids);
	sk__client_message__free_unpacked(m, NULL);
	test_free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_bytes),
		cmocka_unit_test(frames_that_would_grow),
	};
	return sk_test_run(tests, NULL, NULL);
}
