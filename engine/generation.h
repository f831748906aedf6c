/* One Generate in progress on its session: the prompt still to be run, the sampler, and the way of
 * each token to the client: sampler -> detokenizer -> stop strings -> ring. Engine thread only.
 *
 * Where the ring is full, the token waits here, and the generation is paused: it takes no part in
 * steps until the reader has made room. Others do not notice.
 */
#pragma once

#include "engine/event.h"
#include "engine/sampler.h"
#include "engine/session.h"
#include "engine/stops.h"
#include "text/detokenizer.h"

struct sk_generation {
	struct sk_list node; /* of the engine's generations */
	struct sk_request *request;
	struct sk_session *session;
	struct sk_sampler sampler;
	struct sk_detokenizer detokenizer;
	struct sk_stops stops;

	/* Tokens to run: the session's last token where there is one, then the prompt; later the
	 * token drawn last. */
	struct sk_ids input;
	size_t input_at;

	bool has_slot;    /* a token that the ring had no room for */
	bool is_ending;   /* nothing is to run any more; ends when the slot is delivered */
	bool is_detached; /* the client is gone or does not read: deliver nothing */
	struct sk_slot slot;
	uint8_t text[SK_STOPS_MOST_OUT + SK_STOP_MOST_BYTES +
		     4]; /* a token's, and what the end of the stream frees */
	size_t n_text_bytes;
	uint64_t paused_ns; /* since when, while has_slot */

	struct sk_result result;
	char reason[512];
	uint64_t began_ns, prompt_done_ns, first_token_ns, last_token_ns, progress_ns;
};

/* Takes request and session over. n_ids: ids that may be drawn, of n_vocab. NULL without memory: nothing was
 * taken. */
struct sk_generation *sk_generation_create(struct sk_request *request, struct sk_session *session,
					   const struct sk_tokenizer *tokenizer, uint32_t n_ids,
					   uint32_t n_vocab);
/* The request goes; the session too, unless it has a name. */
void sk_generation_destroy(struct sk_generation *generation);

/* Tokens that it wants to run now: 0 while paused or ending. */
uint64_t sk_generation_n_wanted(const struct sk_generation *generation);
const int32_t *sk_generation_input(const struct sk_generation *generation);

/* n tokens of the input have been run, with these views. True: the input is used up, so the last
 * one's logits are wanted, by sk_generation_draw(). */
bool sk_generation_ran(struct sk_generation *generation, const struct sk_view *views, uint32_t n,
		       uint64_t now_ns);
/* Draws the next token and sends it on its way. `context`: the limit of a dense session. */
void sk_generation_draw(struct sk_generation *generation, const struct sk_tokenizer *tokenizer,
			const float *logits, uint64_t context, uint64_t now_ns);

/* Puts what waits into the ring. True: it was put, or nothing waited. */
bool sk_generation_deliver(struct sk_generation *generation, uint64_t now_ns);
/* Ends it, for a cause from outside; what the stops held back is still delivered if the reader
 * reads. */
void sk_generation_end(struct sk_generation *generation, enum sk_stop_reason stop,
		       const char *reason);
/* Whether all is said: it can be finished and destroyed. */
bool sk_generation_is_over(const struct sk_generation *generation);
/* Hands over the FINISHED event with the result. Once. */
struct sk_event *sk_generation_finish(struct sk_generation *generation);
