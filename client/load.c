#include "client/load.h"

#include "base/clock.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

#define AGAIN_S 0.1  /* after a refusal or a fault, in a closed loop */
#define SHOW_S  0.25 /* between two looks at the progress bar */

/* --- Requests --- */

static double now_s(const struct sk_load *load)
{
	return (double)(sk_clock_ns() - load->start_ns) * 1e-9;
}

static void note_reason(char reason[512], const char *sentence)
{
	if (!reason[0])
		snprintf(reason, 512, "%s", sentence);
}

static void note_kept(struct sk_load *load, const char *sentence)
{
	load->n_kept++;
	note_reason(load->kept, sentence);
}

/* The next one begins in a new session, once this one is gone: the place is taken until the daemon has said so, since
 * the connection has no more requests than places. */
static void end_conversation(struct sk_load *load, struct sk_place *place)
{
	struct sk_tenant *tenant = place->tenant;
	struct streamkv_error error;

	place->turn = 0;
	if (!tenant->kv)
		return;
	if (streamkv_session_drop(tenant->kv, place->session, &place->stream, &error) < 0) {
		place->stream = NULL;
		note_kept(load, error.text);
		return;
	}
	streamkv_set_context(place->stream, place);
	place->is_dropping = true;
	tenant->n_running++;
	load->n_dropping++;
}

/* Its stream, where it has one, has been closed or is none of ours any more. */
static void end_request(struct sk_load *load, struct sk_place *place, enum sk_outcome outcome,
			const char *reason)
{
	struct sk_record *record = &load->records.items[place->record];

	record->outcome = outcome;
	record->end_s = now_s(load);
	load->duration_s = record->end_s;
	if (outcome == SK_OUTCOME_FAILED)
		note_reason(load->failed, reason);
	if (outcome == SK_OUTCOME_REFUSED)
		note_reason(load->refused, reason);
	if (outcome >= SK_OUTCOME_REFUSED && !load->workload.is_open)
		place->not_before_s = record->end_s + AGAIN_S;
	load->n_ended++;
	place->turn = (place->turn + 1) % load->n_turns;
	if (load->n_turns > 1 && !place->turn)
		end_conversation(load, place);
}

/* Of a request that runs, or of a session's end. */
static void leave(struct sk_load *load, struct sk_place *place)
{
	streamkv_stream_close(place->stream);
	place->stream = NULL;
	place->tenant->n_running--;
	if (place->is_dropping)
		load->n_dropping--;
	else
		load->n_running--;
	place->is_dropping = false;
}

static void lose(struct sk_load *load, struct sk_tenant *tenant, const char *reason)
{
	for (unsigned i = 0; i < load->tenants->options->n_places; i++) {
		struct sk_place *place = &tenant->places[i];
		const bool is_dropping = place->is_dropping;
		if (!place->stream)
			continue;
		leave(load, place);
		if (is_dropping)
			note_kept(load, reason);
		else
			end_request(load, place, SK_OUTCOME_FAILED, reason);
	}
	sk_tenants_lose(load->tenants, tenant);
}

static void cancel(struct sk_place *place)
{
	place->cancel_at = -1;
	(void)streamkv_cancel(place->stream, NULL); /* what is gone shows when it is read */
}

static void stop_for_memory(struct sk_load *load)
{
	note_reason(load->failed, "the client has not enough memory for its notes");
	load->is_stopping = load->is_cut_short = true;
}

static void begin(struct sk_load *load, struct sk_place *place, const struct sk_planned *planned)
{
	struct streamkv_generate ask = STREAMKV_GENERATE_INIT;
	struct sk_tenant *tenant = place->tenant;
	struct streamkv_error error = {"not enough memory for a prompt"};
	const char *prompt = NULL;

	int err = sk_prompts_cut(load->prompts, planned->n_prompt, planned->seed, &prompt,
				 &ask.n_prompt_bytes);
	struct sk_record record = {
		.client = tenant->number,
		.turn = place->turn,
		.is_slow = tenant->is_slow,
		.prompt_asked = planned->n_prompt,
		.output_asked = planned->n_output,
		.sent_s = now_s(load),
		.first_s = NAN,
		.last_s = NAN,
		.end_s = NAN,
	};
	record.due_s = load->workload.is_open ? planned->due_s : record.sent_s;
	place->record = load->records.n_items;
	if (sk_records_add(&load->records, &record) < 0) {
		stop_for_memory(load);
		return;
	}
	ask.prompt = prompt;
	ask.max_tokens = planned->n_output;
	ask.policy = load->policy;
	ask.plain = ask.ignore_eos = true;
	ask.session = load->n_turns > 1 ? place->session : NULL;
	if (!err)
		err = streamkv_generate(tenant->kv, &ask, &place->stream, &error);
	if (err < 0) {
		place->stream = NULL;
		end_request(load, place, SK_OUTCOME_FAILED, error.text);
		if (err == -ECONNRESET)
			lose(load, tenant, error.text);
		return;
	}
	streamkv_set_context(place->stream, place);
	place->cancel_at = planned->cancel_at;
	tenant->n_running++;
	load->n_running++;
	if (load->n_running > load->most_at_once)
		load->most_at_once = load->n_running;
	if (place->cancel_at == 0)
		cancel(place);
}

