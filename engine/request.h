/* What a client asked for, as the engine takes it: plain data, already validated (proto/validate.h
 * in daemon/), no protobuf, no socket. Built by the loop thread, handed over for good by
 * sk_engine_submit(); it comes back as events (engine/event.h).
 */
#pragma once

#include "base/diag.h"
#include "engine/mailbox.h"
#include "kv/window.h"
#include "shm/ring.h"
#include "text/chat.h"
#include "text/tokenizer.h"

#include <stdatomic.h>
#include <sys/types.h>

enum sk_request_kind {
	SK_REQUEST_GENERATE,
	SK_REQUEST_EVALUATE,
	SK_REQUEST_TOKENIZE,
	SK_REQUEST_DETOKENIZE,
	SK_REQUEST_STATS,
	SK_REQUEST_SESSION,
	SK_REQUEST_LIST,
};

enum sk_session_verb { /* the values of SessionVerb in proto/streamkv.proto */
		       SK_SESSION_SHOW = 1,
		       SK_SESSION_FORK,
		       SK_SESSION_RESET,
		       SK_SESSION_DELETE,
		       SK_SESSION_SAVE,
		       SK_SESSION_LOAD,
		       SK_SESSION_KEEP,
};

struct sk_sampling {
	float temperature;    /* 0: greedy */
	uint32_t top_k;       /* 0: off */
	float top_p;          /* 1: off */
	float min_p;          /* 0: off */
	float repeat_penalty; /* 1: off */
	uint32_t repeat_last; /* tokens back that the penalty looks at, at most SK_REPEAT_MOST */
	uint64_t seed;
	bool has_seed; /* given: else a session goes on with its own */
};
#define SK_REPEAT_MOST 4096

#define SK_STOPS_MOST      16
#define SK_STOP_MOST_BYTES 256
#define SK_NAME_MOST_BYTES 64

struct sk_event;
struct sk_generation;
struct sk_user;

struct sk_stop {
	uint8_t bytes[SK_STOP_MOST_BYTES];
	uint32_t n_bytes;
};

struct sk_request {
	struct sk_mail mail; /* the engine's */
	enum sk_request_kind kind;
	uint64_t connection; /* the loop's name for the connection; comes back in events */
	uint32_t id;         /* the client's name for the request */
	uid_t uid;
	uint64_t arrived_ns; /* sk_clock_ns() */

	pid_t pid;

	/* GENERATE, EVALUATE, TOKENIZE: bytes; DETOKENIZE: int32 ids; SESSION's LOAD: what SAVE gave. release_input(input, n) is called, on
	 * some thread, when they are no longer needed; NULL: nobody needs telling. */
	const void *input;
	uint64_t n_input_bytes;
	void (*release_input)(const void *input, uint64_t n_bytes);
	unsigned encode_flags; /* enum sk_encode_flags */

	/* GENERATE, EVALUATE */
	struct sk_ring_writer *ring; /* the connection's; stays valid until its CLOSED event */
	uint64_t cursor; /* the number of its reader's cursor, which is parked; 0: it is not */
	char session[SK_NAME_MOST_BYTES + 1]; /* empty: a session of its own */
	struct sk_policy_change policy;
	uint64_t max_tokens; /* UINT64_MAX: endless; EVALUATE: of the text, at most */
	bool trace;          /* tell of every step */
	bool begun;          /* tell where it begins, before anything has run */
	bool profile;        /* take the time of attention */
	uint64_t profile_ns; /* STATS: time every operation for so long from now on */

	/* SESSION, of the session named above */
	enum sk_session_verb verb;
	char to[SK_NAME_MOST_BYTES + 1]; /* FORK */
	bool replace;                    /* FORK, LOAD */
	bool has_ttl;                    /* KEEP; else the daemon's */
	uint64_t ttl_ns;                 /* 0: for ever */
	/* LIST */
	bool sees_all; /* STATS, LIST: every user's, not the uid's alone */

	/* EVALUATE */
	uint32_t chunk_tokens; /* a step, at most; 0: as many as it holds */

	/* GENERATE */
	bool is_resumed; /* it goes on with an answer that was broken off: */
	uint64_t
		resumed_at; /* the session stands there (text position of the next token), or it is refused */
	uint64_t
		resumed_given; /* tokens that the client has of it; max_tokens are those that are left */
	char chat[SK_NAME_MOST_BYTES + 1]; /* empty: none; "auto" */
	char *system;                      /* with chat: heap, or NULL */
	uint64_t n_system_bytes;
	struct sk_sampling sampling;
	bool ignore_eos;
	bool show_special;
	uint32_t n_stops;
	struct sk_stop *stops; /* heap, n_stops; or NULL */

	/* The engine's: what the text worker made of the input, meanwhile on a list of the thread that
	 * it comes back to: its client's, or the engine's of texts. That thread alone sets is_cancelled
	 * (the worker looks at it while it works), and alone destroys the request. */
	struct sk_list waiting;
	/* While it waits for pages (queue.h): */
	struct sk_list queued;
	struct sk_user *user;
	double ahead;               /* where its user would be: for sk_queue_order() */
	uint32_t n_pages;           /* that its session will need */
	uint32_t place, told_place; /* in the queue, from 1; as its client knows. 0: none */
	uint64_t queued_ns;         /* since when */
	struct sk_generation
		*generation; /* that gave its pages up for a while; NULL: it has not begun */
	uint64_t kept_ns;    /* for how long free pages have been kept for it */
	atomic_bool is_cancelled;
	enum sk_chat_place chat_place;
	struct sk_ids ids;
	int error;
	struct sk_diag diag;
	struct sk_event *finished; /* allocated ahead, so that an end can always be told */
};

/* Zeroed, or NULL without memory. */
struct sk_request *sk_request_create(enum sk_request_kind kind);
void sk_request_destroy(struct sk_request *request);       /* releases the input too */
void sk_request_release_input(struct sk_request *request); /* now rather than at the end */
