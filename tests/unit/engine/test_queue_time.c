/* The queue by a simulated clock: a pool of pages, and users whose clients ask, wait, hold pages for a while, leave, and ask
 * again; against what each user would have if pages could be cut, by weight and no more than it wants. What is kept free for
 * a user's request counts as its. */
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

enum state { AWAY, WAITING, RUNNING };

struct client {
	struct sk_user *user;
	uint32_t n_least, n_most; /* pages of a request */
	double hold_s, gap_s;     /* how long it runs and until the next is asked for, on average */
	enum state state;
	double until_s, asked_s, since_s, left_s; /* left: of its run, after it gave way */
	struct sk_request *request;
};

static struct result {
	double had, kept, ideal; /* page-seconds */
	double longest_s;        /* that a request waited until it began */
	uint32_t n_begun, n_expired;
} results[MOST_USERS];

static struct client clients[MOST_CLIENTS];
static struct sk_queue queue;
static struct sk_user users[MOST_USERS];
static struct sk_list everybody;
static uint32_t n_users, n_clients, n_pool, n_free;
static double now_s, timeout_s, spread; /* of times, about their average */
static bool preempts;                   /* streams give way when their turn is over */
static uint64_t preempts_ns;

static double between(double a, double b)
{
	return a + (b - a) * rand() / RAND_MAX;
}

static double greater(double a, double b)
{
	return a > b ? a : b;
}

static uint32_t fewer(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint64_t now_ns(void)
{
	return (uint64_t)((now_s + 1) * 1e9);
}

static struct client *client_of(const struct sk_request *request)
{
	return &clients[request->id];
}

static struct result *result_of(const struct client *client)
{
	return &results[client->user - users];
}

static void begin(unsigned seed, uint32_t pool)
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
}

static struct sk_user *add_user(uint32_t weight)
{
	struct sk_user *user = &users[n_users++];
	user->tenant.weight = weight;
	sk_list_append(&everybody, &user->node);
	return user;
}

static void add_clients(struct sk_user *user, uint32_t n, uint32_t n_least, uint32_t n_most,
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

static void run(struct client *client)
{
	struct result *result = result_of(client);
	client->state = RUNNING;
	client->until_s =
		now_s + (client->left_s ? client->left_s
					: between(1 - spread, 1 + spread) * client->hold_s);
	client->since_s = now_s;
	client->request->generation = NULL;
	client->user->n_pages += client->request->n_pages;
	n_free -= client->request->n_pages;
	result->n_begun++;
	result->longest_s = greater(result->longest_s, now_s - client->asked_s);
}

static void leave(struct client *client)
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

static void give_way(struct client *client)
{
	struct sk_request *request = client->request;
	client->user->n_pages -= request->n_pages;
	n_free += request->n_pages;
	client->state = WAITING;
	client->left_s = client->until_s - now_s;
	client->asked_s = now_s;
	request->generation = (struct sk_generation *)client; /* it has begun */
	request->queued_ns = now_ns();
	request->kept_ns = 0;
	sk_queue_add(&queue, request);
}

/* As engine/preempt.c does, in no time. */
static bool preempt_for(const struct sk_request *request, bool own_only)
{
	struct sk_holder holders[MOST_CLIENTS] = {0};

	for (uint32_t i = 0; i < n_clients; i++) {
		const struct client *client = &clients[i];
		holders[i] = (struct sk_holder){
			.user = client->user,
			.n_pages = client->state == RUNNING ? client->request->n_pages : 0,
			.since_ns = (uint64_t)((client->since_s + 1) * 1e9)};
	}
	if (!preempts)
		return false;
	uint64_t at_ns = sk_queue_preempts_at(&queue, request, holders, n_clients);
	preempts_ns = at_ns < preempts_ns ? at_ns : preempts_ns;
	if (!sk_queue_preempt(&queue, request, own_only, holders, n_clients,
			      request->n_pages - (own_only ? 0 : n_free)))
		return false;
	for (uint32_t i = 0; i < n_clients; i++)
		if (holders[i].gives)
			give_way(&clients[i]);
	return true;
}

/* As engine/waiting.c does. */
static bool serve_one(void)
{
	bool is_first = true, is_kept = false;
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
		is_kept = is_kept || sk_queue_keeps(&queue, request);
		if (!request->user->has_asked && preempt_for(request, !is_first)) {
			sk_queue_remove(&queue, request);
			run(client_of(request));
			return true;
		}
		is_first = false;
		request->user->has_asked = true;
	}
	return false;
}

static void serve(void)
{
	preempts_ns = UINT64_MAX;
	sk_queue_count(&queue, &everybody, n_free, now_ns());
	while (serve_one()) {
	}
	sk_queue_count(&queue, &everybody, n_free, now_ns());
}

