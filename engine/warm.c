/* Steps for nobody, before the first client's. */
#include "engine/state.h"

#include <errno.h>

#define N_WARM 16 /* more than a few rows go another way through most backends */

/* The next n tokens, which ones does not matter, and what is drawn after the last. */
static int run(struct sk_engine *engine, struct sk_session *session, uint32_t n)
{
	const int32_t ids[N_WARM] = {0};
	const uint32_t last = n - 1;
	const struct sk_draw draw = {.n_ids = engine->n_ids, .top_p = 1, .repeat_penalty = 1};
	struct sk_span span;

	int err = sk_session_advance(session, ids, n, engine->rows, NULL, &span);
	if (err < 0)
		return err;
	span.row = 0;
	struct sk_batch batch = {
		.n_rows = n,
		.n_spans = 1,
		.rows = engine->rows,
		.spans = &span,
	};
	err = sk_forward_run(&engine->forward, &batch, &last, &draw, 1, NULL, 0);
	sk_session_trim(session);
	return err;
}

int sk_engine_warm(struct sk_engine *engine, struct sk_diag *diag)
{
	const uint32_t step = engine->options.step_tokens, n = step < N_WARM ? step : N_WARM;
	uint32_t n_pages;

	if (engine->kept.n_broken) /* clients wait for them: their first step warms as well */
		return 0;
	struct sk_session *session =
		sk_session_create(&engine->pool, 0, "", &engine->options.policy);
	if (!session)
		return sk_diag_fail(diag, ENOMEM, "not enough memory");
	int err = sk_session_reserve(session, engine->config.n_context, n + 1, &n_pages);
	if (err == -ENOSPC) { /* an earlier process' sessions hold them all */
		sk_session_destroy(session);
		return 0;
	}
	if (!err)
		err = run(engine, session, n);
	if (!err)
		err = run(engine, session, 1);
	sk_session_destroy(session);
	return err < 0 ? sk_diag_fail(diag, ENODEV, "the device failed in its first step") : 0;
}
