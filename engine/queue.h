/* Requests that wait for pages of the cache, and whose turn it is. Pure policy over accounts (scheduler.h): users
 * share the queue as they share steps, by weight; a user's own requests keep their order. Engine thread only.
 *
 * Nobody passes the first, however small: so that what needs much memory is not starved by what needs little. But who
 * waits for pages of one's own alone, because of a limit of one's own (user->is_held), is behind all others.
 */
#pragma once

#include "engine/request.h"
#include "engine/scheduler.h"

struct sk_queue {
	struct sk_list requests; /* by request.queued, as they came */
	uint32_t n;
};

void sk_queue_init(struct sk_queue *queue);
/* request->user and n_pages are set. */
void sk_queue_add(struct sk_queue *queue, struct sk_request *request);
void sk_queue_remove(struct sk_queue *queue, struct sk_request *request);
/* Numbers the requests (request->place: 1 is next) in the order in which they would be served. Returns the first; NULL:
 * there is none, or only of users who are held. */
struct sk_request *sk_queue_order(struct sk_queue *queue, struct sk_list *users,
				  const struct sk_scheduler *scheduler);
/* Whether anybody waits for pages that others may take: then nobody else may, out of turn. */
bool sk_queue_is_waiting(const struct sk_list *users);
/* Of a queue with no place left: who makes room for one more of `user`'s, who has fewer: the last of the user with
 * most by weight. NULL: nobody, the new one has to go. */
struct sk_request *sk_queue_victim(const struct sk_queue *queue, const struct sk_user *user);
/* A request of the user gets so many pages; `in_turn`, or going past those who wait: then others owe it nothing. */
void sk_queue_charge(struct sk_scheduler *scheduler, struct sk_user *user, uint32_t n_pages,
		     bool in_turn);
