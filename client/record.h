/* What became of each request of a load. Times are seconds since the load's start, by the client's own clock; queue_ns
 * alone is the daemon's. A list to embed, zeroed at first; records are named by their index, since it grows.
 */
#pragma once

#include "client/csv.h"

#include <stddef.h>
#include <stdint.h>

enum sk_outcome {
	SK_OUTCOME_RUNNING, /* nothing yet */
	SK_OUTCOME_DONE,
	SK_OUTCOME_CANCELLED, /* by us */
	SK_OUTCOME_REFUSED,   /* never began */
	SK_OUTCOME_FAILED,
};
const char *sk_outcome_name(enum sk_outcome outcome);

struct sk_record {
	enum sk_outcome outcome;
	unsigned client, turn; /* both from 0 */
	bool is_slow;          /* its reader was made to be: its times say little of the daemon */
	uint64_t prompt_asked, output_asked;
	double due_s, sent_s; /* due: when it ought to have been sent; in a closed loop the same */
	double first_s, last_s,
		end_s;     /* first and last token read, told how it ended; NaN: never */
	uint64_t n_tokens; /* read */
	float *gap_ms,
		*handed_us; /* before each token but the first; of each, from the daemon's put to our read */
	uint64_t prompt_tokens, evaluated_tokens, reused_tokens, generated_tokens, queue_ns;
};

struct sk_records {
	struct sk_record *items;
	size_t n_items, n_allocated;
};

int sk_records_add(struct sk_records *records, const struct sk_record *record); /* -ENOMEM */
/* Notes a token that was read at now_s, put handed_s before. -ENOMEM. */
int sk_record_token(struct sk_record *record, double now_s, double handed_s);
void sk_records_finish(struct sk_records *records);

/* In ms; NaN where there were too few tokens. A request's waiting counts from when it was due, so that a client that is
 * behind hides none of it. */
double sk_record_ttft_ms(const struct sk_record *record);
double sk_record_tpot_ms(const struct sk_record *record);
double sk_record_e2e_ms(const struct sk_record *record); /* to the last token */

/* As CSV, a row each under this heading. */
extern const char sk_records_heading[];
void sk_records_write(const struct sk_records *records, struct sk_csv *csv, const char *label);
