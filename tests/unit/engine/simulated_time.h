/* Time in a simulated pool, and what users had of it: against what each would have if pages could be cut, by weight and no
 * more than it wants. What is kept free for a user's request counts as its.
 */
#pragma once

#include "simulated_pool.h"

/* What each user would have had of the tick, and has had. */
static inline void count(void)
{
	double wanted[MOST_USERS] = {0}, share[MOST_USERS] = {0};
	bool is_full[MOST_USERS] = {false};

	for (uint32_t i = 0; i < n_clients; i++) {
		const struct client *client = &clients[i];
		if (client->state != AWAY)
			wanted[client->user - users] += client->request->n_pages;
		if (client->state == RUNNING || client->state == LEAVING)
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
static inline void check(void)
{
	uint32_t n_held = 0;
	for (uint32_t i = 0; i < n_clients; i++) {
		n_held += clients[i].state == RUNNING || clients[i].state == LEAVING
				  ? clients[i].request->n_pages
				  : 0;
		if (clients[i].state == WAITING && !queue.first && !preempts)
			assert_true(clients[i].request->n_pages > n_free);
	}
	assert_int_equal(n_held + n_free, n_pool);
	if (queue.first) {
		assert_true(queue.first->n_pages > n_free);
		assert_true(queue.first->kept_ns <= queue.patience_ns);
	}
}

static inline void simulate(double s)
{
	for (const double end_s = now_s + s; now_s < end_s; now_s += TICK_S) {
		bool is_over = now_ns() >= sk_queue_keeps_until(&queue) || now_ns() >= preempts_ns;
		sk_queue_count(&queue, &everybody, n_free, now_ns());
		for (uint32_t i = 0; i < n_clients; i++)
			if (clients[i].state == LEAVING && clients[i].out_s <= now_s) {
				give_way(&clients[i]);
				is_over = true;
			}
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
static inline void simulate_after(double settle_s, double s)
{
	simulate(settle_s);
	memset(results, 0, sizeof results);
	simulate(s);
}

static inline void end(void)
{
	for (uint32_t i = 0; i < n_clients; i++)
		if (clients[i].state != AWAY)
			leave(&clients[i]);
	assert_int_equal(n_free, n_pool);
	assert_int_equal(queue.n, 0);
}

/* Of the whole pool, what the user has had, in %. */
static inline double percent(uint32_t user)
{
	double all = 0;
	for (uint32_t u = 0; u < n_users; u++)
		all += results[u].had + results[u].kept;
	return 100 * (results[user].had + results[user].kept) / all;
}

static inline double ideal_percent(uint32_t user)
{
	double all = 0;
	for (uint32_t u = 0; u < n_users; u++)
		all += results[u].ideal;
	return 100 * results[user].ideal / all;
}

static inline void tell(const char *what, double number)
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
