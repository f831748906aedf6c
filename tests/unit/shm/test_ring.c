/* The ring in one thread: a model of it is kept beside, and everything is compared after every
 * call. The other side's lies are written through maps of its own, as a hostile process would.
 * One long file, since all of them use the same rig.
 */
#include "sk_test.h"

#include "shm/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* Where things lie, as doc/PROTOCOL.md has it for clients in other languages. */
#define HEAD_AT           64
#define WAITING_AT        128
#define SLOTS_AT          192
#define TAIL_AT           0
#define READER_WAITING_AT 64

#define N_SLOTS SK_RING_LEAST_SLOTS

struct rig {
	struct sk_ring_writer *writer;
	struct sk_ring_reader *reader;
	int fds[4];                          /* the writer's */
	const volatile uint8_t *slots;       /* a map for reading */
	volatile uint8_t *cursor;            /* a map for writing, as the client has */
	uint64_t n_put, n_published, n_read; /* the model, in slots */
	uint64_t n_known;                    /* n_read as the writer may know it at least */
};

static size_t slots_bytes(uint32_t n_slots)
{
	return SLOTS_AT + (size_t)n_slots * 64;
}

static void copies(const int fds[4], int ret_fds[4])
{
	for (int i = 0; i < 4; i++) {
		ret_fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
		assert_true(ret_fds[i] >= 0);
	}
}

static struct rig rig_create(void)
{
	struct rig rig = {0};
	int fds[4];

	assert_int_equal(sk_ring_writer_create(N_SLOTS, &rig.writer), 0);
	sk_ring_writer_fds(rig.writer, rig.fds);
	copies(rig.fds, fds);
	assert_int_equal(sk_ring_reader_create(fds, N_SLOTS, &rig.reader), 0);
	rig.slots = mmap(NULL, slots_bytes(N_SLOTS), PROT_READ, MAP_SHARED, rig.fds[0], 0);
	rig.cursor = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, rig.fds[1], 0);
	assert_ptr_not_equal(rig.slots, MAP_FAILED);
	assert_ptr_not_equal(rig.cursor, MAP_FAILED);
	return rig;
}

static void rig_finish(struct rig *rig)
{
	munmap((void *)rig->slots, slots_bytes(N_SLOTS));
	munmap((void *)rig->cursor, 4096);
	sk_ring_reader_destroy(rig->reader);
	sk_ring_writer_destroy(rig->writer);
}

static uint64_t head_of(const struct rig *rig)
{
	return *(const volatile uint64_t *)(rig->slots + HEAD_AT);
}

static volatile uint64_t *tail_of(const struct rig *rig)
{
	return (volatile uint64_t *)(rig->cursor + TAIL_AT);
}

static bool is_rung(int doorbell)
{
	struct pollfd p = {.fd = doorbell, .events = POLLIN};
	assert_true(poll(&p, 1, 0) >= 0);
	return p.revents & POLLIN;
}

/* What must hold between any two calls. */
static void check_rig(struct rig *rig)
{
	assert_int_equal(head_of(rig), rig->n_published);
	uint64_t tail = *tail_of(rig);
	assert_true(tail <= rig->n_read);
	assert_true(rig->n_read - tail < N_SLOTS / 4); /* room comes back in small batches */
	assert_true(tail >= rig->n_known);
	rig->n_known = tail;
	assert_int_equal(sk_ring_writer_room(rig->writer), N_SLOTS - (rig->n_put - tail));
}

static uint8_t text_byte(uint64_t token, size_t i)
{
	return (uint8_t)(token * 17 + i);
}

