/* What a stream begins with: Generate or Evaluate, and its text. */
#include "client/connection.h"

#include "proto/payload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INLINE_BYTES (256u << 10) /* a longer text goes beside the frame */

static void fill_policy(Sk__Policy *to, const struct streamkv_policy *from)
{
	to->mode = (Sk__Mode)from->mode;
	if (from->sink >= 0) {
		to->has_sink_case = SK__POLICY__HAS_SINK_SINK;
		to->sink = (uint32_t)from->sink;
	}
	if (from->window >= 0) {
		to->has_window_case = SK__POLICY__HAS_WINDOW_WINDOW;
		to->window = (uint32_t)from->window;
	}
	if (from->slack >= 0) {
		to->has_slack_case = SK__POLICY__HAS_SLACK_SLACK;
		to->slack = (uint32_t)from->slack;
	}
}

static int check_policy(const struct streamkv_policy *policy, struct streamkv_error *error)
{
	if (policy->sink > UINT32_MAX || policy->window > UINT32_MAX || policy->slack > UINT32_MAX)
		return streamkv_fail(error, EINVAL,
				     "sink, window or slack is more than any cache holds");
	return 0;
}

static int ask_generate(struct streamkv *kv, uint32_t request, const void *wanted, int prompt_fd,
			struct streamkv_error *error)
{
	const struct streamkv_generate *from = wanted;
	Sk__ClientMessage message = SK__CLIENT_MESSAGE__INIT;
	Sk__Generate generate = SK__GENERATE__INIT;
	Sk__Policy policy = SK__POLICY__INIT;
	Sk__Sampling sampling = SK__SAMPLING__INIT;
	Sk__Resumed resumed = SK__RESUMED__INIT;
	ProtobufCBinaryData stops[16];

	if (from->n_stops > 16)
		return streamkv_fail(error, EINVAL, "%u stop strings were given, 16 are allowed",
				     from->n_stops);
	for (unsigned i = 0; i < from->n_stops; i++)
		stops[i] = (ProtobufCBinaryData){strlen(from->stops[i]), (uint8_t *)from->stops[i]};
	int err = check_policy(&from->policy, error);
	if (err < 0)
		return err;
	fill_policy(&policy, &from->policy);
	sampling.temperature = from->temperature;
	sampling.top_k = from->top_k;
	sampling.top_p = from->top_p;
	sampling.min_p = from->min_p;
	sampling.repeat_penalty = from->repeat_penalty;
	sampling.repeat_last = from->repeat_last;
	if (from->has_seed) {
		sampling.has_seed_case = SK__SAMPLING__HAS_SEED_SEED;
		sampling.seed = from->seed;
	}
	if (prompt_fd >= 0) {
		generate.source_case = SK__GENERATE__SOURCE_IN_MEMFD;
		generate.in_memfd = 1;
		generate.prompt_bytes = from->n_prompt_bytes;
	} else {
		generate.source_case = SK__GENERATE__SOURCE_PROMPT;
		generate.prompt =
			(ProtobufCBinaryData){from->n_prompt_bytes, (uint8_t *)from->prompt};
	}
	generate.max_tokens = from->max_tokens;
	generate.endless = from->endless;
	generate.session = from->session ? (char *)from->session : "";
	generate.policy = &policy;
	generate.sampling = &sampling;
	generate.stop = stops;
	generate.n_stop = from->n_stops;
	generate.plain = from->plain;
	generate.chat = from->chat ? (char *)from->chat : "";
	if (from->system) {
		generate.has_system_case = SK__GENERATE__HAS_SYSTEM_SYSTEM;
		generate.system =
			(ProtobufCBinaryData){strlen(from->system), (uint8_t *)from->system};
	}
	generate.ignore_eos = from->ignore_eos;
	generate.show_special = from->show_special;
	generate.trace = from->trace;
	generate.begun = generate.session[0];
	generate.profile = from->profile;
	if (from->resumes) {
		resumed.position = from->resumed_at;
		resumed.given_tokens = from->resumed_given;
		generate.resumed = &resumed;
	}
	message.request = request;
	message.body_case = SK__CLIENT_MESSAGE__BODY_GENERATE;
	message.generate = &generate;
	return streamkv_send(kv, &message, &prompt_fd, prompt_fd >= 0, error);
}

