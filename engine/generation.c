#include "engine/generation.h"

#include "base/clock.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOT_NUMBERS "the model's logits are not numbers; its weights may be damaged"

static void queue_begun(struct sk_generation *g, uint64_t position)
{
	const struct sk_slot_begun begun = {position, g->result.prompt_tokens};
	struct sk_slot slot = {.request = g->request->id,
			       .id = -1,
			       .flags = SK_SLOT_BEGUN | SK_SLOT_NO_TOKEN,
			       .n_text_bytes = sizeof begun};
	memcpy(slot.text, &begun, sizeof begun);
	g->queue[g->n_queue++] = slot;
}

struct sk_generation *sk_generation_create(struct sk_request *request, struct sk_session *session,
					   uint32_t n_shared, const struct sk_tokenizer *tokenizer,
					   uint32_t n_ids, uint32_t max_rows)
{
	struct sk_generation *g = calloc(1, sizeof *g);
	if (!g)
		return NULL;
	sk_list_init(&g->node);
	g->is_scoring = request->kind == SK_REQUEST_EVALUATE;
	if (g->is_scoring)
		g->rows = calloc(max_rows, sizeof *g->rows);
	else if (sk_sampler_init(&g->sampler, &request->sampling, n_ids) < 0)
		goto fail;
	/* A step's own slot, the first token that nothing precedes, and a step's scores. */
	g->queue_allocated =
		(request->trace || request->begun) + (g->is_scoring ? max_rows + 1 : 0);
	if (g->queue_allocated)
		g->queue = calloc(g->queue_allocated, sizeof *g->queue);
	if ((g->is_scoring && !g->rows) || (g->queue_allocated && !g->queue))
		goto fail;
	if (session->last_id >= 0 && sk_ids_append(&g->input, session->last_id) < 0)
		goto fail;
	for (size_t i = 0; i < request->ids.n_ids; i++) {
		if (sk_ids_append(&g->input, request->ids.ids[i]) < 0)
			goto fail;
	}
	if (!g->is_scoring)
		sk_sampler_resume(&g->sampler, &session->sampler);
	size_t n_seen = g->input.n_ids < SK_REPEAT_MOST ? g->input.n_ids : SK_REPEAT_MOST;
	size_t at = g->input.n_ids - n_seen;
	if (!at && session->last_id >= 0 && session->sampler.n_recent) /* seen when it was drawn */
		at = 1;
	for (size_t i = at; !g->is_scoring && i < g->input.n_ids; i++)
		sk_sampler_saw(&g->sampler, g->input.ids[i]);
	g->scoring = (struct sk_scoring){.ids = g->input.ids, .n_ids = g->input.n_ids};
	if (session->window.policy.mode == SK_MODE_RECOMPUTE)
		g->scoring.block = sk_policy_capacity(&session->window.policy);
	if (g->is_scoring && session->last_id < 0) /* nothing precedes it */
		g->queue[g->n_queue++] = (struct sk_slot){
			.request = request->id, .id = g->input.ids[0], .flags = SK_SLOT_UNSCORED};
	sk_detokenizer_init(&g->detokenizer, tokenizer, request->show_special);
	sk_stops_init(&g->stops, request->stops, request->n_stops);
	const bool goes_on =
		request->is_resumed && request->resumed_given && session->has_open_text;
	if (goes_on)
		sk_generation_take_text(g, &session->open_text);

	g->result.prompt_tokens = request->ids.n_ids;
	g->result.reused_tokens = sk_window_live(&session->window);
	g->input_at = g->n_shared = n_shared;
	g->result.live_min = UINT64_MAX;
	g->result.seed = g->sampler.sampling.seed;
	if (session->name[0]) {
		g->marks = calloc(1, sizeof *g->marks);
		if (!g->marks)
			goto fail;
		g->marks->given.window = session->window;
		if (n_shared) /* before it, there was nothing */
			sk_window_init(&g->marks->given.window, &session->window.policy);
		g->marks->given.last_id = session->last_id;
		if (goes_on)
			g->marks->given.text = session->open_text;
	}
	sk_ids_finish(&request->ids);
	session->has_open_text = false;
	session->is_busy = true;
	session->n_requests++;
	g->request = request;
	g->session = session;
	if (request->begun)
		queue_begun(g, sk_session_position(session) - n_shared);
	g->since_ns = sk_clock_ns();
	return g;

fail:
	sk_ids_finish(&g->input);
	sk_sampler_finish(&g->sampler);
	free(g->queue);
	free(g->rows);
	free(g);
	return NULL;
}

