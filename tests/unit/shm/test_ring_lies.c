/* The ring where the other side lies: it is found out, and nobody hangs or reads outside of the slots. */
#include "ring_rig.h"

static void a_lying_reader_is_found(void **state)
{
	(void)state;
	/* 100 put, 80 of them published, 30 read and known as read. */
	static const uint64_t lies[] = {81,
					100,
					101,
					29,
					0,
					80 - N_SLOTS - 1ull,
					80 - N_SLOTS * 1ull,
					UINT64_MAX,
					UINT64_MAX / 2,
					1ull << 63,
					30 + (1ull << 32)};
	for (size_t i = 0; i < sizeof lies / sizeof *lies; i++)
		for (int how = 0; how < 3; how++) {
			struct rig rig = rig_create();
			struct sk_slot slot = {.request = 1};
			uint8_t text[N_SLOTS * SK_SLOT_TEXT_BYTES] = {0};
			for (uint64_t k = 0; k < 80; k++)
				assert_int_equal(put(&rig, k, 1, 0), 0);
			publish(&rig);
			for (uint64_t k = 80; k < 100; k++)
				assert_int_equal(put(&rig, k, 1, 0), 0);
			*tail_of(&rig) = 30; /* true, if early */
			assert_int_equal(sk_ring_writer_room(rig.writer), N_SLOTS - 70);
			*tail_of(&rig) = lies[i];
			if (how == 0)
				assert_int_equal(sk_ring_writer_room(rig.writer), -EPROTO);
			else if (how == 1)
				assert_int_equal(
					sk_ring_writer_put(rig.writer, &slot, text, sizeof text),
					-EPROTO);
			else
				assert_true(
					sk_ring_writer_wait(rig.writer)); /* no sleeping on it */
			/* It stays found, whatever the reader says afterwards. */
			*tail_of(&rig) = 30;
			assert_int_equal(sk_ring_writer_put(rig.writer, &slot, "x", 1), -EPROTO);
			assert_int_equal(sk_ring_writer_room(rig.writer), -EPROTO);
			sk_ring_writer_publish(rig.writer);
			rig_finish(&rig);
		}
}

/* Whatever is in the page: the writer's books stay within the slots. */
static void a_page_of_noise(void **state)
{
	(void)state;
	uint64_t random = 7;
	for (int round = 0; round < 3000; round++) {
		struct rig rig = rig_create();
		struct sk_slot slot = {.request = 1};
		for (int step = 0; step < 50; step++) {
			random = random * 6364136223846793005u + 1442695040888963407u;
			uint32_t dice = (uint32_t)(random >> 33);
			*tail_of(&rig) = dice % 3 ? *tail_of(&rig) + dice / 3 % 4 : random;
			*(volatile uint32_t *)(rig.cursor + READER_WAITING_AT) = dice;
			int64_t room = sk_ring_writer_room(rig.writer);
			assert_true(room == -EPROTO || (room >= 0 && room <= N_SLOTS));
			int r = sk_ring_writer_put(rig.writer, &slot, "text", 4);
			assert_true(r == 0 || r == -EAGAIN || r == -EPROTO);
			sk_ring_writer_publish(rig.writer);
			(void)sk_ring_writer_wait(rig.writer);
			assert_true(head_of(&rig) <= (uint64_t)step + 1);
		}
		rig_finish(&rig);
	}
}

/* A peer that fills or closes its doorbell, or takes the flags off its end, stops nobody. */
static void doorbells_never_block(void **state)
{
	(void)state;
	struct rig rig = rig_create();
	int fds[4];
	copies(rig.fds, fds);
	for (int i = 2; i < 4; i++)
		assert_int_equal(fcntl(fds[i], F_SETFL, 0),
				 0); /* O_NONBLOCK off, on the peer's ends */
	for (uint64_t i = 0; i < 3 * 4096; i++) {
		struct sk_slot slot = {.request = 1};
		*(volatile uint32_t *)(rig.cursor + READER_WAITING_AT) =
			1; /* never woken, always waiting */
		*tail_of(&rig) = head_of(&rig);
		assert_int_equal(sk_ring_writer_put(rig.writer, &slot, NULL, 0), 0);
		sk_ring_writer_publish(rig.writer);
		(void)sk_ring_writer_wait(rig.writer);
		(void)sk_ring_writer_wait(rig.writer);
	}
	assert_true(is_rung(rig.fds[2]));
	/* Nor does a doorbell that everybody on the other side has closed. */
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	sk_ring_reader_destroy(rig.reader);
	rig.reader = NULL;
	struct sk_slot slot = {.request = 1};
	assert_int_equal(sk_ring_writer_put(rig.writer, &slot, NULL, 0), 0);
	sk_ring_writer_publish(rig.writer);
	struct pollfd p = {.fd = sk_ring_writer_doorbell(rig.writer), .events = POLLIN};
	assert_int_equal(poll(&p, 1, 0), 0); /* no hang-up that would keep a loop busy */
	rig_finish(&rig);
}

