/* A connection's insides, for the files of libstreamkv. */
#pragma once

#include "base/list.h"
#include "client/streamkv.h"
#include "proto/channel.h"
#include "proto/validate.h"
#include "shm/ring.h"

struct streamkv {
	struct sk_channel *channel;
	struct sk_ring_reader *ring;
	uint32_t last_request;
	Sk__ServerMessage *welcome_message; /* what `welcome` points into */
	struct streamkv_welcome welcome;
	Sk__ServerMessage *shown; /* what the last status or model points into */
	struct sk_list streams;   /* all that are not closed */
	bool is_broken;
};

/* A slot, and when the daemon put it into the ring (its 32 bits of time, made whole). */
struct streamkv_slot {
	struct sk_slot slot;
	uint64_t put_ns;
};

struct streamkv_stream {
	struct sk_list node;
	struct streamkv *kv;
	void *context;
	uint32_t request;
	bool is_call;     /* what was asked for has one answer, and cannot be cancelled */
	bool is_last;     /* the ring has nothing more of it */
	bool is_finished; /* and this is how it ended: */
	bool is_told;     /* as the caller knows */
	struct streamkv_result result;
	Sk__ServerMessage *finished; /* what result points into; or a Failed */
	/* Slots that came while another stream was read: */
	struct streamkv_slot *queue;
	size_t queue_at, n_queue, queue_allocated;
	char *stop_string;
	uint64_t prompt_tokens, evaluated_tokens;
	uint32_t queue_place;
	bool has_position;
	uint64_t position; /* where it began */
	uint64_t n_tokens;
	uint64_t first_put_ns;
	struct streamkv_step step;
	uint8_t *text;
	size_t n_text, text_allocated;
};

/* Fills error->text and returns -code. */
int streamkv_fail(struct streamkv_error *error, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* streamkv_connect_ring() in two parts. The first finds a place among those that wait for a daemon which loads or is full, and
 * says hello there; the second, which may be called again after -ETIMEDOUT and -EINTR, waits for its welcome in that place. */
int streamkv_call_up(const char *socket_path, uint32_t ring_slots, int timeout_ms,
		     struct streamkv **ret_kv, struct streamkv_error *error);
int streamkv_await_welcome(struct streamkv *kv, int timeout_ms, struct streamkv_error *error);

/* Sends a message and everything that waits before it. */
int streamkv_send(struct streamkv *kv, Sk__ClientMessage *message, const int *fds, unsigned n_fds,
		  struct streamkv_error *error);
/* Waits for readable data on the socket or, where ring_fd is not negative, on that: 1 the socket, 2
 * the ring, 3 both, -ETIMEDOUT, -EINTR. */
int streamkv_wait(struct streamkv *kv, int ring_fd, int timeout_ms, struct streamkv_error *error);
/* The next message that has come, without waiting: 1, 0 none, or an error that ends the connection.
 * Freed with sk__server_message__free_unpacked(); descriptors of `frame` that are taken are set to
 * -1, the rest are closed by sk_frame_finish(). */
int streamkv_receive(struct streamkv *kv, struct sk_frame *frame, Sk__ServerMessage **ret_message,
		     struct streamkv_error *error);
/* Sends a request and waits for its one answer, with the frame for its descriptors. A Failed is an
 * error. What comes for streams meanwhile is theirs. */
int streamkv_call(struct streamkv *kv, Sk__ClientMessage *message, const int *fds, unsigned n_fds,
		  struct sk_frame *frame, Sk__ServerMessage **ret_message,
		  struct streamkv_error *error);
/* The next answer to a request that has been sent. */
int streamkv_answer(struct streamkv *kv, uint32_t request, struct sk_frame *frame,
		    Sk__ServerMessage **ret_message, struct streamkv_error *error);
/* Frees an answer that is none to what was asked: the connection is broken. */
int streamkv_unexpected(struct streamkv *kv, Sk__ServerMessage *answer, struct sk_frame *frame,
			struct streamkv_error *error);
/* session.c */
void streamkv_fill_session(struct streamkv_session *to, const Sk__SessionInfo *from);
void streamkv_fill_policy(struct streamkv_policy *to, const Sk__Policy *from);
uint32_t streamkv_next_request(struct streamkv *kv);

/* --- streams.c: whose what comes is --- */

/* Takes `message` over and gives it to its stream; one of a stream that was closed is freed. */
void streamkv_hand_on(struct streamkv *kv, Sk__ServerMessage *message);
/* Gives all messages that have come to their streams: 0, or the fault that ends the connection. */
int streamkv_take_messages(struct streamkv *kv, struct streamkv_error *error);
/* The stream's next slot; those of others that lie before it go into their queues. 1, 0 none, -EPROTO, -ENOMEM. */
int streamkv_take_slot(struct streamkv_stream *stream, struct streamkv_slot *ret_slot);

/* --- stream.c: what it makes of it --- */

/* Progress, the end, a refusal; takes `message` over. */
void streamkv_stream_take(struct streamkv_stream *stream, Sk__ServerMessage *message);
/* A whole token: 1, 0 none, or an error. */
int streamkv_stream_token(struct streamkv_stream *stream, struct streamkv_token *ret_token,
			  struct streamkv_error *error);
/* Of one that is finished, and whose slots have all been taken: what streamkv_next() returns. */
int streamkv_stream_end(struct streamkv_stream *stream, struct streamkv_error *error);