/* Puts token `token` with n_bytes of text and follows in the model. */
static int put(struct rig *rig, uint64_t token, size_t n_bytes, uint8_t flags)
{
	uint8_t text[N_SLOTS * SK_SLOT_TEXT_BYTES + 1];
	struct sk_slot slot = {.request = 3,
			       .id = (int32_t)token,
			       .logprob = -1.5f,
			       .put_us = 9,
			       .live = 100,
			       .evicted = 2,
			       .flags = flags,
			       .n_text_bytes = 255};
	for (size_t i = 0; i < n_bytes; i++)
		text[i] = text_byte(token, i);
	memset(slot.text, 0xee, sizeof slot.text); /* to be ignored */
	uint64_t n_slots = n_bytes ? (n_bytes + SK_SLOT_TEXT_BYTES - 1) / SK_SLOT_TEXT_BYTES : 1;
	int64_t room = sk_ring_writer_room(rig->writer);
	int r = sk_ring_writer_put(rig->writer, &slot, n_bytes ? text : NULL, n_bytes);
	if (n_slots > N_SLOTS)
		assert_int_equal(r, -EMSGSIZE);
	else
		assert_int_equal(r, (int64_t)n_slots <= room ? 0 : -EAGAIN);
	if (r == 0)
		rig->n_put += n_slots;
	check_rig(rig);
	return r;
}

static void publish(struct rig *rig)
{
	sk_ring_writer_publish(rig->writer);
	rig->n_published = rig->n_put;
	check_rig(rig);
}

/* Reads one token and compares it. */
static void expect_token(struct rig *rig, uint64_t token, size_t n_bytes, uint8_t flags)
{
	size_t n_got = 0;
	struct sk_slot slot;
	bool more = true;

	for (unsigned piece = 0; more; piece++) {
		assert_int_equal(sk_ring_reader_next(rig->reader, &slot), 1);
		rig->n_read++;
		check_rig(rig);
		assert_int_equal(slot.request, 3);
		assert_int_equal(slot.id, token);
		assert_int_equal(!!(slot.flags & SK_SLOT_CONTINUES), piece > 0);
		if (piece == 0) {
			assert_true(slot.logprob == -1.5f);
			assert_int_equal(slot.put_us, 9);
			assert_int_equal(slot.live, 100);
			assert_int_equal(slot.evicted, 2);
		}
		assert_int_equal(slot.flags & SK_SLOT_SPECIAL, flags & SK_SLOT_SPECIAL);
		for (size_t i = 0; i < SK_SLOT_TEXT_BYTES; i++)
			assert_int_equal(slot.text[i],
					 i < slot.n_text_bytes ? text_byte(token, n_got + i) : 0);
		n_got += slot.n_text_bytes;
		more = slot.flags & SK_SLOT_MORE;
		/* Only the last piece can be the last slot of the request. */
		assert_int_equal(slot.flags & SK_SLOT_LAST, more ? 0 : flags & SK_SLOT_LAST);
		if (more)
			assert_int_equal(slot.n_text_bytes, SK_SLOT_TEXT_BYTES);
	}
	assert_int_equal(n_got, n_bytes);
}

static void expect_empty(struct rig *rig)
{
	struct sk_slot slot = {.request = 77};
	assert_int_equal(sk_ring_reader_next(rig->reader, &slot), 0);
	assert_int_equal(slot.request, 77);
	check_rig(rig);
}

static void texts_of_every_length(void **state)
{
	(void)state;
	struct rig rig = rig_create();
	for (size_t n = 0; n <= 500; n++) {
		uint8_t flags =
			(uint8_t)((n % 2 ? SK_SLOT_SPECIAL : 0) | (n % 3 ? SK_SLOT_LAST : 0) |
				  (n % 5 ? 0 : SK_SLOT_MORE | SK_SLOT_CONTINUES));
		expect_empty(&rig);
		assert_int_equal(put(&rig, n, n, flags), 0);
		expect_empty(&rig); /* not published */
		publish(&rig);
		expect_token(&rig, n, n, flags);
	}
	rig_finish(&rig);
}

