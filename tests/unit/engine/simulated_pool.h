/* A pool of pages by a simulated clock: users whose clients ask, wait, hold pages for a while, leave, and ask again, before
 * the engine's own queue.
 */
#pragma once

#include "engine/queue.h"
#include "engine/user.h"
#include "sk_test.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MOST_USERS   5
#define MOST_CLIENTS 200
#define TICK_S       0.05
#define PATIENCE_S   15.0
#define FOR_EVER_S   1e9

enum state { AWAY, WAITING, RUNNING, LEAVING /* its pages are on their way out */ };

struct client {
	struct sk_user *user;
	uint32_t n_least, n_most; /* pages of a request */
	double hold_s, gap_s;     /* how long it runs and until the next is asked for, on average */
	enum state state;
	double until_s, asked_s, since_s, left_s; /* left: of its run, after it gave way */
	double out_s;                             /* LEAVING: when it is out */
	struct sk_request *request;
};

static struct result {
	double had, kept, ideal;              /* page-seconds */
	double longest_s;                     /* that a request waited until it began */
	uint32_t n_begun, n_expired, n_given; /* n_given: times that one gave way */
} results[MOST_USERS];

static struct client clients[MOST_CLIENTS];
static struct sk_queue queue;
static struct sk_user users[MOST_USERS];
static struct sk_list everybody;
static uint32_t n_users, n_clients, n_pool, n_free;
static double now_s, timeout_s, spread; /* of times, about their average */
static bool preempts;                   /* streams give way when their turn is over */
static uint64_t preempts_ns;
static double move_s; /* that it takes to give pages back, and to come back */

static inline double between(double a, double b)
{
	return a + (b - a) * rand() / RAND_MAX;
}

static inline double greater(double a, double b)
{
	return a > b ? a : b;
}

static inline uint32_t fewer(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static inline uint64_t now_ns(void)
{
	return (uint64_t)((now_s + 1) * 1e9);
}

static inline struct client *client_of(const struct sk_request *request)
{
	return &clients[request->id];
}

static inline struct result *result_of(const struct client *client)
{
	return &results[client->user - users];
}

static inline void begin(unsigned seed, uint32_t pool)
{
	srand(seed);
	memset(users, 0, sizeof users);
	memset(results, 0, sizeof results);
	memset(clients, 0, sizeof clients);
	sk_list_init(&everybody);
	sk_queue_init(&queue, (uint64_t)(PATIENCE_S * 1e9));
	n_users = n_clients = 0;
	n_pool = n_free = pool;
	now_s = 0;
	timeout_s = 60;
	spread = 0.5;
	preempts = false;
	preempts_ns = UINT64_MAX;
	move_s = 0;
}

static inline struct sk_user *add_user(uint32_t weight)
{
	struct sk_user *user = &users[n_users++];
	user->tenant.weight = weight;
	sk_list_append(&everybody, &user->node);
	return user;
}

static inline void add_clients(struct sk_user *user, uint32_t n, uint32_t n_least, uint32_t n_most,
			       double hold_s, double gap_s, double first_s)
{
	for (uint32_t i = 0; i < n; i++) {
		assert_true(n_clients < MOST_CLIENTS);
		clients[n_clients++] = (struct client){.user = user,
						       .n_least = n_least,
						       .n_most = n_most,
						       .hold_s = hold_s,
						       .gap_s = gap_s,
						       .until_s = first_s};
	}
}

static inline void run(struct client *client)
{
	struct result *result = result_of(client);
	client->state = RUNNING;
	client->until_s =
		now_s + (client->left_s ? client->left_s
					: between(1 - spread, 1 + spread) * client->hold_s);
	client->since_s = now_s + (client->request->generation ? move_s : 0);
	client->request->generation = NULL;
	client->user->n_pages += client->request->n_pages;
	n_free -= client->request->n_pages;
	result->n_begun++;
	result->longest_s = greater(result->longest_s, now_s - client->asked_s);
}

static inline void leave(struct client *client)
{
	if (client->state == WAITING) {
		sk_queue_remove(&queue, client->request);
	} else {
		client->user->n_pages -= client->request->n_pages;
		n_free += client->request->n_pages;
	}
	sk_request_destroy(client->request);
	client->request = NULL;
	client->state = AWAY;
	client->left_s = 0;
	client->until_s = now_s + between(1 - spread, 1 + spread) * client->gap_s;
}

static inline void give_way(struct client *client)
{
	struct sk_request *request = client->request;
	client->user->n_pages -= request->n_pages;
	n_free += request->n_pages;
	client->state = WAITING;
	client->left_s = client->until_s - now_s;
	client->asked_s = now_s;
	result_of(client)->n_given++;
	request->generation = (struct sk_generation *)client; /* it has begun */
	request->queued_ns = now_ns();
	request->kept_ns = 0;
	sk_queue_add(&queue, request);
}

static inline uint32_t n_leaving(void)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < n_clients; i++)
		n += clients[i].state == LEAVING ? clients[i].request->n_pages : 0;
	return n;
}