static void ask(struct client *client)
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

/* What each user would have had of the tick, and has had. */
static void count(void)
{
	double wanted[MOST_USERS] = {0}, share[MOST_USERS] = {0};
	bool is_full[MOST_USERS] = {false};

	for (uint32_t i = 0; i < n_clients; i++) {
		const struct client *client = &clients[i];
		if (client->state != AWAY)
			wanted[client->user - users] += client->request->n_pages;
		if (client->state == RUNNING)
			result_of(client)->had += client->request->n_pages * TICK_S;
	}
	if (queue.first)
		result_of(client_of(queue.first))->kept +=
			fewer(queue.first->n_pages, n_free) * TICK_S;
	for (bool again = true; again;) {
		double weights = 0, left = n_pool;
		again = false;
		for (uint32_t u = 0; u < n_users; u++) {
			weights += is_full[u] ? 0 : users[u].tenant.weight;
			left -= is_full[u] ? wanted[u] : 0;
		}
		for (uint32_t u = 0; u < n_users; u++) {
			if (is_full[u])
				continue;
			share[u] = left * users[u].tenant.weight / weights;
			if (share[u] >= wanted[u]) {
				share[u] = wanted[u];
				is_full[u] = again = true;
			}
		}
	}
	for (uint32_t u = 0; u < n_users; u++)
		results[u].ideal += share[u] * TICK_S;
}

/* No page is lost, and none is free that anybody could have, but for what is kept for one who could not, and not for long. */
static void check(void)
{
	uint32_t n_held = 0;
	for (uint32_t i = 0; i < n_clients; i++) {
		n_held += clients[i].state == RUNNING ? clients[i].request->n_pages : 0;
		if (clients[i].state == WAITING && !queue.first)
			assert_true(clients[i].request->n_pages > n_free);
	}
	assert_int_equal(n_held + n_free, n_pool);
	if (queue.first) {
		assert_true(queue.first->n_pages > n_free);
		assert_true(queue.first->kept_ns <= queue.patience_ns);
	}
}

static void simulate(double s)
{
	for (const double end_s = now_s + s; now_s < end_s; now_s += TICK_S) {
		bool is_over = now_ns() >= sk_queue_keeps_until(&queue) || now_ns() >= preempts_ns;
		sk_queue_count(&queue, &everybody, n_free, now_ns());
		for (uint32_t i = 0; i < n_clients; i++) {
			struct client *client = &clients[i];
			bool is_expired = client->state == WAITING &&
					  !client->request->generation &&
					  now_s - client->asked_s >= timeout_s;
			result_of(client)->n_expired += is_expired;
			if (is_expired || (client->state == RUNNING && client->until_s <= now_s)) {
				leave(client);
				is_over = true;
			}
		}
		if (is_over)
			serve();
		for (uint32_t i = 0; i < n_clients; i++)
			if (clients[i].state == AWAY && clients[i].until_s <= now_s)
				ask(&clients[i]);
		check();
		count();
	}
}

/* After a while in which it settles. */
static void simulate_after(double settle_s, double s)
{
	simulate(settle_s);
	memset(results, 0, sizeof results);
	simulate(s);
}

static void end(void)
{
	for (uint32_t i = 0; i < n_clients; i++)
		if (clients[i].state != AWAY)
			leave(&clients[i]);
	assert_int_equal(n_free, n_pool);
	assert_int_equal(queue.n, 0);
}

/* Of the whole pool, what the user has had, in %. */
static double percent(uint32_t user)
{
	double all = 0;
	for (uint32_t u = 0; u < n_users; u++)
		all += results[u].had + results[u].kept;
	return 100 * (results[user].had + results[user].kept) / all;
}

static double ideal_percent(uint32_t user)
{
	double all = 0;
	for (uint32_t u = 0; u < n_users; u++)
		all += results[u].ideal;
	return 100 * results[user].ideal / all;
}

static void tell(const char *what, double number)
{
	print_message("%s %.0f:", what, number);
	for (uint32_t u = 0; u < n_users; u++)
		print_message(
			"%s user %u has %.1f %% (ideal %.1f %%), waits %.1f s at most, %u began, "
			"%u expired",
			u ? ";" : "", u, percent(u), ideal_percent(u), results[u].longest_s,
			results[u].n_begun, results[u].n_expired);
	print_message("\n");
}

/* All want more than there is: each has its share by weight, whatever sizes its requests have and however long they run, and
 * nobody waits longer than its share and its own requests before it make it wait. */
