#include "client/table.h"
#include "client/field.h"
#include "client/sweep.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- A grid of cells --- */

struct grid {
	unsigned n_rows, n_columns, n_filled;
	unsigned break_row; /* an empty line before it, in text; 0: none */
	char (*cells)[SK_MEASURE_LABEL_BYTES];
};

static char *add_cell(struct grid *grid)
{
	return grid->cells[grid->n_filled++];
}

static void add_text(struct grid *grid, const char *text)
{
	snprintf(add_cell(grid), SK_MEASURE_LABEL_BYTES, "%s", text);
}

static void add_integer(struct grid *grid, int64_t number)
{
	snprintf(add_cell(grid), SK_MEASURE_LABEL_BYTES, "%lld", (long long)number);
}

static void add_value(struct grid *grid, const struct sk_field *field, double value, bool is_plain)
{
	if (isnan(value))
		add_text(grid, is_plain ? "" : "-");
	else if (!is_plain)
		snprintf(add_cell(grid), SK_MEASURE_LABEL_BYTES, "%.*f", field->n_decimals,
			 value / field->unit);
	else
		snprintf(add_cell(grid), SK_MEASURE_LABEL_BYTES, field->is_whole ? "%.0f" : "%.9g",
			 value);
}

/* In %; NaN of what is no change, as the baseline's. */
static void add_change(struct grid *grid, double percent)
{
	if (isnan(percent))
		add_text(grid, "-");
	else if (fabs(percent) < 0.05)
		add_text(grid, "0.0 %");
	else
		snprintf(add_cell(grid), SK_MEASURE_LABEL_BYTES, "%+.1f %%", percent);
}

static bool is_measured(const struct sk_table *table, const struct sk_field *field)
{
	for (unsigned i = 0; i < table->n_measures; i++) {
		if (sk_table_shows(&table->measures[i]) &&
		    !isnan(sk_measure_value(&table->measures[i], table->subject, field->quantity,
					    SK_MEDIAN)))
			return true;
	}
	return false;
}

/* One quantity a row: dense, streaming, by how much they differ. */
static void fill_beside(const struct sk_table *table, struct grid *grid)
{
	const struct sk_measure *baseline = sk_table_baseline(table);
	bool has_change = baseline && table->n_measures == 2 && sk_table_shows(&table->measures[1]);

	add_text(grid, "");
	for (unsigned i = 0; i < table->n_measures; i++) {
		if (sk_table_shows(&table->measures[i]))
			sk_measure_label(&table->measures[i], add_cell(grid));
	}
	if (has_change)
		add_text(grid, "change");
	grid->n_columns = grid->n_filled;
	for (const struct sk_field *field = sk_fields; field->label; field++) {
		if (!is_measured(table, field))
			continue;
		if (field->quantity == SK_PARAMETERS)
			grid->break_row = grid->n_filled / grid->n_columns;
		add_text(grid, field->label);
		for (unsigned i = 0; i < table->n_measures; i++) {
			if (sk_table_shows(&table->measures[i]))
				add_value(grid, field,
					  sk_measure_value(&table->measures[i], table->subject,
							   field->quantity, SK_MEDIAN),
					  false);
		}
		if (has_change)
			add_change(grid, sk_measure_change(&table->measures[1], baseline,
							   table->subject, field->quantity));
	}
}

static bool is_column(const struct sk_table *table, const struct sk_field *field, bool is_plain)
{
	return is_plain ? field->name != NULL
			: field->column && !field->is_common && is_measured(table, field);
}

static void fill_row(const struct sk_table *table, const struct sk_measure *measure,
		     struct grid *grid, bool is_plain)
{
	const struct streamkv_policy *p = &measure->policy;
	const struct sk_measure *baseline = sk_table_baseline(table);
	const int64_t numbers[] = {p->sink, p->window, p->slack, sk_sweep_capacity(p)};

