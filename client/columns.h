/* A table for people: a heading, and rows of short cells in columns as wide as they need to be. A value to embed. */
#pragma once

#include "client/page.h"

#define SK_CELL_BYTES 72

struct sk_columns {
	const char *const *
		names; /* of its columns; those that begin with '>' hold numbers, which lie on the right */
	unsigned n_columns;
	char (*cells)[SK_CELL_BYTES];
	size_t n_cells, n_allocated;
	bool is_short; /* of memory: cells are missing, and nothing will be put */
};

void sk_columns_init(struct sk_columns *table,
		     const char *const *names); /* NULL-ended; the caller keeps them */
void sk_columns_finish(struct sk_columns *table);
/* The next cell, row by row. */
void sk_columns_add(struct sk_columns *table, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
size_t sk_columns_n_rows(const struct sk_columns *table);
/* Puts it on the page, in at most so many lines, of which the last then says how many rows there are more: 0 or -ENOMEM. */
int sk_columns_put(const struct sk_columns *table, struct sk_page *page, size_t most_lines);
