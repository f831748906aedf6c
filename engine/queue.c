#include "engine/queue.h"

#include "engine/user.h"

#include <math.h>

/* For how many times the patience one waits at most because one had much, or is waited for because one had little. */
#define MOST_AHEAD  3
#define MOST_BEHIND 1
/* For how many times the patience one that gave way lets others of its user pass. */
#define MOST_PASSED 4

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
	if (!request->user->n_queued++)
		request->user->waits_ns = request->queued_ns;
	request->user->n_preempted += request->generation != NULL;
	queue->n_preempted += request->generation != NULL;
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
	if (queue->room_for == request)
		queue->room_for = NULL;
	sk_list_remove(&request->queued);
	request->user->n_queued--;
	request->user->n_preempted -= request->generation != NULL;
	queue->n_preempted -= request->generation != NULL;
	queue->n--;
}

static double seconds(uint64_t ns)
{
	return (double)ns * 1e-9;
}

static bool waits(const struct sk_user *user)
{
	return user->is_held ? user->n_preempted && !user->is_all_held : user->n_queued;
}

static bool is_held(const struct sk_request *request)
{
	return request->generation ? request->user->is_all_held : request->user->is_held;
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
	if (queue->first && is_held(queue->first))
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

/* Pages have been kept for it for as long as they are. */
static bool had_its_time(const struct sk_queue *queue, const struct sk_request *request)
{
	return request->kept_ns >= queue->patience_ns;
}

static bool comes_before(const struct sk_request *a, const struct sk_request *b)
{
	return a->ahead != b->ahead ? a->ahead < b->ahead : a->queued_ns < b->queued_ns;
}

/* One that gave way comes behind those of its user that have not begun, unless that has been for long. */
static bool is_behind(const struct sk_queue *queue, const struct sk_request *request)
{
	return request->generation &&
	       queue->counted_ns < request->queued_ns + MOST_PASSED * queue->patience_ns;
}

/* Where its user would be by then, and with it the others. They mostly are in order already. */
static void put_in_order(struct sk_queue *queue, struct sk_request *request,
			 struct sk_list *ordered)
{
	struct sk_user *user = request->user;
	struct sk_list *before = ordered->prev;

	request->ahead = request == queue->room_for ? -INFINITY
			 : is_held(request)         ? INFINITY
						    : user->would_be;
	user->would_be += by_weight(user, request->n_pages * seconds(queue->patience_ns));
	while (before != ordered &&
	       comes_before(request, sk_container_of(before, struct sk_request, queued)))
		before = before->prev;
	sk_list_remove(&request->queued);
	sk_list_append(before->next, &request->queued);
}

/* The one for whom pages are kept comes before all others but those for whom they were kept until their time was over, and
 * the one for whom room is being made: others that would be before it go behind it. */
static void put_first_before(struct sk_queue *queue, const struct sk_list *ordered)
{
	struct sk_request *first = queue->first;

	if (!first || first->user->n_pages || is_held(first))
		return;
	for (struct sk_list *node = first->queued.prev, *prev; node != ordered; node = prev) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		prev = node->prev;
		if (request == queue->room_for || had_its_time(queue, request))
			continue;
		sk_list_remove(node);
		sk_list_append(first->queued.next, node);
	}
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
	sk_list_for_each (node, &queue->requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		if (!is_behind(queue, request))
			put_in_order(queue, request, &ordered);
	}
	sk_list_for_each (node, &queue->requests)
		put_in_order(queue, sk_container_of(node, struct sk_request, queued), &ordered);
	put_first_before(queue, &ordered);
	for (struct sk_list *node; (node = sk_list_pop(&ordered));) {
		sk_list_append(&queue->requests, node);
		sk_container_of(node, struct sk_request, queued)->place = ++place;
	}
}

