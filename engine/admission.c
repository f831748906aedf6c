/* From a request to a generation: which session, under which policy, with which pages; or why not.
 */
#include "base/clock.h"
#include "engine/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sk_engine_refuse(struct sk_engine *engine, struct sk_request *request,
		      enum sk_stop_reason stop, int error, const char *reason)
{
	struct sk_event *event = sk_event_answer(request, SK_EVENT_FINISHED);
	event->error = error;
	event->result = (struct sk_result){.stop = stop, .prompt_tokens = request->ids.n_ids};
	snprintf(event->reason, sizeof event->reason, "%s", reason);
	engine->stats.n_requests++;
	if (request->user)
		request->user->n_requests++;
	sk_mailbox_post(&engine->events, &event->node);
	sk_request_destroy(request);
}

void sk_engine_fail(struct sk_engine *engine, struct sk_request *request, int error,
		    const char *reason)
{
	struct sk_event *event = sk_event_answer(request, SK_EVENT_FAILED);
	event->error = error;
	snprintf(event->reason, sizeof event->reason, "%s", reason);
	sk_mailbox_post(&engine->events, &event->node);
	sk_request_destroy(request);
}

int sk_engine_check_policy(const struct sk_engine *engine, const struct sk_policy *policy,
			   struct sk_diag *diag)
{
	uint64_t most = sk_policy_most_live(policy, 0);

	if (policy->mode == SK_MODE_DENSE)
		return 0;
	if (policy->window < 1)
		return sk_diag_fail(diag, EINVAL, "the window must hold at least 1 token");
	/* Beside a cache the token itself has a place; a block that is recomputed holds it already. */
	uint64_t reach = most + (policy->mode != SK_MODE_RECOMPUTE);
	if (policy->mode == SK_MODE_RECOMPUTE && reach > engine->config.n_context)
		return sk_diag_fail(
			diag, EINVAL,
			"sink %u + window %u are %llu tokens to compute afresh, but the "
			"model was trained on %u; ask for fewer",
			policy->sink, policy->window, (unsigned long long)reach,
			engine->config.n_context);
	if (reach > engine->config.n_context)
		return sk_diag_fail(diag, EINVAL,
				    "sink %u + window %u + slack %u and the token itself reach "
				    "%llu positions, but the model "
				    "was trained on %u; ask for a smaller window",
				    sk_policy_sinks(policy), policy->window, policy->slack,
				    (unsigned long long)reach, engine->config.n_context);
	return 0;
}

struct sk_session *sk_engine_find_session(struct sk_engine *engine, uid_t uid, const char *name)
{
	if (!name[0])
		return NULL;
	sk_list_for_each (node, &engine->sessions) {
		struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (session->uid == uid && strcmp(session->name, name) == 0)
			return session;
	}
	return NULL;
}

enum sk_chat_place sk_engine_chat_place(const struct sk_engine *engine,
					const struct sk_session *session)
{
	if (!session || !session->window.next)
		return SK_CHAT_BEGINS;
	return sk_tokenizer_is_end(engine->tokenizer, session->last_id) ? SK_CHAT_IS_ENDED
									: SK_CHAT_IS_OPEN;
}

static const char *what_of(const struct sk_request *request)
{
	return request->kind == SK_REQUEST_EVALUATE ? "text" : "prompt";
}

int sk_engine_check_ids(const struct sk_engine *engine, const struct sk_request *request,
			struct sk_diag *diag)
{
	const struct sk_ids *ids = &request->ids;
	for (size_t i = 0; i < ids->n_ids; i++) {
		if (ids->ids[i] < 0 || (uint32_t)ids->ids[i] >= engine->config.n_vocab)
			return sk_diag_fail(
				diag, EINVAL, "the %s has the token id %d, the model knows 0 to %u",
				what_of(request), ids->ids[i], engine->config.n_vocab - 1);
	}
	return 0;
}

/* What of a request's ids goes into its session. Where that goes on, a BOS would be a token in the middle. */
struct input {
	bool has_bos; /* which is left out */
	uint64_t n_ids;
};

