/* Named sessions outlive the process: what is in the pool stands in the ledger as well (ledger.h), as of the end of the last
 * step. Two rules keep it whole:
 *
 *   - an entry is written before a page that its session has given back can be taken by another: at the end of each step,
 *     before the next one is laid out, before a session is fetched, and before the first step of a start;
 *   - and before its client can read the token that it speaks of, or is told that its request has ended.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "engine/ledger.h"
#include "engine/parking.h"
#include "engine/record.h"
#include "engine/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define LEDGER_NAME "streamkv-ledger"
#define PAGES_NAME  "streamkv-pages"
#define N_SLOTS     16384u /* as many as four users may have sessions, if nothing else is said */
#define SPARE_PAGES 64     /* that a session may hold beyond its context: marks, slack, ends */

/* Or NULL. */
static struct sk_parked *find_parked(const struct sk_parking *parking, const char *name)
{
	for (uint32_t i = 0; i < parking->n_parked; i++) {
		struct sk_parked *parked = &parking->parked[i];
		if (parked->fd >= 0 && strcmp(parked->name, name) == 0)
			return parked;
	}
	return NULL;
}

/* The descriptor of that name, the caller's from now on; -1: there is none. */
static int take_parked(const struct sk_parking *parking, const char *name)
{
	struct sk_parked *parked = find_parked(parking, name);
	return parked ? sk_steal_fd(&parked->fd) : -1;
}

void sk_engine_mend(struct sk_engine *engine, struct sk_session *session)
{
	engine->is_touched |= session->broken != NULL; /* it gives pages back */
	sk_session_mend(session);
}

/* --- Writing --- */

/* What an entry depends on, in short. */
static uint64_t sign(const struct sk_session *session, const struct sk_generation *g)
{
	const struct sk_window *window = &session->window;
	const struct sk_marks *marks = g ? g->marks : NULL;
	const uint64_t parts[] = {
		g != NULL,
		marks && g->prompt_done_ns,
		marks ? marks->n : 0,
		marks ? marks->given.ring_end : 0,
		marks ? g->result.generated_tokens : 0,
		session->broken != NULL,
		window->policy.mode,
		window->policy.sink,
		window->policy.window,
		window->policy.slack,
		window->next,
		window->first,
		window->n_sink,
		session->origin,
		(uint64_t)session->last_id,
		session->keep_from,
		session->keep_sinks,
		session->has_ttl,
		session->ttl_ns,
		session->last_used_ns,
		session->n_requests,
		session->n_generated,
		sk_pages_count(&session->pages),
	};
	return XXH3_64bits(parts, sizeof parts);
}

static void forget(struct sk_session *session)
{
	if (session->slot == SK_NO_SLOT)
		return;
	sk_ledger_clear(session->ledger, session->slot);
	session->slot = SK_NO_SLOT;
}

static void note(struct sk_engine *engine, struct sk_session *session,
		 const struct sk_generation *g)
{
	const uint64_t now = sign(session, g);
	if (session->slot != SK_NO_SLOT && session->recorded == now)
		return;
	const uint32_t n_bytes = sk_record_of(session, g, engine->record, engine->record_bytes);
	if (n_bytes && session->slot == SK_NO_SLOT) {
		session->ledger = engine->ledger;
		session->slot = sk_ledger_take(engine->ledger);
	}
	if (!n_bytes || session->slot == SK_NO_SLOT) {
		forget(session); /* an old one would be wrong */
		return;
	}
	sk_ledger_write(engine->ledger, session->slot, engine->record, n_bytes);
	session->recorded = now;
}

static bool is_in_pool(const struct sk_session *session)
{
	return session->name[0] && !session->is_stored && session->window.next;
}

void sk_engine_commit_idle(struct sk_engine *engine, struct sk_session *session)
{
	if (!engine->ledger)
		return;
	if (is_in_pool(session))
		note(engine, session, NULL);
	else
		forget(session);
}

void sk_engine_commit(struct sk_engine *engine)
{
	if (!engine->ledger)
		return;
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		const struct sk_generation *g = engine->generations[i];
		if (is_in_pool(g->session))
			note(engine, g->session, g);
	}
	if (!engine->is_touched)
		return;
	engine->is_touched = false;
	sk_list_for_each (node, &engine->sessions) {
		struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (!session->is_busy || !is_in_pool(session))
			sk_engine_commit_idle(engine, session);
	}
}

