/* What can be asked of a session beside text: struct sk_request of kind SK_REQUEST_SESSION. Of the asker's own
 * sessions alone: another user's is one that does not exist.
 */
#include "base/clock.h"
#include "engine/state.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void fail(struct sk_engine *engine, struct sk_request *request, int error,
		 const char *reason)
{
	struct sk_event *event = sk_event_answer(request, SK_EVENT_FAILED);
	event->error = error;
	snprintf(event->reason, sizeof event->reason, "%.511s", reason);
	sk_mailbox_post(&engine->events, &event->node);
	sk_request_destroy(request);
}

static void answer(struct sk_engine *engine, struct sk_request *request,
		   const struct sk_session_info *info)
{
	struct sk_event *event = sk_event_answer(request, SK_EVENT_SESSION);
	event->session = *info;
	sk_mailbox_post(&engine->events, &event->node);
	sk_request_destroy(request);
}

/* --- Where another session may have to go first --- */

/* Whether the session `name` may come to be: 0, or -EEXIST, -EBUSY, -EAGAIN (it is moving: later). */
static int check_free(struct sk_engine *engine, const struct sk_request *request, const char *name,
		      struct sk_diag *diag)
{
	const struct sk_session *there = sk_engine_find_session(engine, request->uid, name);
	if (!there) {
		const struct sk_user *user =
			sk_user_of(&engine->users, &engine->options.limits, request->uid);
		return user ? sk_engine_may_begin_session(engine, user, diag)
			    : sk_diag_fail(diag, ENOMEM, "not enough memory");
	}
	if (!request->replace)
		return sk_diag_fail(diag, EEXIST,
				    "there is a session '%s' already; delete it first, or ask for "
				    "it to be replaced",
				    name);
	if (there->is_busy)
		return sk_diag_fail(diag, EBUSY, "the session '%s' is busy with another request",
				    name);
	return there->is_moving ? -EAGAIN : 0;
}

/* What is there goes; `has_file`: the file of that name is the new one's already. */
static void make_free(struct sk_engine *engine, uid_t uid, const char *name, bool has_file)
{
	struct sk_session *there = sk_engine_find_session(engine, uid, name);
	if (!there)
		return;
	there->is_stored &= !has_file;
	sk_engine_forget_session(engine, there);
}

/* --- Verbs: 0 and *ret_info, or -errno and a sentence; -EAGAIN: once its move has ended -------------------------- */

static int fork_session(struct sk_engine *engine, struct sk_request *request,
			struct sk_session *session, struct sk_session **ret_fork,
			struct sk_diag *diag)
{
	if (strcmp(request->to, session->name) == 0)
		return sk_diag_fail(diag, EINVAL, "the session '%s' cannot become itself",
				    session->name);
	int err = check_free(engine, request, request->to, diag);
	if (err < 0)
		return err;
	struct sk_session *fork = sk_session_fork(session, request->to);
	if (!fork)
		return sk_diag_fail(diag, ENOMEM, "not enough memory");
	if (session->is_stored)
		err = sk_store_link(engine->options.store, session->uid, session->file,
				    request->to);
	if (err < 0) {
		sk_session_destroy(fork);
		return sk_diag_fail(diag, -err, "the stored session cannot be linked: %s",
				    strerror(-err));
	}
	fork->is_stored = session->is_stored;
	fork->stored_bytes = session->stored_bytes;
	fork->stored_window = session->stored_window;
	fork->ttl_ns = session->ttl_ns;
	make_free(engine, request->uid, request->to, session->is_stored);
	sk_list_append(&engine->sessions, &fork->node);
	*ret_fork = fork;
	return 0;
}

static void reset_session(struct sk_engine *engine, struct sk_session *session)
{
	if (session->is_stored)
		sk_store_remove(engine->options.store, session->uid, session->file);
	session->is_stored = false;
	session->stored_bytes = 0;
	sk_session_reset(session);
}

