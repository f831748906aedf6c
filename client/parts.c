#include "client/parts.h"

#include "client/command.h"

void sk_parts_ask(struct sk_parts *parts, const struct streamkv_generate *ask)
{
	if (parts->n_asked++)
		return;
	parts->asked_s = sk_now_s();
	parts->has_seed = ask->has_seed;
	parts->seed = ask->seed;
}

void sk_parts_token(struct sk_parts *parts, struct streamkv_token *token)
{
	parts->n_steps += token->step != NULL;
	if (token->id >= 0) {
		parts->n_tokens++;
		parts->last_ns = token->handed_ns;
		if (!parts->first_ns)
			parts->first_ns = token->handed_ns;
	}
	if (parts->first_ns)
		token->seconds = (double)(int64_t)(token->handed_ns - parts->first_ns) * 1e-9;
}

/* Whether the daemon said how it went with what had begun. */
static bool is_told(const struct streamkv_result *result)
{
	return result->stop != STREAMKV_STOP_UNKNOWN && result->stop != STREAMKV_STOP_REFUSED;
}

/* Each part evaluates the last token of the one before it, so nothing counts twice. */
static void add(struct streamkv_result *to, const struct streamkv_result *part)
{
	if (part->steps && (!to->steps || part->live_min < to->live_min))
		to->live_min = part->live_min;
	if (part->live_max > to->live_max)
		to->live_max = part->live_max;
	to->evaluated_tokens += part->evaluated_tokens;
	to->evicted_tokens += part->evicted_tokens;
	to->evictions += part->evictions;
	to->steps += part->steps;
	to->step_ns += part->step_ns;
	to->attention_ns += part->attention_ns;
}

void sk_parts_break(struct sk_parts *parts, const struct streamkv_stream *stream)
{
	const struct streamkv_result *result = streamkv_result(stream);
	const uint64_t n_before = parts->n_before;
	uint64_t n_done;

	parts->n_before = parts->n_tokens;
	if (!parts->n_tokens) /* all of it is asked for again */
		return;
	if (is_told(result) && !n_before)
		parts->sum = *result;
	else if (is_told(result))
		add(&parts->sum, result);
	else if (parts->n_tokens > n_before)
		parts->is_untold = true;
	if (!n_before)
		streamkv_progress(stream, &parts->sum.prompt_tokens, &n_done);
}

/* What the client has seen for itself. */
static void fill_seen(const struct sk_parts *parts, struct streamkv_result *to)
{
	to->generated_tokens = parts->n_tokens;
	to->decode_ns = parts->last_ns - parts->first_ns;
	if (!to->first_token_ns && parts->first_ns)
		to->first_token_ns = parts->first_ns - (uint64_t)(parts->asked_s * 1e9);
}

unsigned sk_parts_end(const struct sk_parts *parts, const struct streamkv_stream *stream,
		      struct streamkv_result *ret_result)
{
	struct streamkv_result *r = ret_result;
	const struct streamkv_result last = *streamkv_result(stream);
	const bool has_before = parts->n_before > 0, is_last_told = is_told(&last);
	uint64_t n_prompt, n_done;
	unsigned untold = 0;

	*r = last;
	if (!has_before && last.stop != STREAMKV_STOP_UNKNOWN) {
		if (parts->n_asked > 1)
			r->first_token_ns = 0;
		if (parts->n_asked > 1 && parts->first_ns)
			fill_seen(parts, r);
		return 0;
	}
	if (has_before) {
		*r = parts->sum;
		r->stop = last.stop;
		r->reason = last.reason;
		r->error = last.error;
		r->stop_string = last.stop_string;
		r->position = last.position;
		r->seed = last.seed;
		r->policy = last.policy;
		r->cache_bytes =
			last.cache_bytes > r->cache_bytes ? last.cache_bytes : r->cache_bytes;
		add(r, &last);
	} else {
		streamkv_progress(stream, &n_prompt, &n_done);
		r->prompt_tokens = n_prompt;
		if (!n_prompt && !streamkv_position(stream, &r->position))
			untold |= SK_UNTOLD_PROMPT;
	}
	fill_seen(parts, r);
	if (parts->is_untold || (!is_last_told && parts->n_tokens > parts->n_before)) {
		untold |= SK_UNTOLD_RUN;
		r->steps = parts->n_steps;
	}
	if (!is_last_told && !streamkv_position(stream, &r->position))
		untold |= SK_UNTOLD_POSITION;
	if (!is_last_told && !parts->has_seed)
		untold |= SK_UNTOLD_SEED;
	if (parts->has_seed)
		r->seed = parts->seed;
	return untold;
}
