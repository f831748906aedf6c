#include "client/serving.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

static int add_latencies(struct sk_serving *s, const struct sk_record *r)
{
	const double values[] = {
		[SK_TTFT] = sk_record_ttft_ms(r),
		[SK_TPOT] = sk_record_tpot_ms(r),
		[SK_E2E] = sk_record_e2e_ms(r),
		[SK_QUEUE] = (double)r->queue_ns * 1e-6,
	};
	static const enum sk_latency once[] = {SK_TTFT, SK_TPOT, SK_E2E, SK_QUEUE};
	int err = 0;

	for (unsigned i = 0; i < 4 && !err; i++) {
		if (!isnan(values[once[i]]))
			err = sk_sample_add(&s->latencies[once[i]], values[once[i]]);
	}
	for (uint64_t i = 0; i < r->n_tokens && !err; i++) {
		if (i)
			err = sk_sample_add(&s->latencies[SK_ITL], (double)r->gap_ms[i]);
		if (!err)
			err = sk_sample_add(&s->latencies[SK_HANDOVER], (double)r->handed_us[i]);
	}
	return err;
}

static int add_done(struct sk_serving *s, const struct sk_record *r,
		    const struct sk_goodput *goodput)
{
	uint64_t off = r->prompt_tokens > r->prompt_asked ? r->prompt_tokens - r->prompt_asked
							  : r->prompt_asked - r->prompt_tokens;

	s->n_short += r->n_tokens < r->output_asked;
	s->n_off += off > 0;
	s->most_off = off > s->most_off ? off : s->most_off;
	if (r->is_slow) {
		s->n_slow++;
		return 0;
	}
	s->n_good += sk_goodput_is_met(goodput, sk_record_ttft_ms(r), sk_record_tpot_ms(r),
				       sk_record_e2e_ms(r));
	return add_latencies(s, r);
}

int sk_serving_init(const struct sk_records *records, unsigned n_clients, unsigned n_slow,
		    double duration_s, const struct sk_goodput *goodput,
		    struct sk_serving *ret_serving)
{
	struct sk_serving s = {
		.duration_s = duration_s,
		.n_clients = n_clients,
		.n_slow_clients = n_slow,
		.client_tokens = calloc(n_clients, sizeof *s.client_tokens),
	};
	int err = s.client_tokens ? 0 : -ENOMEM;

	for (size_t i = 0; i < records->n_items && !err; i++) {
		const struct sk_record *r = &records->items[i];
		s.n_outcomes[r->outcome]++;
		s.prompt_tokens += r->evaluated_tokens;
		s.reused_tokens += r->reused_tokens;
		s.output_tokens += r->n_tokens;
		s.generated_tokens += r->generated_tokens;
		s.client_tokens[r->client] += (double)r->n_tokens;
		if (r->outcome == SK_OUTCOME_DONE)
			err = add_done(&s, r, goodput);
	}
	if (err < 0) {
		sk_serving_finish(&s);
		return err;
	}
	s.jain = sk_jain(s.client_tokens + n_slow, n_clients - n_slow);
	*ret_serving = s;
	return 0;
}

void sk_serving_finish(struct sk_serving *serving)
{
	for (int i = 0; i < SK_N_LATENCIES; i++)
		sk_sample_finish(&serving->latencies[i]);
	free(serving->client_tokens);
	*serving = (struct sk_serving){0};
}
