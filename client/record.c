#include "client/record.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

const char *sk_outcome_name(enum sk_outcome outcome)
{
	static const char *const names[] = {"running", "done", "cancelled", "refused", "failed"};
	return names[outcome];
}

int sk_records_add(struct sk_records *records, const struct sk_record *record)
{
	if (records->n_items == records->n_allocated) {
		size_t n = 2 * records->n_items + 64;
		struct sk_record *grown = realloc(records->items, n * sizeof *grown);
		if (!grown)
			return -ENOMEM;
		records->items = grown;
		records->n_allocated = n;
	}
	records->items[records->n_items++] = *record;
	return 0;
}

/* Room for one more of n floats, which are allocated in powers of two. */
static int reserve(float **floats, uint64_t n)
{
	if (n & (n - 1))
		return 0;
	float *grown = realloc(*floats, (n ? 2 * n : 1) * sizeof *grown);
	if (!grown)
		return -ENOMEM;
	*floats = grown;
	return 0;
}

int sk_record_token(struct sk_record *r, double now_s, double handed_s)
{
	if (reserve(&r->gap_ms, r->n_tokens) < 0 || reserve(&r->handed_us, r->n_tokens) < 0)
		return -ENOMEM;
	r->gap_ms[r->n_tokens] = r->n_tokens ? (float)((now_s - r->last_s) * 1e3) : 0;
	r->handed_us[r->n_tokens] = (float)(handed_s * 1e6);
	if (!r->n_tokens)
		r->first_s = now_s;
	r->last_s = now_s;
	r->n_tokens++;
	return 0;
}

void sk_records_finish(struct sk_records *records)
{
	for (size_t i = 0; i < records->n_items; i++) {
		free(records->items[i].gap_ms);
		free(records->items[i].handed_us);
	}
	free(records->items);
	*records = (struct sk_records){0};
}

double sk_record_ttft_ms(const struct sk_record *r)
{
	return r->n_tokens ? (r->first_s - r->due_s) * 1e3 : NAN;
}

double sk_record_tpot_ms(const struct sk_record *r)
{
	return r->n_tokens > 1 ? (r->last_s - r->first_s) * 1e3 / (double)(r->n_tokens - 1) : NAN;
}

double sk_record_e2e_ms(const struct sk_record *r)
{
	return r->n_tokens ? (r->last_s - r->due_s) * 1e3 : NAN;
}

/* --- A row each --- */

/* Empty where it is NaN. */
static void write_number(struct sk_csv *csv, double value)
{
	if (isnan(value))
		sk_csv_write(csv, ",");
	else
		sk_csv_write(csv, "%.6f,", value);
}

static void write_record(struct sk_csv *csv, size_t index, const struct sk_record *r,
			 const char *label)
{
	const double numbers[] = {r->due_s,
				  r->sent_s,
				  r->first_s,
				  r->last_s,
				  r->end_s,
				  (double)r->queue_ns * 1e-6,
				  sk_record_ttft_ms(r),
				  sk_record_tpot_ms(r),
				  sk_record_e2e_ms(r)};
	const uint64_t counts[] = {r->prompt_asked,    r->prompt_tokens, r->evaluated_tokens,
				   r->reused_tokens,   r->output_asked,  r->n_tokens,
				   r->generated_tokens};
	float most_us = 0;

	sk_csv_write(csv, "%s,%zu,%u,%u,%s,%d,", label, index, r->client, r->turn,
		     sk_outcome_name(r->outcome), r->is_slow);
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
		sk_csv_write(csv, "%llu,", (unsigned long long)counts[i]);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		write_number(csv, numbers[i]);
	for (uint64_t i = 0; i < r->n_tokens; i++)
		most_us = r->handed_us[i] > most_us ? r->handed_us[i] : most_us;
	sk_csv_write(csv, "%.1f,", (double)most_us);
	for (uint64_t i = 1; i < r->n_tokens; i++)
		sk_csv_write(csv, "%s%.3f", i > 1 ? " " : "", (double)r->gap_ms[i]);
	sk_csv_write(csv, "\n");
}

const char sk_records_heading[] =
	"label,request,client,turn,outcome,slow,prompt_asked,prompt_tokens,evaluated_tokens,"
	"reused_tokens,output_asked,output_tokens,generated_tokens,due_s,sent_s,first_s,last_s,"
	"end_s,queue_ms,ttft_ms,tpot_ms,e2e_ms,handover_max_us,itl_ms\n";

void sk_records_write(const struct sk_records *records, struct sk_csv *csv, const char *label)
{
	for (size_t i = 0; i < records->n_items; i++)
		write_record(csv, i, &records->items[i], label);
}
