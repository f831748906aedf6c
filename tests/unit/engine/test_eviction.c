/* Eviction as a device sees it: random sessions, modes and steps. Windows, page tables, the pool, sessions and the
 * layers' loop are the real ones; the backend computes nothing, and records where each layer writes each entry and
 * what each row attends to. A plain list of live entries, kept after section 2 of the design, says what that must be.
 */
#include "engine/forward.h"
#include "engine/session.h"
#include "recorder.h"

#define N_CASES    250
#define N_BORROWED (MAX_ROWS / SK_PAGE_TOKENS + N_TENANTS)

/* --- The rule: section 2 on a list -------------------------------------------------------------- */

struct rule {
	struct sk_policy policy;
	uint32_t live[MOST_TOKENS]; /* entries, oldest first */
	uint32_t n_live, next;
	uint32_t n_evicted; /* after tokens */
	uint32_t n_gone;    /* with a change of the policy */
};

static uint32_t sinks_of(const struct sk_policy *policy)
{
	bool has_sinks = policy->mode == SK_MODE_STREAMING || policy->mode == SK_MODE_DENSE;
	return has_sinks ? policy->sink : 0;
}

/* Sinks are the first entries of all, as long as none of them is missing. */
static uint32_t n_sinks_live(const struct rule *rule, uint32_t most)
{
	uint32_t n = 0;
	while (n < most && n < rule->n_live && rule->live[n] == n)
		n++;
	return n;
}

static void drop_entries(struct rule *rule, uint32_t from, uint32_t n)
{
	memmove(rule->live + from, rule->live + from + n,
		(rule->n_live - from - n) * sizeof *rule->live);
	rule->n_live -= n;
}

/* A token: how many entries go after it. */
static uint32_t rule_step(struct rule *rule)
{
	const struct sk_policy *p = &rule->policy;
	uint32_t n = 0, capacity = sinks_of(p) + p->window;

	rule->live[rule->n_live++] = rule->next++;
	if (p->mode == SK_MODE_RECOMPUTE)
		n = rule->n_live == p->sink + p->window ? rule->n_live : 0;
	else if (p->mode != SK_MODE_DENSE && rule->n_live > capacity + p->slack)
		n = rule->n_live - capacity;
	drop_entries(rule, n_sinks_live(rule, sinks_of(p)), n);
	rule->n_evicted += n;
	return n;
}

/* Sinks that are not wanted any more go, if something behind them is gone; else they are the window's oldest. */
static void rule_change(struct rule *rule, const struct sk_policy *policy)
{
	uint32_t wanted = sinks_of(policy), n = n_sinks_live(rule, rule->n_live);
	bool is_whole = n == rule->n_live;

	rule->policy = *policy;
	if (is_whole || n <= wanted)
		return;
	drop_entries(rule, wanted, n - wanted);
	rule->n_gone += n - wanted;
}

/* --- Tenants: a session, its list, and what is expected of its rows ----------------------------- */

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

static uint32_t random_below(uint32_t n)
{
	random_state = random_state * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)(random_state >> 8) * n >> 24);
}

/* Small windows are tried more often: they drop more. */
static struct sk_policy random_policy(void)
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

static void start(struct tenant *t)
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
static void fork_to(struct tenant *fork, struct tenant *t)
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
static struct tenant *between_turns(void)
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
static void begin_turn(struct tenant *t)
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
static uint64_t evicted_in_all(const struct sk_policy *p, uint64_t n_tokens)
{
	uint64_t capacity = sinks_of(p) + p->window, block = p->sink + p->window;
	if (p->mode == SK_MODE_RECOMPUTE)
		return n_tokens / block * block;
	if (p->mode == SK_MODE_DENSE || n_tokens < capacity)
		return 0;
	return (n_tokens - capacity) / (p->slack + 1) * (p->slack + 1);
}

static void end(struct tenant *t)
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
static void check_pool(void)
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

static void lay_out(struct tenant *t, uint32_t n, uint32_t row, struct sk_span *span)
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

/* --- The checks of a step ------------------------------------------------------------------------ */

