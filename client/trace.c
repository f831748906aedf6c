#include "client/trace.h"

int sk_trace_open(struct sk_trace *trace, const char *path)
{
	*trace = (struct sk_trace){.has_step = false};
	return sk_csv_open(
		&trace->csv, path,
		"position,tokens,live,live_after,evicted,sink_end,window_first,window_end,"
		"step_ms,id,logprob\n");
}

static void write_step(struct sk_trace *trace, const struct streamkv_token *token)
{
	const struct streamkv_step *s = &trace->step;

	if (!trace->has_step)
		return;
	trace->has_step = false;
	sk_csv_write(&trace->csv, "%llu,%u,%u,%u,%u,%u,%llu,%llu,%.4f,",
		     (unsigned long long)s->position, s->tokens, s->live, s->live_after,
		     s->live + s->tokens - s->live_after, s->sinks,
		     (unsigned long long)s->window_first,
		     (unsigned long long)s->position + s->tokens, (double)s->ns * 1e-6);
	if (token)
		sk_csv_write(&trace->csv, "%d,%.7g\n", token->id, (double)token->logprob);
	else
		sk_csv_write(&trace->csv, ",\n");
}

void sk_trace_step(struct sk_trace *trace, const struct streamkv_step *step)
{
	write_step(trace, NULL);
	trace->step = *step;
	trace->has_step = true;
}

void sk_trace_token(struct sk_trace *trace, const struct streamkv_token *token)
{
	write_step(trace, token);
}

int sk_trace_close(struct sk_trace *trace)
{
	write_step(trace, NULL);
	return sk_csv_close(&trace->csv);
}
