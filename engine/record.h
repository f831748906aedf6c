/* A session as it stands between two steps, for its entry in the ledger (ledger.h): where it is, its page table, and where
 * one answers, how far its client has read (marks.h). Plain data, of this program's build alone: another version of it
 * has another SK_LEDGER_VERSION. Engine thread.
 */
#pragma once

#include "engine/generation.h"
#include "engine/session.h"

#define SK_RECORD_MOST_IDS (2 * SK_REPEAT_MOST)

struct sk_record_sampler {
	uint64_t random[4], seed;
	uint32_t has_random, n_recent;
};

struct sk_record {
	uid_t uid;
	char name[SK_NAME_MOST_BYTES + 1];
	struct sk_window window;
	uint64_t origin, keep_from, keep_sinks;
	int32_t last_id;
	uint32_t has_ttl;
	uint64_t ttl_ns, begun_ns, last_used_ns, n_requests, n_generated;
	struct sk_record_sampler sampler; /* as the session remembers it */
	uint32_t has_open_text;
	struct sk_open_text open_text;

	/* An answer is under way, or was: */
	uint32_t is_answering, is_prompt_done;
	uint64_t cursor; /* the reader's, by number; 0: not known */
	uint64_t n_drawn;
	struct sk_record_sampler answer; /* its sampler's */
	struct sk_mark given;

	uint64_t page0;
	uint32_t n_ahead, n_sinks, n_window;
	/* Behind it: n_ahead marks, n_sinks and n_window page numbers, then the ids that the two samplers look back at. */
};

/* Bytes of the largest, of a session that holds at most n_pages beside its sinks' as many. */
uint32_t sk_record_most_bytes(uint32_t n_pages);
/* generation: the one on it, or NULL. Returns how many bytes, or 0: there is no room, or no memory. */
uint32_t sk_record_of(const struct sk_session *session, const struct sk_generation *generation,
		      struct sk_record *record, uint32_t room);
/* Whether it is one, of a model of n_vocab ids, whose pages are the pool's, and no other user's so far. */
bool sk_record_means_something(const struct sk_record *record, uint32_t n_bytes,
			       const struct sk_pool *pool, uint32_t n_vocab);
/* A session that has just been made becomes that one; once all are, and the pool knows (sk_pool_adopted()), it is to be
 * trimmed. cursor_fd: whose answer it was (taken over); -1: unknown. -ENOMEM: it is to be destroyed. */
int sk_record_apply(const struct sk_record *record, struct sk_session *session, int cursor_fd);

/* An answer that its process did not end. */
struct sk_broken {
	struct sk_marks marks;
	bool is_prompt_done;
	uint64_t cursor, n_drawn;
	int cursor_fd;
	struct sk_sampler_memory sampler; /* the answer's, as of the newest mark */
};

/* Where its session would go if it ended now. */
struct sk_mark sk_broken_end(const struct sk_session *session);
/* It ends now: its session goes back to the last token that the client was given, or to where it was before the prompt.
 * Nothing happens where none was broken off. */
void sk_session_mend(struct sk_session *session);
void sk_broken_destroy(struct sk_broken *broken);
