#include "client/serving_table.h"

#include "client/json_out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH       56 /* of the text */
#define LABEL_WIDTH 42

/* --- The figures --- */

struct figure {
	const char *name;  /* in CSV and JSON */
	const char *label; /* for people; NULL: not for them */
	double value;      /* NaN: there is none */
	int n_decimals;    /* for people; 0: a whole number */
};

#define MOST_FIGURES 40

struct figures {
	struct figure items[MOST_FIGURES];
	unsigned n_items;
};

static void add(struct figures *figures, const char *name, const char *label, double value,
		int n_decimals)
{
	figures->items[figures->n_items++] = (struct figure){name, label, value, n_decimals};
}

/* People are not shown how often nothing happened. */
static const char *if_any(uint64_t n, const char *label)
{
	return n ? label : NULL;
}

static void fill(const struct sk_serving_table *table, struct figures *f)
{
	const struct sk_serving *s = table->serving;
	const uint64_t *n = s->n_outcomes;
	double seconds = s->duration_s > 0 ? s->duration_s : NAN;
	uint64_t n_counted = n[SK_OUTCOME_DONE] - s->n_slow;

	add(f, "successful", "Successful requests", (double)n[SK_OUTCOME_DONE], 0);
	add(f, "failed", "Failed requests", (double)n[SK_OUTCOME_FAILED], 0);
	add(f, "cancelled", "Cancelled requests", (double)n[SK_OUTCOME_CANCELLED], 0);
	add(f, "refused", "Refused requests", (double)n[SK_OUTCOME_REFUSED], 0);
	add(f, "slow", if_any(s->n_slow, "Successful, of slow readers (not timed)"),
	    (double)s->n_slow, 0);
	add(f, "short", if_any(s->n_short, "Successful, with fewer tokens than asked"),
	    (double)s->n_short, 0);
	add(f, "off", if_any(s->n_off, "Prompts of another length than asked"), (double)s->n_off,
	    0);
	add(f, "most_off", if_any(s->n_off, "  by so many tokens at most"), (double)s->most_off, 0);
	add(f, "clients", "Clients", s->n_clients, 0);
	add(f, "per_connection", "  requests of each at once, at most", table->n_places, 0);
	add(f, "rate", table->rate > 0 ? "Request rate configured (req/s)" : NULL, table->rate, 2);
	add(f, "burstiness", NULL, table->burstiness, 2);
	add(f, "peak_concurrency", "Peak concurrent requests", table->load->most_at_once, 0);
	add(f, "duration_s", "Benchmark duration (s)", s->duration_s, 2);
	add(f, "prompt_tokens", "Total input tokens", (double)s->prompt_tokens, 0);
	add(f, "reused_tokens", if_any(s->reused_tokens, "Total reused tokens"),
	    (double)s->reused_tokens, 0);
	add(f, "output_tokens", "Total generated tokens", (double)s->output_tokens, 0);
	add(f, "request_throughput", "Request throughput (req/s)",
	    (double)n[SK_OUTCOME_DONE] / seconds, 2);
	add(f, "goodput", table->has_goodput ? "Request goodput (req/s)" : NULL,
	    table->has_goodput ? (double)s->n_good / seconds : NAN, 2);
	add(f, "good_percent", table->has_goodput ? "  good, of those timed (%)" : NULL,
	    table->has_goodput && n_counted ? 100 * (double)s->n_good / (double)n_counted : NAN, 1);
	add(f, "output_throughput", "Output token throughput (tok/s)",
	    (double)s->output_tokens / seconds, 2);
	add(f, "total_throughput", "Total token throughput (tok/s)",
	    (double)(s->output_tokens + s->prompt_tokens) / seconds, 2);
	add(f, "client_cpu_percent", "This client's processor time (% of one)",
	    100 * table->client_cpu_s / seconds, 1);
	add(f, "jain", "Jain's fairness index over clients", s->jain, 4);
	add(f, "generated_tokens", NULL, (double)s->generated_tokens, 0);
	add(f, "daemon_requests", NULL, (double)table->daemon.requests, 0);
	add(f, "daemon_prompt_tokens", NULL, (double)table->daemon.prompt_tokens, 0);
	add(f, "daemon_generated_tokens", NULL, (double)table->daemon.generated_tokens, 0);
	add(f, "daemon_steps", NULL, (double)table->daemon.steps, 0);
}

