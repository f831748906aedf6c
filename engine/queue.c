#include "engine/queue.h"

#include "engine/user.h"

#include <math.h>

/* For how many times the patience one waits at most because one had much, or is waited for because one had little. */
#define MOST_AHEAD  3
#define MOST_BEHIND 1

void sk_queue_init(struct sk_queue *queue, uint64_t patience_ns)
{
	*queue = (struct sk_queue){.patience_ns = patience_ns};
	sk_list_init(&queue->requests);
}

void sk_queue_add(struct sk_queue *queue, struct sk_request *request)
{
	if (!queue->n) /* nobody has waited until now */
		queue->counted_ns = request->queued_ns;
	sk_list_append(&queue->requests, &request->queued);
	request->user->n_queued++;
	queue->n++;
}

static double by_weight(const struct sk_user *user, double n)
{
	return n / user->tenant.weight;
}

static void keep_no_more(struct sk_queue *queue)
{
	struct sk_request *first = queue->first;
	if (!first)
		return;
	first->kept_ns += queue->counted_ns - queue->first_ns;
	first->user->ahead += by_weight(first->user, queue->kept);
	queue->first = NULL;
	queue->kept = 0;
}

void sk_queue_remove(struct sk_queue *queue, struct sk_request *request)
{
	if (queue->first == request)
		keep_no_more(queue);
	sk_list_remove(&request->queued);
	request->user->n_queued--;
	queue->n--;
}

static double seconds(uint64_t ns)
{
	return (double)ns * 1e-9;
}

static bool waits(const struct sk_user *user)
{
	return user->n_queued && !user->is_held;
}

bool sk_queue_is_waiting(const struct sk_list *users)
{
	sk_list_for_each (node, users)
		if (waits(sk_container_of(node, struct sk_user, node)))
			return true;
	return false;
}

void sk_queue_count(struct sk_queue *queue, struct sk_list *users, uint32_t n_free, uint64_t now_ns)
{
	const double s = seconds(now_ns - queue->counted_ns);
	double least = INFINITY, weights = 0, n_pages = n_free, share;
	const bool is_scarce = sk_queue_is_waiting(users);

	queue->counted_ns = now_ns;
	if (queue->first)
		queue->kept += s * fmin(n_free, queue->first->n_pages);
	if (queue->first && queue->first->user->is_held)
		keep_no_more(queue);
	sk_list_for_each (node, users) {
		struct sk_user *user = sk_container_of(node, struct sk_user, node);
		user->ahead += by_weight(user, user->n_pages * s);
		n_pages += user->n_pages;
		if (waits(user) || user->n_pages)
			weights += user->tenant.weight;
		if (waits(user))
			least = fmin(least, user->ahead);
	}
	/* Where nobody waits nothing is scarce, and what one has had more than another is forgotten. */
	share = is_scarce ? seconds(queue->patience_ns) * n_pages / weights : 0;
	sk_list_for_each (node, users) {
		struct sk_user *user = sk_container_of(node, struct sk_user, node);
		const double behind = user->n_pages ? -MOST_BEHIND * share : 0;
		user->ahead = fmin(fmax(user->ahead - least, behind), MOST_AHEAD * share);
	}
}

static bool comes_before(const struct sk_request *a, const struct sk_request *b)
{
	return a->ahead != b->ahead ? a->ahead < b->ahead : a->queued_ns < b->queued_ns;
}

void sk_queue_order(struct sk_queue *queue, struct sk_list *users)
{
	const double patience_s = seconds(queue->patience_ns);
	struct sk_list ordered = SK_LIST_INIT(ordered);
	uint32_t place = 0;

	sk_list_for_each (node, users) {
		struct sk_user *user = sk_container_of(node, struct sk_user, node);
		user->would_be = user->ahead + by_weight(user, user->n_pages * patience_s);
	}
	/* Each where its user would be by then. They mostly are in order already. */
	sk_list_for_each (node, &queue->requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		struct sk_user *user = request->user;
		struct sk_list *before = ordered.prev;
		request->ahead = user->is_held                               ? INFINITY
				 : request == queue->first && !user->n_pages ? -INFINITY
									     : user->would_be;
		user->would_be += by_weight(user, request->n_pages * patience_s);
		while (before != &ordered &&
		       comes_before(request, sk_container_of(before, struct sk_request, queued)))
			before = before->prev;
		sk_list_remove(node);
		sk_list_append(before->next, node);
	}
	for (struct sk_list *node; (node = sk_list_pop(&ordered));) {
		sk_list_append(&queue->requests, node);
		sk_container_of(node, struct sk_request, queued)->place = ++place;
	}
}

bool sk_queue_keeps(struct sk_queue *queue, struct sk_request *request)
{
	if (queue->first != request && request->kept_ns < queue->patience_ns) {
		keep_no_more(queue);
		queue->first = request;
		queue->first_ns = queue->counted_ns;
	}
	if (queue->counted_ns >= sk_queue_keeps_until(queue))
		keep_no_more(queue);
	return queue->first == request;
}

uint64_t sk_queue_keeps_until(const struct sk_queue *queue)
{
	return queue->first ? queue->first_ns + (queue->patience_ns - queue->first->kept_ns)
			    : UINT64_MAX;
}

struct sk_request *sk_queue_victim(const struct sk_queue *queue)
{
	struct sk_request *victim = NULL;
	sk_list_for_each (node, &queue->requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		const double n = by_weight(request->user, request->user->n_queued),
			     most = victim ? by_weight(victim->user, victim->user->n_queued) : 0;
		if (n > most || (n == most && request->queued_ns >= victim->queued_ns))
			victim = request;
	}
	return victim;
}
