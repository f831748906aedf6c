/* Making an engine, and unmaking it. */
#include "engine/ledger.h"
#include "engine/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_WINDOW   1020
#define MOST_PATIENCE_NS 15000000000u

/* Pages that a step can borrow beyond what its sessions were promised (kv/pages.h). */
static uint32_t n_borrowed(const struct sk_engine_options *options)
{
	return options->step_tokens / SK_PAGE_TOKENS + options->max_batch;
}

/* Rows whose logits are at hand at once: for every session that draws, and enough that scores come at
 * the speed of matrices. */
static uint32_t n_logits(const struct sk_engine_options *options)
{
	uint32_t n = options->step_tokens < 64 ? options->step_tokens : 64;
	return options->max_batch > n ? options->max_batch : n;
}

/* For how long free pages are kept for a request that needs more (queue.h): the others have to wait for it, and are to be
 * served in their time as well. */
static uint64_t patience_ns(const struct sk_engine_options *options)
{
	const uint64_t part_ns = options->queue_timeout_ns / 4;
	return part_ns && part_ns < MOST_PATIENCE_NS ? part_ns : MOST_PATIENCE_NS;
}

static int settle_policy(struct sk_engine *engine, struct sk_diag *diag)
{
	struct sk_policy *policy = &engine->options.policy;

	if (!policy->window) {
		uint64_t others = (uint64_t)sk_policy_sinks(policy) + policy->slack + 1;
		uint64_t context = engine->config.n_context;
		if (others >= context)
			return sk_diag_fail(
				diag, ERANGE,
				"sink %u and slack %u leave no window in the model's context of %u",
				policy->sink, policy->slack, engine->config.n_context);
		uint64_t most = context - others;
		policy->window = most < DEFAULT_WINDOW ? (uint32_t)most : DEFAULT_WINDOW;
	}
	return sk_engine_check_policy(engine, policy, diag) < 0 ? -ERANGE : 0;
}

static int import(struct sk_engine *engine, struct sk_diag *diag)
{
	if (!engine->options.held)
		return 0;
	int err = sk_backend_import_weights(engine->backend, engine->options.held);
	if (err == -ENOTSUP)
		return sk_diag_fail(diag, ENOTSUP,
				    "the weights held lie as '%s' wants them, which %s does not",
				    engine->options.held->layout, sk_backend_name(engine->backend));
	if (err == -EBADMSG)
		return sk_diag_fail(diag, EBADMSG,
				    "the weights held are damaged: start their "
				    "holder again");
	return err < 0 ? sk_diag_fail(diag, -err, "the weights held cannot be had: %s",
				      strerror(-err))
		       : 0;
}

static int open_pool(struct sk_engine *engine, const struct sk_model *model, struct sk_diag *diag)
{
	const struct sk_engine_options *options = &engine->options;
	const struct sk_policy *policy = &options->policy;
	uint64_t page_bytes = sk_backend_page_bytes(engine->backend);
	uint64_t n_pages = options->kv_memory_bytes / page_bytes;
	uint64_t most = sk_policy_most_live(policy, engine->config.n_context);
	uint64_t least =
		(uint64_t)n_borrowed(options) + sk_pages_needed(sk_policy_sinks(policy), most);

	if (n_pages > UINT32_MAX / 2)
		n_pages = UINT32_MAX / 2;
	if (n_pages < least)
		return sk_diag_fail(diag, ENOMEM,
				    "one session of %llu entries needs %llu MiB of KV cache "
				    "memory, --kv-memory gives %llu MiB",
				    (unsigned long long)most,
				    (unsigned long long)(least * page_bytes >> 20) + 1,
				    (unsigned long long)options->kv_memory_bytes >> 20);
	int err = sk_engine_open_pool(engine, model, (uint32_t)n_pages, (uint32_t)least, diag);
	if (err < 0)
		return err;
	engine->n_session_pages = engine->pool.n_pages - n_borrowed(options);
	return sk_pool_promise(&engine->pool, n_borrowed(options));
}

static int alloc_step(struct sk_engine *engine, struct sk_diag *diag)
{
	uint32_t n_tokens = engine->options.step_tokens, n_sessions = engine->options.max_batch;

	engine->rows = calloc(n_tokens, sizeof *engine->rows);
	engine->views = calloc(n_tokens, sizeof *engine->views);
	engine->spans = calloc(n_sessions, sizeof *engine->spans);
	engine->scores = calloc(n_tokens, sizeof *engine->scores);
	engine->score_values = calloc(n_tokens, sizeof *engine->score_values);
	engine->score_of = calloc(n_sessions, sizeof *engine->score_of);
	engine->logit_rows = calloc(n_sessions, sizeof *engine->logit_rows);
	engine->draws = calloc(n_sessions, sizeof *engine->draws);
	engine->logit_of = calloc(n_sessions, sizeof *engine->logit_of);
	engine->running = calloc(n_sessions, sizeof *engine->running);
	engine->dead = sk_event_create(SK_EVENT_DEAD, 0, 0);
	const double share = engine->options.prompt_share;
	if (sk_pace_init(&engine->pace, share > 0 ? share : 1, n_sessions) < 0 || !engine->rows ||
	    !engine->views || !engine->spans || !engine->logit_rows || !engine->draws ||
	    !engine->logit_of || !engine->running || !engine->dead || !engine->scores ||
	    !engine->score_values || !engine->score_of)
		return sk_diag_fail(diag, ENOMEM, "not enough memory for steps of %u tokens",
				    n_tokens);
	return 0;
}

