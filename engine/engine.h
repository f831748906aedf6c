/* The engine: one model on one backend, a pool of KV pages, sessions, and the thread that steps
 * them.
 *
 *   loop thread --submit/cancel/disconnect/nudge--> mailbox --> engine thread --> rings
 *        ^                                                        |    ^
 *        +------------------ events (eventfd) --------------------+    +--> text worker (long
 * prompts)
 *
 * The functions below are called by one other thread (the loop), except where they say. Nothing
 * that a request asks for can end the engine: it ends with SK_EVENT_DEAD only when its device
 * fails.
 */
#pragma once

#include "backend/backend.h"
#include "base/diag.h"
#include "engine/event.h"
#include "engine/limits.h"
#include "engine/request.h"
#include "model/model.h"
#include "text/tokenizer.h"

struct sk_engine;
struct sk_parking;
struct sk_store;

struct sk_engine_options {
	const struct sk_backend_kind *backend;
	struct sk_backend_options backend_options;
	enum sk_weight_format weights;
	/* The model's weights in that format, as another process holds them (holder.h); NULL: pack them here. May go
	 * once the engine is made, but not the process that it is from where it has no fd. */
	const struct sk_shared_weights *held;
	enum sk_kv_format kv_format;
	uint64_t kv_memory_bytes; /* of the page pool; at least one default session must fit */
	uint32_t max_batch;       /* sessions a step */
	uint32_t step_tokens; /* tokens a step, decode and prefill together; at least max_batch */
	double prompt_share;  /* of a step's time, while others decode (pace.h); 0: no bound */
	struct sk_policy policy;   /* what a session gets that asks for nothing; window 0: 1020, or
				      what the model's context allows */
	uint64_t stall_timeout_ns; /* a reader that takes nothing for so long is cancelled; 0: never
				    */
	uint32_t queue_most;       /* requests that wait for pages; more are refused */
	uint64_t queue_timeout_ns; /* for so long; 0: for ever */
	uint64_t session_ttl_ns;   /* a named session that nobody uses for so long goes; 0: never */
	struct sk_store
		*store; /* where idle sessions go, and all named ones at the end; outlives the
				    * engine. NULL: nowhere */
	struct sk_parking *
		parking; /* keeps sessions beyond the process (parking.h); outlives the engine. NULL: nobody
				     * does */
	struct sk_limits_table limits; /* of users; copied */
	/* Told while weights are packed, on the calling thread; may be NULL. */
	void (*progress)(void *context, uint64_t n_bytes_done, uint64_t n_bytes_total);
	void *progress_context;
	/* Told while named sessions go to the store at the end, on the thread that stops the engine; may be NULL. */
	void (*keeping)(uint32_t n_done, uint32_t n_total);
};

/* Opens the backend, packs the weights, reserves the pool, runs a few tokens. Slow. The model may be closed afterwards
 * only if nobody reads it; the tokenizer must outlive the engine. */
int sk_engine_create(const struct sk_model *model, const struct sk_tokenizer *tokenizer,
		     const struct sk_engine_options *options, struct sk_engine **ret_engine,
		     struct sk_diag *diag);
int sk_engine_start(struct sk_engine *engine);
/* Ends the threads after the step in progress; running requests finish as cancelled (their events
 * can still be taken), named sessions go to the store. Safe when never started, and twice. */
void sk_engine_stop(struct sk_engine *engine);
void sk_engine_destroy(struct sk_engine *engine); /* stops first */

/* Named sessions from the store and to it. */
struct sk_engine_kept {
	uint32_t n_found, n_unusable; /* at the start */
	uint32_t n_kept, n_lost;      /* at the end */
	char reason[512];             /* of the first that is unusable, or lost */
	/* And from a process that ended before it could store them: */
	uint32_t n_adopted, n_broken; /* of those, in the middle of an answer */
	uint32_t n_not_adopted;       /* damaged */
	uint32_t n_outdated;          /* older than their files */
	uint32_t n_no_room;           /* for which this daemon's steps leave none */
	char not_adopted[256];        /* why none can be used; else "" */
	char not_parked
		[256]; /* why none will survive this process, though somebody would keep them; else "" */
};
const struct sk_engine_kept *sk_engine_kept(const struct sk_engine *engine);

const char *sk_engine_backend_name(const struct sk_engine *engine);
uint64_t sk_engine_weight_bytes(const struct sk_engine *engine);
uint64_t sk_engine_kv_token_bytes(
	const struct sk_engine *engine); /* of cache, for a cached token in all layers */
const struct sk_policy *
sk_engine_policy(const struct sk_engine *engine); /* the default, window resolved */

/* Ownership of the request goes over, always. */
void sk_engine_submit(struct sk_engine *engine, struct sk_request *request);
/* Announces a connection before its first request: 0 or -ENOMEM. */
int sk_engine_connect(struct sk_engine *engine, uint64_t connection);
/* Limits of users, copied, instead of those so far. 0 or -ENOMEM. */
int sk_engine_set_limits(struct sk_engine *engine, const struct sk_limits_table *limits);
/* Ends a request, if it runs: GENERATE and EVALUATE finish as cancelled, TOKENIZE and DETOKENIZE fail with -ECANCELED
 * unless their answer was ready. 0 or -ENOMEM. */
int sk_engine_cancel(struct sk_engine *engine, uint64_t connection, uint32_t request);
/* Cancels all of the connection's requests; then SK_EVENT_CLOSED comes. Cannot fail. */
void sk_engine_disconnect(struct sk_engine *engine, uint64_t connection);
/* A paused reader has made room. Any thread. */
void sk_engine_nudge(struct sk_engine *engine);

/* Readable while events may wait: poll it, then take until NULL. */
int sk_engine_event_fd(const struct sk_engine *engine);
struct sk_event *sk_engine_next_event(struct sk_engine *engine);