static const struct {
	const char *name, *title, *label;
	int n_decimals;
} latencies[SK_N_LATENCIES] = {
	[SK_TTFT] = {"ttft_ms", "Time to First Token", "TTFT (ms)", 2},
	[SK_TPOT] = {"tpot_ms", "Time per Output Token (excl. 1st)", "TPOT (ms)", 2},
	[SK_ITL] = {"itl_ms", "Inter-token Latency", "ITL (ms)", 2},
	[SK_E2E] = {"e2e_ms", "End-to-end Latency", "E2E (ms)", 2},
	[SK_QUEUE] = {"queue_ms", "Queue Time (until the first step)", "queue (ms)", 2},
	[SK_HANDOVER] = {"handover_us", "Token Hand-over (daemon to client)", "hand-over (us)", 0},
};

static const struct {
	const char *name, *label;
	double percent; /* negative: the mean */
} statistics[] = {
	{"mean", "Mean", -1}, {"p50", "Median", 50}, {"p90", "P90", 90},
	{"p99", "P99", 99},   {"max", "Max", 100},
};
#define N_STATISTICS (sizeof statistics / sizeof *statistics)

static double value_of(const struct sk_serving_table *table, int latency, size_t statistic)
{
	struct sk_sample *sample = &table->serving->latencies[latency];
	double percent = statistics[statistic].percent;

	return percent < 0 ? sk_sample_mean(sample) : sk_sample_percentile(sample, percent);
}

/* --- For people --- */

static void write_number(FILE *out, double value, int n_decimals)
{
	if (isnan(value))
		fprintf(out, "-");
	else if (isinf(value))
		fprintf(out, "inf");
	else
		fprintf(out, "%.*f", n_decimals, value);
}

static void write_title(FILE *out, char rule, const char *title)
{
	int n = (int)strlen(title), n_rule = WIDTH - n - (n ? 2 : 0);

	for (int i = 0; i < n_rule; i++) {
		if (n && i == n_rule / 2)
			fprintf(out, " %s ", title);
		fputc(rule, out);
	}
	fputc('\n', out);
}

static void write_line(FILE *out, const char *label, double value, int n_decimals)
{
	int n_spaces = LABEL_WIDTH - (int)strlen(label);

	fprintf(out, "%s:%*s", label, n_spaces > 1 ? n_spaces : 1, "");
	write_number(out, value, n_decimals);
	fputc('\n', out);
}

static void write_text(const struct sk_serving_table *table, const struct figures *f, FILE *out)
{
	char label[64];

	fprintf(out, "%s on %s\n", table->model, table->backend);
	write_title(out, '=', "Serving Benchmark Result");
	for (unsigned i = 0; i < f->n_items; i++) {
		const struct figure *figure = &f->items[i];
		if (figure->label)
			write_line(out, figure->label, figure->value, figure->n_decimals);
	}
	for (int i = 0; i < SK_N_LATENCIES; i++) {
		write_title(out, '-', latencies[i].title);
		for (size_t j = 0; j < N_STATISTICS; j++) {
			snprintf(label, sizeof label, "%s %s", statistics[j].label,
				 latencies[i].label);
			write_line(out, label, value_of(table, i, j), latencies[i].n_decimals);
		}
	}
	write_title(out, '=', "");
}

static void write_markdown(const struct sk_serving_table *table, const struct figures *f, FILE *out)
{
	fprintf(out, "%s on %s\n\n| latency |", table->model, table->backend);
	for (size_t j = 0; j < N_STATISTICS; j++)
		fprintf(out, " %s |", statistics[j].name);
	fprintf(out, "\n|---|---:|---:|---:|---:|---:|\n");
	for (int i = 0; i < SK_N_LATENCIES; i++) {
		fprintf(out, "| %s |", latencies[i].label);
		for (size_t j = 0; j < N_STATISTICS; j++) {
			fputc(' ', out);
			write_number(out, value_of(table, i, j), latencies[i].n_decimals);
			fprintf(out, " |");
		}
		fputc('\n', out);
	}
	fprintf(out, "\n| measure | value |\n|---|---:|\n");
	for (unsigned i = 0; i < f->n_items; i++) {
		const struct figure *figure = &f->items[i];
		if (!figure->label)
			continue;
		fprintf(out, "| %s | ", figure->label + strspn(figure->label, " "));
		write_number(out, figure->value, figure->n_decimals);
		fprintf(out, " |\n");
	}
}

