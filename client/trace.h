/* The steps of the model as a CSV file, a row a step, with the token that it drew where it drew one. A
 * value to embed; zeroed writes nothing.
 */
#pragma once

#include "client/csv.h"
#include "client/streamkv.h"

struct sk_trace {
	struct sk_csv csv;
	bool has_step; /* one that is not written yet */
	struct streamkv_step step;
};

/* path NULL: nothing will be written. 0, or the exit code of what has been said. */
int sk_trace_open(struct sk_trace *trace, const char *path);
void sk_trace_step(struct sk_trace *trace, const struct streamkv_step *step);
/* The token that the last step drew. */
void sk_trace_token(struct sk_trace *trace, const struct streamkv_token *token);
int sk_trace_close(struct sk_trace *trace); /* as sk_csv_close() */