static void test_shares(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 15; seed++) {
		begin(seed, 5 + (unsigned)rand() % 300);
		timeout_s = FOR_EVER_S;
		const uint32_t n = 2 + (uint32_t)rand() % 4, most = n_pool / 10 + 1;
		double off = 0, weights = 0;
		for (uint32_t u = 0; u < n; u++) {
			const uint32_t least = 1 + (uint32_t)rand() % most;
			add_clients(add_user(1 + (uint32_t)rand() % 4), 40, least, most,
				    between(0.5, 10), 0.2, between(0, 20));
			weights += users[u].tenant.weight;
		}
		simulate_after(100, 3000);
		for (uint32_t u = 0; u < n; u++) {
			const double share = n_pool * users[u].tenant.weight / weights,
				     need = 40 * (clients[40 * u].n_least + most) / 2.0 *
					    clients[40 * u].hold_s;
			off = greater(off, percent(u) / ideal_percent(u) - 1);
			off = greater(off, 1 - percent(u) / ideal_percent(u));
			assert_true(results[u].longest_s < 2 * need / share + PATIENCE_S);
		}
		print_message("%u users, %u pages: at most %.2f %% off\n", n, n_pool, 100 * off);
		assert_true(off < 0.02);
		end();
	}
	/* A share may be less than a request. */
	for (uint32_t pool = 1; pool <= 10; pool += 3)
		for (double hold_s = 1; hold_s <= 8; hold_s *= 2) {
			begin(31, pool);
			timeout_s = FOR_EVER_S;
			add_clients(add_user(3), 15, 1, 1, hold_s, 0.2, 0);
			add_clients(add_user(1), 15, 1, 1, hold_s, 0.2, 0);
			simulate_after(200, 5000);
			tell("a small pool", pool);
			assert_true(percent(1) > 24 && percent(1) < 26);
			end();
		}
}

static void test_one_beside_many(void **state)
{
	(void)state;
	for (uint32_t pool = 1; pool <= 10; pool += 3) {
		begin(2, pool);
		add_clients(add_user(1), 40, 1, 1, 3, 0.2, 0);
		add_clients(add_user(1), 1, 1, 1, 3, 0.2, 0);
		simulate_after(100, 3000);
		tell("one beside forty, pool", pool);
		assert_true(results[1].longest_s < 9); /* two of theirs */
		assert_true(pool > 1 || percent(1) > 48);
		end();
	}
}

/* Streams that never end, more than the pool holds, beside short requests. What is free while nobody else waits is theirs,
 * and then for ever; but not more. */
static void test_streams_without_end(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 10; seed++) {
		begin(seed, 10);
		add_clients(add_user(1), 5, 1, 1, 2, 0.1, 0);
		add_clients(add_user(1), 12, 1, 1, FOR_EVER_S, 0.1, seed % 2 ? 0 : 10);
		simulate(600);
		tell("without end", seed);
		assert_int_equal(results[0].n_expired, 0);
		assert_true(results[0].longest_s < 9);
		assert_true(percent(0) > 18);
		end();
	}
}

/* Streams without end that were there first, and hold all: they make room for who comes later, and run in turn. */
static void test_streams_that_give_way(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 10; seed++) { /* short requests of others */
		begin(seed, 10);
		preempts = true;
		add_clients(add_user(1), 12, 1, 1, FOR_EVER_S, 0.1, 0);
		add_clients(add_user(1), 5, 1, 1, 2, 0.1, 100);
		simulate_after(150, 1000);
		tell("giving way to short ones", seed);
		assert_int_equal(results[1].n_expired, 0);
		assert_true(results[1].longest_s < 2 * PATIENCE_S);
		assert_true(percent(1) > 0.5 * ideal_percent(1));
		end();
	}
	for (uint32_t n = 1; n <= 4;
	     n++) { /* as many streams of others; one stream alone; a large one */
		begin(n, 10);
		preempts = true;
		add_clients(add_user(1), 14, 1, 1, FOR_EVER_S, 0.1, 0);
		add_clients(add_user(1), n, 1, 1, FOR_EVER_S, 0.1, 100);
		add_clients(add_user(2), 1, 4, 4, FOR_EVER_S, 0.1, 200);
		simulate_after(400, 4000);
		tell("giving way to streams", n);
		for (uint32_t u = 0; u < 3; u++) {
			assert_int_equal(results[u].n_expired, 0);
			assert_true(results[u].had > 0.8 * results[u].ideal);
		}
		end();
	}
	for (uint32_t pool = 1; pool <= 4; pool++) { /* of one user too: each has its turn */
		begin(pool, pool);
		preempts = true;
		add_clients(add_user(1), 6, 1, 1, FOR_EVER_S, 0.1, 0);
		simulate(1000);
		assert_true(results[0].n_begun > 900 / PATIENCE_S * pool - 6);
		for (uint32_t i = 0; i < n_clients; i++)
			assert_true(clients[i].since_s > 1000 - 6 * 2 * PATIENCE_S);
		end();
	}
}