static void the_reader_cannot_write_slots(void **state)
{
	(void)state;
	struct rig rig = rig_create();
	size_t n = slots_bytes(N_SLOTS);
	char path[64];

	assert_ptr_equal(mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, rig.fds[0], 0),
			 MAP_FAILED);
	assert_int_equal(ftruncate(rig.fds[0], 0), -1);
	assert_int_equal(ftruncate(rig.fds[1], 0), -1);
	snprintf(path, sizeof path, "/proc/self/fd/%d", rig.fds[0]);
	int again = open(path, O_RDWR | O_CLOEXEC);
	if (again >= 0) {
		assert_ptr_equal(mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0),
				 MAP_FAILED);
		assert_int_equal(ftruncate(again, 0), -1);
		assert_int_equal(pwrite(again, "x", 1, 0), -1);
		close(again);
	}
	for (int i = 0; i < 4; i++)
		assert_int_equal(fcntl(rig.fds[i], F_GETFD), FD_CLOEXEC);
	rig_finish(&rig);
}

/* A daemon that goes wrong, played by hand on segments of our own. */
static void a_lying_writer_is_found(void **state)
{
	(void)state;
	struct sk_segment slots, cursor;
	int bell[2], fds[4];
	struct sk_ring_reader *reader;
	struct sk_slot slot;

	/* The true ring's first line is copied. */
	struct rig rig = rig_create();
	assert_int_equal(sk_segment_create("slots", slots_bytes(N_SLOTS), 0, &slots), 0);
	assert_int_equal(sk_segment_create("cursor", 4096, 1, &cursor), 0);
	memcpy(slots.data, (const void *)rig.slots, 64);
	rig_finish(&rig);
	assert_int_equal(pipe2(bell, O_CLOEXEC | O_NONBLOCK), 0);
	const int mine[4] = {slots.fd, cursor.fd, bell[0], bell[1]};
	copies(mine, fds);
	assert_int_equal(sk_ring_reader_create(fds, N_SLOTS, &reader), 0);

	volatile uint64_t *head = (volatile uint64_t *)((uint8_t *)slots.data + HEAD_AT);
	struct sk_slot *first = (struct sk_slot *)((uint8_t *)slots.data + SLOTS_AT);
	assert_int_equal(sk_ring_reader_next(reader, &slot), 0);
	*head = N_SLOTS + 1;
	assert_int_equal(sk_ring_reader_next(reader, &slot), -EPROTO);
	assert_true(sk_ring_reader_wait(reader));
	*head = UINT64_MAX;
	assert_int_equal(sk_ring_reader_next(reader, &slot), -EPROTO);
	*head = 2;
	first->n_text_bytes = SK_SLOT_TEXT_BYTES + 1;
	assert_int_equal(sk_ring_reader_next(reader, &slot), -EPROTO);
	first->n_text_bytes = SK_SLOT_TEXT_BYTES;
	assert_int_equal(sk_ring_reader_next(reader, &slot), 1);
	assert_int_equal(sk_ring_reader_next(reader, &slot), 1);
	*head = 1; /* goes back */
	assert_int_equal(sk_ring_reader_next(reader, &slot), -EPROTO);
	*head = N_SLOTS + 2;
	assert_int_equal(sk_ring_reader_next(reader, &slot), 1);
	assert_true(sk_ring_reader_wait(reader));
	*head = 3; /* goes back to where the reader is: still no reason to sleep */
	assert_true(sk_ring_reader_wait(reader));
	sk_ring_reader_destroy(reader);

	/* Sizes and magic that do not fit; the descriptors are taken over all the same. */
	static const uint32_t sizes[] = {0,           1,           N_SLOTS / 2,
					 N_SLOTS * 2, N_SLOTS + 1, SK_RING_MOST_SLOTS * 2};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		copies(mine, fds);
		assert_int_equal(sk_ring_reader_create(fds, sizes[i], &reader), -EBADMSG);
		for (int k = 0; k < 4; k++)
			assert_int_equal(fcntl(fds[k], F_GETFD), -1);
	}
	/* In another order. */
	static const int orders[][4] = {
		{1, 0, 2, 3}, {0, 1, 3, 2}, {2, 1, 0, 3}, {0, 0, 2, 3}, {0, 1, 2, 0}};
	for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
		int swapped[4] = {mine[orders[i][0]], mine[orders[i][1]], mine[orders[i][2]],
				  mine[orders[i][3]]};
		copies(swapped, fds);
		assert_int_equal(sk_ring_reader_create(fds, N_SLOTS, &reader), -EBADMSG);
	}
	assert_int_equal(sk_ring_reader_create((int[]){-1, -1, -1, -1}, N_SLOTS, &reader),
			 -EBADMSG);
	*(uint8_t *)slots.data ^= 1;
	copies(mine, fds);
	assert_int_equal(sk_ring_reader_create(fds, N_SLOTS, &reader), -EBADMSG);
	close(bell[0]);
	close(bell[1]);
	sk_segment_finish(&slots);
	sk_segment_finish(&cursor);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lying_reader_is_found),
		cmocka_unit_test(a_page_of_noise),
		cmocka_unit_test(doorbells_never_block),
		cmocka_unit_test(the_reader_cannot_write_slots),
		cmocka_unit_test(a_lying_writer_is_found),
	};
	return sk_test_run(tests, NULL, NULL);
}
