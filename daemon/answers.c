#include "daemon/answers.h"

#include "daemon/requests.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "proto/payload.h"
#include "text/chat.h"

#include <string.h>
#include <unistd.h>

#define INLINE_BYTES (256u << 10) /* more goes beside the frame */

int sk_answer_send(struct sk_connection *connection, Sk__ServerMessage *message, const int *fds,
		   unsigned n_fds)
{
	return sk_channel_send(connection->channel, &message->base, fds, n_fds);
}

static const char server_name[] = "streamkvd " SK_VERSION;

void sk_answer_fill_policy(Sk__Policy *to, const struct sk_policy *from)
{
	static const Sk__Mode modes[] = {
		[SK_MODE_STREAMING] = SK__MODE__MODE_STREAMING,
		[SK_MODE_WINDOW] = SK__MODE__MODE_WINDOW,
		[SK_MODE_DENSE] = SK__MODE__MODE_DENSE,
		[SK_MODE_RECOMPUTE] = SK__MODE__MODE_RECOMPUTE,
	};
	sk__policy__init(to);
	to->mode = modes[from->mode];
	to->has_sink_case = SK__POLICY__HAS_SINK_SINK;
	to->sink = from->sink;
	to->has_window_case = SK__POLICY__HAS_WINDOW_WINDOW;
	to->window = from->window;
	to->has_slack_case = SK__POLICY__HAS_SLACK_SLACK;
	to->slack = from->slack;
}

int sk_answer_welcome(struct sk_connection *connection, uint32_t n_slots)
{
	const struct sk_server *server = connection->server;
	Sk__ServerMessage message = SK__SERVER_MESSAGE__INIT;
	Sk__Welcome welcome = SK__WELCOME__INIT;
	Sk__Policy policy;
	int fds[4];

	sk_answer_fill_policy(&policy, sk_engine_policy(server->engine));
	welcome.version = 1;
	welcome.ring_slots = n_slots;
	welcome.max_prompt_bytes = server->limits.max_prompt_bytes;
	welcome.max_frame_bytes = SK_FRAME_MOST_BYTES;
	welcome.server = (char *)server_name;
	welcome.model = (char *)sk_model_config(server->model)->name;
	welcome.policy = &policy;
	message.body_case = SK__SERVER_MESSAGE__BODY_WELCOME;
	message.welcome = &welcome;
	sk_ring_writer_fds(connection->ring, fds);
	return sk_answer_send(connection, &message, fds, 4);
}

int sk_answer_progress(struct sk_connection *connection, const struct sk_event *event)
{
	Sk__ServerMessage message = SK__SERVER_MESSAGE__INIT;
	Sk__Progress progress = SK__PROGRESS__INIT;

	progress.prompt_tokens = event->progress.prompt_tokens;
	progress.evaluated_tokens = event->progress.evaluated_tokens;
	progress.queue_place = event->progress.queue_place;
	message.request = event->request;
	message.body_case = SK__SERVER_MESSAGE__BODY_PROGRESS;
	message.progress = &progress;
	return sk_answer_send(connection, &message, NULL, 0);
}

