/* The arithmetic of a streaming cache (design section 2), and nothing else: which entries a token
 * sees, at which place in the cache it sits, and what is dropped after it. No memory, no device.
 *
 * A session's entries are numbered 0, 1, ... from its first token. What is live is always
 *
 *     [0, n_sink)  and  [first, next)          n_sink <= first <= next
 *
 * sinks and window; `next` is the entry that the coming token will be. Positions are places in the
 * cache: sink i sits at i, entry e of the window at n_sink + (e - first), the coming token at
 * `live`.
 *
 * At each token (the order of events of the reference code, StreamingLLM, arXiv 2309.17453):
 *   1. it attends to the live entries and to itself;
 *   2. it is appended: live += 1;
 *   3. if live > sink + window + slack, the oldest entries after the sinks go until live == sink +
 * window.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum sk_mode {
	SK_MODE_STREAMING, /* sinks and a window */
	SK_MODE_WINDOW,    /* a window; sink counts as 0 */
	SK_MODE_DENSE,     /* nothing is ever dropped */
	SK_MODE_RECOMPUTE, /* evaluation only: everything is dropped after each block of
			      sink + window tokens, and the next begins afresh */
};

struct sk_policy {
	enum sk_mode mode;
	uint32_t sink, window, slack; /* entries; window >= 1 */
};

/* A wish to change some of a session's policy. */
struct sk_policy_change {
	bool has_mode, has_sink, has_window, has_slack;
	struct sk_policy to;
};

struct sk_policy sk_policy_changed(struct sk_policy policy, const struct sk_policy_change *change);
/* Sinks that the policy keeps: 0 in window mode, and where everything is recomputed. */
uint32_t sk_policy_sinks(const struct sk_policy *policy);
/* What the cache is cut back to: sink + window, window alone in window mode. Not of dense ones. */
uint64_t sk_policy_capacity(const struct sk_policy *policy);
/* The most entries that can be live before a token's step: capacity + slack; dense: `context`. */
uint64_t sk_policy_most_live(const struct sk_policy *policy, uint64_t context);

struct sk_window {
	struct sk_policy policy;
	uint64_t next;   /* tokens seen so far */
	uint64_t first;  /* oldest live entry after the sinks */
	uint64_t n_sink; /* live sinks */
};

void sk_window_init(struct sk_window *window, const struct sk_policy *policy);
uint64_t sk_window_live(const struct sk_window *window);

/* What the coming token sees. */
struct sk_view {
	uint64_t entry;     /* its own number */
	uint64_t first;     /* it sees [first, entry] ... */
	uint64_t n_sink;    /* ... and [0, n_sink) */
	uint64_t live;      /* entries cached before it: n_sink + entry - first */
	uint64_t n_evicted; /* dropped after it */
};

/* One token: fills its view, appends it, drops what must go. */
void sk_window_step(struct sk_window *window, struct sk_view *ret_view);

/* Changes the policy between two tokens. Entries that are gone stay gone: with fewer sinks live
 * than wanted, the window is that much longer, so that live still comes to sink + window. Sinks
 * that are no longer wanted become the oldest of the window where nothing has been dropped behind
 * them; else they go at once. */
void sk_window_set_policy(struct sk_window *window, const struct sk_policy *policy);