static void full_and_all_or_nothing(void **state)
{
	(void)state;
	struct rig rig = rig_create();
	const size_t most = (size_t)N_SLOTS * SK_SLOT_TEXT_BYTES;

	assert_int_equal(put(&rig, 1, most + 1, 0), -EMSGSIZE);
	assert_int_equal(put(&rig, 1, most, 0), 0);
	assert_int_equal(put(&rig, 2, 0, 0), -EAGAIN);
	publish(&rig);
	assert_int_equal(put(&rig, 2, 0, 0), -EAGAIN);
	expect_token(&rig, 1, most, 0);
	expect_empty(&rig);

	for (uint64_t i = 0; i < N_SLOTS - 2; i++)
		assert_int_equal(put(&rig, i, 3, 0), 0);
	assert_int_equal(put(&rig, 99, 81, SK_SLOT_LAST), -EAGAIN); /* wants 3 of 2 */
	assert_int_equal(put(&rig, 99, 80, SK_SLOT_LAST), 0);
	assert_int_equal(put(&rig, 100, 1, 0), -EAGAIN);
	publish(&rig);
	for (uint64_t i = 0; i < N_SLOTS - 2; i++)
		expect_token(&rig, i, 3, 0);
	expect_token(&rig, 99, 80, SK_SLOT_LAST);
	expect_empty(&rig);
	rig_finish(&rig);
}

/* A long random walk against the model, around the ring many times. */
static void random_walk(void **state)
{
	(void)state;
	struct rig rig = rig_create();
	static struct {
		uint64_t token;
		size_t n;
	} queue[4 * N_SLOTS];
	uint64_t n_in = 0, n_out = 0, n_visible = 0, random = 1;

	for (int step = 0; step < 200000; step++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		uint32_t dice = (uint32_t)(random >> 33);
		/* The mood changes slowly, so that the ring runs full and empty. */
		bool reading = (step / 700) % 2 ? dice % 4 : !(dice % 4);
		if (reading) {
			if (n_out == n_visible)
				expect_empty(&rig);
			else {
				expect_token(&rig, queue[n_out % (4 * N_SLOTS)].token,
					     queue[n_out % (4 * N_SLOTS)].n, 0);
				n_out++;
			}
		} else {
			size_t n = dice / 4 % 50 ? dice / 200 % 20 : dice / 200 % 1000;
			if (put(&rig, n_in, n, 0) == 0) {
				queue[n_in % (4 * N_SLOTS)].token = n_in;
				queue[n_in++ % (4 * N_SLOTS)].n = n;
			}
			if (dice % 7 == 0) {
				publish(&rig);
				n_visible = n_in;
			}
		}
	}
	assert_true(rig.n_read > 20 * N_SLOTS);
	rig_finish(&rig);
}

/* --- Waiting --- */

static void the_reader_is_rung_only_when_it_waits(void **state)
{
	(void)state;
	struct rig rig = rig_create();
	int bell = sk_ring_reader_doorbell(rig.reader);

	assert_int_equal(put(&rig, 1, 1, 0), 0);
	publish(&rig);
	assert_false(is_rung(bell));
	assert_true(sk_ring_reader_wait(rig.reader)); /* a slot is there already */
	assert_int_equal(put(&rig, 2, 1, 0), 0);
	publish(&rig);
	assert_false(is_rung(bell)); /* it does not wait */
	expect_token(&rig, 1, 1, 0);
	expect_token(&rig, 2, 1, 0);
	expect_empty(&rig);

	for (uint64_t i = 0; i < 10; i++) {
		assert_false(sk_ring_reader_wait(rig.reader));
		rig.n_known = rig.n_read; /* at the latest now */
		check_rig(&rig);
		assert_false(is_rung(bell));
		assert_int_equal(put(&rig, i, 1, 0), 0);
		assert_false(is_rung(bell));
		publish(&rig);
		assert_true(is_rung(bell));
		expect_token(&rig, i, 1, 0);
		assert_false(is_rung(bell)); /* silenced */
		publish(&rig);               /* of nothing */
		assert_false(is_rung(bell));
	}
	/* A wake-up without a slot: it can wait again at once. */
	assert_false(sk_ring_reader_wait(rig.reader));
	assert_int_equal(write(rig.fds[2], "", 1), -1); /* its end is for reading */
	assert_false(sk_ring_reader_wait(rig.reader));
	rig_finish(&rig);
}

