/* A running stream makes room for others when its turn is over: its session goes out to the store as an idle one does, and
 * comes back, exactly, when the queue has it next. Whose turn is over is queue.h's; the carrying is the mover's.
 *
 * One whose client has not read all yet waits for it first, so that nothing which a rollback would need is left behind; but
 * not for longer than the queue's patience: then what lies in the ring counts as read. Recomputing is in no turn: it holds
 * one block.
 */
#include "base/clock.h"
#include "engine/state.h"

#include <errno.h>
#include <stdlib.h>

#define MOST_SOON_NS 1000000000u

/* So long one's pages are waited for, and not taken from another. */
static uint64_t soon_ns(const struct sk_engine *engine)
{
	const uint64_t part_ns = engine->queue.patience_ns / 4;
	return part_ns < MOST_SOON_NS ? part_ns : MOST_SOON_NS;
}

static bool can_wait(const struct sk_generation *g)
{
	const struct sk_session *session = g->session;
	return !g->is_ending && !g->yields_ns && !session->is_stored && !session->is_moving &&
	       !g->scoring.block && g->result.steps &&        /* before, it is as its file says */
	       session->keep_sinks <= session->window.n_sink; /* or it could not go back */
}

/* What those that are giving theirs up will soon have given. */
static uint64_t n_yielded(const struct sk_engine *engine, uint64_t now_ns)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		const struct sk_generation *g = engine->generations[i];
		if (g->yields_ns && !g->is_out &&
		    (g->session->is_leaving || now_ns - g->yields_ns < soon_ns(engine)))
			n += sk_session_n_pages(g->session);
	}
	return n;
}

/* And idle sessions on their way out. */
static uint64_t n_coming(const struct sk_engine *engine, uint64_t now_ns)
{
	uint64_t n = n_yielded(engine, now_ns);
	sk_list_for_each (node, &engine->sessions) {
		const struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (session->is_leaving && !session->is_busy)
			n += sk_session_n_pages(session);
	}
	return n;
}

/* NULL without memory. */
static struct sk_turn *turns_of(const struct sk_engine *engine)
{
	struct sk_turn *turns = calloc(engine->n_generations + 1u, sizeof *turns);
	for (uint32_t i = 0; turns && i < engine->n_generations; i++) {
		const struct sk_generation *g = engine->generations[i];
		turns[i] = (struct sk_turn){.user = g->user,
					    .n_pages = can_wait(g) ? sk_session_n_pages(g->session)
								   : 0,
					    .since_ns = g->since_ns};
	}
	return turns;
}

/* When it gives its pages up at the latest, if its client reads at all. */
uint64_t sk_engine_yields_at(const struct sk_engine *engine, const struct sk_generation *g)
{
	return g->yields_ns + engine->queue.patience_ns;
}

static void begin(struct sk_engine *engine, struct sk_generation *g, uint64_t now_ns)
{
	g->yields_ns = now_ns;
	sk_generation_look(g);
	sk_engine_yield(engine, g);
}

static void look_again(struct sk_engine *engine, uint64_t at_ns)
{
	if (at_ns < engine->preempt_ns)
		engine->preempt_ns = at_ns;
}

enum sk_giving sk_engine_preempt_for(struct sk_engine *engine, struct sk_request *request,
				     bool own_only, uint64_t now_ns)
{
	const struct sk_session *own =
		sk_engine_find_session(engine, request->uid, request->session);
	const uint64_t n_held = own && !request->generation ? sk_session_n_pages(own) : 0,
		       n_soon = n_held + (own_only ? 0 /* these are others' */
						   : engine->pool.n_free - engine->pool.n_promised +
							     n_coming(engine, now_ns));

	if (engine->is_dead || n_soon >= request->n_pages)
		return SK_GIVES_NOTHING;
	if (!sk_engine_can_spill(engine)) {
		look_again(engine, sk_engine_spills_at(engine));
		return SK_GIVES_NOTHING;
	}
	struct sk_turn *turns = turns_of(engine);
	if (!turns)
		return SK_GIVES_NOTHING;
	const enum sk_giving giving =
		sk_queue_preempt(&engine->queue, request, own_only, turns, engine->n_generations,
				 request->n_pages - n_soon);
	if (giving == SK_GIVES_NOW) {
		engine->queue.room_for = request;
		for (uint32_t i = 0; i < engine->n_generations; i++)
			if (turns[i].gives)
				begin(engine, engine->generations[i], now_ns);
		look_again(engine, now_ns + soon_ns(engine));
	} else {
		look_again(engine, sk_queue_preempts_at(&engine->queue, request, turns,
							engine->n_generations));
	}
	free(turns);
	return giving;
}