	add_text(grid, streamkv_mode_name(p->mode));
	for (unsigned i = 0; i < 4; i++) {
		if (!is_plain && i == 2)
			continue; /* the slack is the same in all */
		if (p->mode == STREAMKV_DENSE)
			add_text(grid, is_plain ? "" : "-");
		else
			add_integer(grid, numbers[i]);
	}
	if (is_plain)
		add_integer(grid, (int64_t)measure->scores.n_tokens);
	for (const struct sk_field *field = sk_fields; field->label; field++) {
		if (!is_column(table, field, is_plain))
			continue;
		add_value(grid, field,
			  sk_measure_value(measure, table->subject, field->quantity, SK_MEDIAN),
			  is_plain);
		if (!is_plain && baseline && field->quantity == SK_PERPLEXITY)
			add_change(grid, measure == baseline ? NAN
							     : sk_measure_change(measure, baseline,
										 table->subject,
										 SK_PERPLEXITY));
	}
	if (is_plain) {
		double change = baseline && baseline != measure
					? sk_measure_change(measure, baseline, table->subject,
							    SK_PERPLEXITY)
					: NAN;
		if (isnan(change))
			add_text(grid, "");
		else
			snprintf(add_cell(grid), SK_MEASURE_LABEL_BYTES, "%.6g", change);
	}
}

/* One configuration a row. Plain: every column of the CSV form, numbers as they are. */
static void fill_rows(const struct sk_table *table, struct grid *grid, bool is_plain)
{
	static const char *const plain[] = {"mode",  "sink",     "window",
					    "slack", "capacity", "tokens"};
	static const char *const people[] = {"mode", "sink", "window", "capacity"};

	for (unsigned i = 0; i < (is_plain ? 6 : 4); i++)
		add_text(grid, is_plain ? plain[i] : people[i]);
	for (const struct sk_field *field = sk_fields; field->label; field++) {
		if (!is_column(table, field, is_plain))
			continue;
		add_text(grid, is_plain ? field->name : field->column);
		if (!is_plain && sk_table_baseline(table) && field->quantity == SK_PERPLEXITY)
			add_text(grid, "change");
	}
	if (is_plain)
		add_text(grid, "perplexity_change_percent");
	grid->n_columns = grid->n_filled;
	for (unsigned i = 0; i < table->n_measures; i++) {
		if (sk_table_shows(&table->measures[i]))
			fill_row(table, &table->measures[i], grid, is_plain);
	}
}

/* --- Forms --- */

/* By how much the runs of a configuration differ at most in any of their times, in %: less in a change of speed means
 * nothing. NaN where nothing was timed twice. */
static double spread_of(const struct sk_table *table)
{
	static const enum sk_quantity timings[] = {SK_TTFT_MS, SK_TPOT_MS};
	double most = NAN;

	for (unsigned i = 0; i < 2 * table->n_measures; i++) {
		const struct sk_measure *measure = &table->measures[i / 2];
		double ends[3];
		for (int j = 0; j < 3; j++)
			ends[j] = sk_measure_value(measure, table->subject, timings[i % 2],
						   (enum sk_statistic)j);
		if (measure->n_timed > 1)
			most = fmax(most, 100 * (ends[SK_MOST] - ends[SK_LEAST]) / ends[SK_MEDIAN]);
	}
	return most;
}

static bool has_attention(const struct sk_table *table)
{
	for (unsigned i = 0; i < table->n_measures; i++) {
		if (sk_table_shows(&table->measures[i]) && table->measures[i].n_profiled_steps)
			return true;
	}
	return false;
}

/* Complete speed runs of the configuration that has fewest. */
static unsigned least_timed(const struct sk_table *table)
{
	unsigned least = SK_MEASURE_REPEAT_MOST;

	for (unsigned i = 0; i < table->n_measures; i++) {
		const struct sk_measure *measure = &table->measures[i];
		if (sk_table_shows(measure) && measure->n_timed < least)
			least = measure->n_timed;
	}
	return table->subject->has_speed ? least : 0;
}

/* What holds for the whole table, in two lines to five. */
static void write_caption(const struct sk_table *table, FILE *out, const char *line_end)
{
	const struct sk_subject *subject = table->subject;
	const char *slash = strrchr(subject->file, '/');
	const struct streamkv_policy *policy = &table->measures[table->n_measures - 1].policy;

	fprintf(out, "%s on %s%s", subject->status.model, subject->status.backend, line_end);
	fprintf(out, "text: the first %llu tokens of %s", (unsigned long long)subject->n_tokens,
		slash ? slash + 1 : subject->file);
	if (policy->mode != STREAMKV_DENSE)
		fprintf(out, "; slack %lld", (long long)policy->slack);
	fprintf(out, "%s", line_end);
	unsigned n_timed = least_timed(table);
	if (n_timed)
		fprintf(out, "speed: a prompt of its first %llu, then %llu generated; ",
			(unsigned long long)subject->n_prompt,
			(unsigned long long)subject->n_generate);
	double spread = spread_of(table);
	if (n_timed > 1 && !isnan(spread))
		fprintf(out, "%s of %u runs, which differ by up to %.0f %%%s",
			n_timed > 2 ? "medians" : "means", n_timed, spread, line_end);
	else if (n_timed)
		fprintf(out, "one run, whose differences mean little%s", line_end);
	if (has_attention(table))
		fprintf(out, "attention: one run of its own, the prompt's steps among them%s",
			line_end);
	if (table->is_grid)
		fprintf(out,
			"memory beside the cache: %.2f MB of weights, %.2f MB of scratch; %.2f "
			"million "
			"parameters, %llu bytes of cache a token%s",
			(double)subject->model.weight_bytes / 1e6,
			(double)subject->status.scratch_bytes / 1e6,
			(double)subject->model.parameters / 1e6,
			(unsigned long long)subject->model.kv_bytes_per_token, line_end);
	fputc('\n', out);
}

