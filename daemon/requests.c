#include "daemon/requests.h"

#include "base/clock.h"
#include "proto/payload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static void release_copy(const void *input, uint64_t n_bytes)
{
	(void)n_bytes;
	free((void *)input);
}

static void release_map(const void *input, uint64_t n_bytes)
{
	sk_payload_unmap(input, n_bytes);
}

static int take_copy(struct sk_request *request, const void *bytes, size_t n_bytes,
		     struct sk_diag *diag)
{
	void *copy = malloc(n_bytes + 1);
	if (!copy)
		return sk_diag_fail(diag, ENOMEM, "not enough memory for the request");
	if (n_bytes)
		memcpy(copy, bytes, n_bytes);
	request->input = copy;
	request->n_input_bytes = n_bytes;
	request->release_input = release_copy;
	return 0;
}

static int take_map(struct sk_request *request, struct sk_frame *frame, uint64_t n_bytes,
		    struct sk_diag *diag)
{
	const void *bytes;
	if (frame->n_fds != 1)
		return sk_diag_fail(diag, EBADMSG, "a memfd was announced and none came");
	int err = sk_payload_map(frame->fds[0], n_bytes, &bytes, diag);
	if (err < 0)
		return err;
	request->input = bytes;
	request->n_input_bytes = n_bytes;
	request->release_input = release_map;
	return 0;
}

static enum sk_mode mode_of(Sk__Mode mode)
{
	switch (mode) {
	case SK__MODE__MODE_WINDOW:
		return SK_MODE_WINDOW;
	case SK__MODE__MODE_DENSE:
		return SK_MODE_DENSE;
	case SK__MODE__MODE_RECOMPUTE:
		return SK_MODE_RECOMPUTE;
	default:
		return SK_MODE_STREAMING;
	}
}

static struct sk_policy_change policy_of(const Sk__Policy *policy)
{
	struct sk_policy_change change = {0};
	if (!policy)
		return change;
	change.has_mode = policy->mode != SK__MODE__MODE_DEFAULT;
	change.has_sink = policy->has_sink_case == SK__POLICY__HAS_SINK_SINK;
	change.has_window = policy->has_window_case == SK__POLICY__HAS_WINDOW_WINDOW;
	change.has_slack = policy->has_slack_case == SK__POLICY__HAS_SLACK_SLACK;
	change.to = (struct sk_policy){
		.mode = mode_of(policy->mode),
		.sink = change.has_sink ? policy->sink : 0,
		.window = change.has_window ? policy->window : 0,
		.slack = change.has_slack ? policy->slack : 0,
	};
	return change;
}

static struct sk_sampling sampling_of(const Sk__Sampling *from)
{
	struct sk_sampling sampling = {.top_p = 1, .repeat_penalty = 1, .repeat_last = 64};

	if (!from || from->has_seed_case != SK__SAMPLING__HAS_SEED_SEED) {
		if (getrandom(&sampling.seed, sizeof sampling.seed, 0) < 0)
			sampling.seed = sk_clock_ns();
		sampling.seed >>= 11; /* 53 bits: exact in every reader of JSON */
	} else {
		sampling.seed = from->seed;
		sampling.has_seed = true;
	}
	if (!from)
		return sampling;
	sampling.temperature = from->temperature;
	sampling.top_k = from->top_k;
	sampling.min_p = from->min_p;
	if (from->top_p != 0)
		sampling.top_p = from->top_p;
	if (from->repeat_penalty != 0)
		sampling.repeat_penalty = from->repeat_penalty;
	if (from->repeat_last)
		sampling.repeat_last = from->repeat_last;
	return sampling;
}

static int take_stops(struct sk_request *request, const Sk__Generate *from)
{
	if (!from->n_stop)
		return 0;
	request->stops = calloc(from->n_stop, sizeof *request->stops);
	if (!request->stops)
		return -ENOMEM;
	for (size_t i = 0; i < from->n_stop; i++) {
		request->stops[i].n_bytes = (uint32_t)from->stop[i].len;
		memcpy(request->stops[i].bytes, from->stop[i].data, from->stop[i].len);
	}
	request->n_stops = (uint32_t)from->n_stop;
	return 0;
}