static struct input input_of(const struct sk_engine *engine, const struct sk_request *request,
			     const struct sk_session *session)
{
	const struct sk_ids *ids = &request->ids;
	struct input input = {.n_ids = ids->n_ids};
	input.has_bos = session->window.next && (request->encode_flags & SK_ENCODE_BOS) &&
			ids->n_ids && ids->ids[0] == sk_tokenizer_bos(engine->tokenizer);
	input.n_ids -= input.has_bos;
	if (request->kind == SK_REQUEST_EVALUATE && input.n_ids > request->max_tokens)
		input.n_ids = request->max_tokens;
	return input;
}

static void cut_to_input(struct sk_request *request, const struct input *input)
{
	struct sk_ids *ids = &request->ids;
	if (input->has_bos)
		memmove(ids->ids, ids->ids + 1, input->n_ids * sizeof *ids->ids);
	ids->n_ids = input->n_ids;
}

static int check_prompt(struct sk_engine *engine, struct sk_request *request,
			struct sk_session *session, uint64_t n_ids, struct sk_diag *diag)
{
	const struct sk_window *window = &session->window;
	bool is_text = request->kind == SK_REQUEST_EVALUATE;
	const char *what = what_of(request);
	uint64_t n_input = n_ids + (session->last_id >= 0);

	if (!n_input)
		return is_text ? sk_diag_fail(diag, EINVAL,
					      "the text is empty: there is nothing to evaluate")
			       : sk_diag_fail(
					 diag, EINVAL,
					 "the prompt is empty: there is nothing to go on from");
	if (is_text && n_input == 1)
		return sk_diag_fail(
			diag, EINVAL,
			"the text is one token, and there is none before it to predict it from: a "
			"longer text is needed, or a session whose last text came to its end");
	uint64_t live = sk_window_live(window), n_run = n_input - is_text;
	if (window->policy.mode == SK_MODE_DENSE && live + n_run > engine->config.n_context)
		return sk_diag_fail(
			diag, ERANGE,
			"a dense session holds the model's context of %u tokens: %llu "
			"are in it and the %s has %llu; a streaming session takes a %s of "
			"any length",
			engine->config.n_context, (unsigned long long)live, what,
			(unsigned long long)n_input, what);
	return 0;
}

static uint64_t idle_pages(const struct sk_engine *engine, uid_t uid)
{
	uint64_t n = 0;
	sk_list_for_each (node, &engine->sessions) {
		const struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (session->uid == uid && session->name[0] && !session->is_busy)
			n += sk_session_n_pages(session);
	}
	return n;
}

/* How many are free, or who has them, is no other user's business: only how many there are, and one's own. */
static int no_pages(const struct sk_engine *engine, const struct sk_request *request,
		    uint32_t n_pages, struct sk_diag *diag)
{
	const uint32_t n_all = engine->n_session_pages;
	const uint64_t n_idle = idle_pages(engine, request->uid);

	if (n_pages > n_all)
		return sk_diag_fail(diag, ENOSPC,
				    "the session needs %u pages of KV cache, and there are %u; ask "
				    "for a smaller window, or give the daemon more --kv-memory",
				    n_pages, n_all);
	if (engine->spill_failed_ns)
		return sk_diag_fail(diag, ENOSPC,
				    "the session needs %u pages of KV cache, more than are free; "
				    "idle sessions cannot make room, since none can be stored: %s",
				    n_pages, strerror(-engine->spill_error));
	if (!engine->options.store && n_idle)
		return sk_diag_fail(diag, ENOSPC,
				    "the session needs %u pages of KV cache, more than are free; "
				    "your idle sessions hold %llu, and stay, for the daemon has no "
				    "--state-dir: delete one, or ask for a smaller window",
				    n_pages, (unsigned long long)n_idle);
	return sk_diag_fail(diag, ENOSPC,
			    "the session needs %u pages of KV cache, more than are free; ask for "
			    "a smaller window, or give the daemon more --kv-memory",
			    n_pages);
}

static int reserve_pages(struct sk_engine *engine, struct sk_request *request,
			 struct sk_session *session, uint64_t n_ids, uint32_t *ret_n_pages,
			 struct sk_diag *diag)
{
	uint64_t n_input = n_ids + 1, n_tokens = n_input;

