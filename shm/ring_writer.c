/* The daemon's end of a token ring. Whatever the reader stores in its page, nothing here reads or
 * writes outside the slots, and nothing blocks.
 */
#include "shm/ring_layout.h"

#include "base/cleanup.h"
#include "shm/doorbell.h"

#include <string.h>

struct sk_ring_writer {
	struct sk_segment slots_segment, cursor_segment;
	struct sk_ring_slots *slots;
	struct sk_ring_cursor *cursor;
	uint32_t n_slots;
	uint64_t head;                      /* of what was put */
	uint64_t published;                 /* of what the reader may see */
	uint64_t tail;                      /* as last read and found possible */
	uint32_t n_wanted;                  /* slots that the last put lacked room for, or 0 */
	bool is_waiting;                    /* our flag is up */
	bool is_broken;                     /* the reader's cursor was impossible once */
	int reader_bell[2], writer_bell[2]; /* each: reading end, writing end; all four kept */
};

int sk_ring_writer_create(uint32_t n_slots, struct sk_ring_writer **ret_writer)
{
	if (!sk_ring_n_slots_is_good(n_slots))
		return -EINVAL;
	struct sk_ring_writer *w = calloc(1, sizeof *w);
	if (!w)
		return -ENOMEM;
	w->reader_bell[0] = w->reader_bell[1] = w->writer_bell[0] = w->writer_bell[1] = -1;

	int r = sk_segment_create("streamkv-ring", sk_ring_slots_bytes(n_slots), 0,
				  &w->slots_segment);
	if (r == 0)
		r = sk_segment_create("streamkv-cursor", SK_RING_CURSOR_BYTES, 1,
				      &w->cursor_segment);
	if (r == 0)
		r = sk_doorbell_open(&w->reader_bell[0], &w->reader_bell[1]);
	if (r == 0)
		r = sk_doorbell_open(&w->writer_bell[0], &w->writer_bell[1]);
	if (r < 0) {
		sk_ring_writer_destroy(w);
		return r;
	}
	w->slots = w->slots_segment.data;
	w->cursor = w->cursor_segment.data;
	w->n_slots = n_slots;
	w->slots->magic = SK_RING_MAGIC;
	w->slots->n_slots = n_slots;
	*ret_writer = w;
	return 0;
}

void sk_ring_writer_destroy(struct sk_ring_writer *w)
{
	if (!w)
		return;
	for (int i = 0; i < 2; i++) {
		sk_cleanup_close(&w->reader_bell[i]);
		sk_cleanup_close(&w->writer_bell[i]);
	}
	sk_segment_finish(&w->cursor_segment);
	sk_segment_finish(&w->slots_segment);
	free(w);
}

void sk_ring_writer_fds(const struct sk_ring_writer *w, int ret_fds[4])
{
	ret_fds[0] = w->slots_segment.fd;
	ret_fds[1] = w->cursor_segment.fd;
	ret_fds[2] = w->reader_bell[0];
	ret_fds[3] = w->writer_bell[1];
}

int sk_ring_writer_doorbell(const struct sk_ring_writer *w)
{
	return w->writer_bell[0];
}

/* Copies the reader's cursor once and believes it only between its last value and what was
 * published: it neither goes back nor overtakes. */
static int look(struct sk_ring_writer *w)
{
	if (w->is_broken)
		return -EPROTO;
	uint64_t tail = atomic_load(&w->cursor->tail);
	if (tail - w->tail > w->published - w->tail) {
		w->is_broken = true;
		return -EPROTO;
	}
	w->tail = tail;
	return 0;
}

static uint32_t known_room(const struct sk_ring_writer *w)
{
	return w->n_slots - (uint32_t)(w->head - w->tail);
}

static void stop_waiting(struct sk_ring_writer *w)
{
	if (!w->is_waiting)
		return;
	w->is_waiting = false;
	atomic_store(&w->slots->waiting, 0);
	sk_doorbell_drain(w->writer_bell[0]);
}

