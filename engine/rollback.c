/* How far a generation's client is, and going back to there. */
#include "engine/generation.h"

#include "base/clock.h"

#include <string.h>

bool sk_generation_is_ahead(const struct sk_generation *g)
{
	return g->marks && g->marks->n &&
	       (g->yields_ns || sk_marks_are_full(g->marks) || sk_session_is_crowded(g->session));
}

bool sk_generation_is_even(const struct sk_generation *g)
{
	return !g->marks || g->is_scoring || (!g->marks->n && !sk_generation_waits(g));
}

bool sk_generation_is_unread(const struct sk_generation *g)
{
	return g->marks && g->n_read < g->marks->given.ring_end;
}

void sk_generation_make_even(struct sk_generation *g)
{
	if (!g->marks || sk_generation_waits(g))
		return;
	sk_marks_read(g->marks, UINT64_MAX);
	g->session->keep_from = g->marks->given.window.first;
}

void sk_generation_look(struct sk_generation *g)
{
	if (!g->marks || !g->prompt_done_ns)
		return;
	const uint64_t n_read = sk_ring_writer_n_read(g->request->ring), before = g->n_read;
	g->n_read = n_read;
	sk_marks_read(g->marks, n_read);
	g->session->keep_from = g->marks->given.window.first;
	if (sk_generation_waits(g))
		return;
	if (n_read != before) /* it reads, if slowly */
		g->paused_ns = 0;
	if (sk_generation_is_ahead(g) && sk_ring_writer_room(g->request->ring) < 0) {
		sk_generation_broke_ring(g);
		return;
	}
	if (!sk_generation_is_ahead(g) && !sk_generation_is_unread(g))
		g->paused_ns = 0;
	else if (!g->paused_ns)
		g->paused_ns = sk_clock_ns();
}

bool sk_generation_wait(struct sk_generation *g)
{
	const struct sk_marks *marks = g->marks;
	if (sk_generation_waits(g))
		return sk_ring_writer_wait(g->request->ring);
	return sk_ring_writer_wait_read(g->request->ring, marks->ahead[marks->at].ring_end);
}

/* The whole prompt is cached. Where the session cannot go back to before it, it can at least to here. */
void sk_generation_mark_prompt(struct sk_generation *g)
{
	struct sk_mark *given = &g->marks->given;
	if (!sk_window_is_still_there(&given->window, &g->session->window)) {
		given->window = g->session->window;
		given->last_id = g->is_scoring ? g->input.ids[g->input_at] : -1;
	}
	memcpy(given->random, g->sampler.random, sizeof given->random);
	given->window.policy = g->session->window.policy; /* what it asked for holds from here on */
	if (given->window.n_sink > g->session->window.n_sink) /* the others are let go now */
		given->window.n_sink = g->session->window.n_sink;
	g->session->keep_sinks = 0;
	g->session->keep_from = given->window.first;
}

static void roll_back(struct sk_generation *g)
{
	struct sk_session *session = g->session;
	const struct sk_mark *given = &g->marks->given;

	session->window = given->window;              /* and its policy */
	if (session->is_moving || session->is_stored) /* nothing of it has run */
		return;
	session->last_id = given->last_id;
	memcpy(g->sampler.random, given->random, sizeof given->random);
	sk_sampler_unsee(&g->sampler, g->result.generated_tokens - given->n_drawn);
	g->result.generated_tokens = given->n_drawn;
}

/* At its end: where the session stays. */
void sk_generation_settle(struct sk_generation *g)
{
	if (!g->marks)
		return;
	sk_generation_look(g);
	if (g->is_stalled)
		sk_marks_read(g->marks, UINT64_MAX);
	const struct sk_session *session = g->session;
	const bool has_given_way = g->result.steps && (session->is_moving || session->is_stored);
	if (g->prompt_done_ns ? g->is_detached
			      : !has_given_way && sk_window_is_still_there(&g->marks->given.window,
									   &session->window))
		roll_back(g);
}

void sk_generation_note_text(struct sk_generation *g)
{
	struct sk_open_text *text = &g->drawn.text;

	memcpy(text->waiting, g->detokenizer.waiting, sizeof text->waiting);
	text->n_waiting = g->detokenizer.n_waiting;
	memcpy(text->held, g->stops.held, g->stops.n_held);
	text->n_held = (uint16_t)g->stops.n_held;
}

void sk_generation_take_text(struct sk_generation *g, const struct sk_open_text *text)
{
	memcpy(g->detokenizer.waiting, text->waiting, sizeof text->waiting);
	g->detokenizer.n_waiting = text->n_waiting;
	memcpy(g->stops.held, text->held, text->n_held);
	g->stops.n_held = text->n_held;
}
