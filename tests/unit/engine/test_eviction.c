/* Eviction as a device sees it: random sessions, modes and steps. Windows, page tables, the pool, sessions and the
 * layers' loop are the real ones; the backend computes nothing, and records where each layer writes each entry and
 * what each row attends to. A plain list of live entries, kept after section 2 of the design, says what that must be.
 */
#include "eviction_tenants.h"

#define N_CASES 250

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
	assert_int_equal(sk_forward_run(&forward, &batch, NULL, NULL, 0, NULL, 0), 0);
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