static void the_writer_is_rung_when_there_is_room(void **state)
{
	(void)state;
	struct rig rig = rig_create();
	int bell = sk_ring_writer_doorbell(rig.writer);

	assert_true(sk_ring_writer_wait(rig.writer)); /* there is room */
	for (uint64_t i = 0; i < N_SLOTS; i++)
		assert_int_equal(put(&rig, i, 1, 0), 0);
	publish(&rig);
	assert_int_equal(put(&rig, 0, 100, 0), -EAGAIN);
	assert_false(sk_ring_writer_wait(rig.writer));
	assert_false(is_rung(bell));
	uint64_t n_rung = 0;
	for (uint64_t i = 0; i < N_SLOTS; i++) {
		expect_token(&rig, i, 1, 0);
		if (is_rung(bell)) {
			n_rung++;
			/* Room for a token of three slots, or else it waits on. */
			assert_true(sk_ring_writer_room(rig.writer) >= 3);
			assert_true(sk_ring_writer_wait(rig.writer));
			assert_false(is_rung(bell));
			assert_int_equal(put(&rig, 0, 100, 0), 0);
			break;
		}
	}
	assert_int_equal(n_rung, 1);
	rig_finish(&rig);

	/* Less room than the last put wanted is no room; all there is, is enough. */
	rig = rig_create();
	for (uint64_t i = 0; i < N_SLOTS - 2; i++)
		assert_int_equal(put(&rig, i, 1, 0), 0);
	publish(&rig);
	assert_true(sk_ring_writer_wait(rig.writer));
	assert_int_equal(put(&rig, 0, 100, 0), -EAGAIN);
	assert_false(sk_ring_writer_wait(rig.writer));
	assert_int_equal(put(&rig, 0, 80, 0), 0);
	rig_finish(&rig);

	/* The reader gives the last slots back when it goes to sleep, and rings for them. */
	rig = rig_create();
	for (uint64_t i = 0; i < N_SLOTS; i++)
		assert_int_equal(put(&rig, i, 1, 0), 0);
	publish(&rig);
	assert_int_equal(put(&rig, 0, 1, 0), -EAGAIN);
	assert_false(sk_ring_writer_wait(rig.writer));
	expect_token(&rig, 0, 1, 0);
	assert_false(is_rung(sk_ring_writer_doorbell(rig.writer)));
	assert_true(sk_ring_reader_wait(
		rig.reader)); /* slots are there; room is given back all the same */
	assert_true(is_rung(sk_ring_writer_doorbell(rig.writer)));
	assert_int_equal(put(&rig, 0, 1, 0), 0);
	assert_false(is_rung(sk_ring_writer_doorbell(rig.writer)));
	rig_finish(&rig);
}

/* --- Lies --- */

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

static void sizes_that_are_none(void **state)
{
	(void)state;
	static const uint32_t sizes[] = {
		0, 1, N_SLOTS - 1, N_SLOTS / 2, N_SLOTS + 1, UINT32_MAX, SK_RING_MOST_SLOTS * 2};
	struct sk_ring_writer *writer = NULL;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
		assert_int_equal(sk_ring_writer_create(sizes[i], &writer), -EINVAL);
	assert_null(writer);
	sk_ring_writer_destroy(NULL);
	sk_ring_reader_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_of_every_length),
		cmocka_unit_test(full_and_all_or_nothing),
		cmocka_unit_test(random_walk),
		cmocka_unit_test(the_reader_is_rung_only_when_it_waits),
		cmocka_unit_test(the_writer_is_rung_when_there_is_room),
		cmocka_unit_test(a_lying_reader_is_found),
		cmocka_unit_test(a_page_of_noise),
		cmocka_unit_test(doorbells_never_block),
		cmocka_unit_test(the_reader_cannot_write_slots),
		cmocka_unit_test(a_lying_writer_is_found),
		cmocka_unit_test(sizes_that_are_none),
	};
	return sk_test_run(tests, NULL, NULL);
}
