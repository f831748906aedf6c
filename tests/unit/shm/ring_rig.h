/* A ring in one thread, with a model of it beside: everything is compared after every call. The other side's lies are written
 * through maps of its own, as a hostile process would.
 */
#pragma once

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

static inline size_t slots_bytes(uint32_t n_slots)
{
	return SLOTS_AT + (size_t)n_slots * 64;
}

static inline void copies(const int fds[4], int ret_fds[4])
{
	for (int i = 0; i < 4; i++) {
		ret_fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
		assert_true(ret_fds[i] >= 0);
	}
}

static inline struct rig rig_create(void)
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

static inline void rig_finish(struct rig *rig)
{
	munmap((void *)rig->slots, slots_bytes(N_SLOTS));
	munmap((void *)rig->cursor, 4096);
	sk_ring_reader_destroy(rig->reader);
	sk_ring_writer_destroy(rig->writer);
}

static inline uint64_t head_of(const struct rig *rig)
{
	return *(const volatile uint64_t *)(rig->slots + HEAD_AT);
}

static inline volatile uint64_t *tail_of(const struct rig *rig)
{
	return (volatile uint64_t *)(rig->cursor + TAIL_AT);
}

static inline bool is_rung(int doorbell)
{
	struct pollfd p = {.fd = doorbell, .events = POLLIN};
	assert_true(poll(&p, 1, 0) >= 0);
	return p.revents & POLLIN;
}

/* What must hold between any two calls. */
static inline void check_rig(struct rig *rig)
{
	assert_int_equal(head_of(rig), rig->n_published);
	uint64_t tail = *tail_of(rig);
	assert_true(tail <= rig->n_read);
	assert_true(rig->n_read - tail < N_SLOTS / 4); /* room comes back in small batches */
	assert_true(tail >= rig->n_known);
	rig->n_known = tail;
	assert_int_equal(sk_ring_writer_room(rig->writer), N_SLOTS - (rig->n_put - tail));
}

static inline uint8_t text_byte(uint64_t token, size_t i)
{
	return (uint8_t)(token * 17 + i);
}

/* Puts token `token` with n_bytes of text and follows in the model. */
static inline int put(struct rig *rig, uint64_t token, size_t n_bytes, uint8_t flags)
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

static inline void publish(struct rig *rig)
{
	sk_ring_writer_publish(rig->writer);
	rig->n_published = rig->n_put;
	check_rig(rig);
}

/* Reads one token and compares it. */
static inline void expect_token(struct rig *rig, uint64_t token, size_t n_bytes, uint8_t flags)
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

static inline void expect_empty(struct rig *rig)
{
	struct sk_slot slot = {.request = 77};
	assert_int_equal(sk_ring_reader_next(rig->reader, &slot), 0);
	assert_int_equal(slot.request, 77);
	check_rig(rig);
}
