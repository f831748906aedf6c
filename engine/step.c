/* One step of the model: who runs how much (scheduler.h), a batch of their tokens, and what comes
 * of it. */
#include "base/clock.h"
#include "engine/state.h"

#include <errno.h>
#include <stdio.h>

#define PROGRESS_NS 100000000u
#define FREE_TOKENS 8 /* more in a step, and arithmetic takes longer than reading the weights */

/* The thread tells it, after it has told every request how it ended. */
static void dead(struct sk_engine *engine, const char *reason)
{
	engine->is_dead = true;
	if (engine->dead)
		snprintf(engine->dead->reason, sizeof engine->dead->reason, "%s", reason);
}

/* That the device failed, with what failed where the backend knows; and what follows. */
static void say_failed(const struct sk_engine *engine, char *text, size_t n_bytes, const char *more)
{
	const char *why = sk_backend_why(engine->backend);
	snprintf(text, n_bytes, "the device failed in the middle of a step%s%s%s%s",
		 why[0] ? " (" : "", why, why[0] ? ")" : "", more);
}

/* Which of a generation's n rows, from batch row `row0` on, score what. Returns how many do. */
static uint32_t want_scores(struct sk_score *scores, const struct sk_generation *g, uint32_t row0,
			    uint32_t n)
{
	uint32_t n_scores = 0;
	for (uint32_t i = 0; i < n; i++) {
		int32_t id;
		if (sk_generation_scores(g, i, &id))
			scores[n_scores++] = (struct sk_score){row0 + i, id};
	}
	return n_scores;
}

/* Lays the granted tokens out as rows and spans. Returns the number of spans. */
static uint32_t lay_out(struct sk_engine *engine, struct sk_batch *ret_batch,
			uint32_t *ret_n_logits, uint32_t *ret_n_scores, uint64_t now_ns)
{
	uint32_t n_rows = 0, n_spans = 0, n_logits = 0, n_scores = 0;

	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		uint32_t n = engine->wants[i].n_granted;
		if (!n)
			continue;
		struct sk_span *span = &engine->spans[n_spans];
		int err = sk_session_advance(g->session, sk_generation_input(g, n), n,
					     engine->rows + n_rows, engine->views + n_rows, span);
		if (err < 0) {
			sk_generation_end(g, SK_STOP_ERROR,
					  "not enough memory for the session's cache");
			continue;
		}
		if (!g->began_ns) {
			g->began_ns = now_ns;
			g->result.queue_ns = now_ns - g->request->arrived_ns;
		}
		span->row = n_rows;
		engine->running[n_spans] = g;
		engine->logit_of[n_spans] = -1;
		engine->score_of[n_spans] = n_scores;
		n_scores += want_scores(engine->scores + n_scores, g, n_rows, n);
		uint32_t n_pages = sk_pages_distinct(&g->session->pages);
		g->most_pages = n_pages > g->most_pages ? n_pages : g->most_pages;
		n_rows += n;
		if (sk_generation_draws_after(g, n)) {
			engine->logit_of[n_spans] = n_logits;
			sk_sampler_next(&g->sampler, &engine->draws[n_logits]);
			engine->logit_rows[n_logits++] = n_rows - 1;
		}
		n_spans++;
	}
	*ret_batch = (struct sk_batch){
		.n_rows = n_rows,
		.n_spans = n_spans,
		.rows = engine->rows,
		.spans = engine->spans,
	};
	*ret_n_logits = n_logits;
	*ret_n_scores = n_scores;
	return n_spans;
}

/* The rows were counted as cached, but are not: these sessions cannot go on, and have nothing to share. */
static void lose(struct sk_engine *engine, uint32_t n_spans, const char *reason)
{
	for (uint32_t i = 0; i < n_spans; i++) {
		struct sk_generation *g = engine->running[i];
		g->session->name[0] = '\0';
		g->session->n_head = 0;
		sk_generation_end(g, SK_STOP_ERROR, reason);
	}
}