/* The request's answer comes with the move's end. */
static int save_session(struct sk_engine *engine, struct sk_request *request,
			struct sk_session *session, struct sk_diag *diag)
{
	struct sk_move *move = sk_engine_move_of(engine, SK_MOVE_SAVE, session);
	if (!move)
		return sk_diag_fail(diag, ENOMEM, "not enough memory");
	move->is_stored = session->is_stored;
	move->request = request;
	sk_engine_begin_move(engine, move);
	return 0;
}

static void set_ttl(const struct sk_engine *engine, struct sk_session *session,
		    const struct sk_request *request)
{
	session->has_ttl = request->has_ttl;
	session->ttl_ns = request->has_ttl ? request->ttl_ns : engine->options.session_ttl_ns;
}

/* Of one whose file says otherwise: the request's answer comes with the move's end. */
static int keep_stored(struct sk_engine *engine, struct sk_request *request,
		       struct sk_session *session, struct sk_diag *diag)
{
	struct sk_move *move = sk_engine_move_of(engine, SK_MOVE_KEEP, session);
	if (!move)
		return sk_diag_fail(diag, ENOMEM, "not enough memory");
	move->ttl_ns = request->has_ttl ? request->ttl_ns : UINT64_MAX;
	move->request = request;
	sk_engine_begin_move(engine, move);
	return 0;
}

/* The file of a stored session that was forked is the fork's as well, and says when that session was last used: it is written
 * anew, so that the fork's time to live begins now also for the next daemon. False: without memory, it says that. */
static bool date_fork(struct sk_engine *engine, struct sk_request *request, struct sk_session *fork)
{
	struct sk_move *move = sk_engine_move_of(engine, SK_MOVE_KEEP, fork);
	if (!move)
		return false;
	move->ttl_ns = fork->has_ttl ? fork->ttl_ns : UINT64_MAX;
	move->is_use = true;
	move->request = request;
	sk_engine_begin_move(engine, move);
	return true;
}

static int load_session(struct sk_engine *engine, struct sk_request *request, struct sk_diag *diag)
{
	struct sk_image image = {.version = 0};
	int err = check_free(engine, request, request->session, diag);
	if (err < 0)
		return err;
	if (!engine->options.store)
		return sk_diag_fail(
			diag, ENOTSUP,
			"the daemon has no place for it: it runs without a --state-dir");
	if (request->n_input_bytes >= sizeof image)
		memcpy(&image, request->input, sizeof image);
	err = sk_image_check(&image, request->n_input_bytes, &engine->mover.kind, diag);
	if (err < 0)
		return err;
	const struct sk_window window = sk_image_window(&image);
	err = sk_engine_check_policy(engine, &window.policy, diag);
	if (err < 0)
		return err;
	if (sk_window_live(&window) > engine->config.n_context ||
	    image.n_pages + 1 > engine->n_session_pages)
		return sk_diag_fail(diag, ENOSPC,
				    "the saved session has %llu entries: more than this daemon's "
				    "KV cache can hold",
				    (unsigned long long)sk_window_live(&window));
	struct sk_move *move = sk_move_create(SK_MOVE_LOAD, 0);
	struct sk_session *staged = sk_session_create(&engine->pool, request->uid, request->session,
						      &engine->options.policy);
	if (!move || !staged) {
		sk_move_destroy(move);
		sk_session_destroy(staged);
		return sk_diag_fail(diag, ENOMEM, "not enough memory");
	}
	/* What is there stays, until the new one is whole. */
	move->uid = request->uid;
	snprintf(move->name, sizeof move->name, "%s", request->session);
	sk_store_draft_name(move->uid, move->name, ++engine->n_loads, move->draft);
	move->request = request;
	move->session = staged;
	sk_engine_begin_move(engine, move);
	return 0;
}

/* For a SAVE or LOAD: whether it is the user's turn. -EAGAIN: later. */
static int begin_transfer(struct sk_engine *engine, const struct sk_request *request,
			  struct sk_diag *diag)
{
	struct sk_user *user = sk_user_of(&engine->users, &engine->options.limits, request->uid);
	if (!user)
		return sk_diag_fail(diag, ENOMEM, "not enough memory");
	return user->has_transfer ? -EAGAIN : 0;
}