static int open_store(struct sk_engine *engine, const struct sk_model *model, struct sk_diag *diag)
{
	struct sk_image_kind kind = {
		.layout = sk_backend_page_layout(engine->backend),
		.page_bytes = sk_backend_page_bytes(engine->backend),
		.n_vocab = engine->config.n_vocab,
	};
	int err = sk_model_fingerprint(model, kind.model);
	if (!err)
		err = sk_mover_init(&engine->mover, engine->backend, engine->options.store, &kind,
				    &engine->inbox);
	if (!err)
		err = sk_engine_open_store(engine);
	return err < 0 ? sk_diag_fail(diag, -err, "the stored sessions: %s", strerror(-err)) : 0;
}

int sk_engine_create(const struct sk_model *model, const struct sk_tokenizer *tokenizer,
		     const struct sk_engine_options *options, struct sk_engine **ret_engine,
		     struct sk_diag *diag)
{
	if (!options->max_batch || options->step_tokens < options->max_batch)
		return sk_diag_fail(diag, EINVAL,
				    "a step of %u tokens cannot hold one of each of %u sessions",
				    options->step_tokens, options->max_batch);
	struct sk_engine *engine = calloc(1, sizeof *engine);
	if (!engine)
		return sk_diag_fail(diag, ENOMEM, "not enough memory");
	engine->options = *options;
	engine->config = *sk_model_config(model);
	engine->tokenizer = tokenizer;
	engine->n_ids = sk_tokenizer_n_ids(tokenizer);
	sk_list_init(&engine->known);
	sk_list_init(&engine->texts);
	sk_list_init(&engine->clients);
	sk_list_init(&engine->sessions);
	sk_list_init(&engine->held);
	engine->next_end_ns = engine->preempt_ns = UINT64_MAX;
	sk_list_init(&engine->users);
	sk_queue_init(&engine->queue, patience_ns(options));

	int err = sk_limits_copy(&options->limits, &engine->options.limits);
	if (err < 0) {
		engine->options.limits =
			(struct sk_limits_table){.n_named = 0}; /* not the caller's */
		sk_diag_fail(diag, -err, "not enough memory");
	}
	if (!err && engine->n_ids > engine->config.n_vocab)
		err = sk_diag_fail(diag, EINVAL,
				   "%s: the tokenizer has %u tokens, the model only %u",
				   sk_model_path(model), engine->n_ids, engine->config.n_vocab);
	if (!err)
		err = settle_policy(engine, diag);
	if (!err)
		err = alloc_step(engine, diag);
	if (!err) {
		err = sk_mailbox_init(&engine->inbox);
		err = err ? err : sk_mailbox_init(&engine->events);
		err = err ? err
			  : sk_text_worker_init(&engine->worker, tokenizer, &engine->inbox,
						&engine->events);
		engine->has_mailboxes = !err;
		if (err)
			sk_diag_fail(diag, -err, "the engine's mailboxes: %s", strerror(-err));
	}
	if (!err) {
		struct sk_backend_shape shape =
			sk_forward_shape(&engine->config, options->kv_format, options->step_tokens);
		err = sk_backend_open(options->backend, &options->backend_options, &shape,
				      &engine->backend, diag);
	}
	if (!err)
		err = open_pool(engine, model,
				diag); /* before the weights: too little memory shows at once */
	if (!err)
		err = import(engine, diag);
	if (!err)
		err = sk_forward_init(&engine->forward, engine->backend, model, options->weights,
				      n_logits(options), options->progress,
				      options->progress_context, diag);
	if (!err)
		err = open_store(engine, model, diag);
	if (!err) /* before a step takes what looks like free pages */
		err = sk_engine_adopt_sessions(engine, diag);
	if (!err)
		err = sk_engine_warm(engine, diag);
	if (err) {
		sk_engine_destroy(engine);
		return err;
	}
	*ret_engine = engine;
	return 0;
}

void sk_engine_destroy(struct sk_engine *engine)
{
	if (!engine)
		return;
	sk_engine_stop(engine);
	sk_engine_drain(engine); /* whatever came after the stop */
	sk_list_for_each (node, &engine->sessions) {
		struct sk_session *session = sk_container_of(node, struct sk_session, node);
		if (!session->is_stored) /* its entry stays */
			session->slot = SK_NO_SLOT;
		sk_session_destroy(session);
	}
	sk_engine_close_ledger(engine);
	sk_list_for_each (node, &engine->clients)
		sk_engine_destroy_client(sk_container_of(node, struct sk_engine_client, node));
	sk_users_finish(&engine->users);
	sk_limits_finish(&engine->options.limits);
	if (engine->events.letters.next) {
		for (struct sk_event *event; (event = sk_engine_next_event(engine));)
			sk_event_destroy(event);
	}
	if (engine->backend) {
		sk_pool_finish(&engine->pool);
		if (engine->forward.backend)
			sk_forward_finish(&engine->forward);
		sk_backend_close(engine->backend);
	}
	sk_text_worker_finish(&engine->worker);
	sk_mover_finish(&engine->mover);
	sk_mailbox_finish(&engine->inbox);
	sk_mailbox_finish(&engine->events);
	sk_event_destroy(engine->dead);
	free(engine->generations);
	free(engine->wants);
	free(engine->rows);
	free(engine->views);
	free(engine->spans);
	free(engine->scores);
	free(engine->score_values);
	free(engine->score_of);
	free(engine->logit_rows);
	free(engine->draws);
	free(engine->logit_of);
	sk_pace_finish(&engine->pace);
	free(engine->running);
	free(engine);
}
