/* libstreamkv: the C API of a streamkv client. Link with -lstreamkv.
 *
 *     struct streamkv *kv;
 *     struct streamkv_error error;
 *     if (streamkv_connect(NULL, -1, &kv, &error) < 0)
 *             errx(EX_UNAVAILABLE, "%s", error.text);
 *     struct streamkv_generate ask = STREAMKV_GENERATE_INIT;
 *     ask.prompt = "Once upon a time", ask.n_prompt_bytes = 16;
 *     struct streamkv_stream *stream;
 *     streamkv_generate(kv, &ask, &stream, &error);
 *     struct streamkv_token token;
 *     while (streamkv_next(stream, -1, &token, &error) == 1)
 *             fwrite(token.text, 1, token.n_text_bytes, stdout);
 *     printf("\n%s\n", streamkv_stop_name(streamkv_result(stream)->stop));
 *     streamkv_stream_close(stream);
 *     streamkv_close(kv);
 *
 * A connection and its streams belong to one thread at a time. Functions return 0 (or as said) or
 * -errno and fill `error`, which may be NULL. Nothing is printed, no signal is touched (SIGPIPE is
 * never raised).
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct streamkv;
struct streamkv_stream;

struct streamkv_error {
	char text[512]; /* one sentence */
};

/* --- Connection --- */

/* The socket used where none is named: $STREAMKV_SOCKET, else $XDG_RUNTIME_DIR/streamkv.sock if it
 * exists, else /run/streamkv/streamkvd.sock. In a static buffer. */
const char *streamkv_default_socket(void);

/* -ENOENT or -ECONNREFUSED where no daemon listens; -EPROTO where it is no streamkvd, or of another
 * version. Waits while the daemon is still loading its model (socket activation) or has as many connections
 * as it takes, at most `timeout_ms` (-1: for ever): then -ETIMEDOUT. */
int streamkv_connect(const char *socket_path, int timeout_ms, struct streamkv **ret_kv,
		     struct streamkv_error *error);
/* The same with a ring of so many slots, a power of two from 256 to 1048576, instead of the daemon's default (0). A token
 * takes a slot, a long one more: so far streams run ahead of their reader, then they pause. */
int streamkv_connect_ring(const char *socket_path, uint32_t ring_slots, int timeout_ms,
			  struct streamkv **ret_kv, struct streamkv_error *error);
void streamkv_close(struct streamkv *kv); /* a stream that is left over only needs its close */

struct streamkv_policy {
	enum {
		STREAMKV_DEFAULT,
		STREAMKV_STREAMING,
		STREAMKV_WINDOW,
		STREAMKV_DENSE,
		STREAMKV_RECOMPUTE, /* streamkv_evaluate() alone */
	} mode;
	int64_t sink, window, slack; /* -1: the session's, or the daemon's default */
};

struct streamkv_welcome {
	const char *server, *model;
	uint64_t max_prompt_bytes;
	struct streamkv_policy policy;
};
const struct streamkv_welcome *streamkv_welcome(const struct streamkv *kv);

/* --- Generate --- */

struct streamkv_generate {
	const void *prompt; /* any bytes; copied or sealed before the call returns */
	size_t n_prompt_bytes;
	uint64_t max_tokens; /* 0: the daemon's default */
	bool endless;
	const char *session; /* NULL: one of its own */
	struct streamkv_policy policy;
	float temperature, top_p, min_p, repeat_penalty;
	uint32_t top_k, repeat_last;
	bool has_seed;
	uint64_t seed;
	const char *const *stops;
	unsigned n_stops;
	bool plain, ignore_eos, show_special;
	/* It goes on with an answer whose daemon died or was replaced (-ECONNRESET), on a new connection and the same named
	 * session: from streamkv_position() of the stream that was lost, of which resumed_given tokens had come; max_tokens
	 * counts them. Where there are none, all else is as it was asked; else prompt, chat and seed are left out.
	 * REFUSED with -ESTALE where the session did not survive. */
	bool resumes;
	uint64_t resumed_at, resumed_given;
	bool trace;         /* streamkv_next() tells of every step too */
	bool profile;       /* the result tells attention_ns; slows every step a little */
	const char *chat;   /* a template's name or "auto"; NULL: none */
	const char *system; /* NULL: the template's own, where it has one */
};
#define STREAMKV_GENERATE_INIT                                                                     \
	{                                                                                          \
		.policy = {STREAMKV_DEFAULT, -1, -1, -1}, .top_p = 1, .repeat_penalty = 1          \
	}