	if (request->kind == SK_REQUEST_GENERATE) /* what is evaluated is all there already */
		n_tokens = n_input > UINT64_MAX - request->max_tokens
				   ? UINT64_MAX
				   : n_input + request->max_tokens;
	int err = sk_session_reserve(session, engine->config.n_context, n_tokens, ret_n_pages);
	return err < 0 ? no_pages(engine, request, *ret_n_pages, diag) : 0;
}

/* Pages that a session which has n_held, under that policy until now, may come to have without waiting its turn: no more
 * than those. But one that has grown to its window, and whose pages come and go with the places at which that begins and
 * ends and with its slack, may have as many as it ever needs. */
static uint32_t may_have(const struct sk_engine *engine, const struct sk_policy *policy,
			 uint32_t n_held)
{
	const uint64_t n_sink = sk_policy_sinks(policy),
		       most = sk_policy_most_live(policy, engine->config.n_context);
	const uint32_t n_most = sk_pages_needed(n_sink, most),
		       n_least = policy->mode == SK_MODE_DENSE
					 ? n_most
					 : sk_pages_needed(n_sink, sk_policy_capacity(policy));
	return n_held && n_held < n_most && n_held + 2 >= n_least ? n_most : n_held;
}

bool sk_engine_may_fit(struct sk_engine *engine, const struct sk_request *request, uint32_t n_pages)
{
	const struct sk_session *own =
		sk_engine_find_session(engine, request->uid, request->session);
	const bool can_spill = sk_engine_can_spill(engine);
	uint64_t n_idle = 0;
	sk_list_for_each (node, &engine->sessions) {
		const struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (!session->is_busy && session != own && !can_spill)
			n_idle += sk_session_n_pages(session);
	}
	return (engine->n_generations || can_spill) && n_pages + n_idle <= engine->n_session_pages;
}

static int make_room(struct sk_engine *engine)
{
	if (engine->n_generations < engine->generations_allocated)
		return 0;
	uint32_t n = engine->generations_allocated ? 2 * engine->generations_allocated : 16;
	struct sk_generation **generations = realloc(engine->generations, n * sizeof *generations);
	if (!generations)
		return -ENOMEM;
	engine->generations = generations;
	struct sk_want *wants = realloc(engine->wants, n * sizeof *wants);
	if (!wants)
		return -ENOMEM;
	engine->wants = wants;
	engine->generations_allocated = n;
	return 0;
}

static uint64_t position_of(const struct sk_session *session)
{
	return session ? sk_session_position(session) : 0;
}

static int find_session(struct sk_engine *engine, const struct sk_request *request,
			struct sk_session **ret_session, struct sk_diag *diag)
{
	struct sk_session *session = sk_engine_find_session(engine, request->uid, request->session);

	if (session)
		sk_engine_mend(engine, session);
	if (session && session->is_busy)
		return sk_diag_fail(diag, EBUSY, "the session '%s' is busy with another request",
				    session->name);
	if (request->is_resumed && position_of(session) != request->resumed_at)
		return sk_diag_fail(diag, ESTALE,
				    "the session '%s' does not stand where this answer was broken "
				    "off (at %llu, "
				    "not %llu), so that it cannot go on",
				    request->session, (unsigned long long)position_of(session),
				    (unsigned long long)request->resumed_at);
	/* Its turn was written for where the session stood when it came. */
	if (request->chat[0] && request->chat_place != sk_engine_chat_place(engine, session))
		return sk_diag_fail(diag, EBUSY,
				    "the session '%s' went on while this request waited; ask again",
				    request->session);
	*ret_session = session;
	return 0;
}