static void note_transfer(struct sk_engine *engine, uid_t uid, bool is_under_way)
{
	sk_user_of(&engine->users, &engine->options.limits, uid)->has_transfer = is_under_way;
}

/* True: answered, or to be answered by the end of a move. False: it waits for a session that is moving. */
static bool try_request(struct sk_engine *engine, struct sk_request *request)
{
	struct sk_session *session = sk_engine_find_session(engine, request->uid, request->session);
	struct sk_diag diag = {"not enough memory"};
	struct sk_session_info info;
	int err = 0;

	if (request->verb == SK_SESSION_LOAD) {
		err = begin_transfer(engine, request, &diag);
		if (!err)
			err = load_session(engine, request, &diag);
		if (!err)
			note_transfer(engine, request->uid, true);
		if (err < 0 && err != -EAGAIN)
			fail(engine, request, err, diag.text);
		return err != -EAGAIN;
	}
	if (!session) {
		snprintf(diag.text, sizeof diag.text, "there is no session '%s'", request->session);
		fail(engine, request, -ENOENT, diag.text);
		return true;
	}
	if (session->is_busy && request->verb != SK_SESSION_SHOW &&
	    request->verb != SK_SESSION_KEEP) {
		snprintf(diag.text, sizeof diag.text,
			 "the session '%s' is busy with another request", request->session);
		fail(engine, request, -EBUSY, diag.text);
		return true;
	}
	if (session->is_moving && request->verb != SK_SESSION_SHOW)
		return false;
	if (request->verb != SK_SESSION_SHOW) /* a look changes nothing */
		sk_engine_mend(engine, session);

	struct sk_session *shown = session;
	const uint64_t now_ns = sk_clock_ns();
	switch (request->verb) {
	case SK_SESSION_FORK:
		err = fork_session(engine, request, session, &shown, &diag);
		break;
	case SK_SESSION_RESET:
		reset_session(engine, session);
		break;
	case SK_SESSION_SAVE:
		err = begin_transfer(engine, request, &diag);
		if (!err)
			err = save_session(engine, request, session, &diag);
		if (!err) {
			note_transfer(engine, request->uid, true);
			return true;
		}
		break;
	case SK_SESSION_KEEP:
		if (session->is_stored) {
			err = keep_stored(engine, request, session, &diag);
			if (!err)
				return true;
			break;
		}
		set_ttl(engine, session, request);
		break;
	default: /* SHOW, DELETE, which comes below */
		break;
	}
	if (err == -EAGAIN)
		return false;
	if (err < 0) {
		fail(engine, request, err, diag.text);
		return true;
	}
	if (shown->is_stored && request->verb == SK_SESSION_FORK &&
	    date_fork(engine, request, shown))
		return true;
	sk_session_describe(shown, now_ns, &info);
	sk_engine_watch_session(engine, shown);
	if (request->verb == SK_SESSION_DELETE)
		sk_engine_forget_session(engine, session);
	if (request->verb != SK_SESSION_SHOW) {
		engine->is_touched = true;
		sk_engine_commit(engine); /* before anybody is told that it is so */
	}
	answer(engine, request, &info);
	return true;
}

/* What was there is not there after it. */
static bool replaces(const struct sk_request *request)
{
	return request->verb == SK_SESSION_RESET || request->verb == SK_SESSION_DELETE ||
	       request->verb == SK_SESSION_LOAD;
}

/* Whether one of them is about that session; or makes another one of it. */
static bool names(const struct sk_list *held, uid_t uid, const char *name, bool only_replacing)
{
	sk_list_for_each (node, held) {
		const struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		if (name[0] && request->uid == uid &&
		    (((!only_replacing || replaces(request)) &&
		      strcmp(request->session, name) == 0) ||
		     strcmp(request->to, name) == 0))
			return true;
	}
	return false;
}

bool sk_engine_is_held(const struct sk_engine *engine, uid_t uid, const char *name)
{
	return names(&engine->held, uid, name, true);
}

