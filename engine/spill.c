/* Sessions beside the pool: idle ones go out to the store when pages are wanted, come back with their next request, and
 * end when nobody has used them for too long. The carrying is the mover's.
 */
#include "base/clock.h"
#include "engine/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRY_AGAIN_NS 5000000000u /* after the store failed, so long nothing is spilled */
#define GRACE_NS     30000000000u /* so long a client may take to read what its dead daemon left it */

static bool is_idle(const struct sk_session *session)
{
	return session->name[0] && !session->is_busy && !session->is_moving;
}

bool sk_engine_can_spill(const struct sk_engine *engine)
{
	return engine->options.store &&
	       (!engine->spill_failed_ns || sk_clock_ns() - engine->spill_failed_ns > TRY_AGAIN_NS);
}

uint64_t sk_engine_spills_at(const struct sk_engine *engine)
{
	return engine->options.store && engine->spill_failed_ns
		       ? engine->spill_failed_ns + TRY_AGAIN_NS + 1
		       : UINT64_MAX;
}

/* The pages that the moves under way will give back. */
static uint32_t n_leaving(const struct sk_engine *engine)
{
	uint32_t n = 0;
	sk_list_for_each (node, &engine->sessions) {
		const struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (session->is_leaving)
			n += sk_session_n_pages(session);
	}
	return n;
}

/* Of those that hold pages, the one that was used longest ago, but not `spared`: of those with pages of their own, if there
 * are any; else of those that share all, which are given back with the last of them. `uid`: of that user's, if it is not
 * NULL. */
static struct sk_session *least_used(const struct sk_engine *engine,
				     const struct sk_session *spared, const uid_t *uid)
{
	struct sk_session *least = NULL;
	const bool is_grace = engine->adopted_ns && sk_clock_ns() - engine->adopted_ns < GRACE_NS;
	sk_list_for_each (node, &engine->sessions) {
		struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (!is_idle(session) || session == spared || !sk_pages_distinct(&session->pages) ||
		    (uid && session->uid != *uid) || (session->broken && is_grace))
			continue;
		const bool is_alone = sk_session_n_pages(session),
			   least_is = least && sk_session_n_pages(least);
		if (!least || is_alone > least_is ||
		    (is_alone == least_is && session->last_used_ns < least->last_used_ns))
			least = session;
	}
	return least;
}

struct sk_move *sk_engine_move_of(struct sk_engine *engine, enum sk_move_kind kind,
				  struct sk_session *session)
{
	sk_engine_mend(engine, session);
	struct sk_move *move = sk_move_create(kind, sk_pages_distinct(&session->pages));
	if (!move)
		return NULL;
	move->session = session;
	move->uid = session->uid;
	if (!session->name[0] && !session->file[0])
		snprintf(session->file, sizeof session->file, SK_STORE_NAMELESS "%llu",
			 (unsigned long long)++engine->n_nameless);
	memcpy(move->name, session->file, sizeof move->name);
	sk_store_draft_name(move->uid, move->name, 0, move->draft);
	sk_image_of(session, &engine->mover.kind, sk_clock_ns(), move->image);
	sk_pages_list(&session->pages, move->pages);
	return move;
}

void sk_engine_begin_move(struct sk_engine *engine, struct sk_move *move)
{
	struct sk_session *session = move->session;
	engine->n_moves++;
	session->is_moving = true;
	if (move->kind == SK_MOVE_OUT) {
		session->is_leaving = true;
		session->stored_window = session->window;
	}
	sk_mover_submit(&engine->mover, move);
}

