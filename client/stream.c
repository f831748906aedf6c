#include "client/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *streamkv_stop_name(enum streamkv_stop stop)
{
	static const char *const names[] = {"unknown",      "eos",     "limit", "stop", "cancelled",
					    "disconnected", "refused", "error", "done"};
	return stop >= 0 && stop < sizeof names / sizeof *names ? names[stop] : names[0];
}

const char *streamkv_mode_name(int mode)
{
	static const char *const names[] = {"default", "streaming", "window", "dense", "recompute"};
	return mode >= 0 && mode < (int)(sizeof names / sizeof *names) ? names[mode] : "unknown";
}

/* --- Reading --- */

static int keep_text(struct streamkv_stream *stream, const struct sk_slot *slot)
{
	if (!slot->n_text_bytes)
		return 0;
	if (stream->n_text + slot->n_text_bytes > stream->text_allocated) {
		size_t n = 2 * (stream->n_text + slot->n_text_bytes) + 256;
		uint8_t *grown = realloc(stream->text, n);
		if (!grown)
			return -ENOMEM;
		stream->text = grown;
		stream->text_allocated = n;
	}
	memcpy(stream->text + stream->n_text, slot->text, slot->n_text_bytes);
	stream->n_text += slot->n_text_bytes;
	return 0;
}

static void fill_token(struct streamkv_stream *stream, const struct streamkv_slot *from,
		       struct streamkv_token *token)
{
	const struct sk_slot *slot = &from->slot;

	const bool is_token = !(slot->flags & SK_SLOT_NO_TOKEN);

	stream->n_text = 0;
	if (is_token && !stream->first_put_ns)
		stream->first_put_ns = from->put_ns;
	const uint64_t since_ns = stream->first_put_ns ? stream->first_put_ns : from->put_ns;
	*token = (struct streamkv_token){
		.id = is_token ? slot->id : -1,
		.logprob = slot->logprob,
		.seconds = (double)(int64_t)(from->put_ns - since_ns) * 1e-9,
		.handed_ns = from->put_ns,
		.position = stream->n_tokens,
		.live = slot->live,
		.evicted = slot->evicted,
		.special = slot->flags & SK_SLOT_SPECIAL,
		.unscored = slot->flags & SK_SLOT_UNSCORED,
	};
	stream->n_tokens += is_token;
}

/* A step's slot: what was read as its text is numbers. */
static void take_step(struct streamkv_stream *stream, struct streamkv_token *token)
{
	struct sk_slot_step from;

	if (stream->n_text != sizeof from)
		return;
	memcpy(&from, stream->text, sizeof from);
	stream->step = (struct streamkv_step){
		.position = from.position,
		.tokens = from.n_tokens,
		.live = from.live,
		.live_after = from.live_after,
		.sinks = from.n_sink,
		.window_first = from.first,
		.ns = from.step_ns,
	};
	stream->n_text = 0;
	token->step = &stream->step;
}

static void take_begun(struct streamkv_stream *stream, const struct sk_slot *slot)
{
	struct sk_slot_begun from;

	if (slot->n_text_bytes != sizeof from)
		return;
	memcpy(&from, slot->text, sizeof from);
	stream->has_position = true;
	stream->position = from.position;
	stream->prompt_tokens = from.n_prompt_tokens;
}

/* Its slots were published together. */
int streamkv_stream_token(struct streamkv_stream *stream, struct streamkv_token *token,
			  struct streamkv_error *error)
{
	struct streamkv_slot from;
	int got;

	while ((got = streamkv_take_slot(stream, &from)) == 1) {
		const struct sk_slot *slot = &from.slot;
		stream->queue_place = 0;
		if (slot->flags & SK_SLOT_BEGUN) {
			take_begun(stream, slot);
			continue;
		}
		if (!(slot->flags & SK_SLOT_CONTINUES))
			fill_token(stream, &from, token);
		if (keep_text(stream, slot) < 0)
			return streamkv_fail(error, ENOMEM, "not enough memory");
		if (slot->flags & SK_SLOT_MORE)
			continue;
		stream->is_last = slot->flags & SK_SLOT_LAST;
		if (slot->flags & SK_SLOT_STEP)
			take_step(stream, token);
		token->text = stream->text;
		token->n_text_bytes = stream->n_text;
		return 1;
	}
	if (got == -ENOMEM)
		return streamkv_fail(error, ENOMEM, "not enough memory");
	return got < 0 ? streamkv_fail(error, EPROTO,
				       "the daemon's token ring is not of this protocol")
		       : 0;
}

static void finish(struct streamkv_stream *stream, Sk__ServerMessage *message)
{
	const Sk__Finished *from = message->finished;

	stream->stop_string = strndup(from->stop_string.data ? (char *)from->stop_string.data : "",
				      from->stop_string.len);
	stream->result = (struct streamkv_result){
		.stop = (enum streamkv_stop)from->stop,
		.reason = from->reason,
		.error = -from->error,
		.stop_string = stream->stop_string ? stream->stop_string : "",
		.prompt_tokens = from->prompt_tokens,
		.evaluated_tokens = from->evaluated_tokens,
		.reused_tokens = from->reused_tokens,
		.generated_tokens = from->generated_tokens,
		.evicted_tokens = from->evicted_tokens,
		.evictions = from->evictions,
		.live_min = from->live_min,
		.live_max = from->live_max,
		.position = from->position,
		.seed = from->seed,
		.queue_ns = from->queue_ns,
		.prefill_ns = from->prefill_ns,
		.first_token_ns = from->first_token_ns,
		.decode_ns = from->decode_ns,
		.scored_tokens = from->scored_tokens,
		.cache_bytes = from->cache_bytes,
		.steps = from->steps,
		.step_ns = from->step_ns,
		.attention_ns = from->attention_ns,
		.policy = {STREAMKV_DEFAULT, -1, -1, -1},
	};
	if (from->policy)
		streamkv_fill_policy(&stream->result.policy, from->policy);
}