void sk_generation_destroy(struct sk_generation *g)
{
	if (!g)
		return;
	sk_list_remove(&g->node);
	g->session->is_busy = false;
	if (g->session->name[0]) {
		g->session->keep_from = UINT64_MAX;
		g->session->keep_sinks = 0;
		if (!g->session->is_moving && !g->session->is_stored)
			sk_session_trim(g->session);
		sk_session_settle(g->session);
		if (g->result.generated_tokens)
			sk_sampler_remember(&g->sampler, &g->session->sampler);
		g->session->last_used_ns = sk_clock_ns();
		g->session->turn_ns = g->session->last_used_ns - g->since_ns;
	} else if (!g->session->is_left) {
		sk_session_destroy(g->session);
	}
	sk_request_destroy(g->request);
	sk_sampler_finish(&g->sampler);
	sk_ids_finish(&g->input);
	free(g->queue);
	free(g->rows);
	free(g->marks);
	free(g);
}

static void ending(struct sk_generation *g, enum sk_stop_reason stop, const char *reason)
{
	g->is_ending = true;
	g->result.stop = stop;
	snprintf(g->reason, sizeof g->reason, "%s", reason);
}

/* FINISHED tells the loop, which drops the connection. */
void sk_generation_broke_ring(struct sk_generation *g)
{
	if (g->is_detached)
		return;
	g->is_detached = true;
	g->request->finished->error = -EPROTO;
	ending(g, SK_STOP_DISCONNECTED, "the client broke its token ring");
}

/* --- Running --- */

void sk_generation_share(struct sk_generation *g, uint32_t n)
{
	g->input_at = g->n_shared = n;
	g->result.reused_tokens = n;
}

static uint64_t n_rows(const struct sk_generation *g)
{
	return g->is_scoring ? sk_scoring_n_rows(&g->scoring) : g->input.n_ids;
}

bool sk_generation_waits(const struct sk_generation *g)
{
	return g->has_slot || g->queue_at < g->n_queue;
}

uint64_t sk_generation_n_wanted(const struct sk_generation *g)
{
	if (sk_generation_waits(g) || g->is_ending || g->yields_ns || g->session->is_moving ||
	    g->session->is_stored || sk_generation_is_ahead(g))
		return 0;
	uint64_t n = n_rows(g) - g->input_at, most = g->request->chunk_tokens;
	return most && most < n ? most : n;
}

uint64_t sk_generation_n_left(const struct sk_generation *g)
{
	const uint64_t n = n_rows(g) - g->input_at,
		       most = g->is_scoring ? 0
					    : g->request->max_tokens - g->result.generated_tokens;
	return most < UINT64_MAX - n ? n + most : UINT64_MAX;
}

bool sk_generation_draws_after(const struct sk_generation *g, uint32_t n)
{
	return !g->is_scoring && g->input_at + n == n_rows(g);
}

const int32_t *sk_generation_input(struct sk_generation *g, uint32_t n)
{
	if (!g->is_scoring)
		return g->input.ids + g->input_at;
	for (uint32_t i = 0; i < n; i++)
		g->rows[i] = g->input.ids[sk_scoring_token(&g->scoring, g->input_at + i)];
	return g->rows;
}

bool sk_generation_scores(const struct sk_generation *g, uint32_t i, int32_t *ret_id)
{
	uint64_t target = g->is_scoring ? sk_scoring_target(&g->scoring, g->input_at + i) : 0;
	if (target)
		*ret_id = g->input.ids[target];
	return target;
}

/* What the client is told of a step, before what the step brought. */
static void queue_step(struct sk_generation *g, const struct sk_view *first, uint32_t n,
		       uint64_t step_ns)
{
	const struct sk_session *session = g->session;
	struct sk_slot slot = {.request = g->request->id,
			       .id = -1,
			       .flags = SK_SLOT_STEP | SK_SLOT_NO_TOKEN,
			       .n_text_bytes = sizeof(struct sk_slot_step)};
	struct sk_slot_step step = {
		.position = session->origin + first->entry,
		.first = session->origin + session->window.first,
		.step_ns = step_ns,
		.n_tokens = n,
		.live = (uint32_t)first->live,
		.live_after = (uint32_t)sk_window_live(&session->window),
		.n_sink = (uint32_t)session->window.n_sink,
	};
	memcpy(slot.text, &step, sizeof step);
	g->queue[g->n_queue++] = slot;
}