void sk_engine_spill_for(struct sk_engine *engine, const struct sk_request *request)
{
	struct sk_session *own = sk_engine_find_session(engine, request->uid, request->session);
	const struct sk_pool *pool = &engine->pool;
	const uint32_t n_free =
		pool->n_free > pool->n_promised ? pool->n_free - pool->n_promised : 0;
	const uint32_t n_held = own ? sk_session_n_pages(own) : 0;
	uint64_t n_missing = request->n_pages > n_held ? request->n_pages - n_held : 0;
	uint64_t n_coming = (uint64_t)n_free + n_leaving(engine);

	if (!sk_engine_can_spill(engine))
		return;
	/* Whose beginning it shares is the last to go, and not while others may give pages back. */
	const struct sk_session *alike = own ? NULL : sk_engine_begins_alike(engine, request);
	while (n_coming < n_missing) {
		struct sk_session *session = least_used(engine, own ? own : alike, NULL);
		if (!session && alike &&
		    (!engine->n_generations ||
		     sk_clock_ns() - request->queued_ns > engine->queue.patience_ns))
			session = least_used(engine, NULL, NULL);
		struct sk_move *move =
			session ? sk_engine_move_of(engine, SK_MOVE_OUT, session) : NULL;
		if (!move)
			return;
		n_coming += sk_session_n_pages(session);
		sk_engine_begin_move(engine, move);
	}
}

void sk_engine_spill_own(struct sk_engine *engine, const struct sk_request *request)
{
	const uint64_t most =
		request->user->limits->kv_bytes / sk_backend_page_bytes(engine->backend);
	struct sk_session *own = sk_engine_find_session(engine, request->uid, request->session);
	uint64_t n_held = request->n_pages;

	if (!request->user->limits->kv_bytes)
		return;
	sk_list_for_each (node, &engine->sessions) {
		const struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (session->uid == request->uid && session != own && !session->is_leaving)
			n_held += sk_session_n_pages(session);
	}
	while (n_held > most && sk_engine_can_spill(engine)) {
		struct sk_session *session = least_used(engine, own, &request->uid);
		struct sk_move *move =
			session ? sk_engine_move_of(engine, SK_MOVE_OUT, session) : NULL;
		if (!move)
			return;
		n_held -= sk_session_n_pages(session);
		sk_engine_begin_move(engine, move);
	}
}

int sk_engine_prepare_fetch(struct sk_engine *engine, struct sk_session *session,
			    struct sk_move **ret_move)
{
	const struct sk_window *stored = &session->stored_window;
	sk_engine_commit(engine);
	int err = sk_pages_restore(&session->pages, stored->n_sink, stored->first, stored->next);
	if (err < 0)
		return err;
	struct sk_move *move = sk_engine_move_of(engine, SK_MOVE_IN, session);
	if (!move) {
		sk_pages_drop(&session->pages);
		return -ENOMEM;
	}
	/* The policy may have changed since: the file is as it was stored. */
	move->image->next = stored->next;
	move->image->first = stored->first;
	move->image->n_sink = stored->n_sink;
	*ret_move = move;
	return 0;
}

void sk_engine_leave_session(struct sk_engine *engine, struct sk_session *session)
{
	session->is_left = session->is_moving;
	if (session->is_stored && !session->is_moving)
		sk_store_remove(engine->options.store, session->uid, session->file);
}

void sk_engine_forget_session(struct sk_engine *engine, struct sk_session *session)
{
	if (session->is_stored)
		sk_store_remove(engine->options.store, session->uid, session->file);
	sk_session_destroy(session);
}

/* --- What came of a move --- */

/* Who waits for pages is told the cause; which session it was, the log alone. */
static void warn_of(struct sk_engine *engine, const struct sk_move *move)
{
	struct sk_event *event = sk_event_create(SK_EVENT_WARNING, 0, 0);
	engine->spill_error = move->error;
	if (!event)
		return; /* the next failure tells */
	snprintf(event->reason, sizeof event->reason, "a session cannot be stored: %.400s",
		 move->diag.text);
	sk_mailbox_post(&engine->events, &event->node);
}

static void went_out(struct sk_engine *engine, struct sk_move *move)
{
	struct sk_session *session = move->session;

	session->is_moving = session->is_leaving = false;
	engine->spill_failed_ns = move->error < 0 ? sk_clock_ns() : 0;
	if (move->error < 0) {
		warn_of(engine, move);
		if (!session->is_busy)
			sk_session_trim(session); /* of a request that came and went meanwhile */
	} else if (session->is_busy &&
		   !sk_engine_yields(engine, session)) { /* it was wanted after all */
		sk_store_remove(engine->options.store, session->uid, session->file);
	} else {
		sk_pages_drop(&session->pages);
		session->window =
			session->stored_window; /* a request that never ran changes nothing */
		session->is_stored = true;
		session->stored_bytes = move->n_bytes;
	}
	sk_engine_has_yielded(engine, session);
}