int sk_answer_finished(struct sk_connection *connection, const struct sk_event *event,
		       const struct sk_connection_request *request)
{
	Sk__ServerMessage message = SK__SERVER_MESSAGE__INIT;
	Sk__Finished finished = SK__FINISHED__INIT;
	const struct sk_result *from = &event->result;

	finished.stop = (Sk__StopReason)from->stop; /* engine/event.h keeps the values alike */
	finished.reason = (char *)event->reason;
	finished.prompt_tokens = from->prompt_tokens;
	finished.evaluated_tokens = from->evaluated_tokens;
	finished.reused_tokens = from->reused_tokens;
	finished.generated_tokens = from->generated_tokens;
	finished.evicted_tokens = from->evicted_tokens;
	finished.evictions = from->evictions;
	finished.live_min = from->live_min;
	finished.live_max = from->live_max;
	finished.position = from->position;
	finished.seed = from->seed;
	finished.queue_ns = from->queue_ns;
	finished.prefill_ns = from->prefill_ns;
	finished.first_token_ns = from->first_token_ns;
	finished.decode_ns = from->decode_ns;
	finished.scored_tokens = from->scored_tokens;
	finished.cache_bytes = from->cache_bytes;
	finished.steps = from->steps;
	finished.step_ns = from->step_ns;
	finished.attention_ns = from->attention_ns;
	Sk__Policy policy;
	if (from->has_policy) {
		sk_answer_fill_policy(&policy, &from->policy);
		finished.policy = &policy;
	}
	finished.error = from->stop == SK_STOP_REFUSED ? -event->error : 0;
	if (from->stop == SK_STOP_STRING && from->stop_index < request->n_stops) {
		finished.stop_string.data = request->stops[from->stop_index].bytes;
		finished.stop_string.len = request->stops[from->stop_index].n_bytes;
	}
	message.request = event->request;
	message.body_case = SK__SERVER_MESSAGE__BODY_FINISHED;
	message.finished = &finished;
	return sk_answer_send(connection, &message, NULL, 0);
}

int sk_answer_ids(struct sk_connection *connection, const struct sk_event *event)
{
	Sk__ServerMessage message = SK__SERVER_MESSAGE__INIT;
	Sk__Ids ids = SK__IDS__INIT;
	sk_autoclose int fd = -1;

	ids.count = event->n_payload_bytes / sizeof(int32_t);
	if (event->n_payload_bytes > INLINE_BYTES) {
		int err = sk_payload_create(event->payload, event->n_payload_bytes, &fd);
		if (err < 0)
			return err;
		ids.in_memfd = 1;
	} else {
		ids.ids = event->payload;
		ids.n_ids = ids.count;
	}
	message.request = event->request;
	message.body_case = SK__SERVER_MESSAGE__BODY_IDS;
	message.ids = &ids;
	return sk_answer_send(connection, &message, &fd, fd >= 0);
}

int sk_answer_text(struct sk_connection *connection, const struct sk_event *event)
{
	Sk__ServerMessage message = SK__SERVER_MESSAGE__INIT;
	Sk__Text text = SK__TEXT__INIT;
	sk_autoclose int fd = -1;

	if (event->n_payload_bytes > INLINE_BYTES) {
		int err = sk_payload_create(event->payload, event->n_payload_bytes, &fd);
		if (err < 0)
			return err;
		text.source_case = SK__TEXT__SOURCE_IN_MEMFD;
		text.in_memfd = 1;
		text.text_bytes = event->n_payload_bytes;
	} else {
		text.source_case = SK__TEXT__SOURCE_TEXT;
		text.text.data = event->payload;
		text.text.len = event->n_payload_bytes;
	}
	message.request = event->request;
	message.body_case = SK__SERVER_MESSAGE__BODY_TEXT;
	message.text = &text;
	return sk_answer_send(connection, &message, &fd, fd >= 0);
}

int sk_answer_status(struct sk_connection *connection, const struct sk_event *event)
{
	const struct sk_server *server = connection->server;
	const struct sk_stats *stats = &event->stats;
	Sk__ServerMessage message = SK__SERVER_MESSAGE__INIT;
	Sk__Status status = SK__STATUS__INIT;

	status.server = (char *)server_name;
	status.model = (char *)sk_model_config(server->model)->name;
	status.backend = (char *)sk_engine_backend_name(server->engine);
	status.uptime_ns = sk_clock_ns() - server->begun_ns;
	status.connections = sk_sees_all(connection->uid)
				     ? server->n_connections
				     : sk_server_n_connections_of(server, connection->uid);
	status.sessions = stats->n_sessions;
	status.running = stats->n_running;
	status.paused = stats->n_paused;
	status.queued = stats->n_queued;
	status.stored = stats->n_stored;
	status.pages_total = stats->n_pages;
	status.pages_used = stats->n_pages_used;
	status.page_bytes = stats->page_bytes;
	status.page_tokens = SK_PAGE_TOKENS;
	status.weight_bytes = sk_engine_weight_bytes(server->engine);
	status.steps = stats->n_steps;
	status.prompt_tokens = stats->n_prompt_tokens;
	status.generated_tokens = stats->n_generated_tokens;
	status.requests = stats->n_requests;
	status.pid = (uint32_t)getpid();
	status.scratch_bytes = stats->scratch_bytes;
	Sk__Operation operations[SK_N_OPS], *pointers[SK_N_OPS];
	for (unsigned op = 0; op < SK_N_OPS; op++) {
		operations[op] = (Sk__Operation)SK__OPERATION__INIT;
		operations[op].name = (char *)sk_op_name(op);
		operations[op].ns = stats->profile.ns[op];
		pointers[op] = &operations[op];
	}
	status.profiled_steps = stats->n_profiled_steps;
	status.profiled_ns = stats->profiled_ns;
	if (stats->n_profiled_steps) {
		status.n_operations = SK_N_OPS;
		status.operations = pointers;
	}
	message.request = event->request;
	message.body_case = SK__SERVER_MESSAGE__BODY_STATUS;
	message.status = &status;
	return sk_answer_send(connection, &message, NULL, 0);
}

