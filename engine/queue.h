/* Requests that wait for pages of the cache, and whose turn it is. Pure policy: numbers and times in, an order out. Engine
 * thread only.
 *
 * Users share the pool by what they hold of it, by weight and over time: while anybody waits, the pages of a user's running
 * requests are added up (page-seconds), and who has had least comes next; so an endless stream goes on being paid for.
 * Pages held now count as if they were held for the time of the patience yet: or all that come free at once were one
 * user's. What idle sessions hold counts for nobody. A user's own requests keep their order.
 *
 * Where the first finds too few pages, the free ones are kept for it, or what needs much would be starved by what needs
 * little; but only for so long (the patience), or one that cannot be served would shut all others out. Then those behind it
 * begin where they fit, and so does it, still before them. What was kept for it is added up as its user's: nobody keeps more
 * than its share of the pool empty, however many such requests it sends. But who had much or little before is let wait or
 * waited for a few times the patience at most: one whose share is small may keep what it takes for about a third of the time.
 *
 * A stream may run without end, so pages are lent for a time: the first in order, once its user has been waiting for the
 * patience, gets those of requests that have had theirs for as long, of the users that hold most; these wait for their next
 * turn, behind those of their user that have not begun (for a few times the patience). What needs the pages of several
 * waits for the last of them, and while it does nobody else gets any: or those that take turns among themselves would
 * never be through at the same time. So everybody runs sometime (the first of each user, in the stead of another of its own, once it has waited for the patience itself), and none begins only to give way again at once.
 *
 * Who waits for pages of one's own alone, because of a limit of one's own (user->is_held), is behind all others, and does
 * not count as waiting, nor is anything kept for it.
 */
#pragma once

#include "engine/request.h"

struct sk_queue {
	struct sk_list requests; /* by request.queued; in their order since sk_queue_order() */
	uint32_t n, n_preempted; /* of those, have begun and gave their pages up */
	uint64_t patience_ns;
	uint64_t counted_ns; /* till when pages have been added up: now */
	struct sk_request
		*room_for;        /* others are giving their pages up for it: it is next; or NULL */
	struct sk_request *first; /* for whom free pages are kept; or NULL */
	uint64_t first_ns;        /* since when */
	double kept;              /* page-seconds */
};

void sk_queue_init(struct sk_queue *queue, uint64_t patience_ns);
/* request->user, n_pages and queued_ns (now) are set. */
void sk_queue_add(struct sk_queue *queue, struct sk_request *request);
void sk_queue_remove(struct sk_queue *queue, struct sk_request *request);

/* Adds up what users have had until now: user->n_pages of each is what its running requests hold, n_free what is free;
 * is_held is as it was meanwhile. */
void sk_queue_count(struct sk_queue *queue, struct sk_list *users, uint32_t n_free,
		    uint64_t now_ns);
/* Puts the requests into the order in which they would be served, and numbers them (request->place: 1 is next). Of each
 * user, n_pages is set. */
void sk_queue_order(struct sk_queue *queue, struct sk_list *users);
/* Whether anybody waits for pages that others may take: then nobody else may, out of turn. */
bool sk_queue_is_waiting(const struct sk_list *users);
/* The next in order finds too few pages. True: the free ones are kept for it, and nobody behind it may have them. */
bool sk_queue_keeps(struct sk_queue *queue, struct sk_request *request);
/* Until when they are: there is more to serve then. UINT64_MAX: nothing is kept. */
uint64_t sk_queue_keeps_until(const struct sk_queue *queue);

/* A running request that could wait. */
struct sk_turn {
	struct sk_user *user;
	uint32_t n_pages;  /* that it would give back */
	uint64_t since_ns; /* it has had them */
	bool gives;
};
/* A request that is the first in order of its user finds n_missing pages too few: chooses who gives its own up for it
 * (`gives`; no more than are needed); of its own user alone, where others come before it. LATER: once the turns of those that
 * have pages now are over, there will be enough; meanwhile nobody else is to begin another. Of each user, n_pages is set. */
enum sk_giving { SK_GIVES_NOTHING, SK_GIVES_LATER, SK_GIVES_NOW };
enum sk_giving sk_queue_preempt(const struct sk_queue *queue, const struct sk_request *first,
				bool own_only, struct sk_turn *turns, uint32_t n_turns,
				uint64_t n_missing);
/* When that may change. */
uint64_t sk_queue_preempts_at(const struct sk_queue *queue, const struct sk_request *first,
			      const struct sk_turn *turns, uint32_t n_turns);

/* Of a queue that is too long: who has to go, which is the newest of the user with most by weight; where two have as many,
 * the newest. Not one that has begun already. NULL: there is none. */
struct sk_request *sk_queue_victim(const struct sk_queue *queue);
