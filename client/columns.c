#include "client/columns.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define MOST_COLUMNS 16

void sk_columns_init(struct sk_columns *table, const char *const *names)
{
	*table = (struct sk_columns){.names = names};
	while (names[table->n_columns])
		table->n_columns++;
}

static bool is_number(const struct sk_columns *table, unsigned column)
{
	return table->names[column][0] == '>';
}

static const char *heading(const struct sk_columns *table, unsigned column)
{
	return table->names[column] + is_number(table, column);
}

void sk_columns_finish(struct sk_columns *table)
{
	free(table->cells);
}

void sk_columns_add(struct sk_columns *table, const char *format, ...)
{
	if (table->n_cells == table->n_allocated) {
		size_t n = 2 * table->n_allocated + 256;
		void *grown = realloc(table->cells, n * sizeof *table->cells);
		if (!grown) {
			table->is_short = true;
			return;
		}
		table->cells = grown;
		table->n_allocated = n;
	}
	va_list args;
	va_start(args, format);
	vsnprintf(table->cells[table->n_cells++], SK_CELL_BYTES, format, args);
	va_end(args);
}

size_t sk_columns_n_rows(const struct sk_columns *table)
{
	return table->n_cells / table->n_columns;
}

/* Of the heading where `cells` is NULL. */
static void put_row(const struct sk_columns *table, struct sk_page *page, const size_t *widths,
		    char (*cells)[SK_CELL_BYTES])
{
	char line[MOST_COLUMNS * (SK_CELL_BYTES + 2)];
	size_t n = 0;

	for (unsigned i = 0; i < table->n_columns; i++) {
		const char *text = cells ? cells[i] : heading(table, i);
		int pad = (int)(widths[i] - sk_text_width(text));
		bool is_last = i == table->n_columns - 1;
		n += (size_t)snprintf(line + n, sizeof line - n, "%s%*s%s%*s", i ? "  " : "",
				      is_number(table, i) ? pad : 0, "", text,
				      is_number(table, i) || is_last ? 0 : pad, "");
	}
	sk_page_line(page, "%s", line);
}

int sk_columns_put(const struct sk_columns *table, struct sk_page *page, size_t most_lines)
{
	const size_t n_rows = sk_columns_n_rows(table);
	size_t widths[MOST_COLUMNS], n_shown = n_rows;

	if (table->is_short)
		return -ENOMEM;
	if (n_rows + 1 > most_lines)
		n_shown = most_lines > 2 ? most_lines - 2 : 0;
	for (unsigned i = 0; i < table->n_columns; i++) {
		widths[i] = sk_text_width(heading(table, i));
		for (size_t row = 0; row < n_shown; row++) {
			size_t n = sk_text_width(table->cells[row * table->n_columns + i]);
			widths[i] = n > widths[i] ? n : widths[i];
		}
	}
	put_row(table, page, widths, NULL);
	for (size_t row = 0; row < n_shown; row++)
		put_row(table, page, widths, table->cells + row * table->n_columns);
	if (n_shown < n_rows)
		sk_page_line(page, "... and %zu more", n_rows - n_shown);
	return 0;
}
