#include "engine/session.h"

#include "base/clock.h"
#include "engine/ledger.h"
#include "engine/record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sk_session *sk_session_create(struct sk_pool *pool, uid_t uid, const char *name,
				     const struct sk_policy *policy)
{
	struct sk_session *session = calloc(1, sizeof *session);
	if (!session)
		return NULL;
	sk_list_init(&session->node);
	session->uid = uid;
	snprintf(session->name, sizeof session->name, "%s", name);
	snprintf(session->file, sizeof session->file, "%s", name);
	session->last_id = -1;
	session->slot = SK_NO_SLOT;
	session->keep_from = UINT64_MAX;
	session->begun_ns = session->last_used_ns = sk_clock_ns();
	sk_window_init(&session->window, policy);
	sk_pages_init(&session->pages, pool, uid);
	return session;
}

struct sk_session *sk_session_fork(struct sk_session *session, const char *name)
{
	struct sk_session *fork =
		sk_session_create(session->pages.pool, session->uid, name, &session->window.policy);
	if (!fork)
		return NULL;
	fork->window = session->window;
	fork->origin = session->origin;
	fork->last_id = session->last_id;
	fork->has_ttl = session->has_ttl;
	fork->ttl_ns = session->ttl_ns;
	if (session->n_head && (fork->head = calloc(session->n_head, sizeof *fork->head))) {
		memcpy(fork->head, session->head, session->n_head * sizeof *fork->head);
		fork->n_head = fork->head_allocated = session->n_head;
		fork->head_sink = session->head_sink;
	}
	fork->sampler = session->sampler;
	fork->sampler.recent = NULL;
	if (sk_sampler_memory_set(&fork->sampler, session->sampler.recent,
				  session->sampler.n_recent) < 0 ||
	    sk_pages_fork(&fork->pages, &session->pages) < 0) {
		sk_session_destroy(fork);
		return NULL;
	}
	return fork;
}

void sk_session_destroy(struct sk_session *session)
{
	if (!session)
		return;
	sk_list_remove(&session->node);
	if (session->slot != SK_NO_SLOT) /* before its pages are anybody else's */
		sk_ledger_clear(session->ledger, session->slot);
	sk_broken_destroy(session->broken);
	sk_pages_finish(&session->pages);
	sk_sampler_memory_finish(&session->sampler);
	free(session->head);
	free(session);
}

/* Without memory for them, fewer are known. */
static void note_head(struct sk_session *session, const int32_t *ids, uint32_t n)
{
	const struct sk_window *window = &session->window;

	if (session->n_head > window->next) /* rolled back since */
		session->n_head = (uint32_t)window->next;
	if (session->n_head < window->next || window->first != window->n_sink ||
	    window->next >= SK_HEAD_MOST)
		return;
	const uint32_t n_sink = sk_policy_sinks(&window->policy);
	if (session->n_head && n_sink != session->head_sink) /* changed since */
		return;
	session->head_sink = n_sink;
	if (n > SK_HEAD_MOST - session->n_head)
		n = SK_HEAD_MOST - session->n_head;
	if (session->n_head + n > session->head_allocated) {
		uint32_t wanted = 2 * (session->n_head + n);
		int32_t *grown = realloc(session->head, wanted * sizeof *grown);
		if (!grown)
			return;
		session->head = grown;
		session->head_allocated = wanted;
	}
	memcpy(session->head + session->n_head, ids, n * sizeof *ids);
	session->n_head += n;
}

int sk_session_share_head(struct sk_session *session, struct sk_session *from, uint32_t n)
{
	struct sk_window window = session->window;
	struct sk_view view;

	for (uint32_t i = 0; i < n; i++)
		sk_window_step(&window, &view);
	int err = sk_pages_share_first(&session->pages, &from->pages, n / SK_PAGE_TOKENS);
	if (err < 0)
		return err;
	note_head(session, from->head, n);
	session->window = window;
	sk_session_trim(session);
	return 0;
}

void sk_session_reset(struct sk_session *session)
{
	sk_pages_drop(&session->pages);
	session->n_head = 0;
	sk_sampler_memory_finish(&session->sampler);
	const struct sk_policy policy = session->window.policy;
	sk_window_init(&session->window, &policy);
	session->origin = 0;
	session->last_id = -1;
}

static uint64_t kept_sinks(const struct sk_session *session, uint64_t n_sink)
{
	return session->keep_sinks > n_sink ? session->keep_sinks : n_sink;
}

static uint64_t kept_first(const struct sk_session *session, uint64_t first)
{
	return session->keep_from < first ? session->keep_from : first;
}

