/* What one user may have of sessions and pages. (Of places in the queue: waiting.c; of tokens a second: allowance.h.) */
#include "engine/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int sk_limits_copy(const struct sk_limits_table *from, struct sk_limits_table *ret_table)
{
	struct sk_limits_table table = {.others = from->others};
	const size_t n_bytes = from->n_named * sizeof *from->named;

	if (n_bytes) {
		table.named = malloc(n_bytes);
		if (!table.named)
			return -ENOMEM;
		memcpy(table.named, from->named, n_bytes);
		table.n_named = from->n_named;
	}
	*ret_table = table;
	return 0;
}

void sk_limits_finish(struct sk_limits_table *table)
{
	free(table->named);
	table->named = NULL;
	table->n_named = 0;
}

/* --- New ones --- */

struct limits_letter {
	struct sk_mail mail;
	struct sk_limits_table limits;
};

int sk_engine_set_limits(struct sk_engine *engine, const struct sk_limits_table *limits)
{
	struct limits_letter *letter = calloc(1, sizeof *letter);
	if (!letter || sk_limits_copy(limits, &letter->limits) < 0) {
		free(letter);
		return -ENOMEM;
	}
	letter->mail.kind = SK_MAIL_LIMITS;
	sk_mailbox_post(&engine->inbox, &letter->mail.node);
	return 0;
}

/* What one has already stays one's own, also where it is more than is allowed now. */
void sk_engine_take_limits(struct sk_engine *engine, struct sk_mail *mail)
{
	struct limits_letter *letter = sk_container_of(mail, struct limits_letter, mail);

	sk_limits_finish(&engine->options.limits);
	engine->options.limits = letter->limits;
	free(letter);
	sk_users_limit(&engine->users, &engine->options.limits);
	sk_engine_serve_queue(engine); /* whoever may have more than before */
}

/* --- Kept to --- */

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

/* What streams will want back that have given way, as others see it: a user's limit is of all that it runs. */
static uint64_t n_given_way(const struct sk_engine *engine, const struct sk_user *user,
			    const struct sk_session *session)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		const struct sk_generation *g = engine->generations[i];
		if (g->is_out && g->session == session)
			return 0;
		if (g->is_out && !g->is_ending && g->user == user)
			n += g->request->n_pages;
	}
	return n;
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
	n_busy = n_given_way(engine, user, session);
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
