/* Random sessions over the recording backend, each with its list by the rule, and with what is expected of its rows. */
#pragma once

#include "engine/forward.h"
#include "engine/session.h"
#include "eviction_rule.h"

#define N_BORROWED (MAX_ROWS / SK_PAGE_TOKENS + N_TENANTS)

struct tenant {
	struct sk_session *session; /* NULL: none now */
	uint32_t number;            /* of the session, from 1 */
	struct rule rule;
	uint32_t n_left; /* tokens until it ends */
	uint32_t n_turn; /* of those, until its policy may change: its pages are promised */
	uint32_t most_chunk;
	bool is_constant;                        /* one policy all its life */
	bool is_forked;                          /* it shares pages, or has */
	uint32_t writer[MOST_TOKENS];            /* number of the session that wrote each entry */
	uint64_t n_evicted;                      /* as its views said */
	uint32_t home[MOST_LAYERS][MOST_TOKENS]; /* where each layer wrote each entry */
};

struct expected {
	uint32_t entry, n_evicted, n_live;
	uint32_t live[MOST_TOKENS];
};

static struct sk_model *model;
static struct sk_forward forward;
static struct sk_pool pool;
static struct tenant tenants[N_TENANTS];
static struct expected expected[MAX_ROWS];
static struct sk_row rows[MAX_ROWS];
static struct sk_view views[MAX_ROWS];
static uint32_t n_started, case_number, random_state;
static struct {
	uint64_t n_rows, n_seen, n_evicted, n_changes, n_gone, n_forks, n_copies;
} total;

static inline uint32_t random_below(uint32_t n)
{
	random_state = random_state * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(random_state >> 8) * n >> 24);
}

/* Small windows are tried more often: they drop more. */
static inline struct sk_policy random_policy(void)
{
	static const enum sk_mode modes[] = {SK_MODE_STREAMING, SK_MODE_STREAMING, SK_MODE_WINDOW,
					     SK_MODE_DENSE};
	return (struct sk_policy){
		.mode = modes[random_below(4)],
		.sink = random_below(41),
		.window = 1 + random_below(random_below(2) ? 120 : 12),
		.slack = random_below(3) ? random_below(71) : 0,
	};
}

static inline void start(struct tenant *t)
{
	static const uint32_t chunks[] = {1, 8, MOST_CHUNK};
	struct sk_policy policy = random_policy();

	*t = (struct tenant){.number = ++n_started, .n_left = 1 + random_below(MOST_TOKENS)};
	t->is_constant = random_below(3) == 0;
	if (t->is_constant && random_below(3) == 0)
		policy.mode = SK_MODE_RECOMPUTE; /* is never changed to, nor from */
	t->most_chunk = chunks[random_below(3)];
	t->rule.policy = policy;
	t->session = sk_session_create(&pool, 1 + random_below(3), "", &policy);
	assert_non_null(t->session);
	t->session->origin = random_below(2) * (UINT64_C(1) << 40);
}

/* A second session that goes on from the same place. */
static inline void fork_to(struct tenant *fork, struct tenant *t)
{
	*fork = *t;
	sk_session_settle(t->session);
	fork->session = sk_session_fork(t->session, "");
	assert_non_null(fork->session);
	fork->number = ++n_started;
	fork->is_forked = t->is_forked = true;
	fork->n_left = 1 + random_below(MOST_TOKENS - t->rule.next);
	total.n_forks++;
}

/* A session with some text that could be forked now, or NULL. */
static inline struct tenant *between_turns(void)
{
	uint32_t i = random_below(N_TENANTS);
	for (uint32_t n = 0; n < N_TENANTS; n++, i = (i + 1) % N_TENANTS) {
		struct tenant *t = &tenants[i];
		if (t->session && !t->n_turn && t->rule.next && t->rule.next < MOST_TOKENS)
			return t;
	}
	return NULL;
}

