/* The quantities of a comparison as people and programs read them: names, labels, units. A table in order;
 * no state.
 */
#pragma once

#include "client/measure.h"

struct sk_field {
	enum sk_quantity quantity;
	const char *name;   /* in JSON and CSV; NULL: in neither */
	const char *label;  /* of its row, with the unit; NULL ends the table */
	const char *column; /* its heading for people where configurations are rows; NULL: none */
	double unit;        /* people are shown the value / unit ... */
	int n_decimals;     /* ... with so many decimals */
	bool is_whole;      /* a whole number */
	bool is_common;     /* the same for all configurations: needs no column for people */
	bool has_range;     /* of several runs: a median, a least and a most */
};

#define SK_N_FIELDS 14
extern const struct sk_field sk_fields[SK_N_FIELDS + 1];
