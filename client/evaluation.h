/* Evaluations as people and programs read them: one, or several side by side. Those that scored nothing are left out. */
#pragma once

#include "client/scores.h"

/* How the cache was cut (as the daemon told, once it has), and what came. */
struct sk_evaluation {
	struct streamkv_policy policy;
	struct sk_scores scores;
};

bool sk_evaluation_has_scores(const struct sk_evaluation *run);

/* 0, or the exit code of what has been said. */
int sk_evaluation_print(const struct sk_evaluation *run);
int sk_evaluation_print_table(const struct sk_evaluation *runs,
			      unsigned n_runs); /* the first is the baseline if dense */
int sk_evaluation_print_json(const struct sk_evaluation *runs, unsigned n_runs, bool is_list);