/* --- Finding --- */

static int kind_of(const struct sk_engine *engine, const struct sk_model *model,
		   struct sk_ledger_kind *ret_kind)
{
	*ret_kind = (struct sk_ledger_kind){
		.page_bytes = sk_backend_page_bytes(engine->backend),
		.entry_bytes = sk_record_most_bytes(engine->config.n_context / SK_PAGE_TOKENS +
						    SPARE_PAGES),
	};
	strncpy(ret_kind->layout, sk_backend_page_layout(engine->backend),
		sizeof ret_kind->layout - 1);
	return sk_model_fingerprint(model, ret_kind->model);
}

static bool is_empty(const struct sk_ledger *ledger)
{
	uint32_t n_bytes;
	for (uint32_t slot = 0; slot < sk_ledger_n_touched(ledger); slot++) {
		if (sk_ledger_read(ledger, slot, &n_bytes))
			return false;
	}
	return true;
}

static void let_go(struct sk_engine *engine)
{
	struct sk_parking *parking = engine->options.parking;
	sk_ledger_close(engine->ledger);
	engine->ledger = NULL;
	parking->drop(parking->context, LEDGER_NAME);
	parking->drop(parking->context, PAGES_NAME);
}

/* What an earlier process left can be had once there is more memory, or fewer descriptors are open: it is not let go for that. */
static bool is_for_now(int err)
{
	return err == -ENOMEM || err == -EMFILE || err == -ENFILE;
}

static int leave_it(struct sk_diag *diag, int err)
{
	return sk_diag_fail(
		diag, -err,
		"the sessions that an earlier daemon left stay where they are, since they "
		"cannot be had now: %s (--survival off lets them go)",
		strerror(-err));
}

/* What an earlier process left, if it is of use. */
static int find(struct sk_engine *engine, const struct sk_ledger_kind *kind, uint32_t n_least,
		struct sk_diag *diag)
{
	struct sk_parking *parking = engine->options.parking;
	struct sk_diag why = {"a part of them is missing"};
	const int ledger_fd = take_parked(parking, LEDGER_NAME),
		  pages_fd = take_parked(parking, PAGES_NAME);
	int err = -ESTALE;

	if (ledger_fd < 0 && pages_fd < 0)
		return 0;
	if (ledger_fd < 0 || pages_fd < 0)
		close(ledger_fd < 0 ? pages_fd : ledger_fd);
	else
		err = sk_ledger_open(kind, ledger_fd, pages_fd, &engine->ledger, &why);
	if (is_for_now(err))
		return leave_it(diag, err);
	if (!err && sk_ledger_n_pages(engine->ledger) < n_least)
		err = sk_diag_fail(
			&why, ENOSPC,
			"they lie in %u pages, and this daemon's --window, --max-batch and "
			"--step-tokens want %u at least",
			sk_ledger_n_pages(engine->ledger), n_least);
	if (err < 0)
		snprintf(engine->kept.not_adopted, sizeof engine->kept.not_adopted, "%.255s",
			 why.text);
	if (err < 0 || is_empty(engine->ledger))
		let_go(engine);
	return 0;
}

static int park(struct sk_engine *engine)
{
	struct sk_parking *parking = engine->options.parking;
	int err = parking->keep(parking->context, PAGES_NAME, sk_ledger_pages_fd(engine->ledger));
	if (!err)
		err = parking->keep(parking->context, LEDGER_NAME, sk_ledger_fd(engine->ledger));
	return err;
}

static int init_pool(struct sk_engine *engine, uint32_t n_pages, struct sk_diag *diag)
{
	const int err = sk_pool_init(&engine->pool, engine->backend, n_pages);
	return err < 0 ? sk_diag_fail(diag, -err,
				      "no memory for %llu MiB of KV cache; lower --kv-memory",
				      (unsigned long long)engine->options.kv_memory_bytes >> 20)
		       : 0;
}