bool sk_queue_keeps(struct sk_queue *queue, struct sk_request *request)
{
	if (queue->first != request && !had_its_time(queue, request)) {
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

/* --- Who gives way --- */

static bool is_over(const struct sk_queue *queue, const struct sk_turn *turn)
{
	return queue->counted_ns >= turn->since_ns + queue->patience_ns;
}

static uint64_t claims_at(const struct sk_queue *queue, const struct sk_request *first)
{
	return first->user->waits_ns + queue->patience_ns;
}

static uint64_t claims_own_at(const struct sk_queue *queue, const struct sk_request *first)
{
	return first->generation ? first->queued_ns + queue->patience_ns : 0;
}

/* How far one goes to find who gives. */
enum reach {
	OWN,  /* one's own turns, if they are over */
	FAIR, /* and those whose user keeps as much as the other then has */
	ALL, /* whoever may give at all, now or once its turn is over: where that leaves its user no worse off than the
		 other was, or the other has nothing */
};

static bool may_give(const struct sk_queue *queue, const struct sk_request *first, enum reach reach,
		     const struct sk_turn *turn)
{
	const struct sk_user *to = first->user, *from = turn->user;
	const double left = by_weight(from, from->n_pages - turn->n_pages);

	if (reach == ALL)
		return from == to || !to->n_pages || left >= by_weight(to, to->n_pages);
	if (!is_over(queue, turn))
		return false;
	/* One that gave way to its like waits for as long as these run; else at the end of each turn all would move. */
	if (from == to)
		return reach == OWN && queue->counted_ns >= claims_own_at(queue, first);
	return reach == FAIR && left >= by_weight(to, to->n_pages + first->n_pages);
}

static bool gives_before(const struct sk_request *first, const struct sk_turn *a,
			 const struct sk_turn *b)
{
	const bool own_a = a->user == first->user, own_b = b->user == first->user;
	const double most_a = by_weight(a->user, a->user->n_pages + (own_a ? first->n_pages : 0)),
		     most_b = by_weight(b->user, b->user->n_pages + (own_b ? first->n_pages : 0));

	if (most_a != most_b)
		return most_a > most_b;
	if (own_a != own_b)
		return own_a;
	return a->user->ahead != b->user->ahead ? a->user->ahead > b->user->ahead
						: a->since_ns < b->since_ns;
}

static struct sk_turn *next_to_give(const struct sk_queue *queue, const struct sk_request *first,
				    enum reach reach, struct sk_turn *turns, uint32_t n_turns)
{
	struct sk_turn *next = NULL;
	for (uint32_t i = 0; i < n_turns; i++) {
		struct sk_turn *turn = &turns[i];
		if (!turn->gives && turn->n_pages && may_give(queue, first, reach, turn) &&
		    (!next || gives_before(first, turn, next)))
			next = turn;
	}
	return next;
}

/* False: they are not enough, and nobody gives. */
static bool choose(const struct sk_queue *queue, const struct sk_request *first, enum reach reach,
		   struct sk_turn *turns, uint32_t n_turns, uint64_t n_missing)
{
	uint64_t n_given = 0;

	for (uint32_t i = 0; i < n_turns; i++)
		turns[i].gives = false;
	while (n_given < n_missing) {
		struct sk_turn *next = next_to_give(queue, first, reach, turns, n_turns);
		if (!next)
			break;
		next->gives = true;
		next->user->n_pages -= next->n_pages;
		n_given += next->n_pages;
	}
	const bool is_enough = n_given >= n_missing;
	for (uint32_t i = 0; i < n_turns; i++) {
		struct sk_turn *turn = &turns[i];
		if (!turn->gives)
			continue;
		turn->user->n_pages += turn->n_pages;
		if (!is_enough || n_given - turn->n_pages >= n_missing) {
			turn->gives = false;
			n_given -= turn->n_pages;
		}
	}
	return is_enough;
}

static void nobody_gives(struct sk_turn *turns, uint32_t n_turns)
{
	for (uint32_t i = 0; i < n_turns; i++)
		turns[i].gives = false;
}

enum sk_giving sk_queue_preempt(const struct sk_queue *queue, const struct sk_request *first,
				bool own_only, struct sk_turn *turns, uint32_t n_turns,
				uint64_t n_missing)
{
	bool is_now = true, is_own = true;

	nobody_gives(turns, n_turns);
	if (queue->counted_ns < claims_at(queue, first))
		return SK_GIVES_NOTHING;
	if (own_only)
		return choose(queue, first, OWN, turns, n_turns, n_missing) ? SK_GIVES_NOW
									    : SK_GIVES_NOTHING;
	/* Those who ought to, if they can. */
	if (!choose(queue, first, ALL, turns, n_turns, n_missing))
		return SK_GIVES_NOTHING;
	for (uint32_t i = 0; i < n_turns; i++) {
		const struct sk_turn *turn = &turns[i];
		if (!turn->gives)
			continue;
		is_own &= turn->user == first->user;
		is_now &=
			is_over(queue, turn) && (turn->user != first->user ||
						 queue->counted_ns >= claims_own_at(queue, first));
	}
	if (is_now || choose(queue, first, FAIR, turns, n_turns, n_missing))
		return SK_GIVES_NOW;
	nobody_gives(turns, n_turns);
	return is_own ? SK_GIVES_NOTHING : SK_GIVES_LATER;
}

uint64_t sk_queue_preempts_at(const struct sk_queue *queue, const struct sk_request *first,
			      const struct sk_turn *turns, uint32_t n_turns)
{
	uint64_t at_ns = queue->counted_ns + queue->patience_ns;

	if (queue->counted_ns < claims_at(queue, first))
		return claims_at(queue, first);
	if (claims_own_at(queue, first) > queue->counted_ns)
		at_ns = claims_own_at(queue, first);
	for (uint32_t i = 0; i < n_turns; i++) {
		const uint64_t end_ns = turns[i].since_ns + queue->patience_ns;
		if (end_ns > queue->counted_ns && end_ns < at_ns)
			at_ns = end_ns;
	}
	return at_ns;
}

/* --- Too long a queue --- */

static double n_new(const struct sk_user *user)
{
	return by_weight(user, user->n_queued - user->n_preempted);
}

struct sk_request *sk_queue_victim(const struct sk_queue *queue)
{
	struct sk_request *victim = NULL;
	sk_list_for_each (node, &queue->requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		if (request->generation)
			continue;
		const double n = n_new(request->user), most = victim ? n_new(victim->user) : 0;
		if (n > most || (n == most && request->queued_ns >= victim->queued_ns))
			victim = request;
	}
	return victim;
}
