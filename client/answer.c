#include "client/answer.h"

#include "client/trace.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define MOST_LOSSES 3 /* in a row, without a token: it may be the request that they die of */

static void show_prefill(const struct sk_answer *answer, const struct streamkv_stream *stream,
			 double *begun_s)
{
	uint64_t n_prompt, n_done;
	if (answer->out.quiet)
		return;
	if (sk_show_place(stream)) {
		*begun_s = sk_now_s(); /* of reading the prompt */
		return;
	}
	double passed_s = sk_now_s() - *begun_s;
	streamkv_progress(stream, &n_prompt, &n_done);
	if (n_prompt && passed_s > 0.5)
		sk_terminal_bar("reading the prompt", (double)n_done / (double)n_prompt,
				(double)n_done / passed_s, "tokens");
}

/* Prints tokens until the end: 0, the error where the daemon has gone or goes (`error` says so), or the exit code of a
 * fault. */
static int follow(struct sk_answer *answer, struct streamkv_stream *stream,
		  struct streamkv_error *error)
{
	struct streamkv_token token;
	double begun_s = sk_now_s();
	bool is_cancelled = false, has_token = answer->parts.n_tokens;
	int got, err = 0;

	for (;;) {
		if (sk_interrupted() && !is_cancelled) {
			is_cancelled = true;
			(void)streamkv_cancel(stream, NULL);
		}
		got = streamkv_next(stream, has_token ? 1000 : 100, &token, error);
		if (got == -EINTR || got == -ETIMEDOUT) {
			if (!has_token)
				show_prefill(answer, stream, &begun_s);
			continue;
		}
		if (got != 1)
			break;
		if (!token.step) {
			if (!has_token)
				sk_terminal_clear();
			has_token = true;
			answer->ends_with_token = token.id >= 0;
		}
		sk_parts_token(&answer->parts, &token);
		if (token.id >= 0)
			answer->deadline_s = answer->n_losses = 0;
		err = sk_answer_token(&answer->out, &token);
		if (!err && sk_csv_failed(&answer->out.trace.csv))
			err = sk_trace_close(&answer->out.trace);
		if (err)
			return err; /* closing the stream cancels it */
	}
	sk_terminal_clear();
	if (got == -ECONNRESET || got == -ESHUTDOWN)
		return got;
	return got < 0 ? sk_said(sk_exit_code_of(got), "%s", error->text) : 0;
}

/* Whether another daemon is to be waited for, now that this one has gone. */
static bool waits(struct sk_answer *answer)
{
	if (answer->retry_s <= 0 || sk_interrupted() || ++answer->n_losses > MOST_LOSSES)
		return false;
	if (answer->deadline_s <= 0)
		answer->deadline_s = sk_now_s() + answer->retry_s;
	return sk_now_s() < answer->deadline_s;
}

/* What is asked of the next daemon. False: nothing can be. */
static bool go_on(struct sk_answer *answer, const struct streamkv_stream *stream)
{
	struct streamkv_generate *ask = &answer->ask;

	if (!ask->session || !waits(answer))
		return false;
	if (!streamkv_position(stream,
			       &ask->resumed_at)) /* it never began: asked again as it was */
		return ask->resumes || !answer->parts.n_tokens;
	ask->resumes = true;
	ask->resumed_given = answer->parts.n_tokens;
	if (!answer->parts.n_tokens)
		return true;
	ask->n_prompt_bytes = 0;
	ask->chat = ask->system = NULL;
	ask->has_seed = false;
	return true;
}

static int end(struct sk_answer *answer, const struct streamkv_stream *stream)
{
	struct streamkv_result result;
	const unsigned untold = sk_parts_end(&answer->parts, stream, &result);
	const int exit_code = sk_answer_end(&answer->out, &result, untold);
	return exit_code ? exit_code : sk_conclude(&result, NULL);
}

/* All of it has come, but not how it ended. A token at the end is the answer's; else something was said of it. */
static int end_unknown(struct sk_answer *answer, const struct streamkv_stream *stream)
{
	struct streamkv_result result;
	const unsigned untold = sk_parts_end(&answer->parts, stream, &result);
	result.reason = "the daemon went away before it could say how it ended";
	result.stop_string = "";
	const int exit_code = sk_answer_end(&answer->out, &result, untold);
	if (exit_code || answer->ends_with_token)
		return exit_code;
	return sk_said(EX_TEMPFAIL, "%s", result.reason);
}

/* The daemon has gone, or goes. */
static int lost(struct sk_answer *answer, const struct streamkv_stream *stream, int err,
		const char *reason, bool *ret_again)
{
	const bool is_orderly = err != -ECONNRESET;

	if (sk_interrupted())
		return 128 + sk_interrupted();
	*ret_again =
		(!is_orderly || answer->waits) && (stream ? go_on(answer, stream) : waits(answer));
	if (*ret_again && stream)
		sk_parts_break(&answer->parts, stream);
	if (*ret_again)
		return 0;
	if (answer->n_losses > MOST_LOSSES)
		return sk_said(EX_TEMPFAIL, "%u daemons in turn have gone away with this request",
			       answer->n_losses);
	return err ? sk_said(sk_exit_code_of(err), "%s", reason) : end(answer, stream);
}

/* On one connection. *ret_again: there is something to ask the next daemon. */
static int try_once(struct sk_answer *answer, struct streamkv *kv, bool *ret_again)
{
	struct streamkv_stream *stream;
	struct streamkv_error error = {""};

	*ret_again = false;
	sk_parts_ask(&answer->parts, &answer->ask);
	int code = streamkv_generate(kv, &answer->ask, &stream, &error);
	if (code == -ECONNRESET)
		return lost(answer, NULL, code, error.text, ret_again);
	if (code < 0)
		return sk_said(sk_exit_code_of(code), "%s", error.text);
	code = follow(answer, stream, &error);
	const struct streamkv_result *result = streamkv_result(stream);
	if (code == -ECONNRESET && streamkv_is_read(stream))
		code = end_unknown(answer, stream);
	else if (code == -ECONNRESET || code == -ESHUTDOWN ||
		 (!code && result->stop == STREAMKV_STOP_CANCELLED && !sk_interrupted()))
		code = lost(answer, stream, code, error.text, ret_again);
	else if (!code)
		code = end(answer, stream);
	streamkv_stream_close(stream);
	return code;
}

int sk_answer_run(struct sk_answer *answer)
{
	bool is_again = true;
	int exit_code = 0;

	sk_interrupt_catch();
	struct streamkv *kv =
		sk_connect_within(answer->socket, answer->waits ? answer->retry_s : 0, &exit_code);
	while (kv && is_again) {
		exit_code = try_once(answer, kv, &is_again);
		streamkv_close(kv); /* tells how far it was read, before another daemon looks */
		kv = NULL;
		if (!is_again)
			break;
		if (!answer->out.quiet && isatty(STDERR_FILENO))
			sk_said(0, "the daemon has gone away; going on with the next one");
		kv = sk_connect_within(answer->socket, answer->deadline_s - sk_now_s(), &exit_code);
		if (!kv && !sk_interrupted())
			exit_code =
				sk_said(EX_TEMPFAIL,
					"the daemon has gone away, and no other has come in its "
					"stead within %.3g s",
					answer->retry_s);
	}
	return exit_code;
}