static int take_system(struct sk_request *request, const Sk__Generate *from)
{
	if (!from->chat[0] || from->has_system_case != SK__GENERATE__HAS_SYSTEM_SYSTEM)
		return 0;
	request->system = malloc(from->system.len + 1);
	if (!request->system)
		return -ENOMEM;
	if (from->system.len)
		memcpy(request->system, from->system.data, from->system.len);
	request->n_system_bytes = from->system.len;
	return 0;
}

static int fill_generate(const struct sk_connection *connection, struct sk_request *request,
			 const Sk__Generate *from, struct sk_frame *frame, struct sk_diag *diag)
{
	int err = from->source_case == SK__GENERATE__SOURCE_IN_MEMFD
			  ? take_map(request, frame, from->prompt_bytes, diag)
			  : take_copy(request, from->prompt.data,
				      from->source_case == SK__GENERATE__SOURCE_PROMPT
					      ? from->prompt.len
					      : 0,
				      diag);
	if (err < 0)
		return err;
	request->ring = connection->ring;
	strcpy(request->session, from->session); /* lengths were checked (proto/validate.h) */
	strcpy(request->chat, from->chat);
	request->policy = policy_of(from->policy);
	request->sampling = sampling_of(from->sampling);
	request->max_tokens = from->endless      ? UINT64_MAX
			      : from->max_tokens ? from->max_tokens
						 : connection->server->options->max_tokens;
	if (from->resumed) {
		request->is_resumed = true;
		request->resumed_at = from->resumed->position;
		request->resumed_given = from->resumed->given_tokens;
		if (!from->endless)
			request->max_tokens -= request->resumed_given < request->max_tokens
						       ? request->resumed_given
						       : request->max_tokens - 1;
	}
	request->cursor = connection->cursor;
	request->ignore_eos = from->ignore_eos || from->endless;
	request->show_special = from->show_special;
	request->trace = from->trace;
	request->begun = from->begun;
	request->profile = from->profile;
	request->encode_flags = SK_ENCODE_BOS | (from->plain ? SK_ENCODE_PLAIN : 0);
	err = take_stops(request, from);
	if (!err)
		err = take_system(request, from);
	return err < 0 ? sk_diag_fail(diag, -err, "not enough memory for the request") : 0;
}

static int fill_evaluate(const struct sk_connection *connection, struct sk_request *request,
			 const Sk__Evaluate *from, struct sk_frame *frame, struct sk_diag *diag)
{
	request->ring = connection->ring;
	strcpy(request->session, from->session);
	request->policy = policy_of(from->policy);
	request->max_tokens = from->max_tokens ? from->max_tokens : UINT64_MAX;
	request->encode_flags =
		(from->no_bos ? 0 : SK_ENCODE_BOS) | (from->plain ? SK_ENCODE_PLAIN : 0);
	request->chunk_tokens = from->chunk_tokens;
	request->trace = from->trace;
	request->profile = from->profile;
	if (from->source_case == SK__EVALUATE__SOURCE_IN_MEMFD)
		return take_map(request, frame, from->text_bytes, diag);
	return take_copy(request, from->text.data,
			 from->source_case == SK__EVALUATE__SOURCE_TEXT ? from->text.len : 0, diag);
}

static int fill_session(struct sk_request *request, const Sk__SessionRequest *from,
			struct sk_frame *frame, struct sk_diag *diag)
{
	request->verb =
		(enum sk_session_verb)from->verb; /* engine/request.h keeps the values alike */
	strcpy(request->session, from->name);
	strcpy(request->to, from->to);
	request->replace = from->replace;
	request->has_ttl = from->has_ttl_case == SK__SESSION_REQUEST__HAS_TTL_TTL_MS;
	request->ttl_ns = request->has_ttl ? from->ttl_ms * UINT64_C(1000000) : 0;
	return from->in_memfd ? take_map(request, frame, from->saved_bytes, diag) : 0;
}

