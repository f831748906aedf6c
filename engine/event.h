/* What the engine tells the loop: few and small. Everything else goes through the ring. Built by
 * the engine's threads, taken and destroyed by the loop thread.
 */
#pragma once

#include "backend/backend.h"
#include "base/list.h"
#include "kv/window.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum sk_event_kind {
	SK_EVENT_PROGRESS, /* prefill goes on, or the queue before it */
	SK_EVENT_FINISHED, /* of GENERATE and EVALUATE: exactly one, the last of its request */
	SK_EVENT_IDS,      /* answers TOKENIZE: payload is int32 ids */
	SK_EVENT_TEXT,     /* answers DETOKENIZE: payload is bytes */
	SK_EVENT_STATS,    /* answers STATS */
	SK_EVENT_SESSION, /* answers SESSION: of SAVE, saved_fd is a sealed memfd with the session */
	SK_EVENT_LISTING, /* answers LIST: the payload is its sessions, then requests, then users */
	SK_EVENT_FAILED,  /* of any other request, instead of its answer */
	SK_EVENT_CLOSED,  /* the engine will not touch the connection's ring again */
	SK_EVENT_DEAD,    /* the engine has ended and takes nothing more; reason says why */
	SK_EVENT_WARNING, /* reason is for the daemon's log, and for no client */
};

enum sk_stop_reason { /* the values of StopReason in proto/streamkv.proto */
		      SK_STOP_EOS = 1,
		      SK_STOP_LIMIT,
		      SK_STOP_STRING,
		      SK_STOP_CANCELLED,
		      SK_STOP_DISCONNECTED,
		      SK_STOP_REFUSED,
		      SK_STOP_ERROR,
		      SK_STOP_DONE, /* EVALUATE: the whole text */
};

struct sk_result { /* Finished in proto/streamkv.proto, field by field */
	enum sk_stop_reason stop;
	uint64_t prompt_tokens, evaluated_tokens, reused_tokens, generated_tokens, evicted_tokens;
	uint64_t live_min, live_max, position, evictions, seed;
	uint64_t queue_ns, prefill_ns, first_token_ns, decode_ns;
	uint64_t scored_tokens, cache_bytes, steps, step_ns, attention_ns;
	uint32_t stop_index; /* with SK_STOP_STRING: which of the request's stops */
	bool has_policy;     /* it began */
	struct sk_policy policy;
};

enum sk_session_state { /* the values of SessionState in proto/streamkv.proto */
			SK_SESSION_IDLE,
			SK_SESSION_RUNNING,
			SK_SESSION_STORED,
			SK_SESSION_MOVING,
};

struct sk_session_info { /* SessionInfo in proto/streamkv.proto, field by field */
	char name[65];
	uid_t uid;
	enum sk_session_state state;
	struct sk_policy policy;
	uint64_t position, live, pages, shared_pages, stored_bytes;
	uint64_t age_ns, idle_ns, ttl_ns, requests, generated_tokens;
};

enum sk_request_state { /* the values of RequestState in proto/streamkv.proto */
			SK_REQUEST_TOKENIZING,
			SK_REQUEST_QUEUED,
			SK_REQUEST_PROMPT,
			SK_REQUEST_DECODE,
			SK_REQUEST_PAUSED,
			SK_REQUEST_FETCHING,
};

struct sk_request_info { /* RequestInfo, field by field */
	uid_t uid;
	pid_t pid;
	uint32_t request;
	enum sk_request_state state;
	bool evaluates;
	char session[65];
	uint64_t prompt_tokens, evaluated_tokens, generated_tokens, live, age_ns;
	uint32_t queue_place, ring_fill, ring_slots;
};

struct sk_user_info { /* UserInfo, field by field */
	uid_t uid;
	uint32_t weight, sessions, running, queued;
	uint64_t pages, prompt_tokens, generated_tokens;
};

struct sk_stats {
	uint32_t n_stored;
	uint32_t n_sessions, n_running, n_paused, n_queued;
	uint64_t n_pages, n_pages_used, page_bytes, scratch_bytes;
	uint64_t n_steps, n_prompt_tokens, n_generated_tokens, n_requests;
	uint64_t n_profiled_steps, profiled_ns; /* of steps whose operations were timed: */
	struct sk_profile profile;
};

struct sk_event {
	struct sk_list node;
	enum sk_event_kind kind;
	uint64_t connection;
	uint32_t request;
	int error; /* FAILED, and FINISHED where refused: -errno of the cause; FINISHED: -EPROTO where
		    * the client broke its ring */
	union {
		struct {
			uint64_t prompt_tokens, evaluated_tokens;
			uint32_t queue_place; /* from 1; 0: it runs */
		} progress;
		struct sk_result result;
		struct sk_stats stats;
		struct sk_session_info session;
		struct {
			uint32_t n_sessions, n_requests, n_users;
		} listing;
	};
	char reason[512]; /* a sentence, or empty */
	struct sk_request
		*answered; /* inside the engine: by this answer to TOKENIZE or DETOKENIZE */
	void *payload;     /* heap; the event's */
	uint64_t n_payload_bytes;
	int saved_fd; /* -1: none; the event's */
	uint64_t n_saved_bytes;
};

struct sk_event *sk_event_create(enum sk_event_kind kind, uint64_t connection, uint32_t request);
/* The one that was allocated ahead with the request, as its answer; the rest is the caller's to fill in. Once. */
struct sk_event *sk_event_answer(struct sk_request *request, enum sk_event_kind kind);
void sk_event_destroy(struct sk_event *event);
