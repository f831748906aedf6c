/* A beginning that two sessions of a user have in common (a long system prompt) is evaluated and stored once.
 *
 * Keys and values of an entry depend on the tokens before it alone, as long as nothing has been dropped: so a new session
 * takes over whole pages of one that began with the same tokens and as many sinks, and has dropped nothing yet. (Attention to
 * sinks is a sum of its own: other sinks give the same numbers but for their last bits.) Both see the same bits as if
 * each had evaluated them itself. Never between users: what is quick would tell one what another has asked.
 *
 * Of requests that come together the first evaluates what they have in common, and the others wait for it before their
 * first step: they would be no sooner if each did it for itself.
 */
#include "engine/state.h"

#include <string.h>

/* Of the session's first tokens, how many are these. */
static uint32_t n_common(const struct sk_session *session, const struct sk_ids *ids)
{
	uint32_t n = 0;
	while (n < session->n_head && n < session->window.next && n < ids->n_ids &&
	       session->head[n] == ids->ids[n])
		n++;
	return n;
}

static bool is_whole(const struct sk_session *session)
{
	const struct sk_window *window = &session->window;
	return window->first == window->n_sink && !session->origin;
}

/* Tokens that a fresh session of the policy can have before it drops any. */
static uint64_t n_undropped(const struct sk_policy *policy, uint32_t n_context)
{
	return policy->mode == SK_MODE_RECOMPUTE ? 0 : sk_policy_most_live(policy, n_context);
}

static struct sk_session *find_longest(const struct sk_engine *engine, uid_t uid,
				       const struct sk_ids *ids, uint32_t n_sink, uint32_t *ret_n)
{
	struct sk_session *longest = NULL;
	*ret_n = 0;
	sk_list_for_each (node, &engine->sessions) {
		struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (session->uid != uid || session->is_stored || session->is_moving ||
		    !is_whole(session) || session->head_sink != n_sink)
			continue;
		uint32_t n = n_common(session, ids);
		if (n > *ret_n) {
			longest = session;
			*ret_n = n;
		}
	}
	return longest;
}

struct sk_session *sk_engine_begins_alike(struct sk_engine *engine,
					  const struct sk_request *request)
{
	const struct sk_policy policy = sk_policy_changed(engine->options.policy, &request->policy);
	uint32_t n;

	if (request->kind != SK_REQUEST_GENERATE || request->generation ||
	    sk_engine_find_session(engine, request->uid, request->session))
		return NULL;
	struct sk_session *session =
		find_longest(engine, request->uid, &request->ids, sk_policy_sinks(&policy), &n);
	return n >= SK_PAGE_TOKENS ? session : NULL;
}

/* Of n common tokens, those in whole pages that a new session can take over. One is left, to draw from. */
static uint32_t n_sharable(const struct sk_engine *engine, const struct sk_session *session,
			   const struct sk_ids *ids, uint32_t n)
{
	const uint64_t most = n_undropped(&session->window.policy, engine->config.n_context);
	if (n && n >= ids->n_ids)
		n = (uint32_t)ids->n_ids - 1;
	if (n > most)
		n = (uint32_t)most;
	return n - n % SK_PAGE_TOKENS;
}

uint32_t sk_engine_share_prefix(struct sk_engine *engine, const struct sk_ids *ids,
				struct sk_session *session)
{
	uint32_t n;
	struct sk_session *from = find_longest(engine, session->uid, ids,
					       sk_policy_sinks(&session->window.policy), &n);
	n = n_sharable(engine, session, ids, n);
	return n && sk_session_share_head(session, from, n) == 0 ? n : 0;
}

/* --- Those that come together --- */

/* Of what the generation has evaluated, and is about to, how many first tokens are these. */
static uint32_t n_to_come(const struct sk_generation *g, const struct sk_ids *ids)
{
	const struct sk_session *session = g->session;
	uint32_t n = n_common(session, ids);
	if (n < session->window.next)
		return n;
	for (uint64_t at = g->input_at; n < SK_HEAD_MOST && n < ids->n_ids && at < g->input.n_ids;
	     n++, at++)
		if (g->input.ids[at] != ids->ids[n])
			break;
	return n;
}

static bool can_lead(const struct sk_generation *g, const struct sk_session *session)
{
	const struct sk_session *own = g->session;
	const uint32_t n_sink = sk_policy_sinks(&session->window.policy);
	return own->uid == session->uid && !g->prompt_done_ns && !g->is_scoring &&
	       !g->request->chunk_tokens && /* slow on purpose */
	       sk_generation_n_wanted(g) && is_whole(own) &&
	       sk_policy_sinks(&own->window.policy) == n_sink &&
	       (!own->window.next || own->head_sink == n_sink);
}

/* Of the first n generations. */
static struct sk_generation *leader_among(struct sk_engine *engine, uint32_t n_generations,
					  const struct sk_ids *ids,
					  const struct sk_session *session, uint32_t *ret_n)
{
	struct sk_generation *leader = NULL;
	uint32_t n;

	*ret_n = 0;
	for (uint32_t i = 0; i < n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		if (!can_lead(g, session))
			continue;
		n = n_sharable(engine, session, ids,
			       n_sharable(engine, g->session, ids, n_to_come(g, ids)));
		if (n > *ret_n) {
			leader = g;
			*ret_n = n;
		}
	}
	if (!leader) /* as nearly always: the sessions are looked through once, by who shares */
		return NULL;
	(void)find_longest(engine, session->uid, ids, sk_policy_sinks(&session->window.policy), &n);
	return n_sharable(engine, session, ids, n) < *ret_n ? leader : NULL;
}

struct sk_generation *sk_engine_leader(struct sk_engine *engine, const struct sk_ids *ids,
				       const struct sk_session *session, uint32_t *ret_n)
{
	return leader_among(engine, engine->n_generations, ids, session, ret_n);
}

static void take_over(struct sk_engine *engine, struct sk_generation *g)
{
	g->leader = NULL;
	sk_generation_share(g, sk_engine_share_prefix(engine, &g->input, g->session));
}

void sk_engine_lose_leader(struct sk_engine *engine, const struct sk_generation *leader)
{
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		if (g->leader != leader)
			continue;
		g->leader = NULL;
		if (g->is_ending)
			continue;
		/* One that came before it, so that none waits for itself. */
		g->leader = leader_among(engine, i, &g->input, g->session, &g->n_awaited);
		if (!g->leader)
			take_over(engine, g);
	}
}

static bool awaits_prefix(struct sk_engine *engine, struct sk_generation *g)
{
	const struct sk_generation *leader = g->leader;

	if (!leader)
		return false;
	if (leader->session->window.next >= g->n_awaited)
		take_over(engine, g);
	else if (!sk_generation_n_wanted(leader))
		sk_engine_lose_leader(engine, leader);
	return g->leader;
}

static bool is_awaited(const struct sk_engine *engine, const struct sk_generation *leader)
{
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		const struct sk_generation *g = engine->generations[i];
		if (g->leader == leader && g->n_awaited > leader->session->window.next)
			return true;
	}
	return false;
}

uint64_t sk_engine_n_wanted(struct sk_engine *engine, struct sk_generation *g)
{
	const struct sk_window *window = &g->session->window;
	const uint64_t most = n_undropped(&window->policy, engine->config.n_context);

	if (awaits_prefix(engine, g))
		return 0;
	const uint64_t n = sk_generation_n_wanted(g);
	if (g->prompt_done_ns || window->next >= most || n <= most - window->next)
		return n;
	return is_awaited(engine, g) ? most - window->next : n;
}