int sk_engine_open_pool(struct sk_engine *engine, const struct sk_model *model,
			const uint32_t n_wanted, uint32_t n_least, struct sk_diag *diag)
{
	struct sk_parking *parking = engine->options.parking;
	struct sk_ledger_kind kind;
	uint32_t n_pages = n_wanted;

	if (!parking)
		return init_pool(engine, n_wanted, diag);
	int err = kind_of(engine, model, &kind);
	if (err < 0)
		return sk_diag_fail(diag, -err, "not enough memory");
	err = find(engine, &kind, n_least, diag);
	if (err < 0)
		return err;
	const bool is_found = engine->ledger;
	if (is_found)
		n_pages = sk_ledger_n_pages(engine->ledger);
	else
		err = sk_ledger_create(&kind, n_pages, N_SLOTS, &engine->ledger);
	engine->record_bytes = kind.entry_bytes;
	engine->record = malloc(kind.entry_bytes);
	if (!err && !engine->record)
		err = -ENOMEM;
	if (!err)
		err = sk_pool_init_in(&engine->pool, engine->backend, n_pages,
				      sk_ledger_pages_fd(engine->ledger));
	if (is_found && is_for_now(err))
		return leave_it(diag, err);
	if (!err && !is_found) {
		err = park(engine);
		if (err < 0)
			sk_pool_finish(&engine->pool);
	}
	if (!err) {
		parking->n_lives = sk_ledger_n_lives(engine->ledger);
		return 0;
	}
	/* Without it sessions end with the process, and all else is as well. */
	snprintf(engine->kept.not_parked, sizeof engine->kept.not_parked, "%s",
		 err == -ENOTSUP ? "this device's memory ends with it" : strerror(-err));
	let_go(engine);
	return init_pool(engine, n_wanted, diag);
}

/* Several sessions may have been one reader's. *ret_fd: -1 where it is not known. */
static int cursor_of(const struct sk_parking *parking, uint64_t number, int *ret_fd)
{
	char name[SK_PARKED_NAME_BYTES];
	sk_parking_cursor_name(number, name);
	const struct sk_parked *parked = number ? find_parked(parking, name) : NULL;
	*ret_fd = parked ? fcntl(parked->fd, F_DUPFD_CLOEXEC, 0) : -1;
	return parked && *ret_fd < 0 ? -errno : 0;
}

/* The store's last daemon had another ledger, or none: the file was written after the entry. */
static bool is_outdated(struct sk_engine *engine, const struct sk_record *record)
{
	return engine->options.store && sk_engine_find_session(engine, record->uid, record->name) &&
	       !engine->is_ledger_named;
}

static int session_of(struct sk_engine *engine, const struct sk_record *record,
		      struct sk_session **ret_session)
{
	struct sk_session *session =
		sk_session_create(&engine->pool, record->uid, record->name, &record->window.policy);
	struct sk_diag diag;
	int cursor_fd;

	if (!session)
		return -ENOMEM;
	int err = sk_engine_check_policy(engine, &record->window.policy, &diag);
	if (!err)
		err = cursor_of(engine->options.parking, record->cursor, &cursor_fd);
	if (!err)
		err = sk_record_apply(record, session, cursor_fd);
	if (err < 0) {
		sk_session_destroy(session);
		return err;
	}
	*ret_session = session;
	return 0;
}

static int adopt(struct sk_engine *engine, const struct sk_record *record, uint32_t slot)
{
	struct sk_session *session;
	int err = session_of(engine, record, &session);
	if (err < 0)
		return err;
	/* Its file, if it has one, is no newer (is_outdated()): it was on its way there, or back. */
	struct sk_session *stored = sk_engine_find_session(engine, session->uid, session->name);
	if (stored)
		sk_engine_forget_session(engine, stored);
	if (!session->has_ttl)
		session->ttl_ns = engine->options.session_ttl_ns;
	session->ledger = engine->ledger;
	session->slot = slot;
	engine->kept.n_adopted++;
	engine->kept.n_broken += session->broken != NULL;
	if (session->broken) /* its time to live begins now */
		session->last_used_ns = sk_clock_ns();
	sk_list_append(&engine->sessions, &session->node);
	sk_engine_watch_session(engine, session);
	return 0;
}

