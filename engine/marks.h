/* How far a client has read, in its session's terms. A session whose client goes away is rolled back to the last token
 * that the client was given: so the engine remembers, for each token that lies in the ring unread, where the session
 * stood when it was drawn; and it keeps what the window has dropped since the oldest of them (session.h: keep_from).
 * There are at most SK_MARKS_MOST: a session that is further ahead of its reader waits. Engine thread only.
 */
#pragma once

#include "kv/window.h"

#define SK_MARKS_MOST 64

/* Text that the client was not given yet, because what follows decides what becomes of it: bytes of an open character
 * (text/detokenizer.h), and what may begin a stop string (stops.h). */
struct sk_open_text {
	uint8_t waiting[4], n_waiting;
	uint16_t n_held;
	uint8_t held[256];
};

struct sk_mark {
	uint64_t ring_end;        /* slots put when the token's were */
	struct sk_window window;  /* what is cached: not the token itself */
	int32_t last_id;          /* the token; -1: none */
	uint64_t random[4];       /* the sampler's, after it was drawn */
	uint64_t n_drawn;         /* of the request, with it */
	struct sk_open_text text; /* behind it */
};

struct sk_marks {
	struct sk_mark given; /* where the client is */
	struct sk_mark ahead[SK_MARKS_MOST];
	uint32_t at, n; /* of `ahead`, a ring: the oldest, and how many */
};

/* All that was live then is live now. */
static inline bool sk_window_is_still_there(const struct sk_window *then,
					    const struct sk_window *now)
{
	return now->first <= then->first || now->first == now->n_sink;
}

static inline bool sk_marks_are_full(const struct sk_marks *marks)
{
	return marks->n == SK_MARKS_MOST;
}

/* A token has been put. Not where they are full. */
static inline void sk_marks_add(struct sk_marks *marks, const struct sk_mark *mark)
{
	marks->ahead[(marks->at + marks->n++) % SK_MARKS_MOST] = *mark;
}

/* The reader has taken n_read slots in all. */
static inline void sk_marks_read(struct sk_marks *marks, uint64_t n_read)
{
	while (marks->n && marks->ahead[marks->at].ring_end <= n_read) {
		marks->given = marks->ahead[marks->at];
		marks->at = (marks->at + 1) % SK_MARKS_MOST;
		marks->n--;
	}
}