static void end_on(struct sk_engine *engine, const struct sk_session *session, const char *reason)
{
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		if (g->session == session)
			sk_generation_end(g, SK_STOP_ERROR, reason);
	}
}

/* A request has come while the session was moving otherwise. */
static void fetch_if_wanted(struct sk_engine *engine, struct sk_session *session)
{
	struct sk_move *fetch;
	if (!session->is_stored || !session->is_busy || session->is_moving ||
	    sk_engine_yields(engine, session))
		return;
	if (sk_engine_prepare_fetch(engine, session, &fetch) < 0)
		end_on(engine, session, "not enough memory");
	else
		sk_engine_begin_move(engine, fetch);
}

static void came_in(struct sk_engine *engine, struct sk_move *move)
{
	struct sk_session *session = move->session;

	session->is_moving = false;
	if (!move->error) {
		session->is_stored = false;
		sk_engine_commit(engine); /* in the stead of the file */
		sk_store_remove(engine->options.store, session->uid, session->file);
		sk_session_trim(session);
		for (uint32_t i = 0; i < engine->n_generations; i++) /* its turn begins now */
			if (engine->generations[i]->session == session)
				engine->generations[i]->since_ns = sk_clock_ns();
		return;
	}
	/* It stays where it is, as it was. */
	sk_pages_drop(&session->pages);
	session->window = session->stored_window;
	end_on(engine, session, move->diag.text);
}

void sk_engine_moved(struct sk_engine *engine, struct sk_move *move)
{
	engine->n_moves--;
	switch (move->kind) {
	case SK_MOVE_OUT:
		went_out(engine, move);
		break;
	case SK_MOVE_IN:
		came_in(engine, move);
		break;
	case SK_MOVE_SAVE:
	case SK_MOVE_KEEP:
		sk_engine_session_moved(engine, move);
		fetch_if_wanted(engine, move->session);
		break;
	case SK_MOVE_LOAD:
		sk_engine_session_moved(engine, move);
		break;
	}
	if (move->kind != SK_MOVE_LOAD && move->session->is_left)
		sk_engine_forget_session(engine, move->session);
	else if (move->kind != SK_MOVE_LOAD)
		sk_engine_watch_session(engine, move->session);
	sk_move_destroy(move);
	sk_engine_retry_held(engine);
	sk_engine_serve_queue(engine);
}

/* --- Time to live --- */

static uint64_t ends_ns(const struct sk_session *session)
{
	const uint64_t ttl_ns = session->ttl_ns, used_ns = session->last_used_ns;
	return ttl_ns && ttl_ns < UINT64_MAX - used_ns ? used_ns + ttl_ns : UINT64_MAX;
}

void sk_engine_watch_session(struct sk_engine *engine, const struct sk_session *session)
{
	uint64_t end_ns = ends_ns(session);
	if (end_ns < engine->next_end_ns)
		engine->next_end_ns = end_ns;
}

void sk_engine_end_unused(struct sk_engine *engine, uint64_t now_ns)
{
	if (now_ns < engine->next_end_ns)
		return;
	bool is_room = false;
	engine->next_end_ns = UINT64_MAX;
	sk_list_for_each (node, &engine->sessions) {
		struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (!is_idle(session))
			continue; /* looked at when it is idle again */
		if (sk_engine_is_asked_for(engine, session))
			session->last_used_ns = now_ns;
		if (ends_ns(session) > now_ns) {
			sk_engine_watch_session(engine, session);
			continue;
		}
		sk_engine_forget_session(engine, session);
		is_room = true;
	}
	if (is_room)
		sk_engine_serve_queue(engine);
}

/* --- From one daemon to the next --- */