bool sk_sees_all(uid_t uid)
{
	return uid == 0 || uid == geteuid();
}

static int fill(const struct sk_connection *connection, struct sk_request *request,
		const Sk__ClientMessage *message, struct sk_frame *frame, struct sk_diag *diag)
{
	switch (message->body_case) {
	case SK__CLIENT_MESSAGE__BODY_GENERATE:
		return fill_generate(connection, request, message->generate, frame, diag);
	case SK__CLIENT_MESSAGE__BODY_EVALUATE:
		return fill_evaluate(connection, request, message->evaluate, frame, diag);
	case SK__CLIENT_MESSAGE__BODY_TOKENIZE: {
		const Sk__Tokenize *from = message->tokenize;
		request->encode_flags =
			(from->plain ? SK_ENCODE_PLAIN : 0) | (from->add_bos ? SK_ENCODE_BOS : 0);
		if (from->source_case == SK__TOKENIZE__SOURCE_IN_MEMFD)
			return take_map(request, frame, from->text_bytes, diag);
		return take_copy(
			request, from->text.data,
			from->source_case == SK__TOKENIZE__SOURCE_TEXT ? from->text.len : 0, diag);
	}
	case SK__CLIENT_MESSAGE__BODY_DETOKENIZE: {
		const Sk__Detokenize *from = message->detokenize;
		if (from->in_memfd)
			return take_map(request, frame, from->count * sizeof(int32_t), diag);
		return take_copy(request, from->ids, from->n_ids * sizeof *from->ids, diag);
	}
	case SK__CLIENT_MESSAGE__BODY_STATUS:
		request->sees_all = sk_sees_all(connection->uid);
		if (request->sees_all) /* it costs everybody's steps */
			request->profile_ns = message->status->profile_ms * UINT64_C(1000000);
		return 0;
	case SK__CLIENT_MESSAGE__BODY_SESSION:
		return fill_session(request, message->session, frame, diag);
	case SK__CLIENT_MESSAGE__BODY_LIST:
		request->sees_all = sk_sees_all(connection->uid);
		return 0;
	default:
		return -EINVAL;
	}
}

static enum sk_request_kind kind_of(const Sk__ClientMessage *message)
{
	switch (message->body_case) {
	case SK__CLIENT_MESSAGE__BODY_GENERATE:
		return SK_REQUEST_GENERATE;
	case SK__CLIENT_MESSAGE__BODY_EVALUATE:
		return SK_REQUEST_EVALUATE;
	case SK__CLIENT_MESSAGE__BODY_TOKENIZE:
		return SK_REQUEST_TOKENIZE;
	case SK__CLIENT_MESSAGE__BODY_DETOKENIZE:
		return SK_REQUEST_DETOKENIZE;
	case SK__CLIENT_MESSAGE__BODY_SESSION:
		return SK_REQUEST_SESSION;
	case SK__CLIENT_MESSAGE__BODY_LIST:
		return SK_REQUEST_LIST;
	default:
		return SK_REQUEST_STATS;
	}
}

int sk_request_of(const struct sk_connection *connection, const Sk__ClientMessage *message,
		  struct sk_frame *frame, struct sk_request **ret_request, struct sk_diag *diag)
{
	struct sk_request *request = sk_request_create(kind_of(message));
	if (!request)
		return sk_diag_fail(diag, ENOMEM, "not enough memory for the request");
	request->connection = connection->name;
	request->id = message->request;
	request->uid = connection->uid;
	request->pid = connection->pid;
	request->arrived_ns = sk_clock_ns();
	int err = fill(connection, request, message, frame, diag);
	if (err < 0) {
		sk_request_destroy(request);
		return err;
	}
	*ret_request = request;
	return 0;
}
