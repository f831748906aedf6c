#include "engine/queue.h"

#include "engine/user.h"

void sk_queue_init(struct sk_queue *queue)
{
	sk_list_init(&queue->requests);
	queue->n = 0;
}

void sk_queue_add(struct sk_queue *queue, struct sk_request *request)
{
	sk_list_append(&queue->requests, &request->queued);
	request->user->n_queued++;
	queue->n++;
}

void sk_queue_remove(struct sk_queue *queue, struct sk_request *request)
{
	sk_list_remove(&request->queued);
	request->user->n_queued--;
	queue->n--;
}

static uint64_t price(const struct sk_user *user, uint32_t n_pages)
{
	return (uint64_t)n_pages * SK_ONE_HAD / user->tenant.weight;
}

/* What the user has had of pages, who is in want of them now. */
static uint64_t had(const struct sk_user *user, const struct sk_scheduler *scheduler)
{
	uint64_t had = user->tenant.share.had[SK_SCARCE_PAGES],
		 least = scheduler->least[SK_SCARCE_PAGES];
	return had > least ? had : least;
}

static bool comes_before(const struct sk_user *a, const struct sk_user *b)
{
	if (a->is_held != b->is_held)
		return b->is_held;
	return a->would_have != b->would_have ? a->would_have < b->would_have
					      : a->next->queued_ns < b->next->queued_ns;
}

struct sk_request *sk_queue_order(struct sk_queue *queue, struct sk_list *users,
				  const struct sk_scheduler *scheduler)
{
	struct sk_request *first = NULL;

	sk_list_for_each (node, users) {
		struct sk_user *user = sk_container_of(node, struct sk_user, node);
		user->next = NULL;
		user->would_have = had(user, scheduler);
	}
	sk_list_for_each (node, &queue->requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		struct sk_user *user = request->user;
		request->after = NULL;
		if (user->next)
			user->last->after = request;
		else
			user->next = request;
		user->last = request;
	}
	for (uint32_t place = 1; place <= queue->n; place++) {
		struct sk_user *next = NULL;
		sk_list_for_each (node, users) {
			struct sk_user *user = sk_container_of(node, struct sk_user, node);
			if (user->next && (!next || comes_before(user, next)))
				next = user;
		}
		if (place == 1 && !next->is_held)
			first = next->next;
		next->next->place = place;
		next->would_have += price(next, next->next->n_pages);
		next->next = next->next->after;
	}
	return first;
}

bool sk_queue_is_waiting(const struct sk_list *users)
{
	sk_list_for_each (node, users) {
		const struct sk_user *user = sk_container_of(node, struct sk_user, node);
		if (user->n_queued && !user->is_held)
			return true;
	}
	return false;
}

struct sk_request *sk_queue_victim(const struct sk_queue *queue, const struct sk_user *user)
{
	struct sk_request *victim = NULL;
	sk_list_for_each (node, &queue->requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		if (!victim ||
		    (uint64_t)request->user->n_queued * victim->user->tenant.weight >=
			    (uint64_t)victim->user->n_queued * request->user->tenant.weight)
			victim = request;
	}
	/* with the new one, its user must not have more than the other is left with */
	if (!victim || (uint64_t)(user->n_queued + 1) * victim->user->tenant.weight >
			       (uint64_t)(victim->user->n_queued - 1) * user->tenant.weight)
		return NULL;
	return victim;
}

void sk_queue_charge(struct sk_scheduler *scheduler, struct sk_user *user, uint32_t n_pages,
		     bool in_turn)
{
	uint64_t before = had(user, scheduler);
	if (in_turn)
		scheduler->least[SK_SCARCE_PAGES] = before;
	user->tenant.share.had[SK_SCARCE_PAGES] = before + price(user, n_pages);
}
