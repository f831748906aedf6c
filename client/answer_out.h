/* An answer on its way out: text or JSON to standard output, a trace to its file, how it went to standard error. */
#pragma once

#include "client/command.h"
#include "client/trace.h"

struct sk_answer_out {
	bool json, stats, quiet, has_trace;
	struct sk_trace trace;
	bool ends_line; /* the text does, so far */
};

/* 0, or the exit code of a fault that has been said. */
int sk_answer_token(struct sk_answer_out *out, const struct streamkv_token *token);
/* untold: which of its figures are unknown (client/parts.h), and so left out. */
int sk_answer_end(const struct sk_answer_out *out, const struct streamkv_result *result,
		  unsigned untold);
