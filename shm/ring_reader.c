/* The client's end of a token ring. */
#include "shm/ring_layout.h"

#include "base/cleanup.h"
#include "shm/doorbell.h"

#include <string.h>

struct sk_ring_reader {
	struct sk_segment slots_segment, cursor_segment;
	const struct sk_ring_slots *slots;
	struct sk_ring_cursor *cursor;
	uint32_t n_slots;
	uint32_t n_batch; /* slots read before the writer is told of their room */
	uint64_t head;    /* as last read and found possible */
	uint64_t tail;    /* of what was read */
	uint64_t told;    /* of what was read: the writer was rung for it, if it waited */
	bool is_waiting;  /* our flag is up */
	int reader_bell;  /* we listen */
	int writer_bell;  /* we ring */
};

int sk_ring_reader_create(const int fds[4], uint32_t n_slots, struct sk_ring_reader **ret_reader)
{
	sk_autoclose int slots_fd = fds[0];
	sk_autoclose int cursor_fd = fds[1];
	sk_autoclose int reader_bell = fds[2];
	sk_autoclose int writer_bell = fds[3];

	if (!sk_ring_n_slots_is_good(n_slots))
		return -EBADMSG;
	int r = sk_doorbell_check(reader_bell, 0);
	if (r == 0)
		r = sk_doorbell_check(writer_bell, 1);
	if (r < 0)
		return r;
	struct sk_ring_reader *reader = calloc(1, sizeof *reader);
	if (!reader)
		return -ENOMEM;
	reader->reader_bell = reader->writer_bell = -1;
	r = sk_segment_attach(sk_steal_fd(&slots_fd), sk_ring_slots_bytes(n_slots), 0,
			      &reader->slots_segment);
	if (r == 0)
		r = sk_segment_attach(sk_steal_fd(&cursor_fd), SK_RING_CURSOR_BYTES, 1,
				      &reader->cursor_segment);
	if (r == 0) {
		reader->slots = reader->slots_segment.data;
		reader->cursor = reader->cursor_segment.data;
		if (reader->slots->magic != SK_RING_MAGIC || reader->slots->n_slots != n_slots)
			r = -EBADMSG;
	}
	if (r < 0) {
		sk_ring_reader_destroy(reader);
		return r;
	}
	reader->n_slots = n_slots;
	reader->n_batch = 16;
	reader->reader_bell = sk_steal_fd(&reader_bell);
	reader->writer_bell = sk_steal_fd(&writer_bell);
	*ret_reader = reader;
	return 0;
}

static void give_back(struct sk_ring_reader *reader)
{
	if (reader->told == reader->tail)
		return;
	reader->told = reader->tail;
	atomic_store(&reader->cursor->tail, reader->tail);
	if (atomic_load(&reader->slots->waiting))
		sk_doorbell_ring_peer(reader->writer_bell);
}

void sk_ring_reader_destroy(struct sk_ring_reader *reader)
{
	if (!reader)
		return;
	if (reader->cursor && reader->writer_bell >= 0)
		give_back(reader); /* so far it has read: its session goes on from there */
	sk_cleanup_close(&reader->reader_bell);
	sk_cleanup_close(&reader->writer_bell);
	sk_segment_finish(&reader->cursor_segment);
	sk_segment_finish(&reader->slots_segment);
	free(reader);
}

int sk_ring_reader_doorbell(const struct sk_ring_reader *reader)
{
	return reader->reader_bell;
}

/* The writer's cursor, believed only where it neither goes back nor laps us. */
static int look(struct sk_ring_reader *reader)
{
	uint64_t head = atomic_load(&reader->slots->head);
	if (head - reader->tail > reader->n_slots ||
	    head - reader->tail < reader->head - reader->tail)
		return -EPROTO;
	reader->head = head;
	return 0;
}

static void stop_waiting(struct sk_ring_reader *reader)
{
	if (!reader->is_waiting)
		return;
	reader->is_waiting = false;
	atomic_store(&reader->cursor->waiting, 0);
	sk_doorbell_drain(reader->reader_bell);
}

int sk_ring_reader_next(struct sk_ring_reader *reader, struct sk_slot *ret_slot)
{
	stop_waiting(reader);
	if (reader->head == reader->tail) {
		int r = look(reader);
		if (r < 0)
			return r;
		if (reader->head == reader->tail)
			return 0;
	}
	struct sk_slot slot = reader->slots->slots[reader->tail & (reader->n_slots - 1)];
	if (slot.n_text_bytes > SK_SLOT_TEXT_BYTES)
		return -EPROTO;
	reader->tail++;
	if (reader->tail - reader->told >= reader->n_batch)
		give_back(reader);
	else /* for whoever looks once we are gone: a session goes on from there */
		atomic_store_explicit(&reader->cursor->tail, reader->tail, memory_order_release);
	*ret_slot = slot;
	return 1;
}

bool sk_ring_reader_wait(struct sk_ring_reader *reader)
{
	give_back(reader);
	if (reader->is_waiting)
		sk_doorbell_drain(reader->reader_bell);
	reader->is_waiting = true;
	atomic_store(&reader->cursor->waiting, 1);
	/* An impossible cursor is no reason to sleep either: next() tells. */
	if (look(reader) == 0 && reader->head == reader->tail)
		return false;
	stop_waiting(reader);
	return true;
}