void streamkv_stream_take(struct streamkv_stream *stream, Sk__ServerMessage *message)
{
	bool is_finished = message->body_case == SK__SERVER_MESSAGE__BODY_FINISHED,
	     is_failed = message->body_case == SK__SERVER_MESSAGE__BODY_FAILED;

	if (message->body_case == SK__SERVER_MESSAGE__BODY_PROGRESS) {
		stream->prompt_tokens = message->progress->prompt_tokens;
		stream->evaluated_tokens = message->progress->evaluated_tokens;
		stream->queue_place = message->progress->queue_place;
	}
	const bool is_answered =
		stream->is_call && message->body_case == SK__SERVER_MESSAGE__BODY_SESSION;
	if (stream->is_finished || (!is_finished && !is_failed && !is_answered)) {
		sk__server_message__free_unpacked(message, NULL);
		return;
	}
	stream->finished = message;
	stream->is_finished = true;
	if (is_finished) {
		finish(stream, message);
		return;
	}
	stream->is_last = true;
	stream->result.reason = stream->result.stop_string = "";
	if (is_answered) {
		stream->result.stop = STREAMKV_STOP_DONE;
		return;
	}
	stream->result.stop = STREAMKV_STOP_REFUSED;
	stream->result.error = message->failed->error > 0 ? -message->failed->error : -EIO;
}

int streamkv_stream_end(struct streamkv_stream *stream, struct streamkv_error *error)
{
	const Sk__ServerMessage *message = stream->finished;
	bool is_news = !stream->is_told;

	stream->is_told = true;
	return message->body_case == SK__SERVER_MESSAGE__BODY_FAILED && is_news
		       ? streamkv_fail(error, -stream->result.error, "%s", message->failed->reason)
		       : 0;
}

int streamkv_next(struct streamkv_stream *stream, int timeout_ms, struct streamkv_token *ret_token,
		  struct streamkv_error *error)
{
	struct streamkv *kv = stream->kv;

	if (!kv)
		return streamkv_fail(error, ECONNRESET, "the connection was closed");
	for (;;) {
		int got = stream->is_last ? 0 : streamkv_stream_token(stream, ret_token, error);
		if (got != 0)
			return got;
		/* Finished comes after the ring's last slot; where there is none (refused,
		 * disconnected), it is the end. */
		if (stream->is_finished)
			return streamkv_stream_end(stream, error);
		bool has_slot = !stream->is_last && sk_ring_reader_wait(kv->ring);
		if (has_slot)
			continue;
		got = streamkv_take_messages(kv, error);
		if (got < 0 && !stream->is_finished) {
			/* What the daemon had still written is read before its end is told. */
			struct streamkv_error ignored;
			int rest = stream->is_last
					   ? 0
					   : streamkv_stream_token(stream, ret_token, &ignored);
			return rest == 1 ? 1 : got;
		}
		if (stream->is_finished)
			continue;
		got = streamkv_wait(kv, stream->is_last ? -1 : sk_ring_reader_doorbell(kv->ring),
				    timeout_ms, error);
		if (got < 0)
			return got;
	}
}

void streamkv_progress(const struct streamkv_stream *stream, uint64_t *ret_prompt_tokens,
		       uint64_t *ret_evaluated)
{
	*ret_prompt_tokens = stream->prompt_tokens;
	*ret_evaluated = stream->evaluated_tokens;
}

bool streamkv_position(const struct streamkv_stream *stream, uint64_t *ret_position)
{
	const uint64_t n = stream->n_tokens;
	if (stream->has_position)
		*ret_position = stream->position + (n ? stream->prompt_tokens + n : 0);
	return stream->has_position;
}

bool streamkv_is_read(const struct streamkv_stream *stream)
{
	return stream->is_last;
}

uint32_t streamkv_queue_place(const struct streamkv_stream *stream)
{
	return stream->queue_place;
}

int streamkv_cancel(struct streamkv_stream *stream, struct streamkv_error *error)
{
	Sk__ClientMessage message = SK__CLIENT_MESSAGE__INIT;
	Sk__Cancel cancel = SK__CANCEL__INIT;

	if (!stream->kv)
		return streamkv_fail(error, ECONNRESET, "the connection was closed");
	cancel.target = stream->request;
	message.body_case = SK__CLIENT_MESSAGE__BODY_CANCEL;
	message.cancel = &cancel;
	return streamkv_send(stream->kv, &message, NULL, 0, error);
}

const struct streamkv_result *streamkv_result(const struct streamkv_stream *stream)
{
	return &stream->result;
}

void streamkv_set_context(struct streamkv_stream *stream, void *context)
{
	stream->context = context;
}

void *streamkv_context(const struct streamkv_stream *stream)
{
	return stream->context;
}

void streamkv_stream_close(struct streamkv_stream *stream)
{
	if (!stream)
		return;
	if (stream->kv) {
		if (!stream->is_finished && !stream->is_call && !stream->kv->is_broken)
			(void)streamkv_cancel(stream, NULL);
		sk_list_remove(&stream->node);
	}
	if (stream->finished)
		sk__server_message__free_unpacked(stream->finished, NULL);
	free(stream->stop_string);
	free(stream->queue);
	free(stream->text);
	free(stream);
}
