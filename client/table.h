/* Prints what was measured: the reference user's table, one quantity a row and dense beside streaming, or a
 * row for each of many configurations; as text, Markdown, CSV or JSON. What was not measured stays empty.
 */
#pragma once

#include "client/measure.h"

enum sk_table_form { SK_TABLE_TEXT, SK_TABLE_MARKDOWN, SK_TABLE_CSV, SK_TABLE_JSON };

struct sk_table {
	const struct sk_subject *subject;
	const struct sk_measure *measures; /* a dense one is the first, and the baseline */
	unsigned n_measures;
	bool is_grid;  /* a row each */
	bool is_whole; /* not interrupted */
};

/* Those of the measures that have been scored, to standard output: 0, or the exit code. */
int sk_table_print(const struct sk_table *table, enum sk_table_form form);

/* --- What the forms share --- */

int sk_table_print_json(const struct sk_table *table);
/* Whether it has been scored. */
bool sk_table_shows(const struct sk_measure *measure);
/* The dense one, where it has been scored; else NULL. */
const struct sk_measure *sk_table_baseline(const struct sk_table *table);
