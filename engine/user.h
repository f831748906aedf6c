/* A user as the engine knows one: by uid, since the daemon's clients are known by SO_PEERCRED. Users share fairly
 * (scheduler.h) whatever is scarce. Engine thread only.
 */
#pragma once

#include "base/list.h"
#include "engine/allowance.h"
#include "engine/limits.h"

#include <stdbool.h>

struct sk_request;

struct sk_user {
	struct sk_list node; /* of the engine's users */
	uid_t uid;
	const struct sk_user_limits *limits; /* the engine's */
	struct sk_tenant tenant;
	struct sk_allowance allowance;
	uint64_t resumes_ns; /* it has no allowance for any of its requests until then; 0: it has */
	uint32_t n_queued,
		n_preempted; /* requests that wait for pages; of those, have begun already */
	uint64_t waits_ns;   /* since when some do, where some do */
	bool has_transfer;   /* a SAVE or LOAD is under way: one at a time */
	bool has_asked;      /* one of them has been tried already */
	bool is_held; /* and the first of them, for pages of its own alone: as serving the queue found it */
	bool is_all_held; /* and one that has begun as well; else such wait for others' */
	uint64_t n_requests, n_prompt_tokens, n_generated_tokens; /* since the engine began */
	/* for the queue (queue.h): */
	uint32_t n_pages; /* that its running requests hold */
	double ahead;     /* of who has had least among those who wait: page-seconds, by weight */
	double would_be;  /* once its requests that are numbered already have begun */
};

/* The user of that uid, who is remembered as long as the engine lives: neither what one has had nor what one's sessions
 * have had may be forgotten with one's last request. The limits must stay as long. NULL without memory. */
struct sk_user *sk_user_of(struct sk_list *users, const struct sk_limits_table *limits, uid_t uid);
/* Those limits hold from now on; also for who is known already. */
void sk_users_limit(struct sk_list *users, const struct sk_limits_table *limits);
void sk_users_finish(struct sk_list *users);
