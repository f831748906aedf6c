#include "client/trace.h"

#include "client/command.h"

#include <errno.h>
#include <string.h>

int sk_trace_open(struct sk_trace *trace, const char *path)
{
	*trace = (struct sk_trace){.path = path};
	if (!path)
		return 0;
	trace->file = fopen(path, "we");
	if (!trace->file)
		return sk_said(EX_CANTCREAT, "%s: %s", path, strerror(errno));
	fputs("position,tokens,live,live_after,evicted,sink_end,window_first,window_end,step_ms,id,"
	      "logprob\n",
	      trace->file);
	return 0;
}

static void write_step(struct sk_trace *trace, const struct streamkv_token *token)
{
	const struct streamkv_step *s = &trace->step;

	if (!trace->has_step)
		return;
	trace->has_step = false;
	fprintf(trace->file, "%llu,%u,%u,%u,%u,%u,%llu,%llu,%.4f,", (unsigned long long)s->position,
		s->tokens, s->live, s->live_after, s->live + s->tokens - s->live_after, s->sinks,
		(unsigned long long)s->window_first, (unsigned long long)s->position + s->tokens,
		(double)s->ns * 1e-6);
	if (token)
		fprintf(trace->file, "%d,%.7g\n", token->id, (double)token->logprob);
	else
		fputs(",\n", trace->file);
}

void sk_trace_step(struct sk_trace *trace, const struct streamkv_step *step)
{
	if (!trace->file)
		return;
	write_step(trace, NULL);
	trace->step = *step;
	trace->has_step = true;
}

void sk_trace_token(struct sk_trace *trace, const struct streamkv_token *token)
{
	if (trace->file)
		write_step(trace, token);
}

int sk_trace_close(struct sk_trace *trace)
{
	if (!trace->file)
		return 0;
	write_step(trace, NULL);
	bool is_bad = ferror(trace->file);
	is_bad |= fclose(trace->file) != 0;
	trace->file = NULL;
	return is_bad ? sk_said(EX_IOERR, "%s: %s", trace->path, strerror(errno)) : 0;
}
