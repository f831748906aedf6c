/* What is told of a session. */
#include "engine/record.h"
#include "engine/session.h"

#include <string.h>

static enum sk_session_state state_of(const struct sk_session *session)
{
	if (session->is_moving)
		return SK_SESSION_MOVING;
	if (session->is_busy)
		return SK_SESSION_RUNNING;
	return session->is_stored ? SK_SESSION_STORED : SK_SESSION_IDLE;
}

void sk_session_describe(const struct sk_session *session, uint64_t now_ns,
			 struct sk_session_info *ret_info)
{
	const struct sk_pages *pages = &session->pages;
	const uint32_t n_pages = sk_pages_distinct(pages);
	struct sk_mark at = {.window = session->window, .last_id = session->last_id};
	if (session->broken) /* where it is to whoever asks for it */
		at = sk_broken_end(session);

	*ret_info = (struct sk_session_info){
		.uid = session->uid,
		.state = state_of(session),
		.policy = at.window.policy,
		.position = session->origin + at.window.next + (at.last_id >= 0),
		.live = sk_window_live(&at.window),
		.pages = n_pages,
		.shared_pages = n_pages - sk_pages_alone(pages),
		.stored_bytes = session->is_stored ? session->stored_bytes : 0,
		.age_ns = now_ns - session->begun_ns,
		.idle_ns = session->is_busy ? 0 : now_ns - session->last_used_ns,
		.ttl_ns = session->ttl_ns,
		.requests = session->n_requests,
		.generated_tokens = session->n_generated,
	};
	memcpy(ret_info->name, session->name, sizeof ret_info->name);
}