/* As engine/preempt.c does. */
static inline enum sk_giving preempt_for(struct sk_request *request, bool own_only)
{
	const uint32_t n_soon = own_only ? 0 : n_free + n_leaving();
	struct sk_turn turns[MOST_CLIENTS] = {0};

	for (uint32_t i = 0; i < n_clients; i++) {
		const struct client *client = &clients[i];
		turns[i] = (struct sk_turn){
			.user = client->user,
			.n_pages = client->state == RUNNING ? client->request->n_pages : 0,
			.since_ns = (uint64_t)((client->since_s + 1) * 1e9)};
	}
	if (!preempts || n_soon >= request->n_pages)
		return SK_GIVES_NOTHING;
	uint64_t at_ns = sk_queue_preempts_at(&queue, request, turns, n_clients);
	preempts_ns = at_ns < preempts_ns ? at_ns : preempts_ns;
	const enum sk_giving giving = sk_queue_preempt(&queue, request, own_only, turns, n_clients,
						       request->n_pages - n_soon);
	for (uint32_t i = 0; i < n_clients; i++) {
		assert_true(giving == SK_GIVES_NOW || !turns[i].gives);
		if (!turns[i].gives)
			continue;
		clients[i].state = LEAVING;
		clients[i].out_s = now_s + move_s;
		queue.room_for = request;
		if (!move_s)
			give_way(&clients[i]);
	}
	return giving;
}

/* As engine/waiting.c does. */
static inline bool serve_one(void)
{
	bool is_first = true, is_kept = false, is_claimed = false;
	for (uint32_t u = 0; u < n_users; u++)
		users[u].has_asked = false;
	sk_queue_order(&queue, &everybody);
	sk_list_for_each (node, &queue.requests) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		if (!is_kept && request->n_pages <= n_free) {
			sk_queue_remove(&queue, request);
			run(client_of(request));
			return true;
		}
		const bool is_own = is_kept || !is_first;
		is_kept = is_kept || sk_queue_keeps(&queue, request);
		if (request == queue.room_for) {
			if (n_leaving())
				return false; /* they are on their way */
			queue.room_for = NULL;
			return true;
		}
		if (!request->user->has_asked && !queue.room_for && !is_claimed) {
			const enum sk_giving giving = preempt_for(request, is_own);
			if (giving == SK_GIVES_NOW && !move_s)
				return true;
			is_claimed = giving == SK_GIVES_LATER;
			is_kept = is_kept || giving != SK_GIVES_NOTHING;
		}
		is_first = false;
		request->user->has_asked = true;
	}
	return false;
}

static inline void serve(void)
{
	preempts_ns = UINT64_MAX;
	sk_queue_count(&queue, &everybody, n_free, now_ns());
	while (serve_one()) {
	}
	sk_queue_count(&queue, &everybody, n_free, now_ns());
}

static inline void ask(struct client *client)
{
	struct sk_request *request = sk_request_create(SK_REQUEST_GENERATE);
	assert_non_null(request);
	request->id = (uint32_t)(client - clients);
	request->user = client->user;
	request->n_pages =
		client->n_least + (uint32_t)rand() % (client->n_most - client->n_least + 1);
	request->queued_ns = now_ns();
	client->request = request;
	client->asked_s = now_s;
	if (!queue.n && request->n_pages <= n_free) {
		run(client);
		return;
	}
	client->state = WAITING;
	sk_queue_add(&queue, request);
	serve();
}