/* One run of the model. Text positions count from the session's first token. */
struct streamkv_step {
	uint64_t position; /* of the first token that it ran for this stream */
	uint32_t tokens;   /* that it ran for this stream */
	uint32_t live,
		live_after; /* entries cached before and after; evicted are live + tokens - live_after */
	uint32_t sinks;        /* live after it: the first so many text positions, ... */
	uint64_t window_first; /* ... and from here to position + tokens */
	uint64_t ns;           /* the whole step, whoever else took part in it */
};

struct streamkv_token {
	int32_t id; /* -1: no token, but text that had been held back, or a step */
	float logprob;
	double seconds; /* from the stream's first token to handed_ns */
	uint64_t
		handed_ns; /* by CLOCK_MONOTONIC, in whole microseconds: when the daemon put it into the ring */
	uint64_t position; /* of this token after the prompt, or in the evaluated text: 0, 1, ... */
	uint32_t live;     /* entries cached before the step that evaluates it */
	uint32_t evicted;  /* entries dropped by that step */
	bool special;
	bool unscored; /* of streamkv_evaluate(): nothing precedes it; logprob means nothing */
	const uint8_t *text; /* whole UTF-8 sequences; valid until the next call */
	size_t n_text_bytes;
	const struct streamkv_step
		*step; /* with `trace`: what follows comes from this step; or NULL */
};

enum streamkv_stop {
	STREAMKV_STOP_UNKNOWN,
	STREAMKV_STOP_EOS,
	STREAMKV_STOP_LIMIT,
	STREAMKV_STOP_STRING,
	STREAMKV_STOP_CANCELLED,
	STREAMKV_STOP_DISCONNECTED,
	STREAMKV_STOP_REFUSED,
	STREAMKV_STOP_ERROR,
	STREAMKV_STOP_DONE, /* the whole text is evaluated */
};
const char *streamkv_stop_name(enum streamkv_stop stop);
const char *streamkv_mode_name(int mode); /* "streaming"; "unknown" of what is none */

struct streamkv_result {
	enum streamkv_stop stop;
	const char *reason; /* a sentence, or "" */
	int error; /* with REFUSED: -errno of the cause. -EBUSY, -ENOSPC: try again; -EDQUOT: the
			     * administrator's limit for the user, which does not pass by itself */
	const char *stop_string;
	uint64_t prompt_tokens, evaluated_tokens, reused_tokens, generated_tokens, evicted_tokens,
		evictions;
	uint64_t live_min, live_max, position, seed;
	uint64_t queue_ns, prefill_ns, first_token_ns, decode_ns;
	uint64_t scored_tokens;
	uint64_t cache_bytes;    /* that the session's pages took at most */
	uint64_t steps, step_ns; /* of the model, with this stream in them */
	uint64_t attention_ns;   /* of that, with `profile`: this stream's share of attention */
	struct streamkv_policy
		policy; /* that the session had; -1 and DEFAULT where it never began */
};

/* Several streams of a connection may run at once; the daemon refuses the 17th. */
int streamkv_generate(struct streamkv *kv, const struct streamkv_generate *ask,
		      struct streamkv_stream **ret_stream, struct streamkv_error *error);
/* The next token: 1, or 0 at the end (then streamkv_result() is whole), -ETIMEDOUT, -EINTR (a
 * signal came: decide, call again), -ECONNRESET where the daemon died, -EPROTO. */
int streamkv_next(struct streamkv_stream *stream, int timeout_ms, struct streamkv_token *ret_token,
		  struct streamkv_error *error);
/* Prefill's progress so far, for a bar. */
void streamkv_progress(const struct streamkv_stream *stream, uint64_t *ret_prompt_tokens,
		       uint64_t *ret_evaluated);
/* Where its session stands after what has been read: text position of the next token. False: not known yet; a named
 * session's is before its first token. */
bool streamkv_position(const struct streamkv_stream *stream, uint64_t *ret_position);
/* Whether all of its tokens have been read, though perhaps not how it ended. */
bool streamkv_is_read(const struct streamkv_stream *stream);
/* Its place among the requests that wait for room in the KV cache, from 1; 0: it does not wait. */
uint32_t streamkv_queue_place(const struct streamkv_stream *stream);
/* Asks for the end; the stream then ends as cancelled. Not for signal handlers. */
int streamkv_cancel(struct streamkv_stream *stream, struct streamkv_error *error);
const struct streamkv_result *streamkv_result(const struct streamkv_stream *stream);
void streamkv_stream_close(struct streamkv_stream *stream); /* cancels if it still runs */

/* Whatever the caller wants to find again at a stream; NULL at first. */
void streamkv_set_context(struct streamkv_stream *stream, void *context);
void *streamkv_context(const struct streamkv_stream *stream);

/* --- Many streams in one thread --- */

/* As streamkv_next(), of whichever stream of the connection has something: *ret_stream tells whose. Each one's end is
 * told once; then -ENOENT where none is left. A fault of one stream names it, of the connection NULL. Tokens of others
 * that come while one stream is read by streamkv_next() wait in this process' memory, in order. */