static void tell_progress(struct sk_engine *engine, struct sk_generation *g, uint64_t now_ns)
{
	if (g->prompt_done_ns || now_ns - g->progress_ns < PROGRESS_NS)
		return;
	g->progress_ns = now_ns;
	struct sk_event *event =
		sk_event_create(SK_EVENT_PROGRESS, g->request->connection, g->request->id);
	if (!event)
		return; /* the next one will tell */
	event->progress.prompt_tokens = g->result.prompt_tokens;
	event->progress.evaluated_tokens = g->result.evaluated_tokens;
	sk_mailbox_post(&engine->events, &event->node);
}

static void count_prompt(struct sk_engine *engine, struct sk_generation *g, uint32_t n)
{
	engine->stats.n_prompt_tokens += n;
	g->user->n_prompt_tokens += n;
}

static void count_generated(struct sk_engine *engine, struct sk_generation *g, uint64_t n)
{
	engine->stats.n_generated_tokens += n;
	g->user->n_generated_tokens += n;
	g->session->n_generated += n;
}

/* Of the time that a step took for attention, one span's part, by the entries that its rows attended to. */
static uint64_t attention_share(const struct sk_engine *engine, const struct sk_profile *profile,
				const struct sk_span *span, uint32_t n_rows)
{
	double all = 0, own = 0;

	for (uint32_t row = 0; row < n_rows; row++) {
		double seen = (double)engine->views[row].live + 1;
		all += seen;
		own += row - span->row < span->n_rows ? seen : 0;
	}
	return (uint64_t)((double)(profile->ns[SK_OP_APPEND] + profile->ns[SK_OP_ATTEND]) * own /
			  all);
}

static void cut_to_allowances(struct sk_engine *engine, uint64_t now_ns)
{
	sk_list_for_each (node, &engine->users) {
		struct sk_user *user = sk_container_of(node, struct sk_user, node);
		user->resumes_ns = sk_allowance_cut(&user->allowance, &user->tenant, engine->wants,
						    engine->n_generations,
						    engine->options.step_tokens, now_ns);
	}
}

static void take_from_allowances(struct sk_engine *engine, uint64_t now_ns)
{
	sk_list_for_each (node, &engine->users) {
		struct sk_user *user = sk_container_of(node, struct sk_user, node);
		sk_allowance_take(&user->allowance, &user->tenant, engine->wants,
				  engine->n_generations, now_ns);
	}
}

/* Where some decode and others have prompts, what these may have. */
static struct sk_schedule_limits limits_of(struct sk_engine *engine)
{
	struct sk_schedule_limits limits = {
		.max_sessions = engine->options.max_batch,
		.max_tokens = engine->options.step_tokens,
		.chunk_tokens = engine->options.step_tokens,
		.free_tokens = FREE_TOKENS,
	};
	uint32_t n_decoding = 0, n_prompts = 0;

	for (uint32_t i = 0; i < engine->n_generations; i++) {
		n_decoding += engine->wants[i].n_tokens == 1;
		n_prompts += engine->wants[i].n_tokens > 1;
	}
	if (n_decoding > limits.max_sessions)
		n_decoding = limits.max_sessions;
	if (n_decoding && n_prompts) {
		uint32_t most = sk_pace_most(
			&engine->pace, n_decoding,
			sk_schedule_part_of_prompts(engine->wants, engine->n_generations));
		if (most < limits.max_tokens - n_decoding)
			limits.max_tokens = n_decoding + most;
	}
	return limits;
}

/* What it took, with which rows. */
static void learn_pace(struct sk_engine *engine, uint64_t ns)
{
	uint32_t n_decoding = 0, n_prompt = 0;

	for (uint32_t i = 0; i < engine->n_generations; i++) {
		if (engine->wants[i].n_tokens == 1)
			n_decoding += engine->wants[i].n_granted;
		else
			n_prompt += engine->wants[i].n_granted;
	}
	sk_pace_learn(&engine->pace, n_decoding, n_prompt, ns);
}