/* What the engine does between two requests: the policy may change, pages are promised anew. */
static inline void begin_turn(struct tenant *t)
{
	uint32_t n_pages, n_changes = t->is_constant ? 0 : random_below(3);

	sk_session_settle(t->session);
	assert_int_equal(t->session->pages.n_promised, 0);
	while (n_changes--) {
		struct sk_policy policy = random_policy();
		if (random_below(2)) /* the sinks alone */
			policy = (struct sk_policy){t->rule.policy.mode, policy.sink,
						    t->rule.policy.window, t->rule.policy.slack};
		sk_window_set_policy(&t->session->window, &policy);
		rule_change(&t->rule, &policy);
		assert_int_equal(sk_window_live(&t->session->window), t->rule.n_live);
		total.n_changes++;
	}
	t->n_turn = 1 + random_below(t->n_left < 150 ? t->n_left : 150);
	assert_int_equal(sk_session_reserve(t->session, MOST_TOKENS, t->n_turn, &n_pages), 0);
	assert_int_equal(sk_session_n_pages(t->session),
			 n_pages > sk_pages_alone(&t->session->pages)
				 ? n_pages
				 : sk_pages_alone(&t->session->pages));
}

/* What section 2 says in one line, of a session whose policy never changed. */
static inline uint64_t evicted_in_all(const struct sk_policy *p, uint64_t n_tokens)
{
	uint64_t capacity = sinks_of(p) + p->window, block = p->sink + p->window;
	if (p->mode == SK_MODE_RECOMPUTE)
		return n_tokens / block * block;
	if (p->mode == SK_MODE_DENSE || n_tokens < capacity)
		return 0;
	return (n_tokens - capacity) / (p->slack + 1) * (p->slack + 1);
}

static inline void end(struct tenant *t)
{
	assert_int_equal(t->n_evicted, t->rule.n_evicted);
	assert_int_equal(t->n_evicted + t->rule.n_gone + t->rule.n_live, t->rule.next);
	if (t->is_constant)
		assert_int_equal(t->n_evicted, evicted_in_all(&t->rule.policy, t->rule.next));
	total.n_evicted += t->n_evicted;
	total.n_gone += t->rule.n_gone;
	sk_session_destroy(t->session);
	t->session = NULL;
}

/* No page is in two sessions but of a fork, and the pool's books are right. */
static inline void check_pool(void)
{
	uint32_t refs[N_PAGES] = {0}, holder[N_PAGES] = {0}, n_used = 0;
	int64_t n_promised = N_BORROWED;

	for (uint32_t t = 0; t < N_TENANTS; t++) {
		if (!tenants[t].session)
			continue;
		const struct sk_pages *pages = &tenants[t].session->pages;
		n_promised += tenants[t].session->pages.n_promised;
		for (uint32_t i = 0; i < sk_pages_count(pages); i++) {
			uint32_t page =
				i < pages->n_sinks
					? pages->sinks[i]
					: pages->window[pages->window_at + i - pages->n_sinks];
			assert_true(!holder[page] || holder[page] == tenants[t].number ||
				    tenants[t].is_forked);
			holder[page] = tenants[t].number;
			n_used += refs[page]++ == 0;
		}
	}
	assert_int_equal(pool.n_free, N_PAGES - n_used);
	assert_int_equal(pool.n_promised, n_promised);
	assert_true(pool.n_promised <= pool.n_free);
	for (uint32_t page = 0; page < N_PAGES; page++)
		assert_int_equal(pool.n_refs[page], refs[page]);
}

static inline void lay_out(struct tenant *t, uint32_t n, uint32_t row, struct sk_span *span)
{
	int32_t ids[MOST_CHUNK];

	for (uint32_t i = 0; i < n; i++) {
		struct expected *e = &expected[row + i];
		e->entry = t->rule.next;
		e->n_live = t->rule.n_live;
		memcpy(e->live, t->rule.live, e->n_live * sizeof *e->live);
		e->n_evicted = rule_step(&t->rule);
		ids[i] = (int32_t)random_below(512);
	}
	recorder.n_copied = 0;
	assert_int_equal(sk_session_advance(t->session, ids, n, rows + row, views + row, span), 0);
	assert_true(recorder.n_copied <= t->is_forked);
	total.n_copies += recorder.n_copied;
	assert_int_equal(span->origin, t->session->origin);
	assert_true(sk_pages_count(&t->session->pages) <=
		    t->session->pages.n_most + n / SK_PAGE_TOKENS + 1);
	span->row = row;
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(rows[row + i].id, ids[i]);
	t->n_left -= n;
	t->n_turn -= n;
}
