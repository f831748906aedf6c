/* A model, the CPU backend and one session, driven by hand: the engine's forward pass without its
 * thread. */
#pragma once

#include "engine/forward.h"
#include "engine/session.h"
#include "sk_test_backend.h"

#include <errno.h>
#include <math.h>
#include <string.h>

struct harness {
	struct sk_model *model;
	struct sk_backend *backend;
	struct sk_forward forward;
	struct sk_pool pool;
	uint32_t n_vocab, max_rows;
};

static inline void harness_open(struct harness *h, const char *path, enum sk_weight_format weights,
				enum sk_kv_format kv, const char *instructions, bool exact,
				uint32_t max_rows)
{
	struct sk_diag diag = {""};
	struct sk_backend_options options = {.instructions = instructions, .exact = exact};

	memset(h, 0, sizeof *h);
	h->max_rows = max_rows;
	if (sk_model_open(path, &h->model, &diag) < 0)
		fail_msg("%s", diag.text);
	struct sk_backend_shape shape = sk_forward_shape(sk_model_config(h->model), kv, max_rows);
	if (instructions && sk_test_backend() != &sk_cpu_backend)
		sk_test_skip("instructions are the CPU's");
	int r = sk_backend_open(sk_test_backend(), &options, &shape, &h->backend, &diag);
	if (r == -ENODEV)
		sk_test_skip("%s", diag.text);
	if (r < 0)
		fail_msg("%s", diag.text);
	if (sk_forward_init(&h->forward, h->backend, h->model, weights, max_rows, NULL, NULL,
			    &diag) < 0)
		fail_msg("%s", diag.text);
	assert_int_equal(sk_pool_init(&h->pool, h->backend, 256), 0);
	assert_int_equal(sk_pool_promise(&h->pool, 256), 0);
	h->n_vocab = sk_model_config(h->model)->n_vocab;
}

static inline void harness_close(struct harness *h)
{
	assert_int_equal(h->pool.n_free, h->pool.n_pages); /* every session gave its pages back */
	sk_pool_finish(&h->pool);
	sk_forward_finish(&h->forward);
	sk_backend_close(h->backend);
	sk_model_close(h->model);
}

/* Called for every token run: its logits (n_vocab) and what it saw. */
typedef void harness_see(void *context, size_t index, const struct sk_view *view,
			 const float *logits);

/* Runs ids[0..n) through the session in chunks of `chunk` tokens (at most max_rows). */
static inline void harness_run(struct harness *h, struct sk_session *session, const int32_t *ids,
			       size_t n, uint32_t chunk, harness_see *see, void *context)
{
	struct sk_row *rows = calloc(chunk, sizeof *rows);
	struct sk_view *views = calloc(chunk, sizeof *views);
	uint32_t *wanted = calloc(chunk, sizeof *wanted);

	assert_true(chunk <= h->max_rows);
	for (size_t at = 0; at < n;) {
		uint32_t k = n - at < chunk ? (uint32_t)(n - at) : chunk;
		struct sk_span span;
		assert_int_equal(sk_session_advance(session, ids + at, k, rows, views, &span), 0);
		struct sk_batch batch = {.n_rows = k, .n_spans = 1, .rows = rows, .spans = &span};
		for (uint32_t i = 0; i < k; i++)
			wanted[i] = i;
		assert_int_equal(sk_forward_run(&h->forward, &batch, wanted, NULL, k, NULL, 0), 0);
		sk_session_trim(session);
		for (uint32_t i = 0; i < k && see; i++)
			see(context, at + i, &views[i], sk_forward_logits(&h->forward, i));
		at += k;
	}
	free(rows);
	free(views);
	free(wanted);
}

static inline struct sk_session *harness_session(struct harness *h, enum sk_mode mode,
						 uint32_t sink, uint32_t window, uint32_t slack)
{
	struct sk_policy policy = {mode, sink, window, slack};
	struct sk_session *session = sk_session_create(&h->pool, 1, "", &policy);
	assert_non_null(session);
	return session;
}

static inline double log_sum_exp(const float *logits, uint32_t n)
{
	double most = -INFINITY, sum = 0;
	for (uint32_t i = 0; i < n; i++)
		most = (double)logits[i] > most ? (double)logits[i] : most;
	for (uint32_t i = 0; i < n; i++)
		sum += exp((double)logits[i] - most);
	return most + log(sum);
}