uint64_t sk_session_position(const struct sk_session *session)
{
	return session->origin + session->window.next + (session->last_id >= 0);
}

int sk_session_reserve(struct sk_session *session, uint64_t context, uint64_t n_tokens,
		       uint32_t *ret_n_pages)
{
	const struct sk_window *window = &session->window, *stored = &session->stored_window;
	uint64_t live = sk_window_live(window),
		 most = sk_policy_most_live(&window->policy, context);

	/* What is live now may be more than a new policy allows, until its first eviction. */
	if (most < live)
		most = live;
	uint64_t reachable = n_tokens > UINT64_MAX - live ? UINT64_MAX : live + n_tokens;
	uint64_t n_sink = sk_policy_sinks(&window->policy);
	if (reachable < most)
		most = reachable;
	if (n_sink > most)
		n_sink = most;

	/* Fewer sinks than wanted, after a change of policy (before anything is dropped they can still come): the window is
	 * longer, by a page at most beyond what its share is rounded to. */
	bool is_mixed = window->n_sink != n_sink && window->first > window->n_sink;
	uint32_t n_pages = sk_pages_needed(n_sink, most) + is_mixed;
	if (session->keep_sinks > n_sink)
		n_pages += (uint32_t)(session->keep_sinks - 1) / SK_PAGE_TOKENS + 1;
	uint32_t n_held = sk_pages_count(&session->pages);
	if (session->is_stored && !n_held)
		n_held = (uint32_t)sk_pages_wanted(stored->n_sink, stored->first, stored->next);
	*ret_n_pages = n_pages > n_held ? n_pages : n_held;
	return sk_pages_promise(&session->pages, *ret_n_pages);
}

void sk_session_reserve_kept(struct sk_session *session)
{
	const struct sk_policy *policy = &session->window.policy;
	const uint32_t n = (SK_MARKS_MOST + policy->slack) / SK_PAGE_TOKENS + 1;
	if (policy->mode != SK_MODE_DENSE)
		(void)sk_pages_promise(&session->pages, session->pages.n_most + n);
}

bool sk_session_is_crowded(const struct sk_session *session)
{
	const struct sk_window *window = &session->window;
	return sk_pages_wanted(kept_sinks(session, window->n_sink),
			       kept_first(session, window->first),
			       window->next + 1) > session->pages.n_most;
}

void sk_session_settle(struct sk_session *session)
{
	(void)sk_pages_promise(&session->pages, 0);
}

uint32_t sk_session_n_charged(const struct sk_session *session)
{
	const struct sk_pages *pages = &session->pages;
	return sk_pages_distinct(pages) + (uint32_t)(pages->n_promised > 0 ? pages->n_promised : 0);
}

uint32_t sk_session_n_pages(const struct sk_session *session)
{
	const struct sk_pages *pages = &session->pages;
	return sk_pages_alone(pages) + (uint32_t)pages->n_promised;
}

int sk_session_advance(struct sk_session *session, const int32_t *ids, uint32_t n,
		       struct sk_row *rows, struct sk_view *views, struct sk_span *ret_span)
{
	struct sk_window window = session->window;
	struct sk_pages *pages = &session->pages;

	for (uint32_t i = 0; i < n; i++) {
		struct sk_view view;
		sk_window_step(&window, &view);
		rows[i] = (struct sk_row){
			.entry = view.entry,
			.first = view.first,
			.n_sink = (uint32_t)view.n_sink,
			.id = ids[i],
		};
		if (views)
			views[i] = view;
	}
	int err = sk_pages_own(pages, rows[0].entry);
	if (err < 0)
		return err;
	err = sk_pages_cover(pages, kept_sinks(session, rows[n - 1].n_sink),
			     kept_first(session, rows[0].first), window.next);
	if (err < 0)
		return err;

	note_head(session, ids, n);
	session->window = window;
	*ret_span = (struct sk_span){
		.n_rows = n,
		.origin = session->origin,
		.sink_pages = pages->sinks,
		.n_sink_pages = pages->n_sinks,
		.pages = pages->window + pages->window_at,
		.n_pages = pages->n_window,
		.page0 = pages->page0,
	};
	return 0;
}

void sk_session_trim(struct sk_session *session)
{
	/* Drops only, or takes sinks from pages that are held: nothing here can want for memory but
	 * the sink table's growth, and then the next step's cover tries again. */
	(void)sk_pages_cover(&session->pages, kept_sinks(session, session->window.n_sink),
			     kept_first(session, session->window.first), session->window.next);
}
