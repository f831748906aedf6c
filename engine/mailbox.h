/* A mailbox: a queue into one thread, from any. Posting hands ownership over; the owner polls a
 * descriptor and takes everything at once. The only lock in the engine, held for a few pointers.
 */
#pragma once

#include "base/list.h"

#include <pthread.h>

struct sk_mailbox {
	pthread_mutex_t lock;
	struct sk_list letters;
	int wake_fd; /* an eventfd */
};

/* What comes to the engine thread, embedded first in the thing that is sent. */
enum sk_mail_kind {
	SK_MAIL_REQUEST, /* struct sk_request: new */
	SK_MAIL_READY,   /* struct sk_request: its prompt is tokens now */
	SK_MAIL_CONNECT,
	SK_MAIL_CANCEL,
	SK_MAIL_DISCONNECT,
	SK_MAIL_MOVED,  /* struct sk_move: done */
	SK_MAIL_LIMITS, /* of users, from now on (limits.c) */
};

struct sk_mail {
	struct sk_list node;
	enum sk_mail_kind kind;
};

int sk_mailbox_init(struct sk_mailbox *mailbox); /* 0 or -errno */
void sk_mailbox_finish(
	struct sk_mailbox *mailbox); /* letters must have been taken; zeroed ones are accepted */
void sk_mailbox_post(struct sk_mailbox *mailbox, struct sk_list *node);
/* Makes the owner look, without a letter. */
void sk_mailbox_wake(struct sk_mailbox *mailbox);
/* Moves all letters, oldest first, to `ret_letters` (initialised here) and clears the wake-up. */
void sk_mailbox_take(struct sk_mailbox *mailbox, struct sk_list *ret_letters);
/* One letter, or NULL where there is none (and then the wake-up is cleared). */
struct sk_list *sk_mailbox_take_one(struct sk_mailbox *mailbox);
/* Waits until woken, at most timeout_ms (-1: for ever). */
void sk_mailbox_wait(struct sk_mailbox *mailbox, int timeout_ms);