static void row_fails(const struct tenant *t, uint32_t row, uint32_t layer, uint32_t i,
		      const char *what)
{
	const struct sk_policy *p = &t->rule.policy;
	fail_msg("case %u, session %u (mode %d, sink %u, window %u, slack %u), entry %u, layer %u, "
		 "place %u: %s",
		 case_number, t->number, p->mode, p->sink, p->window, p->slack, expected[row].entry,
		 layer, i, what);
}

static void check_fields(const struct tenant *t, uint32_t row)
{
	const struct expected *e = &expected[row];
	const struct sk_row *r = &rows[row];
	const struct sk_view *view = &views[row];

	if (r->entry != e->entry || view->entry != e->entry)
		row_fails(t, row, 0, 0, "another entry");
	if (r->n_sink + (r->entry - r->first) != e->n_live || view->live != e->n_live)
		row_fails(t, row, 0, e->n_live, "the query is at another place");
	if (r->first != view->first || r->n_sink != view->n_sink)
		row_fails(t, row, 0, 0, "the row is not what the view says");
	if (r->n_sink > sinks_of(&t->rule.policy))
		row_fails(t, row, 0, r->n_sink, "more sinks than are wanted");
	if (view->n_evicted != e->n_evicted)
		row_fails(t, row, 0, e->n_evicted, "should be the number that is evicted");
	/* What the rotations take for granted (design, 2.1): sinks sit at their entry number, and in the
	 * window distances in the text are those in the cache. */
	for (uint32_t i = 0; i < e->n_live; i++) {
		bool is_right =
			i < r->n_sink ? e->live[i] == i : e->entry - e->live[i] == e->n_live - i;
		if (!is_right)
			row_fails(t, row, 0, i, "its place is not what it was rotated for");
	}
}

static void check_seen(const struct tenant *t, uint32_t row, uint32_t layer)
{
	const struct expected *e = &expected[row];
	const struct seen *seen = recorder.seen[layer][row], *first = recorder.seen[0][row];

	if (recorder.n_seen[layer][row] != e->n_live + 1)
		row_fails(t, row, layer, recorder.n_seen[layer][row], "so many are seen");
	for (uint32_t i = 0; i <= e->n_live; i++) {
		uint32_t entry = i < e->n_live ? e->live[i] : e->entry;
		if (seen[i].holds.session != t->writer[entry])
			row_fails(t, row, layer, i, "an entry of another session, or none");
		if (seen[i].holds.entry != entry)
			row_fails(t, row, layer, i, "another entry is seen");
		if (!t->is_forked && seen[i].place != t->home[layer][entry])
			row_fails(t, row, layer, i, "seen where it was not written");
		if (seen[i].place != first[i].place)
			row_fails(t, row, layer, i, "seen elsewhere than in the first layer");
	}
	total.n_seen += e->n_live + 1;
}

static void check_rows(struct tenant *t, const struct sk_span *span)
{
	for (uint32_t row = span->row; row < span->row + span->n_rows; row++) {
		t->writer[expected[row].entry] = t->number;
		for (uint32_t layer = 0; layer < recorder.base.shape.n_layers; layer++)
			t->home[layer][expected[row].entry] = recorder.written[layer][row];
	}
	for (uint32_t row = span->row; row < span->row + span->n_rows; row++) {
		check_fields(t, row);
		for (uint32_t layer = 0; layer < recorder.base.shape.n_layers; layer++)
			check_seen(t, row, layer);
		t->n_evicted += views[row].n_evicted;
	}
	total.n_rows += span->n_rows;
}