/* Each entry that is of use becomes a session; -errno: not now, and all are as they were. */
static int adopt_all(struct sk_engine *engine)
{
	struct sk_ledger *ledger = engine->ledger;
	const struct sk_store *store = engine->options.store;
	uint32_t n_bytes;

	const int named = store ? sk_store_names_ledger(store, sk_ledger_id(ledger)) : 0;
	if (named < 0 && is_for_now(named))
		return named;
	engine->is_ledger_named = named == 1;
	for (uint32_t slot = 0; slot < sk_ledger_n_touched(ledger); slot++) {
		const struct sk_record *record = sk_ledger_read(ledger, slot, &n_bytes);
		if (!record)
			continue;
		const bool is_whole = sk_record_means_something(record, n_bytes, &engine->pool,
								engine->config.n_vocab),
			   is_older = is_whole && is_outdated(engine, record);
		const int err = is_whole && !is_older ? adopt(engine, record, slot) : 0;
		if (is_for_now(err))
			return err;
		engine->kept.n_outdated += is_older;
		engine->kept.n_not_adopted += !is_whole || err < 0;
		if (!is_whole || is_older || err < 0)
			sk_ledger_clear(ledger, slot);
	}
	return 0;
}

/* Their entries stay. */
static void unadopt_all(struct sk_engine *engine)
{
	sk_list_for_each (node, &engine->sessions) {
		struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (session->is_stored)
			continue;
		session->slot = SK_NO_SLOT;
		sk_session_destroy(session);
	}
}

/* Readers of whom nothing is left but their cursor. */
static void drop_cursors(struct sk_engine *engine)
{
	struct sk_parking *parking = engine->options.parking;

	for (uint32_t i = 0; i < parking->n_parked; i++) {
		struct sk_parked *parked = &parking->parked[i];
		bool is_wanted = false;
		sk_list_for_each (node, &engine->sessions) {
			const struct sk_broken *broken =
				sk_container_of(node, struct sk_session, node)->broken;
			char name[SK_PARKED_NAME_BYTES];
			if (!broken)
				continue;
			sk_parking_cursor_name(broken->cursor, name);
			is_wanted |= strcmp(name, parked->name) == 0;
		}
		if (parked->fd < 0)
			continue;
		close(parked->fd);
		parked->fd = -1;
		if (!is_wanted)
			parking->drop(parking->context, parked->name);
	}
}

/* A daemon of other --step-tokens or --max-batch borrows more pages for a step: sessions make room, on the disk, or for good. */
static void make_room(struct sk_engine *engine)
{
	while (engine->pool.n_free < engine->pool.n_promised) {
		if (sk_engine_keep_one(engine))
			continue;
		struct sk_session *session = sk_engine_least_used(engine);
		if (!session)
			return;
		engine->kept.n_broken -= session->broken != NULL;
		sk_engine_forget_session(engine, session);
		engine->kept.n_adopted--;
		engine->kept.n_no_room++;
	}
}

int sk_engine_adopt_sessions(struct sk_engine *engine, struct sk_diag *diag)
{
	const struct sk_ledger *ledger = engine->ledger;
	const bool is_found = ledger && sk_ledger_n_lives(ledger) > 1;

	if (is_found) {
		const int err = adopt_all(engine);
		sk_pool_adopted(&engine->pool);
		if (err < 0) {
			unadopt_all(engine);
			return leave_it(diag, err);
		}
	}
	if (engine->options.store)
		sk_store_name_ledger(engine->options.store, ledger ? sk_ledger_id(ledger) : NULL);
	if (engine->options.parking)
		drop_cursors(engine);
	if (!is_found)
		return 0;
	sk_list_for_each (node, &engine->sessions) {
		struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (!session->is_stored && !session->broken)
			sk_session_trim(session);
	}
	make_room(engine);
	engine->is_touched = true; /* pages have been given back, and the warm-up takes some */
	sk_engine_commit(engine);
	engine->adopted_ns = sk_clock_ns();
	return 0;
}

void sk_engine_close_ledger(struct sk_engine *engine)
{
	if (engine->ledger && is_empty(engine->ledger))
		let_go(engine);
	sk_ledger_close(engine->ledger);
	engine->ledger = NULL;
	free(engine->record);
	engine->record = NULL;
}