bool sk_generation_ran(struct sk_generation *g, const struct sk_view *views, uint32_t n,
		       uint64_t step_ns, uint64_t now_ns)
{
	struct sk_result *r = &g->result;
	bool is_recompute = g->scoring.block; /* what its blocks drop is no part of a timeline */

	for (uint32_t i = 0; i < n; i++) {
		int32_t id;
		if (is_recompute && !sk_generation_scores(g, i, &id))
			continue;
		r->live_min = views[i].live < r->live_min ? views[i].live : r->live_min;
		r->live_max = views[i].live > r->live_max ? views[i].live : r->live_max;
		if (is_recompute)
			continue;
		r->evicted_tokens += views[i].n_evicted;
		r->evictions += views[i].n_evicted > 0;
	}
	r->steps++;
	r->step_ns += step_ns;
	g->input_at += n;
	g->session->last_id =
		-1; /* the first of the input, cached now; one that is drawn comes after */
	if (g->request->trace)
		queue_step(g, views, n, step_ns);
	if (is_recompute)
		r->evaluated_tokens = g->input_at;
	else if (
		!r->generated_tokens) /* the session's last token before the prompt is not counted */
		r->evaluated_tokens =
			g->input_at - (g->input.n_ids - r->prompt_tokens) - g->n_shared;
	if (g->input_at < n_rows(g))
		return false;
	if (!g->prompt_done_ns) {
		g->prompt_done_ns = now_ns;
		r->prefill_ns = now_ns - g->began_ns;
		if (g->marks)
			sk_generation_mark_prompt(g);
	}
	return true;
}

void sk_generation_scored(struct sk_generation *g, const struct sk_view *views, uint32_t n,
			  const float *scores, uint64_t now_ns)
{
	struct sk_result *r = &g->result;
	uint64_t row = g->input_at - n;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t target = sk_scoring_target(&g->scoring, row + i);
		if (!target)
			continue;
		float score = *scores++;
		if (!isfinite(score)) {
			sk_generation_end(g, SK_STOP_ERROR, NOT_NUMBERS);
			return;
		}
		uint64_t n_evicted = g->scoring.block ? 0 : views[i].n_evicted;
		g->queue[g->n_queue++] = (struct sk_slot){
			.request = g->request->id,
			.id = g->input.ids[target],
			.logprob = score,
			.live = (uint32_t)views[i].live,
			.evicted = n_evicted > UINT16_MAX ? UINT16_MAX : (uint16_t)n_evicted,
		};
		r->scored_tokens++;
	}
	/* Scored, and not cached yet: what comes next goes on from it. */
	if (!g->scoring.block)
		g->session->last_id = g->input.ids[g->input_at];
	if (g->input_at == n_rows(g))
		sk_generation_end(g, SK_STOP_DONE, "");
	(void)sk_generation_deliver(g, now_ns);
}

/* --- Drawing --- */

/* What the coming step will do with the token that has just been drawn: its place is settled
 * already. */
static struct sk_view coming_view(const struct sk_session *session)
{
	struct sk_window window = session->window;
	struct sk_view view;
	sk_window_step(&window, &view);
	return view;
}

/* What detokenizer and stop strings held back, now that nothing more comes. */
static void end_text(struct sk_generation *g)
{
	uint8_t rest[4], text[SK_STOPS_MOST_OUT];
	int matched;

	size_t n = sk_detokenizer_flush(&g->detokenizer, rest);
	n = sk_stops_push(&g->stops, rest, n, text, &matched);
	memcpy(g->text + g->n_text_bytes, text, n);
	g->n_text_bytes += n;
	g->n_text_bytes += sk_stops_flush(&g->stops, g->text + g->n_text_bytes);
}

static void forget_slots(struct sk_generation *g)
{
	g->has_slot = false;
	g->n_queue = g->queue_at = 0;
}

void sk_generation_end(struct sk_generation *g, enum sk_stop_reason stop, const char *reason)
{
	if (stop == SK_STOP_DISCONNECTED)
		g->is_detached = true;
	if (g->is_ending) {
		if (g->is_detached &&
		    sk_generation_waits(
			    g)) { /* its end was never delivered, so it is not how it ended */
			forget_slots(g);
			ending(g, stop, reason);
		}
		return;
	}
	ending(g, stop, reason);
	if (g->is_detached) {
		forget_slots(g);
		return;
	}
	/* Behind a token that waits already, or alone. */
	if (!g->has_slot) {
		g->slot = (struct sk_slot){
			.request = g->request->id, .id = -1, .flags = SK_SLOT_NO_TOKEN};
		g->n_text_bytes = 0;
		g->has_slot = true;
		if (g->queue_at == g->n_queue)
			g->paused_ns = 0;
	}
	if (!g->is_scoring)
		end_text(g);
	g->slot.flags |= SK_SLOT_LAST;
}

void sk_generation_drew(struct sk_generation *g, const struct sk_tokenizer *tokenizer,
			struct sk_drawn drawn, uint64_t context, uint64_t now_ns)
{
	const struct sk_request *request = g->request;
	struct sk_result *r = &g->result;
	const int32_t id = drawn.id;

	if (id < 0) {
		sk_generation_end(g, SK_STOP_ERROR, NOT_NUMBERS);
		return;
	}
	sk_sampler_saw(&g->sampler, id);
	g->session->last_id = id;