/* Turns that follow what has been answered, in an open loop: the others come by themselves. */
static void send_turns(struct sk_load *load)
{
	for (unsigned i = 0; i < load->tenants->n_places && !load->is_stopping; i++) {
		struct sk_place *place = &load->tenants->places[i];
		double now = now_s(load);
		struct sk_planned planned;
		if (!place->turn || !sk_place_is_free(place, now))
			continue;
		if (sk_workload_turn(&load->workload, now, &planned))
			begin(load, place, &planned);
		else
			end_conversation(load, place);
	}
}

/* Sends what is due. *wake_s becomes less where the next is before. */
static void send_due(struct sk_load *load, double *wake_s)
{
	bool is_open = load->workload.is_open;

	if (is_open && load->n_turns > 1)
		send_turns(load);
	while (!load->is_stopping) {
		double now = now_s(load);
		struct sk_place *place = NULL;
		/* In a closed loop nothing is planned before there is a place for it. */
		if (!is_open && !(place = sk_tenants_find_place(load->tenants, false, now, wake_s)))
			return;
		if (!load->has_planned && !load->is_over) {
			load->has_planned = sk_workload_next(&load->workload, now, &load->planned);
			load->is_over = !load->has_planned;
		}
		if (!load->has_planned)
			return;
		if (load->planned.due_s > now) {
			*wake_s = fmin(*wake_s, load->planned.due_s);
			return;
		}
		if (!place && !(place = sk_tenants_find_place(load->tenants, true, now, wake_s)))
			return;
		load->has_planned = false;
		begin(load, place, &load->planned);
	}
}

/* --- Reading --- */

static void take_token(struct sk_load *load, struct sk_place *place,
		       const struct streamkv_token *token)
{
	struct sk_record *record = &load->records.items[place->record];
	uint64_t now_ns = sk_clock_ns();

	if (token->id < 0)
		return;
	load->n_tokens++;
	if (sk_record_token(record, (double)(now_ns - load->start_ns) * 1e-9,
			    (double)(int64_t)(now_ns - token->handed_ns) * 1e-9) < 0) {
		stop_for_memory(load);
		return;
	}
	if (place->cancel_at >= 0 && record->n_tokens >= (uint64_t)place->cancel_at)
		cancel(place);
}

static enum sk_outcome outcome_of(const struct streamkv_result *result)
{
	switch (result->stop) {
	case STREAMKV_STOP_EOS:
	case STREAMKV_STOP_LIMIT:
	case STREAMKV_STOP_STRING:
		return SK_OUTCOME_DONE;
	case STREAMKV_STOP_CANCELLED:
		return SK_OUTCOME_CANCELLED;
	case STREAMKV_STOP_REFUSED:
		return SK_OUTCOME_REFUSED;
	default:
		return SK_OUTCOME_FAILED;
	}
}

static void take_end(struct sk_load *load, struct sk_place *place, const char *sentence)
{
	const struct streamkv_result *result = streamkv_result(place->stream);
	struct sk_record *record = &load->records.items[place->record];
	enum sk_outcome outcome = outcome_of(result);

	record->prompt_tokens = result->prompt_tokens;
	record->evaluated_tokens = result->evaluated_tokens;
	record->reused_tokens = result->reused_tokens;
	record->generated_tokens = result->generated_tokens;
	record->queue_ns = result->queue_ns;
	/* A daemon that is stopping cancels too. */
	if (outcome == SK_OUTCOME_CANCELLED && result->reason[0])
		outcome = SK_OUTCOME_FAILED;
	char reason[sizeof load->failed];
	snprintf(reason, sizeof reason, "%s",
		 sentence            ? sentence
		 : result->reason[0] ? result->reason
				     : streamkv_stop_name(result->stop));
	leave(load, place);
	end_request(load, place, outcome, reason);
}