/* Requests for which there never is room, one after another: others wait for one as long as the patience is, and their user
 * keeps no more of the pool empty than its share. */
static void test_what_cannot_be_served(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 10; seed++) {
		begin(seed, 100);
		add_clients(add_user(1), 1, 34, 34, FOR_EVER_S, 1, 0);
		struct sk_user *user = add_user(1);
		for (int i = 0; i < 6; i++)
			add_clients(user, 1, 90, 90, 5, 0, 1 + 10 * i);
		add_clients(add_user(1), 8, 5, 20, 4, 1, 2);
		add_clients(add_user(1), 1, 5, 20, 4, 1, 2);
		simulate(2000);
		tell("cannot be served", seed);
		assert_int_equal(results[1].n_begun, 0);
		assert_true(results[1].kept < 1.1 * results[1].ideal);
		for (uint32_t u = 2; u < 4; u++) {
			assert_int_equal(results[u].n_expired, 0);
			/* one behind another of one's own may meet two of them */
			assert_true(results[u].longest_s < (u == 2 ? 3 : 1.3) * PATIENCE_S);
		}
		end();
	}
}

/* One request needs most of the pool, of which others have many small ones: it is served as often as its share is. */
static void test_what_needs_much(void **state)
{
	(void)state;
	for (double hold_s = 1; hold_s <= 8; hold_s *= 2) {
		begin(4, 100);
		add_clients(add_user(1), 1, 80, 80, hold_s, 1, 0);
		add_clients(add_user(1), 20, 2, 10, hold_s, 1, 0);
		add_clients(add_user(1), 20, 2, 10, hold_s, 1, 0);
		simulate_after(100, 3000);
		tell("needs much, hold", hold_s);
		for (uint32_t u = 0; u < 3; u++) {
			assert_int_equal(results[u].n_expired, 0);
			assert_true(percent(u) > 32 && percent(u) < 35);
		}
		end();
	}
}

/* Who had nearly all does not go on so, nor is kept out for long for having had it. */
static void test_after_having_much(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 5; seed++) {
		begin(seed, 20);
		add_clients(add_user(1), 30, 1, 1, 5, 0.2, 0);
		for (int i = 0; i < 4; i++)
			add_clients(add_user(1), 8, 1, 1, 5, 0.2, 200);
		simulate_after(220, 1000);
		tell("after having much", seed);
		for (uint32_t u = 0; u < 5; u++) {
			assert_true(percent(u) > 19 && percent(u) < 21);
			assert_int_equal(results[u].n_expired, 0);
		}
		end();

		begin(seed, 20);
		spread = 0.01;
		add_clients(add_user(1), 18, 1, 1, 300, FOR_EVER_S, 0);
		add_clients(&users[0], 1, 1, 1, 5, 1, 305); /* when the others are over */
		for (int i = 0; i < 4; i++)
			add_clients(add_user(1), 8, 1, 1, 5, 0.2, 10);
		simulate_after(304, 1000);
		tell("after having much at others' cost", seed);
		assert_int_equal(results[0].n_expired, 0);
		assert_true(results[0].n_begun > 50);
		end();
	}
}

/* Nor has one who for long had little saved up more than others notice. */
static void test_after_having_little(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 5; seed++) {
		begin(seed, 20);
		struct sk_user *user = add_user(1);
		add_clients(user, 1, 1, 1, FOR_EVER_S, 1, 0);
		add_clients(user, 30, 1, 1, 5, 0.2, 500);
		for (int i = 0; i < 2; i++)
			add_clients(add_user(1), 15, 1, 1, 5, 0.2, 1);
		simulate_after(499, 60);
		tell("after having little", seed);
		for (uint32_t u = 0; u < 3; u++)
			assert_int_equal(results[u].n_expired, 0);
		assert_true(results[1].longest_s < 13 && results[2].longest_s < 13); /* else 7 */
		end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shares),
		cmocka_unit_test(test_one_beside_many),
		cmocka_unit_test(test_streams_without_end),
		cmocka_unit_test(test_streams_that_give_way),
		cmocka_unit_test(test_what_cannot_be_served),
		cmocka_unit_test(test_what_needs_much),
		cmocka_unit_test(test_after_having_much),
		cmocka_unit_test(test_after_having_little),
	};
	return sk_test_run(tests, NULL, NULL);
}
