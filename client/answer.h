/* One answer, asked for and printed, which may come from several daemons in turn: where one goes away in the middle of an
 * answer on a named session, the next one goes on with it.
 */
#pragma once

#include "client/answer_out.h"
#include "client/parts.h"

struct sk_answer {
	const char *socket;
	struct streamkv_generate ask;
	struct sk_answer_out out;
	double retry_s; /* so long another daemon is waited for; 0: not at all */
	bool waits;     /* also for the first one, and after an orderly end: it was asked for */

	/* sk_answer_run()'s: */
	struct sk_parts parts;
	double deadline_s; /* by sk_now_s(): set with the first loss since a token came; 0: none */
	unsigned n_losses; /* since then */
	bool ends_with_token;
};

/* The exit code, after all has been said. */
int sk_answer_run(struct sk_answer *answer);
