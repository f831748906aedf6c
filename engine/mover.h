/* The thread that carries sessions out of the pool and back, so that no step waits for a disk, a checksum or a copy of
 * hundreds of megabytes. One at a time: first those that requests for text wait for (OUT, IN), then the others, each kind
 * in order.
 *
 * A move is a letter: the engine posts it with all that it needs, and gets it back as SK_MAIL_MOVED. Meanwhile the
 * session is_moving, and its pages are the mover's.
 */
#pragma once

#include "engine/image.h"
#include "engine/mailbox.h"
#include "engine/store.h"

#include <stdatomic.h>

enum sk_move_kind {
	SK_MOVE_OUT, /* pages -> the store's file */
	SK_MOVE_IN,  /* the store's file -> pages; it stays */
	SK_MOVE_SAVE, /* pages, or the store's file where n_pages is 0 and the session has some -> a memfd */
	SK_MOVE_KEEP, /* the store's file -> the same, to be kept for another time (move->ttl_ns) */
	SK_MOVE_LOAD, /* the request's input -> a draft in the store, for the engine to adopt */
};

struct sk_move {
	struct sk_mail mail; /* SK_MAIL_MOVED; first */
	enum sk_move_kind kind;
	struct sk_session *session; /* the engine's; LOAD: NULL */
	struct sk_request *request; /* SAVE, KEEP, LOAD: who is answered */
	uid_t uid;
	char name[SK_NAME_MOST_BYTES + 1];
	uint64_t ttl_ns;                 /* KEEP: as in an image */
	bool is_use;                     /* KEEP: and it is used now */
	char draft[SK_STORE_NAME_BYTES]; /* OUT, KEEP, LOAD */
	struct sk_image *image;          /* OUT, SAVE: what is written; IN, LOAD: what was read */
	uint32_t *pages;                 /* image->n_pages of the pool */
	bool is_stored;                  /* SAVE: from the store */
	bool to_disk; /* OUT: to the disk itself, for what must survive the machine's end */
	/* What came of it: */
	int error;
	struct sk_diag diag;
	int fd; /* SAVE: the memfd, sealed */
	uint64_t n_bytes;
};

#define SK_MOVER_URGENT                                                                            \
	8 /* moves of sessions out and in, after which a SAVE or LOAD has its turn */

struct sk_mover {
	struct sk_backend *backend;
	struct sk_store *store; /* or NULL: then SAVE of pages alone */
	struct sk_image_kind kind;
	struct sk_mailbox inbox;
	struct sk_mailbox *engine;
	struct sk_list urgent, others; /* taken from the inbox: the thread's */
	uint32_t n_urgent;             /* made since one of the others was */
	pthread_t thread;
	bool is_running;
	atomic_bool is_stopping;
};

int sk_mover_init(struct sk_mover *mover, struct sk_backend *backend, struct sk_store *store,
		  const struct sk_image_kind *kind, struct sk_mailbox *engine);
int sk_mover_start(struct sk_mover *mover);
/* Ends the thread; moves that still wait are made on the caller's. */
void sk_mover_stop(struct sk_mover *mover);
void sk_mover_finish(struct sk_mover *mover); /* accepts zeroed ones */

/* With room for a header, and n_pages zeroed pages; NULL without memory. */
struct sk_move *sk_move_create(enum sk_move_kind kind, uint32_t n_pages);
void sk_move_destroy(struct sk_move *move);
void sk_mover_submit(struct sk_mover *mover, struct sk_move *move);
/* On the calling thread, without letters. */
void sk_mover_run(struct sk_mover *mover, struct sk_move *move);