bool sk_engine_is_making_room(struct sk_engine *engine, uint64_t now_ns)
{
	if (!n_yielded(engine, now_ns))
		return false;
	look_again(engine, now_ns + soon_ns(engine));
	return true;
}

void sk_engine_unpreempt(struct sk_engine *engine)
{
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		if (!g->session->is_leaving && !g->is_out)
			g->yields_ns = 0;
	}
}

void sk_engine_yield(struct sk_engine *engine, struct sk_generation *g)
{
	struct sk_session *session = g->session;

	if (g->is_out || g->is_ending || session->is_moving)
		return;
	if (!sk_generation_is_even(g) && sk_clock_ns() >= sk_engine_yields_at(engine, g))
		sk_generation_make_even(g);
	if (!sk_generation_is_even(g))
		return;
	session->last_used_ns = sk_clock_ns(); /* as the next daemon will find it */
	sk_session_trim(session);              /* what was kept for going back */
	if (g->result.generated_tokens)
		sk_sampler_remember(&g->sampler, &session->sampler);
	struct sk_move *move = sk_engine_move_of(engine, SK_MOVE_OUT, session);
	if (move)
		sk_engine_begin_move(engine, move);
}

static struct sk_generation *yielding(const struct sk_engine *engine,
				      const struct sk_session *session)
{
	for (uint32_t i = 0; i < engine->n_generations; i++) {
		struct sk_generation *g = engine->generations[i];
		if (g->session == session && g->yields_ns)
			return g;
	}
	return NULL;
}

bool sk_engine_yields(const struct sk_engine *engine, const struct sk_session *session)
{
	return yielding(engine, session);
}

void sk_engine_has_yielded(struct sk_engine *engine, struct sk_session *session)
{
	struct sk_generation *g = yielding(engine, session);

	if (!g)
		return;
	if (!session->is_stored) { /* it goes on, and is not asked again for a while */
		g->yields_ns = 0;
		g->since_ns = sk_clock_ns();
		return;
	}
	struct sk_request *request = g->request;
	request->n_pages = session->pages.n_most;
	sk_session_settle(session);
	g->is_out = true;
	request->generation = g;
	request->queued_ns = sk_clock_ns();
	request->kept_ns = 0;
	request->told_place = 0;
	sk_engine_find_client(engine, request->connection)->n_queued++;
	sk_queue_add(&engine->queue, request);
}

int sk_engine_resume(struct sk_engine *engine, struct sk_request *request)
{
	struct sk_generation *g = request->generation;
	struct sk_session *session = g->session;
	const uint64_t n_left = sk_generation_n_left(g);
	struct sk_move *fetch;
	struct sk_diag diag;

	if (session->is_moving) /* its file is being written anew */
		return -EBUSY;
	int err = sk_engine_may_have_pages(engine, request->user, session, request->n_pages, &diag);
	if (err < 0)
		return -EAGAIN;
	err = sk_session_reserve(session, engine->config.n_context,
				 n_left < UINT64_MAX - 1 ? n_left + 1 : UINT64_MAX,
				 &request->n_pages);
	if (err < 0)
		return -ENOSPC;
	err = sk_engine_prepare_fetch(engine, session, &fetch);
	if (err < 0) {
		sk_session_settle(session);
		return -EBUSY;
	}
	if (g->marks && !g->is_scoring)
		sk_session_reserve_kept(session);
	sk_engine_begin_move(engine, fetch);
	g->is_out = false;
	g->yields_ns = 0;
	g->since_ns = sk_clock_ns();
	return 0;
}