int streamkv_next_any(struct streamkv *kv, int timeout_ms, struct streamkv_stream **ret_stream,
		      struct streamkv_token *ret_token, struct streamkv_error *error);
/* What poll() or an event loop waits for, before every wait. True: do not wait, there is something now. */
bool streamkv_poll_fds(struct streamkv *kv, struct pollfd ret_fds[2]);

/* --- Evaluate --- */

struct streamkv_evaluate {
	const void *text; /* any bytes; copied or sealed before the call returns */
	size_t n_text_bytes;
	uint64_t max_tokens; /* the text's first so many; 0: all */
	const char *session; /* NULL: one of its own */
	struct streamkv_policy policy;
	uint32_t chunk_tokens; /* a step, at most; 0: as many as it holds */
	bool plain, no_bos, trace, profile;
};
#define STREAMKV_EVALUATE_INIT                                                                     \
	{                                                                                          \
		.policy = { STREAMKV_DEFAULT, -1, -1, -1 }                                         \
	}

/* A stream as streamkv_generate() makes it: streamkv_next() gives every token of the text with its
 * log-probability given those before it, and no text. */
int streamkv_evaluate(struct streamkv *kv, const struct streamkv_evaluate *ask,
		      struct streamkv_stream **ret_stream, struct streamkv_error *error);

/* --- Text --- */

/* *ret_ids is freed with free(). */
int streamkv_tokenize(struct streamkv *kv, const void *text, size_t n_bytes, bool plain,
		      bool add_bos, int32_t **ret_ids, size_t *ret_n_ids,
		      struct streamkv_error *error);
int streamkv_detokenize(struct streamkv *kv, const int32_t *ids, size_t n_ids, void **ret_text,
			size_t *ret_n_bytes, struct streamkv_error *error);

/* --- Sessions by name --- */

enum streamkv_session_state {
	STREAMKV_SESSION_IDLE,
	STREAMKV_SESSION_RUNNING, /* a request runs on it */
	STREAMKV_SESSION_STORED,  /* outside the daemon's pool: its next request brings it back */
	STREAMKV_SESSION_MOVING,  /* on its way out or back */
};
const char *streamkv_session_state_name(int state); /* "idle"; "unknown" of what is none */

struct streamkv_session {
	char name[65]; /* empty: a request's own */
	uint32_t uid;
	enum streamkv_session_state state;
	struct streamkv_policy policy;
	uint64_t position;            /* text position of the next token */
	uint64_t live;                /* entries cached */
	uint64_t pages, shared_pages; /* that it holds; of those, together with other sessions */
	uint64_t stored_bytes;        /* outside the pool */
	uint64_t age_ns;              /* since it began */
	uint64_t idle_ns;             /* since its last request ended; 0: one runs */
	uint64_t ttl_ms;              /* gone when idle for so long; 0: kept for ever */
	uint64_t requests, generated_tokens; /* that ran on it; that they drew */
};

/* Of one's own user's sessions alone. -ENOENT where there is none of that name, -EBUSY where a request runs on it, -EEXIST
 * where one is there already and `replace` is not set; whatever fails changes nothing. *ret_session, which may be
 * NULL, is the session as it is then (a fork's: the new one). */
int streamkv_session_show(struct streamkv *kv, const char *name,
			  struct streamkv_session *ret_session, struct streamkv_error *error);
/* `to` becomes a session that goes on from the same place. */
int streamkv_session_fork(struct streamkv *kv, const char *name, const char *to, bool replace,
			  struct streamkv_session *ret_session, struct streamkv_error *error);
/* Empties it; its policy stays. */
int streamkv_session_reset(struct streamkv *kv, const char *name,
			   struct streamkv_session *ret_session, struct streamkv_error *error);
/* *ret_session: as it was. */
int streamkv_session_delete(struct streamkv *kv, const char *name,
			    struct streamkv_session *ret_session, struct streamkv_error *error);
/* Asks for the same and does not wait. *ret_stream has no tokens, and ends with the answer: DONE, or as
 * streamkv_session_delete() fails. Until then it is one of the connection's 16 requests. What is asked of this connection
 * afterwards finds the session gone, unless it was being moved just then. */
int streamkv_session_drop(struct streamkv *kv, const char *name,
			  struct streamkv_stream **ret_stream, struct streamkv_error *error);
/* The whole session as bytes: *ret_fd is a memfd of the caller's, sealed against change, which holds *ret_n_bytes. */
int streamkv_session_save(struct streamkv *kv, const char *name, int *ret_fd, uint64_t *ret_n_bytes,
			  struct streamkv_session *ret_session, struct streamkv_error *error);