/* What one has asked of a session in a row is done in that order. */
static bool is_behind(const struct sk_list *held, const struct sk_request *request)
{
	return request->verb != SK_SESSION_SHOW &&
	       (names(held, request->uid, request->session, false) ||
		names(held, request->uid, request->to, false));
}

void sk_engine_session_request(struct sk_engine *engine, struct sk_request *request)
{
	if (is_behind(&engine->held, request) || !try_request(engine, request)) {
		sk_list_append(&engine->held, &request->queued);
		return;
	}
	sk_engine_serve_queue(engine); /* it may have given pages back */
}

void sk_engine_retry_held(struct sk_engine *engine)
{
	struct sk_list held;
	sk_list_init(&held);
	for (struct sk_list *node; (node = sk_list_pop(&engine->held));)
		sk_list_append(&held, node);
	for (struct sk_list *node; (node = sk_list_pop(&held));) {
		struct sk_request *request = sk_container_of(node, struct sk_request, queued);
		if (is_behind(&engine->held, request) || !try_request(engine, request))
			sk_list_append(&engine->held, node);
	}
}

void sk_engine_fail_held(struct sk_engine *engine)
{
	sk_list_for_each (node, &engine->held) {
		sk_list_remove(node);
		fail(engine, sk_container_of(node, struct sk_request, queued), -ECANCELED,
		     "the daemon is stopping");
	}
}

/* A staged session takes the place of what is there: which may have changed since. */
static int swap_in(struct sk_engine *engine, struct sk_move *move)
{
	struct sk_session *staged = move->session;
	int err = check_free(engine, move->request, move->name, &move->diag);

	if (err == -EAGAIN)
		err = sk_diag_fail(&move->diag, EBUSY, "the session '%s' is on its way to its file",
				   move->name);
	if (!err)
		err = sk_image_apply(move->image, sk_clock_ns(), staged);
	if (!err)
		err = sk_store_adopt(engine->options.store, move->draft, move->uid, move->name);
	if (err < 0) {
		sk_store_remove_draft(engine->options.store, move->draft);
		return err;
	}
	make_free(engine, staged->uid, staged->name, true);
	if (!staged->has_ttl)
		staged->ttl_ns = engine->options.session_ttl_ns;
	staged->is_stored = true;
	staged->stored_window = staged->window;
	staged->stored_bytes = move->n_bytes;
	sk_list_append(&engine->sessions, &staged->node);
	return 0;
}

void sk_engine_session_moved(struct sk_engine *engine, struct sk_move *move)
{
	struct sk_session *session = move->session;
	struct sk_session_info info;
	const uint64_t now_ns = sk_clock_ns();
	int err = move->error;

	session->is_moving = false;
	if (move->kind == SK_MOVE_SAVE && !session->is_stored && !session->is_busy)
		sk_session_trim(session); /* of a request that came and went meanwhile */
	if (move->kind != SK_MOVE_KEEP)
		note_transfer(engine, move->uid, false);
	if (move->kind == SK_MOVE_LOAD && !err)
		err = swap_in(engine, move);
	if (move->is_use) /* the fork is there, whatever its file says */
		err = 0;
	if (err < 0) {
		fail(engine, move->request, err,
		     move->diag.text[0] ? move->diag.text : strerror(-err));
		if (move->kind == SK_MOVE_LOAD)
			sk_session_destroy(session);
		return; /* (else the session is as it was) */
	}
	if (move->kind == SK_MOVE_KEEP && !move->is_use)
		set_ttl(engine, session, move->request);
	else if (move->kind != SK_MOVE_SAVE || !session->is_stored) /* its file is as it was */
		session->last_used_ns = now_ns;
	sk_engine_watch_session(engine, session);
	sk_session_describe(session, now_ns, &info);
	struct sk_event *event = sk_event_answer(move->request, SK_EVENT_SESSION);
	event->session = info;
	event->n_saved_bytes = move->kind == SK_MOVE_SAVE ? move->n_bytes : 0;
	event->saved_fd = move->fd;
	move->fd = -1;
	sk_mailbox_post(&engine->events, &event->node);
	sk_request_destroy(move->request);
}
