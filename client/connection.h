/* A connection's insides, for the files of libstreamkv. */
#pragma once

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
	Sk__ServerMessage *shown;       /* what the last status or model points into */
	struct streamkv_stream *stream; /* the one that runs, or NULL */
	bool is_broken;
};

struct streamkv_stream {
	struct streamkv *kv;
	uint32_t request;
	bool is_last;     /* the ring has nothing more of it */
	bool is_finished; /* and this is how it ended: */
	struct streamkv_result result;
	Sk__ServerMessage *finished; /* what result points into */
	char *stop_string;
	uint64_t prompt_tokens, evaluated_tokens;
	uint32_t queue_place;
	uint64_t n_tokens;
	double seconds;
	struct streamkv_step step;
	uint8_t *text;
	size_t n_text, text_allocated;
};

/* Fills error->text and returns -code. */
int streamkv_fail(struct streamkv_error *error, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

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
 * error. */
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
/* The stream outlives its connection: it can only be closed. */
void streamkv_stream_detach(struct streamkv_stream *stream);
uint32_t streamkv_next_request(struct streamkv *kv);
