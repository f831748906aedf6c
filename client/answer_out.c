#include "client/answer_out.h"

#include "client/json_out.h"
#include "client/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* JSON wants UTF-8; a byte that is none is told as U+FFFD, and the id tells exactly. */
static json_t *text_of(const uint8_t *text, size_t n_bytes)
{
	json_t *string = json_stringn((const char *)text, n_bytes);
	if (string)
		return string;
	char *clean = malloc(3 * n_bytes + 1);
	size_t n = 0;
	for (size_t i = 0; clean && i < n_bytes; i++) {
		if (text[i] < 0x80) {
			clean[n++] = (char)text[i];
		} else {
			memcpy(clean + n, "\xef\xbf\xbd", 3);
			n += 3;
		}
	}
	string = clean ? json_stringn(clean, n) : NULL;
	free(clean);
	return string ? string : json_string("");
}

static int print_object(json_t *object)
{
	return sk_json_print(object, JSON_COMPACT | JSON_REAL_PRECISION(9));
}

int sk_answer_token(struct sk_answer_out *out, const struct streamkv_token *token)
{
	if (token->step) {
		sk_trace_step(&out->trace, token->step);
		return 0;
	}
	if (token->id >= 0)
		sk_trace_token(&out->trace, token);
	if (!out->json) {
		if (token->n_text_bytes)
			out->ends_line = token->text[token->n_text_bytes - 1] == '\n';
		return sk_write_out(token->text, token->n_text_bytes);
	}
	json_t *object = json_object();
	json_object_set_new(object, "text", text_of(token->text, token->n_text_bytes));
	if (token->id >= 0) {
		json_object_set_new(object, "id", json_integer(token->id));
		json_object_set_new(object, "logprob", json_real((double)token->logprob));
		json_object_set_new(object, "live", json_integer(token->live));
		json_object_set_new(object, "evicted", json_integer(token->evicted));
		json_object_set_new(object, "seconds", json_real(token->seconds));
	}
	return print_object(object);
}

static int print_end_json(const struct streamkv_result *r, unsigned untold)
{
	const struct {
		const char *name;
		uint64_t value;
		unsigned of; /* left out where this is untold */
	} numbers[] = {
		{"prompt_tokens", r->prompt_tokens, SK_UNTOLD_PROMPT},
		{"evaluated_tokens", r->evaluated_tokens, SK_UNTOLD_RUN},
		{"reused_tokens", r->reused_tokens, SK_UNTOLD_RUN},
		{"generated_tokens", r->generated_tokens, 0},
		{"evicted_tokens", r->evicted_tokens, SK_UNTOLD_RUN},
		{"evictions", r->evictions, SK_UNTOLD_RUN},
		{"live_min", r->live_min, SK_UNTOLD_RUN},
		{"live_max", r->live_max, SK_UNTOLD_RUN},
		{"position", r->position, SK_UNTOLD_POSITION},
		{"seed", r->seed, SK_UNTOLD_SEED},
		{"queue_ns", r->queue_ns, SK_UNTOLD_RUN},
		{"prefill_ns", r->prefill_ns, SK_UNTOLD_RUN},
		{"first_token_ns", r->first_token_ns, 0},
		{"decode_ns", r->decode_ns, 0},
	};
	json_t *object = json_object();
	json_object_set_new(object, "stop", json_string(streamkv_stop_name(r->stop)));
	json_object_set_new(object, "reason",
			    text_of((const uint8_t *)r->reason, strlen(r->reason)));
	if (r->stop == STREAMKV_STOP_STRING)
		json_object_set_new(
			object, "stop_string",
			text_of((const uint8_t *)r->stop_string, strlen(r->stop_string)));
	for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		if (!(numbers[i].of & untold)) /* a seed keeps its bits, as a signed number */
			json_object_set_new(object, numbers[i].name,
					    json_integer((json_int_t)numbers[i].value));
	}
	return print_object(object);
}

static void say_prompt(const struct streamkv_result *r, unsigned untold)
{
	const double prefill_s = (double)r->prefill_ns * 1e-9;
	if (untold & SK_UNTOLD_PROMPT)
		return;
	fprintf(stderr, "  prompt     %llu tokens", (unsigned long long)r->prompt_tokens);
	if (!(untold & SK_UNTOLD_RUN))
		fprintf(stderr, ", %llu evaluated in %.2f s (%.0f tokens/s), %llu reused",
			(unsigned long long)r->evaluated_tokens, prefill_s,
			prefill_s > 0 ? (double)r->evaluated_tokens / prefill_s : 0,
			(unsigned long long)r->reused_tokens);
	fputc('\n', stderr);
}

static void say_cache(const struct streamkv_result *r, unsigned untold)
{
	const char *before = "  cache      ";
	if (!(untold & SK_UNTOLD_RUN)) {
		fprintf(stderr, "%s%llu to %llu entries live, %llu evicted in %llu cuts", before,
			(unsigned long long)r->live_min, (unsigned long long)r->live_max,
			(unsigned long long)r->evicted_tokens, (unsigned long long)r->evictions);
		before = "; ";
	}
	if (!(untold & SK_UNTOLD_POSITION)) {
		fprintf(stderr, "%stext position %llu", before, (unsigned long long)r->position);
		before = "; ";
	}
	if (!(untold & SK_UNTOLD_SEED)) {
		fprintf(stderr, "%sseed %llu", before, (unsigned long long)r->seed);
		before = "; ";
	}
	if (before[0] == ';')
		fputc('\n', stderr);
}

static void say_stats(const struct streamkv_result *r, unsigned untold)
{
	const double per_token = r->generated_tokens > 1 ? (double)r->decode_ns * 1e-6 /
								   (double)(r->generated_tokens - 1)
							 : 0;
	fprintf(stderr, "streamkv-client: %s%s%s\n", streamkv_stop_name(r->stop),
		r->reason[0] ? ": " : "", r->reason);
	say_prompt(r, untold);
	fprintf(stderr,
		"  generated  %llu tokens, first after %.0f ms, then %.2f ms each (%.1f "
		"tokens/s)\n",
		(unsigned long long)r->generated_tokens, (double)r->first_token_ns * 1e-6,
		per_token, per_token > 0 ? 1000 / per_token : 0);
	say_cache(r, untold);
}

static void say_trace(const struct streamkv_result *r, unsigned untold)
{
	if (untold & SK_UNTOLD_RUN)
		sk_said(0, "trace: %llu steps", (unsigned long long)r->steps);
	else
		sk_said(0,
			"trace: %llu steps, %llu entries evicted in %llu cuts, %llu to %llu live",
			(unsigned long long)r->steps, (unsigned long long)r->evicted_tokens,
			(unsigned long long)r->evictions, (unsigned long long)r->live_min,
			(unsigned long long)r->live_max);
}

int sk_answer_end(const struct sk_answer_out *out, const struct streamkv_result *result,
		  unsigned untold)
{
	int err = 0;

	if (out->json)
		err = print_end_json(result, untold);
	else if (isatty(STDOUT_FILENO) && !out->ends_line && result->generated_tokens)
		err = sk_write_out("\n", 1);
	if (out->stats)
		say_stats(result, untold);
	else if (out->has_trace && !out->json && !out->quiet)
		say_trace(result, untold);
	if (!out->stats && result->stop == STREAMKV_STOP_LIMIT && result->reason[0] && !out->quiet)
		sk_said(0, "%s", result->reason);
	return err;
}
