/* A session: one inference timeline of one user. Its KV cache (a window's arithmetic over a page
 * table) and the last token that was drawn and is not cached yet. A named one outlives its
 * requests. Engine thread only.
 */
#pragma once

#include "base/list.h"
#include "engine/event.h"
#include "engine/marks.h"
#include "engine/request.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "kv/pages.h"
#include "kv/window.h"

#define SK_HEAD_MOST 4096 /* tokens that sessions may have in common */

struct sk_session_info;
struct sk_broken;
struct sk_ledger;

struct sk_session {
	struct sk_list node; /* of the engine's sessions */
	uid_t uid;
	char name[SK_NAME_MOST_BYTES + 1]; /* empty: gone with its request */
	struct sk_window window;
	struct sk_pages pages;
	uint64_t origin; /* text position of entry 0 */
	uint64_t
		keep_from; /* entries from here on are kept though the window has dropped them (marks.h);
			     * UINT64_MAX: none */
	uint64_t
		keep_sinks; /* so many are kept, though a request's policy wants fewer, until its prompt is
				cached: till then it may be rolled back */
	int32_t last_id; /* drawn, not yet in the cache; -1: none */
	bool is_busy;    /* a request runs on it */
	int32_t *
		head; /* its first n_head tokens, as long as nothing has been dropped: for sessions that begin alike */
	uint32_t n_head, head_allocated;
	uint32_t head_sink; /* sinks of the policy under which they were evaluated */
	struct sk_sampler_memory sampler;
	/* Beside the pool (store.h): */
	bool is_stored;  /* its entries lie in the store; it holds no pages */
	bool is_moving;  /* the mover reads its pages, or writes them: nobody else does */
	bool is_leaving; /* moving, out of the pool */
	bool is_left;    /* without a name, and its request is over: it goes once it has moved */
	char file[SK_NAME_MOST_BYTES + 1]; /* its name in the store */
	uint64_t stored_bytes;             /* where is_stored */
	struct sk_window stored_window;    /* where is_stored or is_leaving: what its file holds */
	/* Where it outlives the process (ledger.h): */
	struct sk_ledger *ledger; /* NULL: it does not */
	uint32_t slot;            /* its entry's; SK_NO_SLOT: it has none yet */
	uint64_t recorded;        /* what the entry says, in short (survive.c) */
	struct sk_broken
		*broken;    /* an answer that an earlier process did not end (record.h); or NULL */
	bool has_open_text; /* after such an answer, until the next request: */
	struct sk_open_text open_text; /* text of it that the client was not given */
	/* Its life: */
	uint64_t begun_ns, last_used_ns; /* sk_clock_ns(); when its last request ended */
	bool has_ttl;                    /* of its own: else the daemon's */
	uint64_t ttl_ns;                 /* that holds: idle for so long, it goes; 0: never */
	uint64_t n_requests, n_generated;
	uint64_t
		turn_ns; /* for which its last request had pages, and those whose turn it went on with */
	struct sk_share share; /* what it has had of what is scarce */
};

struct sk_session *sk_session_create(struct sk_pool *pool, uid_t uid, const char *name,
				     const struct sk_policy *policy);
/* A session of the same user that goes on from the same place; until one of them writes to a page, both hold
 * it. Of a session that does not run. NULL without memory. */
struct sk_session *sk_session_fork(struct sk_session *session, const char *name);
void sk_session_destroy(
	struct sk_session *session); /* gives pages and promises back; takes itself off its list */

/* A session without entries takes over the first n (whole pages) of `from`, which has dropped nothing. -ENOMEM, -ENOSPC:
 * it has none. */
int sk_session_share_head(struct sk_session *session, struct sk_session *from, uint32_t n);
/* Empty again, under the same policy. */
void sk_session_reset(struct sk_session *session);
/* Text position of the next token. */
uint64_t sk_session_position(const struct sk_session *session);
void sk_session_describe(const struct sk_session *session, uint64_t now_ns,
			 struct sk_session_info *ret_info);

/* Makes sure that the pool has promised enough for `n_tokens` more tokens under the session's
 * policy: *ret_n_pages is how many it may hold at once. -ENOSPC: its promise is as it was. */
int sk_session_reserve(struct sk_session *session, uint64_t context, uint64_t n_tokens,
		       uint32_t *ret_n_pages);
/* A request has ended: what is held is kept, promises are given back. */
void sk_session_settle(struct sk_session *session);
/* Of the pool: pages that are its alone, and those that it may still take. */
uint32_t sk_session_n_pages(const struct sk_session *session);
/* What counts against its user's limit: also what it shares, each time. */
uint32_t sk_session_n_charged(const struct sk_session *session);

/* Fills the rows of the next n tokens, advances the window past them and makes the page table cover
 * all that they see: ready to be a span of a step. views (n) may be NULL. -ENOSPC or -ENOMEM: the
 * session is as it was. */
int sk_session_advance(struct sk_session *session, const int32_t *ids, uint32_t n,
		       struct sk_row *rows, struct sk_view *views, struct sk_span *ret_span);
/* Asks for some pages more, for what is kept for a client that reads late. Without them the session waits for its
 * client earlier. */
void sk_session_reserve_kept(struct sk_session *session);
/* Whether the next token's page would be one more than was promised, because of what is kept. */
bool sk_session_is_crowded(const struct sk_session *session);

/* After the step: gives back the pages that only the step's earlier rows saw. */
void sk_session_trim(struct sk_session *session);