/* --- For programs --- */

static void write_csv_value(FILE *out, double value, bool is_whole)
{
	if (!isnan(value)) /* else empty */
		fprintf(out, is_whole ? ",%.0f" : ",%.9g", value);
	else
		fputc(',', out);
}

static void write_csv(const struct sk_serving_table *table, const struct figures *f, FILE *out)
{
	fprintf(out, "label,started_s,is_whole");
	for (unsigned i = 0; i < f->n_items; i++)
		fprintf(out, ",%s", f->items[i].name);
	for (int i = 0; i < SK_N_LATENCIES; i++) {
		for (size_t j = 0; j < N_STATISTICS; j++)
			fprintf(out, ",%s_%s", latencies[i].name, statistics[j].name);
	}
	fprintf(out, "\n%s,%.3f,%d", table->label, table->started_s, !table->load->is_cut_short);
	for (unsigned i = 0; i < f->n_items; i++)
		write_csv_value(out, f->items[i].value, !f->items[i].n_decimals);
	for (int i = 0; i < SK_N_LATENCIES; i++) {
		for (size_t j = 0; j < N_STATISTICS; j++)
			write_csv_value(out, value_of(table, i, j), false);
	}
	fputc('\n', out);
}

static json_t *number_of(double value, bool is_whole)
{
	if (isnan(value) || isinf(value))
		return json_null();
	return is_whole ? json_integer((json_int_t)value) : json_real(value);
}

static json_t *string_of(const char *text)
{
	json_t *string = json_string(text); /* a model's name may be no UTF-8 */
	return string ? string : json_null();
}

static int print_json(const struct sk_serving_table *table, const struct figures *f)
{
	json_t *object = json_object(), *tokens = json_array();
	char name[64];

	json_object_set_new(object, "label", string_of(table->label));
	json_object_set_new(object, "model", string_of(table->model));
	json_object_set_new(object, "backend", string_of(table->backend));
	json_object_set_new(object, "started_s", json_real(table->started_s));
	json_object_set_new(object, "is_whole", json_boolean(!table->load->is_cut_short));
	for (unsigned i = 0; i < f->n_items; i++)
		json_object_set_new(object, f->items[i].name,
				    number_of(f->items[i].value, !f->items[i].n_decimals));
	for (int i = 0; i < SK_N_LATENCIES; i++) {
		for (size_t j = 0; j < N_STATISTICS; j++) {
			snprintf(name, sizeof name, "%s_%s", latencies[i].name, statistics[j].name);
			json_object_set_new(object, name, number_of(value_of(table, i, j), false));
		}
	}
	for (unsigned i = 0; i < table->serving->n_clients; i++)
		json_array_append_new(tokens,
				      json_integer((json_int_t)table->serving->client_tokens[i]));
	json_object_set_new(object, "client_tokens", tokens);
	return sk_json_print(object, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
}

int sk_serving_print(const struct sk_serving_table *table, enum sk_table_form form)
{
	struct figures figures = {.n_items = 0};
	char *text = NULL;
	size_t n_bytes = 0;

	fill(table, &figures);
	if (form == SK_TABLE_JSON)
		return print_json(table, &figures);
	FILE *out = open_memstream(&text, &n_bytes);
	if (!out)
		return sk_said(EX_OSERR, "not enough memory");
	(form == SK_TABLE_CSV        ? write_csv
	 : form == SK_TABLE_MARKDOWN ? write_markdown
				     : write_text)(table, &figures, out);
	int exit_code = fclose(out) == 0 ? sk_write_out(text, n_bytes)
					 : sk_said(EX_OSERR, "not enough memory");
	free(text);
	return exit_code;
}
