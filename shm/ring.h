/* The token ring: one writer (the daemon's engine thread), one reader (a client), 64-byte slots.
 *
 *   segment "slots": the daemon writes, the client can only read
 *   +--------+--------+---------+--------+--------+-- ... --+--------+
 *   | magic  | head   | waiting | slot 0 | slot 1 |         | slot n |
 *   +--------+--------+---------+--------+--------+-- ... --+--------+
 *
 *   segment "cursor": the client writes
 *   +--------+---------+
 *   | tail   | waiting |
 *   +--------+---------+
 *
 * head and tail count slots since the start (64 bits, never wrap in practice); slot i is i % n_slots.
 * The writer publishes head with release order after the slot is whole, the reader acquires it; tail the
 * other way round. Either side that is about to sleep sets its `waiting` flag, looks once more, then waits
 * on its doorbell (a pipe: shm/doorbell.h says why); the other rings it only when the flag is set.
 *
 * The reader's page is not trusted: the writer copies tail once a look, and it must lie between its last
 * value and the published head, else -EPROTO from then on, and the client is dropped. The reader asks as
 * much of the writer.
 */
#pragma once

#include "shm/segment.h"

#include <stdbool.h>
#include <stdint.h>

#define SK_RING_DEFAULT_SLOTS 4096
/* More text than one token and its held-back stop string can have. */
#define SK_RING_LEAST_SLOTS 256
#define SK_RING_MOST_SLOTS  (1u << 20)
#define SK_SLOT_TEXT_BYTES  40

enum sk_slot_flags {
	SK_SLOT_MORE = 1 << 0,      /* the token's text runs on in the next slot */
	SK_SLOT_CONTINUES = 1 << 1, /* this slot carries on the one before; only its text counts */
	SK_SLOT_SPECIAL = 1 << 2,   /* a special token */
	SK_SLOT_NO_TOKEN = 1 << 3,  /* text alone (bytes held back before), no token */
	SK_SLOT_LAST = 1 << 4,      /* nothing follows in this request */
	SK_SLOT_STEP = 1 << 5,      /* with NO_TOKEN: the text is a struct sk_slot_step */
	SK_SLOT_UNSCORED = 1 << 6,  /* of Evaluate: nothing precedes this token */
	SK_SLOT_BEGUN = 1 << 7,     /* with NO_TOKEN: the text is a struct sk_slot_begun */
};

/* A step of the model, as a request that asked for a trace is told of it: before the token that it
 * drew, or the tokens that it scored. Text positions count from the session's first token. */
struct sk_slot_step {
	uint64_t position;   /* text position of the first token it ran for this request */
	uint64_t first;      /* after it: text position of the oldest live entry behind the sinks */
	uint64_t step_ns;    /* of the whole step, whoever else took part in it */
	uint32_t n_tokens;   /* that it ran for this request */
	uint32_t live;       /* entries cached before the first of them */
	uint32_t live_after; /* and after the last; live + n_tokens - live_after were evicted */
	uint32_t n_sink;     /* after it: sinks that are live */
};

/* Where an answer begins, as a request that asked for it is told before anything of it has run: whoever has a token knows
 * where its session stands, even if the daemon dies the next moment. */
struct sk_slot_begun {
	uint64_t position; /* text position of the prompt's first token */
	uint64_t n_prompt_tokens;
};

struct sk_slot {
	uint32_t request;
	int32_t id;
	float logprob;    /* of the token under the model, before sampling changes; natural log */
	uint32_t put_us;  /* when it was put, by CLOCK_MONOTONIC in microseconds: the low 32 bits */
	uint32_t live;    /* entries cached before the step that evaluates this token */
	uint16_t evicted; /* entries dropped by that step; saturates */
	uint8_t flags;
	uint8_t n_text_bytes; /* <= SK_SLOT_TEXT_BYTES */
	uint8_t text[SK_SLOT_TEXT_BYTES];
};
_Static_assert(sizeof(struct sk_slot) == 64, "a slot is a cache line");
_Static_assert(sizeof(struct sk_slot_step) <= SK_SLOT_TEXT_BYTES, "a step takes one slot");

struct sk_ring_writer;
struct sk_ring_reader;

/* --- Writer: the daemon. Created by the loop thread, then the engine thread's alone. --- */

int sk_ring_writer_create(uint32_t n_slots, struct sk_ring_writer **ret_writer);
void sk_ring_writer_destroy(struct sk_ring_writer *writer);
/* The four descriptors to send, in the order of proto/streamkv.proto's Welcome. Still owned by the
 * writer. */
void sk_ring_writer_fds(const struct sk_ring_writer *writer, int ret_fds[4]);
/* Readable when the reader has rung because there is room again. Any thread may poll it; it stays
 * readable until the writer's next put that succeeds, or wait (so poll it edge-triggered, or only
 * while waiting). */
int sk_ring_writer_doorbell(const struct sk_ring_writer *writer);

uint32_t sk_ring_writer_n_slots(const struct sk_ring_writer *writer);
/* Slots that can be written now, or -EPROTO where the reader's cursor is impossible. */
int64_t sk_ring_writer_room(struct sk_ring_writer *writer);
/* Writes one token with its text, cut over as many slots as it takes (slot->text is ignored; `slot`
 * gives the rest). All or nothing: 0, -EAGAIN where there is no room, -EPROTO, -EMSGSIZE where the
 * whole ring would be too small. Text is cut anywhere, also inside a character. Readers see nothing
 * before sk_ring_writer_publish(). */
int sk_ring_writer_put(struct sk_ring_writer *writer, const struct sk_slot *slot, const void *text,
		       size_t n_bytes);
/* Makes what was put visible, and rings the reader's doorbell if it waits. */
void sk_ring_writer_publish(struct sk_ring_writer *writer);
/* Slots put since the ring was made, and those of them that the reader says it has taken. */
uint64_t sk_ring_writer_n_put(const struct sk_ring_writer *writer);
uint64_t sk_ring_writer_n_read(struct sk_ring_writer *writer);
/* Asks to be rung (see above) when there is room for what the last put had no room for, or for a
 * slot. True: there is already (or the cursor is impossible, as the next put will tell), do not
 * wait. A ring may come early: try, wait again. Publish first: a reader that sees nothing reads
 * nothing. */
bool sk_ring_writer_wait(struct sk_ring_writer *writer);
/* The same, for when the reader has taken n_read slots in all. */
bool sk_ring_writer_wait_read(struct sk_ring_writer *writer, uint64_t n_read);

/* How many slots its reader has taken, from the second of the four descriptors alone: of a ring whose writer is gone.
 * 0 or -errno. */
int sk_ring_cursor_read(int cursor_fd, uint64_t *ret_n_read);

/* --- Reader: the client. One thread. --- */

/* Takes the four descriptors over (also on failure). n_slots as granted by Welcome. -EBADMSG where
 * they are not a ring. */
int sk_ring_reader_create(const int fds[4], uint32_t n_slots, struct sk_ring_reader **ret_reader);
void sk_ring_reader_destroy(struct sk_ring_reader *reader);
int sk_ring_reader_doorbell(const struct sk_ring_reader *reader);
/* The next slot, copied out: 1, 0 none, -EPROTO where the daemon's cursor is impossible. It counts as read at once; a
 * writer that waits for room is rung once for several, and at the latest by sk_ring_reader_wait(). */
int sk_ring_reader_next(struct sk_ring_reader *reader, struct sk_slot *ret_slot);
/* Before sleeping on the doorbell: true where a slot has come meanwhile, do not sleep. */
bool sk_ring_reader_wait(struct sk_ring_reader *reader);
