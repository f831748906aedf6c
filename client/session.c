/* Of libstreamkv: what is asked of one session by its name. */
#include "client/connection.h"

#include "proto/payload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *streamkv_session_state_name(int state)
{
	static const char *const names[] = {"idle", "running", "stored", "moving"};
	return state >= 0 && state < (int)(sizeof names / sizeof *names) ? names[state] : "unknown";
}

void streamkv_fill_session(struct streamkv_session *to, const Sk__SessionInfo *from)
{
	*to = (struct streamkv_session){
		.uid = from->uid,
		.position = from->position,
		.live = from->live,
		.pages = from->pages,
		.shared_pages = from->shared_pages,
		.stored_bytes = from->stored_bytes,
		.age_ns = from->age_ns,
		.idle_ns = from->idle_ns,
		.ttl_ms = from->ttl_ms,
		.requests = from->requests,
		.generated_tokens = from->generated_tokens,
	};
	to->state = (enum streamkv_session_state)from->state; /* the values are alike */
	snprintf(to->name, sizeof to->name, "%s", from->name);
	streamkv_fill_policy(&to->policy, from->policy);
}

/* Takes the memfd beside a SAVE's answer. It is looked at here, so that whoever reads it need not. */
static int take_saved(const Sk__SessionAnswer *answer, struct sk_frame *frame, int *ret_fd,
		      uint64_t *ret_n_bytes, struct streamkv_error *error)
{
	struct sk_diag diag = {"nothing is beside it"};
	const void *map;

	if (!answer->in_memfd ||
	    sk_payload_map(frame->fds[0], answer->saved_bytes, &map, &diag) < 0)
		return streamkv_fail(error, EPROTO,
				     "the daemon's answer is not of this protocol: %s", diag.text);
	sk_payload_unmap(map, answer->saved_bytes);
	*ret_fd = frame->fds[0];
	frame->fds[0] = -1;
	*ret_n_bytes = answer->saved_bytes;
	return 0;
}

/* ret_fd: with SAVE alone. */
static int ask(struct streamkv *kv, Sk__SessionRequest *body, int fd, int *ret_fd,
	       uint64_t *ret_n_bytes, struct streamkv_session *ret_session,
	       struct streamkv_error *error)
{
	Sk__ClientMessage message = SK__CLIENT_MESSAGE__INIT;
	Sk__ServerMessage *answer;
	struct sk_frame frame;

	message.request = streamkv_next_request(kv);
	message.body_case = SK__CLIENT_MESSAGE__BODY_SESSION;
	message.session = body;
	int err = streamkv_call(kv, &message, &fd, fd >= 0, &frame, &answer, error);
	if (err < 0)
		return err;
	if (answer->body_case != SK__SERVER_MESSAGE__BODY_SESSION)
		return streamkv_unexpected(kv, answer, &frame, error);
	if (ret_fd)
		err = take_saved(answer->session, &frame, ret_fd, ret_n_bytes, error);
	if (!err && ret_session)
		streamkv_fill_session(ret_session, answer->session->session);
	sk__server_message__free_unpacked(answer, NULL);
	sk_frame_finish(&frame);
	return err;
}

static Sk__SessionRequest request(Sk__SessionVerb verb, const char *name)
{
	Sk__SessionRequest body = SK__SESSION_REQUEST__INIT;
	body.verb = verb;
	body.name = (char *)name;
	return body;
}

int streamkv_session_show(struct streamkv *kv, const char *name,
			  struct streamkv_session *ret_session, struct streamkv_error *error)
{
	Sk__SessionRequest body = request(SK__SESSION_VERB__SESSION_SHOW, name);
	return ask(kv, &body, -1, NULL, NULL, ret_session, error);
}

int streamkv_session_fork(struct streamkv *kv, const char *name, const char *to, bool replace,
			  struct streamkv_session *ret_session, struct streamkv_error *error)
{
	Sk__SessionRequest body = request(SK__SESSION_VERB__SESSION_FORK, name);
	body.to = (char *)to;
	body.replace = replace;
	return ask(kv, &body, -1, NULL, NULL, ret_session, error);
}

int streamkv_session_reset(struct streamkv *kv, const char *name,
			   struct streamkv_session *ret_session, struct streamkv_error *error)
{
	Sk__SessionRequest body = request(SK__SESSION_VERB__SESSION_RESET, name);
	return ask(kv, &body, -1, NULL, NULL, ret_session, error);
}

int streamkv_session_delete(struct streamkv *kv, const char *name,
			    struct streamkv_session *ret_session, struct streamkv_error *error)
{
	Sk__SessionRequest body = request(SK__SESSION_VERB__SESSION_DELETE, name);
	return ask(kv, &body, -1, NULL, NULL, ret_session, error);
}

int streamkv_session_keep(struct streamkv *kv, const char *name, uint64_t ttl_ms,
			  struct streamkv_session *ret_session, struct streamkv_error *error)
{
	Sk__SessionRequest body = request(SK__SESSION_VERB__SESSION_KEEP, name);
	if (ttl_ms != STREAMKV_KEEP_DEFAULT) {
		body.has_ttl_case = SK__SESSION_REQUEST__HAS_TTL_TTL_MS;
		body.ttl_ms = ttl_ms;
	}
	return ask(kv, &body, -1, NULL, NULL, ret_session, error);
}

int streamkv_session_drop(struct streamkv *kv, const char *name,
			  struct streamkv_stream **ret_stream, struct streamkv_error *error)
{
	Sk__ClientMessage message = SK__CLIENT_MESSAGE__INIT;
	Sk__SessionRequest body = request(SK__SESSION_VERB__SESSION_DELETE, name);

	struct streamkv_stream *stream = calloc(1, sizeof *stream);
	if (!stream)
		return streamkv_fail(error, ENOMEM, "not enough memory");
	stream->kv = kv;
	stream->is_call = true;
	stream->request = streamkv_next_request(kv);
	message.request = stream->request;
	message.body_case = SK__CLIENT_MESSAGE__BODY_SESSION;
	message.session = &body;
	int err = streamkv_send(kv, &message, NULL, 0, error);
	if (err < 0) {
		free(stream);
		return err;
	}
	sk_list_append(&kv->streams, &stream->node);
	*ret_stream = stream;
	return 0;
}

int streamkv_session_save(struct streamkv *kv, const char *name, int *ret_fd, uint64_t *ret_n_bytes,
			  struct streamkv_session *ret_session, struct streamkv_error *error)
{
	Sk__SessionRequest body = request(SK__SESSION_VERB__SESSION_SAVE, name);
	return ask(kv, &body, -1, ret_fd, ret_n_bytes, ret_session, error);
}

int streamkv_session_load(struct streamkv *kv, const char *name, int fd, uint64_t n_bytes,
			  bool replace, struct streamkv_session *ret_session,
			  struct streamkv_error *error)
{
	Sk__SessionRequest body = request(SK__SESSION_VERB__SESSION_LOAD, name);
	if (fd < 0)
		return streamkv_fail(error, EBADF, "there is no saved session to load");
	body.in_memfd = 1;
	body.saved_bytes = n_bytes;
	body.replace = replace;
	return ask(kv, &body, fd, NULL, NULL, ret_session, error);
}

int streamkv_saved_read(int from, int *ret_fd, uint64_t *ret_n_bytes, struct streamkv_error *error)
{
	int err = sk_payload_read(from, ret_fd, ret_n_bytes);
	if (err == -ENOSPC)
		err = -ENOMEM;
	return err < 0 ? streamkv_fail(error, -err, "%s", strerror(-err)) : 0;
}
