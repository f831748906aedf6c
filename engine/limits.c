/* What one user may have of sessions and pages. (Of places in the queue: waiting.c; of tokens a second: allowance.h.) */
#include "engine/state.h"

#include <errno.h>

int sk_engine_may_begin_session(const struct sk_engine *engine, const struct sk_user *user,
				struct sk_diag *diag)
{
	const uint64_t most = user->limits->max_sessions;
	uint64_t n = 0;

	if (!most)
		return 0;
	sk_list_for_each (node, &engine->sessions) {
		const struct sk_session *session = sk_container_of(node, struct sk_session, node);
		n += session->uid == user->uid && session->name[0];
	}
	if (n < most)
		return 0;
	return sk_diag_fail(diag, EDQUOT,
			    "your limit of %llu named session%s is reached; delete one, or ask the "
			    "administrator for more",
			    (unsigned long long)most, most == 1 ? "" : "s");
}

int sk_engine_may_have_pages(const struct sk_engine *engine, const struct sk_user *user,
			     const struct sk_session *session, uint32_t n_pages,
			     struct sk_diag *diag)
{
	const uint64_t most = user->limits->kv_bytes / sk_backend_page_bytes(engine->backend);
	uint64_t n_idle = 0,
		 n_busy = 0; /* idle ones that can be spilled give theirs back as well */
	const bool can_spill = sk_engine_can_spill(engine);

	if (!user->limits->kv_bytes)
		return 0;
	sk_list_for_each (node, &engine->sessions) {
		const struct sk_session *other = sk_container_of(node, struct sk_session, node);
		if (other->uid != user->uid || other == session)
			continue;
		*(other->is_busy || can_spill ? &n_busy : &n_idle) += sk_session_n_charged(other);
	}
	if (n_pages + n_idle + n_busy <= most)
		return 0;
	if (n_busy && n_pages + n_idle <= most) /* which give theirs back, or some */
		return -EAGAIN;
	return sk_diag_fail(
		diag, EDQUOT,
		"the session needs %u pages of KV cache; of the %llu that you may have, "
		"idle sessions of yours hold %llu; delete some, ask for a smaller "
		"window, or ask the administrator for more",
		n_pages, (unsigned long long)most, (unsigned long long)n_idle);
}
