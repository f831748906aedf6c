/* A beginning that two sessions of a user have in common (a long system prompt) is evaluated and stored once.
 *
 * Keys and values of an entry depend on the tokens before it alone, as long as nothing has been dropped: so a new session
 * takes over whole pages of one that began with the same tokens and as many sinks, and has dropped nothing yet. (Attention to
 * sinks is a sum of its own: other sinks give the same numbers but for their last bits.) Both see the same bits as if
 * each had evaluated them itself. Never between users: what is quick would tell one what another has asked.
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

static struct sk_session *find_longest(const struct sk_engine *engine,
				       const struct sk_request *request, uint32_t n_sink,
				       uint32_t *ret_n)
{
	struct sk_session *longest = NULL;
	*ret_n = 0;
	sk_list_for_each (node, &engine->sessions) {
		struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (session->uid != request->uid || session->is_stored || session->is_moving ||
		    !is_whole(session) || session->head_sink != n_sink)
			continue;
		uint32_t n = n_common(session, &request->ids);
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
	struct sk_session *session = find_longest(engine, request, sk_policy_sinks(&policy), &n);
	return n >= SK_PAGE_TOKENS ? session : NULL;
}

uint32_t sk_engine_share_prefix(struct sk_engine *engine, const struct sk_request *request,
				struct sk_session *session)
{
	const uint64_t most = n_undropped(&session->window.policy, engine->config.n_context);
	uint32_t n;
	struct sk_session *from =
		find_longest(engine, request, sk_policy_sinks(&session->window.policy), &n);

	if (!request->ids.n_ids)
		return 0;
	if (n >= request->ids.n_ids) /* one is left, to draw from */
		n = (uint32_t)request->ids.n_ids - 1;
	if (n > most)
		n = (uint32_t)most;
	n -= n % SK_PAGE_TOKENS;
	if (!n || sk_session_share_head(session, from, n) < 0)
		return 0;
	return n;
}