/* Makes the session from what streamkv_session_save() gave, in a memfd that is sealed against shrinking and writing and
 * stays the caller's: that one, or streamkv_saved_read()'s. */
int streamkv_session_load(struct streamkv *kv, const char *name, int fd, uint64_t n_bytes,
			  bool replace, struct streamkv_session *ret_session,
			  struct streamkv_error *error);
/* Such a memfd, of the caller's, with all that can be read from `from` (a file, a pipe) until its end. -ENOMEM, or what
 * reading failed with. Asks no daemon. */
int streamkv_saved_read(int from, int *ret_fd, uint64_t *ret_n_bytes, struct streamkv_error *error);

#define STREAMKV_KEEP_DEFAULT UINT64_MAX
/* How long it is kept after its last request: ttl_ms, 0 for ever, or as the daemon keeps others. */
int streamkv_session_keep(struct streamkv *kv, const char *name, uint64_t ttl_ms,
			  struct streamkv_session *ret_session, struct streamkv_error *error);

/* --- What there is --- */

enum streamkv_request_state {
	STREAMKV_REQUEST_TOKENIZING,
	STREAMKV_REQUEST_QUEUED, /* waits for room in the KV cache */
	STREAMKV_REQUEST_PROMPT, /* prefill */
	STREAMKV_REQUEST_DECODE,
	STREAMKV_REQUEST_PAUSED,   /* waits for its reader */
	STREAMKV_REQUEST_FETCHING, /* its session comes back into the pool */
};
const char *streamkv_request_state_name(int state);

struct streamkv_request {
	uint32_t uid, pid; /* of the client */
	uint32_t request;  /* as its connection numbers it */
	enum streamkv_request_state state;
	bool evaluates;   /* else it generates */
	char session[65]; /* empty: one of its own */
	uint64_t prompt_tokens, evaluated_tokens, generated_tokens;
	uint64_t live;                  /* entries of its session */
	uint64_t age_ns;                /* since it came */
	uint32_t queue_place;           /* from 1; 0: it does not wait */
	uint32_t ring_fill, ring_slots; /* of its connection's ring: that wait for their reader */
};

struct streamkv_user {
	uint32_t uid, weight, sessions, running, queued;
	uint64_t pages;                           /* that its sessions hold */
	uint64_t prompt_tokens, generated_tokens; /* since the daemon's start */
};

struct streamkv_list {
	struct streamkv_session *sessions;
	struct streamkv_request *requests;
	struct streamkv_user *users;
	size_t n_sessions, n_requests, n_users;
};
/* What there is now: of one's own user; of every user where root or the daemon's own asks. Freed with
 * streamkv_list_free(), which may be called for a zeroed one. */
int streamkv_list(struct streamkv *kv, struct streamkv_list *ret_list,
		  struct streamkv_error *error);
void streamkv_list_free(struct streamkv_list *list);

/* --- The daemon --- */

#define STREAMKV_MOST_OPERATIONS 16

struct streamkv_status {
	const char *server, *model,
		*backend; /* live as long as the connection, until the next call */
	uint64_t uptime_ns;
	uint32_t pid, connections, sessions, running, paused, queued, page_tokens;
	uint32_t stored; /* of the sessions, outside the pool */
	uint64_t pages_total, pages_used, page_bytes, weight_bytes, scratch_bytes;
	uint64_t steps, prompt_tokens, generated_tokens, requests;
	/* Since the daemon's start, of the steps that were timed because somebody asked for it: */
	uint64_t profiled_steps, profiled_ns;
	uint32_t n_operations; /* 0 as long as nobody asked */
	struct {
		const char *name; /* lives as the strings above */
		uint64_t ns;
	} operations[STREAMKV_MOST_OPERATIONS];
};
int streamkv_status(struct streamkv *kv, struct streamkv_status *ret_status,
		    struct streamkv_error *error);
/* The same, and from now on, for so many milliseconds, the operations of every step are timed: for the status that is
 * asked for afterwards. Steps are a little slower meanwhile. */
int streamkv_profile(struct streamkv *kv, uint32_t milliseconds, struct streamkv_status *ret_status,
		     struct streamkv_error *error);

struct streamkv_model {
	const char *name, *path, *architecture, *file_format, *weights, *chat;
	uint64_t parameters, weight_bytes, kv_bytes_per_token;
	uint64_t matrix_parameters; /* multiplied at every token: all matrices but a lookup's */
	uint32_t vocabulary, context, layers, width, heads, kv_heads, head_dim, rotary_dims,
		mlp_width;
	double rope_base;
	struct streamkv_policy policy;
};
int streamkv_model(struct streamkv *kv, struct streamkv_model *ret_model,
		   struct streamkv_error *error);

#ifdef __cplusplus
}
#endif