static void take_dropped(struct sk_load *load, struct sk_place *place, int err,
			 const char *sentence)
{
	leave(load, place);
	if (err < 0 && err != -ENOENT) /* a conversation that was refused has none */
		note_kept(load, sentence);
}

/* What has come for a tenant; one token of a slow one, until it reads again. */
static void read_tenant(struct sk_load *load, struct sk_tenant *tenant)
{
	struct streamkv_stream *stream;
	struct streamkv_error error;
	struct streamkv_token token;

	while (tenant->n_running) {
		int got = streamkv_next_any(tenant->kv, 0, &stream, &token, &error);
		if (got == -ETIMEDOUT)
			return;
		if (got == -EINTR)
			continue;
		if (!stream) {
			lose(load, tenant, error.text);
			return;
		}
		struct sk_place *place = streamkv_context(stream);
		if (place->is_dropping) {
			take_dropped(load, place, got, error.text);
			continue;
		}
		if (got != 1) {
			take_end(load, place, got < 0 ? error.text : NULL);
			continue;
		}
		take_token(load, place, &token);
		if (tenant->is_slow && !load->is_stopping) {
			tenant->not_before_s = now_s(load) + load->tenants->options->slow_s;
			tenant->is_ready = true;
			return;
		}
	}
}

/* --- The run --- */

static void show(struct sk_load *load, double now)
{
	uint64_t total = sk_workload_total(&load->workload);
	double passed_s = now - load->shown_s;
	char text[96];

	if (!load->what || passed_s < SHOW_S)
		return;
	snprintf(text, sizeof text, "%s: %llu answered, %u running", load->what,
		 (unsigned long long)load->n_ended, load->n_running);
	sk_terminal_bar(
		text,
		fmin(total ? (double)load->n_ended / (double)total : now / load->workload.most_s,
		     1),
		(double)(load->n_tokens - load->n_tokens_shown) / passed_s, "tokens");
	load->shown_s = now;
	load->n_tokens_shown = load->n_tokens;
}

/* Cancels all that runs, and lets slow readers read the rest. */
static void stop(struct sk_load *load)
{
	load->is_stopping = load->is_cut_short = true;
	for (unsigned i = 0; i < load->tenants->n_places; i++) {
		struct sk_place *place = &load->tenants->places[i];
		place->tenant->not_before_s = 0;
		if (place->stream && !place->is_dropping)
			cancel(place);
	}
}

/* All requests have ended, and no more come. */
static bool is_answered(const struct sk_load *load)
{
	bool has_more = load->has_planned || !load->is_over;

	return !load->tenants->n_left || (!load->n_running && (load->is_stopping || !has_more));
}

static void end_conversations(struct sk_load *load)
{
	for (unsigned i = 0; i < load->tenants->n_places; i++) {
		struct sk_place *place = &load->tenants->places[i];
		if (place->turn && !place->stream)
			end_conversation(load, place);
	}
}

void sk_load_run(struct sk_load *load)
{
	struct sk_tenants *tenants = load->tenants;

	for (unsigned i = 0; i < tenants->n_places; i++)
		tenants->places[i].not_before_s = 0;
	for (unsigned i = 0; i < tenants->options->n_tenants; i++)
		tenants->items[i].not_before_s = 0;
	load->start_ns = sk_clock_ns();
	for (;;) {
		double wake_s = now_s(load) + SHOW_S;
		if (sk_interrupted() && !load->is_stopping)
			stop(load);
		send_due(load, &wake_s);
		if (is_answered(load)) {
			end_conversations(load);
			if (!load->n_dropping)
				break;
		}
		sk_tenants_await(tenants, now_s(load), wake_s);
		double now = now_s(load);
		for (unsigned i = 0; i < tenants->options->n_tenants; i++) {
			if (sk_tenant_take_ready(&tenants->items[i], now))
				read_tenant(load, &tenants->items[i]);
		}
		show(load, now);
	}
	load->is_cut_short |= load->has_planned || !load->is_over;
	sk_terminal_clear();
}

void sk_load_finish(struct sk_load *load)
{
	sk_records_finish(&load->records);
}
