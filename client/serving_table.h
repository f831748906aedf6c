/* Prints how a load was served: as text in sections, Markdown, a row of CSV or a JSON object, which have the same names.
 */
#pragma once

#include "client/load.h"
#include "client/serving.h"
#include "client/table.h"

struct sk_serving_table {
	const char *label, *model, *backend; /* of the daemon */
	double started_s;                    /* by the clock on the wall, since 1970 */
	unsigned n_places;                   /* requests of a client at once */
	double rate, burstiness;             /* requests a second; 0: a closed loop */
	bool has_goodput;
	double client_cpu_s; /* that this process took meanwhile */
	struct {
		uint64_t requests, prompt_tokens, generated_tokens, steps;
	} daemon; /* what it counted meanwhile, others' among it */
	const struct sk_load *load;
	struct sk_serving *serving; /* its samples are sorted */
};

/* 0, or the exit code. */
int sk_serving_print(const struct sk_serving_table *table, enum sk_table_form form);