/* One batch of some of the sessions. */
static void step(void)
{
	struct sk_span spans[N_TENANTS];
	struct tenant *running[N_TENANTS];
	uint32_t n_spans = 0, n_rows = 0;

	for (uint32_t i = 0; i < N_TENANTS; i++) {
		struct tenant *t = &tenants[i];
		if (!t->session || random_below(3) == 0)
			continue;
		if (!t->n_turn)
			begin_turn(t);
		uint32_t n = 1 + random_below(t->most_chunk);
		n = n < t->n_turn ? n : t->n_turn;
		lay_out(t, n, n_rows, &spans[n_spans]);
		recorder.who[n_spans].session = t->number;
		recorder.who[n_spans].uid = t->session->uid;
		running[n_spans++] = t;
		n_rows += n;
	}
	if (!n_spans)
		return;
	check_pool();
	struct sk_batch batch = {
		.n_rows = n_rows, .n_spans = n_spans, .rows = rows, .spans = spans};
	assert_int_equal(sk_forward_run(&forward, &batch, NULL, 0, NULL, 0), 0);
	for (uint32_t i = 0; i < n_spans; i++) {
		struct tenant *t = running[i];
		check_rows(t, &spans[i]);
		sk_session_trim(t->session);
		assert_int_equal(sk_window_live(&t->session->window), t->rule.n_live);
		/* A running stream never fails for memory: what was promised is enough. */
		assert_true(sk_pages_count(&t->session->pages) <= t->session->pages.n_most);
		assert_true(t->session->pages.n_promised >= 0);
		if (!t->n_left)
			end(t);
	}
	check_pool();
}

static void run_case(uint32_t n_sessions)
{
	uint32_t n_live;

	n_started = 0;
	assert_int_equal(sk_pool_init(&pool, &recorder.base, N_PAGES), 0);
	assert_int_equal(sk_pool_promise(&pool, N_BORROWED), 0);
	do {
		n_live = 0;
		for (uint32_t i = 0; i < N_TENANTS; i++) {
			struct tenant *other = between_turns();
			if (!tenants[i].session && other && n_started < n_sessions)
				fork_to(&tenants[i], other);
			else if (!tenants[i].session && n_started < n_sessions)
				start(&tenants[i]);
			n_live += tenants[i].session != NULL;
		}
		step();
	} while (n_live);
	assert_int_equal(pool.n_free, N_PAGES);
	assert_int_equal(pool.n_promised, N_BORROWED);
	sk_pool_finish(&pool);
}

static void test_every_layer_sees_what_the_rule_says(void **state)
{
	(void)state;
	for (case_number = 0; case_number < N_CASES; case_number++) {
		random_state = case_number * 2654435761u; /* small seeds begin alike */
		run_case(1 + random_below(3 * N_TENANTS));
	}
	print_message(
		"  %llu rows saw %llu entries; %llu evicted, %llu changes of policy dropped %llu; "
		"%llu forks, %llu pages copied\n",
		(unsigned long long)total.n_rows, (unsigned long long)total.n_seen,
		(unsigned long long)total.n_evicted, (unsigned long long)total.n_changes,
		(unsigned long long)total.n_gone, (unsigned long long)total.n_forks,
		(unsigned long long)total.n_copies);
	/* Enough of everything that it would have been seen. */
	assert_true(total.n_rows > 100000 && total.n_evicted > 50000);
	assert_true(total.n_changes > 1000 && total.n_gone > 1000);
	assert_true(total.n_forks > 100 && total.n_copies > 100);
}

/* A case can be run alone: nothing but its number makes it what it is. */
static int tell_where(void **state)
{
	(void)state;
	if (case_number < N_CASES)
		print_error("failed in case %u\n", case_number);
	return 0;
}

static int open_forward(void **state)
{
	(void)state;
	struct sk_diag diag = {""};
	struct sk_backend *backend;

	if (sk_model_open(sk_test_model("tiny-neox-serial"), &model, &diag) < 0)
		goto failed;
	struct sk_backend_shape shape =
		sk_forward_shape(sk_model_config(model), SK_KV_F32, MAX_ROWS);
	if (sk_backend_open(&recording_backend, NULL, &shape, &backend, &diag) < 0 ||
	    sk_forward_init(&forward, backend, model, SK_WEIGHTS_AUTO, 1, NULL, NULL, &diag) < 0)
		goto failed;
	return 0;

failed:
	print_error("%s\n", diag.text);
	return -1;
}

static int close_forward(void **state)
{
	(void)state;
	sk_forward_finish(&forward);
	sk_model_close(model);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_every_layer_sees_what_the_rule_says, tell_where),
	};
	return sk_test_run(tests, open_forward, close_forward);
}
