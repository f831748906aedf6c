/* One Generate or Evaluate in progress on its session. Generate: the prompt still to be run, the sampler, and
 * the way of each token to the client: sampler -> detokenizer -> stop strings -> ring. Evaluate: the text still to
 * be run (scoring.h says as which rows), and the scores on their way to the ring. Engine thread only.
 *
 * Where the ring is full, what is to be told waits here, and the generation is paused: it takes no part in
 * steps until the reader has made room. Others do not notice.
 */
#pragma once

#include "engine/event.h"
#include "engine/marks.h"
#include "engine/sampler.h"
#include "engine/scoring.h"
#include "engine/session.h"
#include "engine/stops.h"
#include "engine/user.h"
#include "text/detokenizer.h"

struct sk_generation {
	struct sk_list node; /* of the engine's generations */
	struct sk_request *request;
	struct sk_session *session;
	struct sk_user *user; /* whose; the engine's */
	struct sk_sampler sampler;
	struct sk_detokenizer detokenizer;
	struct sk_stops stops;

	/* Tokens to run: the session's last token where there is one, then the prompt or the text;
	 * later the token drawn last. */
	struct sk_ids input;
	uint64_t input_at;
	uint32_t n_shared; /* of it: what another session had cached already (prefix.c) */
	/* Before its first step, a generation that is about to evaluate what this one's prompt begins with: it waits until
	 * the first n_awaited tokens are there to be shared. NULL: it waits for none. */
	struct sk_generation *leader;
	uint32_t n_awaited;
	bool is_scoring;           /* Evaluate */
	struct sk_scoring scoring; /* of `input`: input_at counts its rows */
	int32_t *rows;             /* (max_rows) with scoring: the coming step's tokens */

	/* What the ring had no room for: slots without text of their own, then `slot`. */
	struct sk_slot *queue; /* (queue_allocated) or NULL */
	uint32_t n_queue, queue_at, queue_allocated;
	bool has_slot;    /* a token, or the end alone */
	bool is_ending;   /* nothing is to run any more; ends when all is delivered */
	bool is_detached; /* the client is gone or does not read: deliver nothing */
	bool is_stalled;  /* it is there: what lies in the ring has been given to it */
	struct sk_slot slot;
	uint8_t text[SK_STOPS_MOST_OUT + SK_STOP_MOST_BYTES +
		     4]; /* a token's, and what the end of the stream frees */
	size_t n_text_bytes;
	uint64_t
		paused_ns; /* since when its reader has not read what it waits for; 0: it does not wait */
	uint64_t n_read;        /* slots of the ring that its reader had taken then */
	struct sk_marks *marks; /* of a named session; or NULL */
	struct sk_mark drawn;   /* of `slot`, where it is a token's */
	/* Its turn with its pages (preempt.c): */
	uint64_t since_ns;  /* when it last got them */
	uint64_t yields_ns; /* since when it is to give them up, and does not run; 0: it is not */
	bool is_out;        /* it has, and waits in the queue for others */

	struct sk_result result;
	char reason[512];
	uint64_t began_ns, prompt_done_ns, first_token_ns, progress_ns;
	uint32_t most_pages;
};

/* Takes request and session over. n_shared: of the request's tokens, those that the session, which is new, holds already;
 * n_ids: ids that may be drawn; max_rows: of a step. NULL without memory: nothing was taken. */
struct sk_generation *sk_generation_create(struct sk_request *request, struct sk_session *session,
					   uint32_t n_shared, const struct sk_tokenizer *tokenizer,
					   uint32_t n_ids, uint32_t max_rows);
/* The request goes; the session too, unless it has a name. */
void sk_generation_destroy(struct sk_generation *generation);

/* Before its first step: its session, which was empty, has come to hold the first n tokens of the input after all. */
void sk_generation_share(struct sk_generation *generation, uint32_t n);
/* Tokens that it wants to run now: 0 while paused or ending. */
uint64_t sk_generation_n_wanted(const struct sk_generation *generation);
/* Whether a token is drawn from the last of the next n. */
bool sk_generation_draws_after(const struct sk_generation *generation, uint32_t n);
/* Tokens of its session's timeline that are still to come, at most. */
uint64_t sk_generation_n_left(const struct sk_generation *generation);
/* The next n of them (at most n_wanted and max_rows), valid until the next call. */
const int32_t *sk_generation_input(struct sk_generation *generation, uint32_t n);
/* Evaluate: whether the coming step's row `i` scores a token, and which. */
bool sk_generation_scores(const struct sk_generation *generation, uint32_t i, int32_t *ret_id);

/* n tokens of the input have been run, with these views, in a step that took step_ns. True: the input is used
 * up; of a Generate the next token has been drawn, for sk_generation_drew(). */
bool sk_generation_ran(struct sk_generation *generation, const struct sk_view *views, uint32_t n,
		       uint64_t step_ns, uint64_t now_ns);
/* Evaluate, after sk_generation_ran(): the scores of those of its n rows that score, in order. */
void sk_generation_scored(struct sk_generation *generation, const struct sk_view *views, uint32_t n,
			  const float *scores, uint64_t now_ns);
/* Sends the next token on its way. `context`: the limit of a dense session. */
void sk_generation_drew(struct sk_generation *generation, const struct sk_tokenizer *tokenizer,
			struct sk_drawn drawn, uint64_t context, uint64_t now_ns);

/* Whether its session is as far ahead of its reader as it may be. */
bool sk_generation_is_ahead(const struct sk_generation *generation);
/* Sees how far the reader is. Before a step, and before its end. */
void sk_generation_look(struct sk_generation *generation);
/* Before sleeping: true where the reader has made room meanwhile, or has come closer; else it will ring. Only where
 * it waits or is ahead. */
bool sk_generation_wait(struct sk_generation *generation);

/* Whether its session stands where its client is: nothing that is kept for going back is needed. */
bool sk_generation_is_even(const struct sk_generation *generation);
/* Whether it was taken to be so, and its reader still is behind. */
bool sk_generation_is_unread(const struct sk_generation *generation);
/* As if it had, unless something waits for room in the ring. */
void sk_generation_make_even(struct sk_generation *generation);
/* Whether anything waits for room in the ring. */
bool sk_generation_waits(const struct sk_generation *generation);
/* Puts what waits into the ring. True: it was put, or nothing waited. */
bool sk_generation_deliver(struct sk_generation *generation, uint64_t now_ns);
/* Ends it, for a cause from outside; what the stops held back is still delivered if the reader
 * reads. */
void sk_generation_end(struct sk_generation *generation, enum sk_stop_reason stop,
		       const char *reason);
/* Whether all is said: it can be finished and destroyed. */
bool sk_generation_is_over(const struct sk_generation *generation);
/* Hands over the FINISHED event with the result. Once. A session whose client is gone goes back to the last token that
 * the client was given; one whose prompt, or text to score, was not evaluated to its end, to where it was before, if
 * that is still there. */
struct sk_event *sk_generation_finish(struct sk_generation *generation);

/* --- Between generation.c and rollback.c --- */

/* The client stored what no reader does: it is told nothing more. */
void sk_generation_broke_ring(struct sk_generation *generation);
/* The whole prompt is cached. Where the session cannot go back to before it, it can at least to here. */
void sk_generation_mark_prompt(struct sk_generation *generation);
/* At its end: the session goes to where it stays. */
void sk_generation_settle(struct sk_generation *generation);
/* Text that the token drawn last leaves open; and what another generation left, which goes on. */
void sk_generation_note_text(struct sk_generation *generation);
void sk_generation_take_text(struct sk_generation *generation, const struct sk_open_text *text);