static int ask_evaluate(struct streamkv *kv, uint32_t request, const void *wanted, int text_fd,
			struct streamkv_error *error)
{
	const struct streamkv_evaluate *from = wanted;
	Sk__ClientMessage message = SK__CLIENT_MESSAGE__INIT;
	Sk__Evaluate evaluate = SK__EVALUATE__INIT;
	Sk__Policy policy = SK__POLICY__INIT;

	int err = check_policy(&from->policy, error);
	if (err < 0)
		return err;
	fill_policy(&policy, &from->policy);
	if (text_fd >= 0) {
		evaluate.source_case = SK__EVALUATE__SOURCE_IN_MEMFD;
		evaluate.in_memfd = 1;
		evaluate.text_bytes = from->n_text_bytes;
	} else {
		evaluate.source_case = SK__EVALUATE__SOURCE_TEXT;
		evaluate.text = (ProtobufCBinaryData){from->n_text_bytes, (uint8_t *)from->text};
	}
	evaluate.max_tokens = from->max_tokens;
	evaluate.session = from->session ? (char *)from->session : "";
	evaluate.policy = &policy;
	evaluate.plain = from->plain;
	evaluate.no_bos = from->no_bos;
	evaluate.chunk_tokens = from->chunk_tokens;
	evaluate.trace = from->trace;
	evaluate.profile = from->profile;
	message.request = request;
	message.body_case = SK__CLIENT_MESSAGE__BODY_EVALUATE;
	message.evaluate = &evaluate;
	return streamkv_send(kv, &message, &text_fd, text_fd >= 0, error);
}

/* Begins a stream about n_bytes of text, which travel in the message or, in `fd`, beside it. */
static int begin(struct streamkv *kv, const void *text, size_t n_bytes, const void *wanted,
		 int (*ask)(struct streamkv *kv, uint32_t request, const void *wanted, int fd,
			    struct streamkv_error *error),
		 struct streamkv_stream **ret_stream, struct streamkv_error *error)
{
	int fd = -1;

	if (n_bytes > kv->welcome.max_prompt_bytes)
		return streamkv_fail(error, EMSGSIZE,
				     "the text has %zu bytes, the daemon takes %llu (--max-prompt)",
				     n_bytes, (unsigned long long)kv->welcome.max_prompt_bytes);
	struct streamkv_stream *stream = calloc(1, sizeof *stream);
	if (!stream)
		return streamkv_fail(error, ENOMEM, "not enough memory");
	if (n_bytes > INLINE_BYTES) {
		int err = sk_payload_create(text, n_bytes, &fd);
		if (err < 0) {
			free(stream);
			return streamkv_fail(error, -err, "no memory to share the text: %s",
					     strerror(-err));
		}
	}
	stream->kv = kv;
	stream->request = streamkv_next_request(kv);
	int err = ask(kv, stream->request, wanted, fd, error);
	if (fd >= 0)
		close(fd);
	if (err < 0) {
		free(stream);
		return err;
	}
	sk_list_append(&kv->streams, &stream->node);
	*ret_stream = stream;
	return 0;
}

int streamkv_generate(struct streamkv *kv, const struct streamkv_generate *from,
		      struct streamkv_stream **ret_stream, struct streamkv_error *error)
{
	return begin(kv, from->prompt, from->n_prompt_bytes, from, ask_generate, ret_stream, error);
}

int streamkv_evaluate(struct streamkv *kv, const struct streamkv_evaluate *from,
		      struct streamkv_stream **ret_stream, struct streamkv_error *error)
{
	return begin(kv, from->text, from->n_text_bytes, from, ask_evaluate, ret_stream, error);
}