	struct sk_view view = coming_view(g->session);
	g->slot = (struct sk_slot){
		.request = request->id,
		.id = id,
		.logprob = drawn.logprob,
		.live = view.live > UINT32_MAX ? UINT32_MAX : (uint32_t)view.live,
		.evicted = view.n_evicted > UINT16_MAX ? UINT16_MAX : (uint16_t)view.n_evicted,
		.flags = sk_tokenizer_is_special(tokenizer, id) ? SK_SLOT_SPECIAL : 0,
	};
	if (!r->generated_tokens++) {
		g->first_token_ns = now_ns;
		r->first_token_ns = now_ns - request->arrived_ns;
	}
	r->decode_ns = now_ns - g->first_token_ns;
	g->drawn = (struct sk_mark){
		.window = g->session->window, .last_id = id, .n_drawn = r->generated_tokens};
	memcpy(g->drawn.random, g->sampler.random, sizeof g->drawn.random);

	uint8_t piece[SK_DETOKENIZER_MOST];
	int matched = -1;
	bool is_end = !request->ignore_eos && sk_tokenizer_is_end(tokenizer, id);
	size_t n = is_end && !request->show_special
			   ? 0
			   : sk_detokenizer_push(&g->detokenizer, id, piece);
	g->n_text_bytes = sk_stops_push(&g->stops, piece, n, g->text, &matched);
	g->has_slot = true;
	sk_generation_note_text(g);

	if (matched >= 0) {
		ending(g, SK_STOP_STRING, "");
		r->stop_index = (uint32_t)matched;
	} else if (is_end) {
		ending(g, SK_STOP_EOS, "");
	} else if (r->generated_tokens >= request->max_tokens) {
		ending(g, SK_STOP_LIMIT, "");
	} else if (g->session->window.policy.mode == SK_MODE_DENSE && view.live + 1 > context) {
		ending(g, SK_STOP_LIMIT, "");
		snprintf(g->reason, sizeof g->reason,
			 "the dense session has filled the model's context of %llu tokens; a "
			 "streaming one would go on",
			 (unsigned long long)context);
	} else {
		/* The token drawn is the whole input of the next step. */
		g->input.ids[0] = id;
		g->input.n_ids = 1;
		g->input_at = 0;
	}
	if (g->is_ending) {
		if (matched < 0)
			end_text(g);
		g->slot.flags |= SK_SLOT_LAST;
	}
	(void)sk_generation_deliver(g, now_ns);
}

/* --- Telling --- */

static int put_all(struct sk_generation *g)
{
	struct sk_ring_writer *ring = g->request->ring;
	uint32_t put_us = (uint32_t)(sk_clock_ns() / 1000);
	int err = 0;

	while (!err && g->queue_at < g->n_queue) {
		struct sk_slot *slot = &g->queue[g->queue_at];
		slot->put_us = put_us;
		err = sk_ring_writer_put(ring, slot, slot->text, slot->n_text_bytes);
		g->queue_at += !err;
	}
	g->slot.put_us = put_us;
	return !err && g->has_slot ? sk_ring_writer_put(ring, &g->slot, g->text, g->n_text_bytes)
				   : err;
}

bool sk_generation_deliver(struct sk_generation *g, uint64_t now_ns)
{
	if (!sk_generation_waits(g))
		return true;
	uint32_t queue_at = g->queue_at;
	int err = g->is_detached ? -EPROTO : put_all(g);
	if (err == -EAGAIN) {
		if (!g->paused_ns || g->queue_at > queue_at) /* or it reads, if slowly */
			g->paused_ns = now_ns;
		return false;
	}
	if (!err && g->marks && g->has_slot && !(g->slot.flags & SK_SLOT_NO_TOKEN)) {
		g->drawn.ring_end = sk_ring_writer_n_put(g->request->ring);
		sk_marks_add(g->marks, &g->drawn);
	}
	forget_slots(g);
	g->paused_ns = 0;
	if (err < 0) /* a lying cursor */
		sk_generation_broke_ring(g);
	return true;
}

bool sk_generation_is_over(const struct sk_generation *g)
{
	return g->is_ending && !sk_generation_waits(g);
}

struct sk_event *sk_generation_finish(struct sk_generation *g)
{
	struct sk_event *event = sk_event_answer(g->request, SK_EVENT_FINISHED);
	sk_generation_settle(g);
	if (g->result.live_min == UINT64_MAX)
		g->result.live_min = g->result.live_max;
	g->result.position = sk_session_position(g->session);
	if (g->scoring.block)
		g->result.position = g->result.scored_tokens + 1;
	g->result.cache_bytes =
		g->most_pages * sk_backend_page_bytes(g->session->pages.pool->backend);
	g->result.has_policy = true;
	g->result.policy = g->session->window.policy;
	event->result = g->result;
	snprintf(event->reason, sizeof event->reason, "%s", g->reason);
	return event;
}
