#include "bench/gpu_work.h"

#include "gpu/device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGES_EACH 12                /* of the sinks, the window and what a step may add */
#define PAGES_MORE 64                /* for a prompt's chunk */
#define LEFT_BYTES ((size_t)1 << 30) /* for what CUDA makes of steps: graphs, libraries' kernels */

void gpu_work_fail(const char *what, int error)
{
	fprintf(stderr, "bench_gpu: %s: %s\n", what, strerror(-error));
	exit(1);
}

static void check(const char *what, int r)
{
	if (r < 0)
		gpu_work_fail(what, r);
}

static int32_t some_id(const struct gpu_work *work, uint64_t i)
{
	return (int32_t)(i * 2654435761u % work->forward.config.n_vocab);
}

/* Sessions may always take what is free. */
static void top_up(struct gpu_work *work)
{
	check("pages", sk_pool_promise(&work->pool, work->pool.n_free - work->pool.n_promised));
}

void gpu_work_init(struct gpu_work *work, struct sk_backend *backend, const struct sk_model *model,
		   enum sk_weight_format format)
{
	struct sk_diag diag = {""};
	work->backend = backend;
	if (sk_forward_init(&work->forward, backend, model, format, GPU_WORK_SESSIONS, NULL, NULL,
			    &diag) < 0) {
		fprintf(stderr, "bench_gpu: %s\n", diag.text);
		exit(1);
	}
}

double gpu_work_linear_bytes(const struct sk_linear *linear)
{
	return (double)(linear->codes.size_bytes + linear->scales.size_bytes +
			linear->bias.size_bytes);
}

static uint32_t sessions_that_fit(const struct gpu_work *work)
{
	size_t n_free, n_total;
	if (cudaMemGetInfo(&n_free, &n_total) != cudaSuccess)
		gpu_work_fail("asking for the memory that is free", -EIO);
	const uint64_t n_pages =
		n_free > LEFT_BYTES ? (n_free - LEFT_BYTES) / sk_backend_page_bytes(work->backend)
				    : 0;
	const uint64_t n = n_pages > PAGES_MORE ? (n_pages - PAGES_MORE) / PAGES_EACH : 0;
	return n < GPU_WORK_SESSIONS ? (uint32_t)n : GPU_WORK_SESSIONS;
}

void gpu_work_begin(struct gpu_work *work, uint32_t n_sessions)
{
	const struct sk_policy policy = {SK_MODE_STREAMING, GPU_WORK_SINK, GPU_WORK_WINDOW, 0};
	const uint32_t n_most = sessions_that_fit(work);
	n_sessions = n_sessions < n_most ? n_sessions : n_most;
	if (n_sessions == 0)
		gpu_work_fail("the pages of one session", -ENOMEM);
	const uint32_t n_pages = n_sessions * PAGES_EACH + PAGES_MORE;
	check("the pool of pages", sk_pool_init(&work->pool, work->backend, n_pages));
	check("the pool of pages", sk_pool_promise(&work->pool, n_pages));
	for (uint32_t i = 0; i < GPU_WORK_ROWS; i++) {
		struct sk_draw *draw = &work->draws[i], *sampled = &work->sampled[i];
		*draw = (struct sk_draw){
			.n_ids = work->forward.config.n_vocab, .top_p = 1, .repeat_penalty = 1};
		*sampled = *draw;
		sampled->temperature = 0.8f;
		sampled->top_k = 40;
		sampled->top_p = 0.95f;
		sampled->random = (i + 0.5) / GPU_WORK_ROWS;
	}
	for (uint32_t i = 0; i < n_sessions; i++) {
		work->sessions[i] = sk_session_create(&work->pool, 0, "", &policy);
		if (!work->sessions[i])
			gpu_work_fail("a session", -ENOMEM);
		work->n_sessions++;
		gpu_work_prompt(work, work->sessions[i], GPU_WORK_SINK + GPU_WORK_WINDOW + 32,
				false);
	}
}

void gpu_work_finish(struct gpu_work *work)
{
	for (uint32_t i = 0; i < work->n_sessions; i++)
		sk_session_destroy(work->sessions[i]);
	sk_pool_finish(&work->pool);
	sk_forward_finish(&work->forward);
}

void gpu_work_prompt(struct gpu_work *work, struct sk_session *session, uint32_t n, bool draws)
{
	int32_t ids[GPU_WORK_ROWS];
	for (uint32_t at = 0, k; at < n; at += k) {
		k = n - at < GPU_WORK_ROWS ? n - at : GPU_WORK_ROWS;
		for (uint32_t i = 0; i < k; i++)
			ids[i] = some_id(work, at + i + 1);
		check("a prompt",
		      sk_session_advance(session, ids, k, work->rows, work->views, work->spans));
		const struct sk_batch batch = {k, 1, work->rows, work->spans};
		const uint32_t last = k - 1;
		check("a prompt", sk_forward_run(&work->forward, &batch, &last,
						 draws ? work->draws : NULL, at + k == n, NULL, 0));
		sk_session_trim(session);
		top_up(work);
	}
	if (draws)
		sk_forward_drawn(&work->forward, 0);
}

struct sk_batch gpu_work_batch(struct gpu_work *work, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct sk_session *session = work->sessions[i];
		const int32_t id = some_id(work, session->window.next + i);
		check("a token", sk_session_advance(session, &id, 1, &work->rows[i],
						    &work->views[i], &work->spans[i]));
		work->spans[i].row = i;
		work->wanted[i] = i;
	}
	return (struct sk_batch){n, n, work->rows, work->spans};
}

void gpu_work_trim(struct gpu_work *work, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		sk_session_trim(work->sessions[i]);
	top_up(work);
}

void gpu_work_decode(struct gpu_work *work, uint32_t n, bool reads)
{
	const struct sk_batch batch = gpu_work_batch(work, n);
	check("a step",
	      sk_forward_run(&work->forward, &batch, work->wanted, work->draws, n, NULL, 0));
	for (uint32_t i = 0; i < n && reads; i++)
		sk_forward_drawn(&work->forward, i);
	gpu_work_trim(work, n);
}