void sk_engine_publish(struct sk_engine *engine)
{
	sk_engine_commit(engine);
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		if (!g->is_detached)
			sk_ring_writer_publish(g->request->ring);
	}
}

bool sk_engine_step(struct sk_engine *engine)
{
	uint64_t begun_ns = sk_clock_ns();
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		engine->wants[i] = (struct sk_want){.tenant = &g->user->tenant,
						    .share = &g->session->share,
						    .n_tokens = sk_engine_n_wanted(engine, g)};
	}
	cut_to_allowances(engine, begun_ns);
	struct sk_schedule_limits limits = limits_of(engine);
	if (engine->is_dead ||
	    !sk_schedule(&engine->scheduler, engine->wants, engine->n_generations, &limits))
		return false;
	take_from_allowances(engine, begun_ns);
	/* Pages were given back since the last step, which this one may take; also those that readers have read past. */
	sk_engine_commit(engine);

	struct sk_batch batch;
	uint32_t n_logits, n_scores;
	uint32_t n_spans = lay_out(engine, &batch, &n_logits, &n_scores, begun_ns);
	if (!n_spans)
		return true;
	struct sk_profile profile = {{0}};
	bool is_profiled = begun_ns < engine->profile_until_ns;
	for (uint32_t i = 0; i < n_spans; i++)
		is_profiled |= engine->running[i]->request->profile;
	sk_backend_set_profile(engine->backend, is_profiled ? &profile : NULL);
	int err = sk_forward_run(&engine->forward, &batch, engine->logit_rows, engine->draws,
				 n_logits, engine->scores, n_scores);
	sk_backend_set_profile(engine->backend, NULL);
	uint64_t now_ns = sk_clock_ns();
	if (is_profiled) {
		engine->stats.n_profiled_steps++;
		engine->stats.profiled_ns += now_ns - begun_ns;
		for (unsigned op = 0; op < SK_N_OPS; op++)
			engine->stats.profile.ns[op] += profile.ns[op];
	}
	if (err < 0) {
		char reason[400];
		if (err == -EIO)
			say_failed(engine, reason, sizeof reason, "; the session is lost");
		else
			snprintf(reason, sizeof reason, "%s; the session is lost",
				 err == -ENOMEM ? "not enough memory on the device for this step"
						: "a fault of the daemon ended this step");
		lose(engine, n_spans, reason);
		if (err == -EIO) {
			say_failed(engine, reason, sizeof reason, "");
			dead(engine, reason);
		}
		return true;
	}
	for (uint32_t i = 0; i < n_scores; i++)
		engine->score_values[i] = sk_forward_score(&engine->forward, i);
	engine->stats.n_steps++;
	learn_pace(engine, now_ns - begun_ns);
	for (uint32_t i = 0; i < n_spans; i++) {
		struct sk_generation *g = engine->running[i];
		struct sk_span *span = &engine->spans[i];
		const struct sk_view *views = engine->views + span->row;
		bool was_prompt = !g->prompt_done_ns;

		sk_session_trim(g->session);
		if (was_prompt)
			count_prompt(engine, g, span->n_rows);
		if (g->request->profile)
			g->result.attention_ns +=
				attention_share(engine, &profile, span, batch.n_rows);
		bool is_done = sk_generation_ran(g, views, span->n_rows, now_ns - begun_ns, now_ns);
		if (g->is_scoring) {
			sk_generation_scored(g, views, span->n_rows,
					     engine->score_values + engine->score_of[i], now_ns);
			tell_progress(engine, g, now_ns);
			continue;
		}
		if (!is_done) {
			(void)sk_generation_deliver(
				g, now_ns); /* its step, where it asked for a trace */
			tell_progress(engine, g, now_ns);
			continue;
		}
		uint64_t n_before = g->result.generated_tokens;
		sk_generation_drew(
			g, engine->tokenizer,
			sk_forward_drawn(&engine->forward, (uint32_t)engine->logit_of[i]),
			engine->config.n_context, now_ns);
		count_generated(engine, g, g->result.generated_tokens - n_before);
	}
	sk_engine_publish(engine);
	return true;
}