int sk_engine_try(struct sk_engine *engine, struct sk_request *request,
		  struct sk_engine_client *client, bool may_take, uint32_t *ret_n_pages,
		  struct sk_diag *diag)
{
	struct sk_session *session = NULL;
	int err = find_session(engine, request, &session, diag);
	if (err < 0)
		return err;
	bool is_new = !session;
	if (is_new) {
		if (request->session[0])
			err = sk_engine_may_begin_session(engine, request->user, diag);
		if (err < 0)
			return err;
		session = sk_session_create(&engine->pool, request->uid, request->session,
					    &engine->options.policy);
		if (!session)
			return sk_diag_fail(diag, ENOMEM, "not enough memory");
		session->ttl_ns = engine->options.session_ttl_ns;
	}
	const struct input input = input_of(engine, request, session);

	/* A refusal leaves a session that exists as it was. */
	struct sk_window window = session->window;
	struct sk_policy policy = sk_policy_changed(window.policy, &request->policy);
	struct sk_generation *generation = NULL;
	struct sk_move *fetch = NULL;
	uint32_t n_held = sk_session_n_pages(session);
	*ret_n_pages = 0;
	err = sk_engine_check_policy(engine, &policy, diag);
	if (!err) {
		session->keep_sinks = session->window.n_sink;
		sk_window_set_policy(&session->window, &policy);
		err = check_prompt(engine, request, session, input.n_ids, diag);
	}
	uint32_t n_shared = 0, n_awaited = 0;
	struct sk_generation *leader = NULL;
	if (!err && is_new && request->kind == SK_REQUEST_GENERATE) {
		leader = sk_engine_leader(engine, &request->ids, session, &n_awaited);
		if (!leader)
			n_shared = sk_engine_share_prefix(engine, &request->ids, session);
	}
	if (!err)
		err = reserve_pages(engine, request, session, input.n_ids, ret_n_pages, diag);
	if (!err ||
	    err == -ENOSPC) { /* one's own limit comes first: nobody else's pages help there */
		int own = sk_engine_may_have_pages(engine, request->user, session, *ret_n_pages,
						   diag);
		err = own ? own : err;
	}
	if (!err && !may_take &&
	    sk_session_n_pages(session) > may_have(engine, &window.policy, n_held))
		err = -ENOSPC;
	/* But who goes on again and again has its turn as a stream has, or those who wait would never have its pages. */
	if (!err && session->turn_ns >= engine->queue.patience_ns &&
	    (!may_take || session->is_leaving) && sk_engine_can_spill(engine))
		err = -ENOSPC;
	if (!err && session->is_stored && !session->is_moving) {
		err = sk_engine_prepare_fetch(engine, session, &fetch);
		if (err < 0)
			err = sk_diag_fail(diag, ENOMEM, "not enough memory");
	}
	if (!err) { /* nothing before this takes time that grows with the prompt */
		cut_to_input(request, &input);
		err = make_room(engine);
		if (!err)
			generation =
				sk_generation_create(request, session, n_shared, engine->tokenizer,
						     engine->n_ids, engine->options.step_tokens);
		if (!generation)
			err = sk_diag_fail(diag, ENOMEM, "not enough memory");
	}
	if (err < 0) {
		if (fetch) {
			sk_move_destroy(fetch);
			sk_pages_drop(&session->pages);
		}
		if (is_new) {
			sk_session_destroy(session);
		} else {
			session->window = window;
			session->keep_sinks = 0;
			sk_session_settle(session);
		}
		return err;
	}
	if (is_new)
		sk_list_append(&engine->sessions, &session->node);
	if (fetch)
		sk_engine_begin_move(engine, fetch);
	if (generation->marks && !generation->is_scoring && may_take)
		sk_session_reserve_kept(session);
	/* Until its prompt is cached the session can go back to where it was, under the policy that it had. */
	if (generation->marks && !is_new)
		generation->marks->given.window = window;
	else if (!generation->marks)
		session->keep_sinks = 0;
	if (!may_take)
		generation->since_ns -= session->turn_ns;
	generation->user = request->user;
	generation->leader = leader;
	generation->n_awaited = n_awaited;
	engine->generations[engine->n_generations++] = generation;
	client->n_running++;
	/* Where it begins is known before anything of it has run. All that was put until now is published. */
	if (request->begun && sk_generation_deliver(generation, sk_clock_ns()))
		sk_ring_writer_publish(request->ring);
	return 0;
}