/* What a token is multiplied with on its way: every layer's matrices and the output's. */
static uint64_t matrix_parameters(const struct sk_model_config *c)
{
	uint64_t q = (uint64_t)c->n_heads * c->head_dim, kv = (uint64_t)c->n_kv_heads * c->head_dim;
	uint64_t n_ff = c->n_ff, up = c->activation == SK_SWIGLU ? 2 * n_ff : n_ff;
	return c->n_layers * (2 * q + 2 * kv + up + n_ff) * (uint64_t)c->n_embd +
	       (uint64_t)c->n_vocab * c->n_embd;
}

int sk_answer_model(struct sk_connection *connection, uint32_t request)
{
	static const char *const weights[] = {"auto", "f32", "bf16", "q8", "q4"};
	const struct sk_server *server = connection->server;
	const struct sk_model_config *config = sk_model_config(server->model);
	const struct sk_chat_template *chat = sk_chat_of(server->tokenizer);
	Sk__ServerMessage message = SK__SERVER_MESSAGE__INIT;
	Sk__Model model = SK__MODEL__INIT;
	Sk__Policy policy;

	sk_answer_fill_policy(&policy, sk_engine_policy(server->engine));
	model.name = (char *)config->name;
	model.path = (char *)sk_model_path(server->model);
	model.architecture = config->arch == SK_ARCH_NEOX ? "gpt_neox" : "llama";
	model.parameters = sk_model_n_parameters(server->model);
	model.file_format = (char *)sk_dtype_info(sk_model_main_dtype(server->model))->name;
	model.weights = (char *)weights[server->options->weights];
	model.weight_bytes = sk_engine_weight_bytes(server->engine);
	model.vocabulary = config->n_vocab;
	model.context = config->n_context;
	model.layers = config->n_layers;
	model.width = config->n_embd;
	model.heads = config->n_heads;
	model.kv_heads = config->n_kv_heads;
	model.head_dim = config->head_dim;
	model.rotary_dims = config->n_rot;
	model.mlp_width = config->n_ff;
	model.rope_base = config->rope_base;
	model.kv_bytes_per_token = sk_engine_kv_token_bytes(server->engine);
	model.chat = chat ? (char *)sk_chat_name(chat) : "";
	model.policy = &policy;
	model.matrix_parameters = matrix_parameters(config);
	message.request = request;
	message.body_case = SK__SERVER_MESSAGE__BODY_MODEL;
	message.model = &model;
	return sk_answer_send(connection, &message, NULL, 0);
}

int sk_answer_failed(struct sk_connection *connection, uint32_t request, int error,
		     const char *reason)
{
	Sk__ServerMessage message = SK__SERVER_MESSAGE__INIT;
	Sk__Failed failed = SK__FAILED__INIT;

	failed.error = error < 0 ? -error : error;
	failed.reason = (char *)reason;
	message.request = request;
	message.body_case = SK__SERVER_MESSAGE__BODY_FAILED;
	message.failed = &failed;
	return sk_answer_send(connection, &message, NULL, 0);
}