uint32_t sk_ring_writer_n_slots(const struct sk_ring_writer *w)
{
	return w->n_slots;
}

int64_t sk_ring_writer_room(struct sk_ring_writer *w)
{
	int r = look(w);
	return r < 0 ? r : (int64_t)known_room(w);
}

int sk_ring_writer_put(struct sk_ring_writer *w, const struct sk_slot *slot, const void *text,
		       size_t n_bytes)
{
	if (n_bytes > (size_t)w->n_slots * SK_SLOT_TEXT_BYTES)
		return -EMSGSIZE;
	uint32_t n_pieces = n_bytes ? (uint32_t)((n_bytes - 1) / SK_SLOT_TEXT_BYTES) + 1 : 1;
	if (w->is_broken)
		return -EPROTO;
	if (known_room(w) < n_pieces) {
		int r = look(w);
		if (r < 0)
			return r;
		if (known_room(w) < n_pieces) {
			w->n_wanted = n_pieces;
			return -EAGAIN;
		}
	}
	w->n_wanted = 0;
	stop_waiting(w);

	const char *from = text;
	uint8_t flags = slot->flags & (uint8_t) ~(SK_SLOT_MORE | SK_SLOT_CONTINUES | SK_SLOT_LAST);
	for (uint32_t i = 0; i < n_pieces; i++) {
		bool is_end = i == n_pieces - 1;
		uint8_t n = (uint8_t)(is_end ? n_bytes : SK_SLOT_TEXT_BYTES);
		struct sk_slot piece = *slot;
		if (i) {
			piece = (struct sk_slot){.request = slot->request, .id = slot->id};
		}
		piece.flags = flags | (i ? SK_SLOT_CONTINUES : 0) |
			      (is_end ? slot->flags & SK_SLOT_LAST : SK_SLOT_MORE);
		piece.n_text_bytes = n;
		memset(piece.text, 0,
		       sizeof piece.text); /* nothing of other requests stays behind */
		if (n)
			memcpy(piece.text, from, n);
		from += n;
		n_bytes -= n;
		w->slots->slots[w->head++ & (w->n_slots - 1)] = piece;
	}
	return 0;
}

void sk_ring_writer_publish(struct sk_ring_writer *w)
{
	if (w->published == w->head)
		return;
	w->published = w->head;
	atomic_store(&w->slots->head, w->published);
	if (atomic_load(&w->cursor->waiting))
		sk_doorbell_ring(w->reader_bell[1]);
}

uint64_t sk_ring_writer_n_put(const struct sk_ring_writer *w)
{
	return w->head;
}

uint64_t sk_ring_writer_n_read(struct sk_ring_writer *w)
{
	(void)look(w); /* of a broken ring, what was read before */
	return w->tail;
}

static void begin_waiting(struct sk_ring_writer *w)
{
	if (w->is_waiting)
		sk_doorbell_drain(w->writer_bell[0]);
	w->is_waiting = true;
	atomic_store(&w->slots->waiting, 1);
}

bool sk_ring_writer_wait(struct sk_ring_writer *w)
{
	begin_waiting(w);
	/* A broken ring has no room to wait for: the next put says so. */
	if (look(w) == 0 && known_room(w) < (w->n_wanted ? w->n_wanted : 1))
		return false;
	stop_waiting(w);
	return true;
}

bool sk_ring_writer_wait_read(struct sk_ring_writer *w, uint64_t n_read)
{
	begin_waiting(w);
	if (look(w) == 0 && w->tail < n_read)
		return false;
	stop_waiting(w);
	return true;
}

int sk_ring_cursor_read(int cursor_fd, uint64_t *ret_n_read)
{
	uint64_t tail;
	ssize_t n = cursor_fd < 0 ? 0
				  : pread(cursor_fd, &tail, sizeof tail,
					  offsetof(struct sk_ring_cursor, tail));
	if (n != sizeof tail)
		return n < 0 ? -errno : -EBADF;
	*ret_n_read = tail;
	return 0;
}
