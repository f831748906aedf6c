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

void sk_queue_order(struct sk_queue *queue, const struct sk_scheduler *scheduler)
{
	sk_list_for_each (node, &queue->requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		request->place = 0;
		request->user->would_have = had(request->user, scheduler);
	}
	for (uint32_t place = 1; place <= queue->n; place++) {
		struct sk_request *next = NULL;
		sk_list_for_each (node, &queue->requests) {
			struct sk_request *request =
				sk_container_of(node, struct sk_request, queued);
			if (!request->place &&
			    (!next || request->user->would_have < next->user->would_have))
				next = request;
		}
		next->place = place;
		next->user->would_have += price(next->user, next->n_pages);
	}
}

struct sk_request *sk_queue_first(const struct sk_queue *queue)
{
	sk_list_for_each (node, &queue->requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		if (request->place == 1)
			return request;
	}
	return NULL;
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

void sk_queue_charge(struct sk_scheduler *scheduler, struct sk_user *user, uint32_t n_pages)
{
	uint64_t before = had(user, scheduler);
	scheduler->least[SK_SCARCE_PAGES] = before;
	user->tenant.share.had[SK_SCARCE_PAGES] = before + price(user, n_pages);
}