static void write_text(const struct grid *grid, FILE *out)
{
	for (unsigned row = 0; row < grid->n_rows; row++) {
		if (row && row == grid->break_row)
			fputc('\n', out);
		for (unsigned column = 0; column < grid->n_columns; column++) {
			int width = column ? 8 : 0;
			for (unsigned i = column; i < grid->n_filled; i += grid->n_columns) {
				int n = (int)strlen(grid->cells[i]);
				width = n > width ? n : width;
			}
			const char *cell = grid->cells[row * grid->n_columns + column];
			if (column)
				fprintf(out, "  %*s", width, cell);
			else
				fprintf(out, "%-*s", width, cell);
		}
		fputc('\n', out);
	}
}

static void write_markdown(const struct grid *grid, FILE *out)
{
	for (unsigned i = 0; i < grid->n_filled; i++) {
		unsigned column = i % grid->n_columns;
		fprintf(out, "%s %s %s", column ? "" : "|", grid->cells[i],
			column + 1 < grid->n_columns ? "|" : "|\n");
		if (i + 1 != grid->n_columns)
			continue;
		for (unsigned j = 0; j < grid->n_columns; j++)
			fprintf(out, "%s", j ? "---:|" : "|---|");
		fputc('\n', out);
	}
}

static void write_csv(const struct grid *grid, FILE *out)
{
	for (unsigned i = 0; i < grid->n_filled; i++)
		fprintf(out, "%s%c", grid->cells[i], (i + 1) % grid->n_columns ? ',' : '\n');
}

static int write_grid(const struct sk_table *table, enum sk_table_form form, FILE *out)
{
	struct grid grid = {0};
	bool is_csv = form == SK_TABLE_CSV;
	/* With its headings, for rows of configurations, and for rows of quantities of two. */
	size_t n_most = (size_t)(table->n_measures + 2) * (SK_N_FIELDS + 8);

	grid.cells = calloc(n_most, sizeof *grid.cells);
	if (!grid.cells)
		return sk_said(EX_OSERR, "not enough memory");
	if (is_csv || table->is_grid)
		fill_rows(table, &grid, is_csv);
	else
		fill_beside(table, &grid);
	grid.n_rows = grid.n_filled / grid.n_columns;
	if (!is_csv)
		write_caption(table, out, form == SK_TABLE_MARKDOWN ? "  \n" : "\n");
	(is_csv ? write_csv : form == SK_TABLE_MARKDOWN ? write_markdown : write_text)(&grid, out);
	free(grid.cells);
	return 0;
}

bool sk_table_shows(const struct sk_measure *measure)
{
	return measure->scores.is_whole;
}

const struct sk_measure *sk_table_baseline(const struct sk_table *table)
{
	const struct sk_measure *first = table->measures;
	return first->policy.mode == STREAMKV_DENSE && sk_table_shows(first) ? first : NULL;
}

int sk_table_print(const struct sk_table *table, enum sk_table_form form)
{
	char *text = NULL;
	size_t n_bytes = 0;

	if (form == SK_TABLE_JSON)
		return sk_table_print_json(table);
	FILE *out = open_memstream(&text, &n_bytes);
	if (!out)
		return sk_said(EX_OSERR, "not enough memory");
	int exit_code = write_grid(table, form, out);
	if (fclose(out) != 0 && !exit_code)
		exit_code = sk_said(EX_OSERR, "not enough memory");
	if (!exit_code)
		exit_code = sk_write_out(text, n_bytes);
	free(text);
	return exit_code;
}