static void found(void *context, uid_t uid, const char *name, const struct sk_image *image,
		  uint64_t n_bytes)
{
	struct sk_engine *engine = context;
	struct sk_diag diag = {""};
	struct sk_window window = sk_image_window(image);

	int err = sk_image_check(image, n_bytes, &engine->mover.kind, &diag);
	if (!err)
		err = sk_engine_check_policy(engine, &window.policy, &diag);
	struct sk_session *session =
		sk_session_create(&engine->pool, uid, name, &engine->options.policy);
	if (session && !err)
		err = sk_image_apply(image, sk_clock_ns(), session);
	if (!session || err) {
		if (!engine->kept.n_unusable++)
			snprintf(engine->kept.reason, sizeof engine->kept.reason,
				 "%u-%s.kv: %.400s", (unsigned)uid, name,
				 diag.text[0] ? diag.text : "not enough memory");
	} else {
		engine->kept.n_found++;
	}
	if (!session)
		return;
	/* One that is of no use keeps its name and its file: who asks for it is told why, and may delete it. */
	session->stored_window = session->window;
	if (err)
		session->has_ttl = true; /* for ever */
	if (!session->has_ttl)
		session->ttl_ns = engine->options.session_ttl_ns;
	session->is_stored = true;
	session->stored_bytes = n_bytes;
	sk_list_append(&engine->sessions, &session->node);
	sk_engine_watch_session(engine, session);
}

int sk_engine_open_store(struct sk_engine *engine)
{
	return engine->options.store ? sk_store_scan(engine->options.store, found, engine) : 0;
}

static bool is_to_keep(const struct sk_session *session)
{
	return is_idle(session) && !session->is_stored && session->window.next;
}

/* On the calling thread. False: it stays where it is, and *ret_diag says why. */
static bool keep(struct sk_engine *engine, struct sk_session *session, bool to_disk,
		 struct sk_diag *ret_diag)
{
	struct sk_move *move = sk_engine_move_of(engine, SK_MOVE_OUT, session);
	if (!move) {
		snprintf(ret_diag->text, sizeof ret_diag->text, "not enough memory");
		return false;
	}
	move->to_disk = to_disk;
	sk_mover_run(&engine->mover, move);
	const bool is_kept = move->error >= 0;
	if (is_kept) {
		session->stored_window = session->window;
		session->stored_bytes = move->n_bytes;
		sk_pages_drop(&session->pages);
		session->is_stored = true;
	} else {
		*ret_diag = move->diag;
	}
	sk_move_destroy(move);
	return is_kept;
}

struct sk_session *sk_engine_least_used(struct sk_engine *engine)
{
	return least_used(engine, NULL, NULL);
}

bool sk_engine_keep_one(struct sk_engine *engine)
{
	struct sk_session *session = engine->options.store ? least_used(engine, NULL, NULL) : NULL;
	struct sk_diag diag;
	engine->is_touched = true;
	return session && keep(engine, session, false, &diag);
}

/* A device that failed may still give what lies in its memory; one that has not given a session gives no other. */
void sk_engine_keep_all(struct sk_engine *engine)
{
	uint32_t n_total = 0, n_done = 0;
	bool is_gone = false;

	if (!engine->options.store)
		return;
	sk_list_for_each (node, &engine->sessions)
		n_total += is_to_keep(sk_container_of(node, struct sk_session, node));
	sk_list_for_each (node, &engine->sessions) {
		struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (!is_to_keep(session))
			continue;
		if (engine->options.keeping)
			engine->options.keeping(n_done++, n_total);
		struct sk_diag diag = {""};
		if (!is_gone && keep(engine, session, true, &diag)) {
			engine->kept.n_kept++;
			continue;
		}
		is_gone |= engine->is_dead;
		if (!engine->kept.n_lost++)
			snprintf(engine->kept.reason, sizeof engine->kept.reason, "%.500s",
				 diag.text);
	}
	sk_engine_commit(engine);             /* for those that could not be */
	sk_store_sync(engine->options.store); /* those that went out before, and all their names */
}
