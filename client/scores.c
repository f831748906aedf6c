#include "client/scores.h"

#include <errno.h>
#include <math.h>

const char sk_scores_csv_header[] = "pos,id,logprob,live\n";

double sk_scores_perplexity(const struct sk_scores *scores)
{
	return scores->n_scored ? exp(scores->nll / (double)scores->n_scored) : NAN;
}

double sk_scores_per_second(const struct sk_scores *scores)
{
	return scores->seconds > 0 ? (double)scores->n_scored / scores->seconds : 0;
}

static void show(const struct sk_scores_output *output, const struct streamkv_stream *stream,
		 const struct sk_scores *scores)
{
	char what[96];
	uint64_t n_all, n_run;

	streamkv_progress(stream, &n_all, &n_run);
	if (output->quiet || sk_show_place(stream) || !n_all)
		return;
	snprintf(what, sizeof what, "%s perplexity %.3f", output->label,
		 sk_scores_perplexity(scores));
	sk_terminal_bar(what, (double)scores->n_tokens / (double)n_all,
			sk_scores_per_second(scores), "tokens");
}

static void take(const struct sk_scores_output *output, const struct streamkv_token *token,
		 struct sk_scores *scores)
{
	if (token->step && output->trace)
		sk_trace_step(output->trace, token->step);
	if (token->id < 0)
		return;
	scores->n_tokens++;
	if (token->unscored)
		return;
	scores->n_scored++;
	scores->nll -= (double)token->logprob;
	if (output->per_token)
		sk_csv_write(output->per_token, "%llu,%d,%.9g,%u\n",
			     (unsigned long long)token->position, token->id, (double)token->logprob,
			     token->live);
}

static bool has_failed(const struct sk_scores_output *output)
{
	return (output->per_token && sk_csv_failed(output->per_token)) ||
	       (output->trace && sk_csv_failed(&output->trace->csv));
}

static int conclude(const struct sk_scores_output *output, const struct streamkv_result *result,
		    struct sk_scores *scores)
{
	scores->result = *result;
	scores->result.reason = scores->result.stop_string = "";
	scores->is_whole = result->stop == STREAMKV_STOP_DONE;
	if (result->stop == STREAMKV_STOP_CANCELLED && (sk_interrupted() || has_failed(output)))
		return 0;
	return sk_conclude(result, NULL);
}

int sk_scores_run(struct streamkv *kv, const struct streamkv_evaluate *ask,
		  const struct sk_scores_output *output, struct sk_scores *ret_scores)
{
	struct streamkv_stream *stream;
	struct streamkv_error error;
	struct streamkv_token token;
	struct sk_scores scores = {.result.policy = {STREAMKV_DEFAULT, -1, -1, -1}};
	double begun_s = sk_now_s(), shown_s = begun_s;
	bool is_cancelled = false;

	*ret_scores = scores;
	int got = streamkv_evaluate(kv, ask, &stream, &error);
	if (got < 0)
		return sk_said(sk_exit_code_of(got), "%s", error.text);
	for (;;) {
		if ((sk_interrupted() || has_failed(output)) && !is_cancelled) {
			is_cancelled = true;
			(void)streamkv_cancel(stream, NULL);
		}
		got = streamkv_next(stream, 100, &token, &error);
		if (got == 1)
			take(output, &token, &scores);
		else if (got != -EINTR && got != -ETIMEDOUT)
			break;
		scores.seconds = sk_now_s() - begun_s;
		if (scores.seconds > 0.5 && begun_s + scores.seconds - shown_s > 0.1) {
			shown_s = begun_s + scores.seconds;
			show(output, stream, &scores);
		}
	}
	sk_terminal_clear();
	/* The daemon's own time where it told one: tokenising and queueing are not evaluating. */
	int exit_code = got < 0 ? sk_said(sk_exit_code_of(got), "%s", error.text)
				: conclude(output, streamkv_result(stream), &scores);
	if (scores.is_whole)
		scores.seconds = (double)scores.result.prefill_ns * 1e-9;
	streamkv_stream_close(stream);
	*ret_scores = scores;
	return exit_code;
}
