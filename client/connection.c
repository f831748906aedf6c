#include "client/connection.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SYSTEM_SOCKET "/run/streamkv/streamkvd.sock"
#define LATE          "the daemon has not answered in time"

int streamkv_fail(struct streamkv_error *error, int code, const char *format, ...)
{
	if (error) {
		va_list args;
		va_start(args, format);
		vsnprintf(error->text, sizeof error->text, format, args);
		va_end(args);
	}
	return -code;
}

const char *streamkv_default_socket(void)
{
	static char path[512];
	const char *named = getenv("STREAMKV_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");

	if (named && named[0])
		return named;
	if (runtime && runtime[0]) {
		snprintf(path, sizeof path, "%s/streamkv.sock", runtime);
		if (access(path, F_OK) == 0)
			return path;
	}
	return SYSTEM_SOCKET;
}

/* --- Frames --- */

static int broken(struct streamkv *kv, int code, const char *reason, struct streamkv_error *error)
{
	kv->is_broken = true;
	return streamkv_fail(error, code, "%s", reason);
}

static int lost(struct streamkv *kv, struct streamkv_error *error)
{
	return broken(kv, ECONNRESET, "the daemon has gone away", error);
}

int streamkv_wait(struct streamkv *kv, int ring_fd, int timeout_ms, struct streamkv_error *error)
{
	struct pollfd fds[2] = {
		{.fd = sk_channel_fd(kv->channel), .events = POLLIN},
		{.fd = ring_fd, .events = POLLIN},
	};
	if (sk_channel_wants_write(kv->channel))
		fds[0].events |= POLLOUT;
	int n = poll(fds, 2, timeout_ms);
	if (n < 0)
		return streamkv_fail(error, errno, "%s", strerror(errno));
	if (n == 0)
		return streamkv_fail(error, ETIMEDOUT, LATE);
	if (fds[0].revents & POLLOUT && sk_channel_flush(kv->channel) == -EPIPE)
		return lost(kv, error);
	return (fds[0].revents ? 1 : 0) | (fds[1].revents ? 2 : 0);
}

int streamkv_send(struct streamkv *kv, Sk__ClientMessage *message, const int *fds, unsigned n_fds,
		  struct streamkv_error *error)
{
	if (kv->is_broken)
		return lost(kv, error);
	int err = sk_channel_send(kv->channel, &message->base, fds, n_fds);
	if (err < 0)
		return streamkv_fail(error, -err, "the request could not be sent: %s",
				     strerror(-err));
	while ((err = sk_channel_flush(kv->channel)) == -EAGAIN) {
		err = streamkv_wait(kv, -1, -1, error);
		if (err < 0 && err != -EINTR)
			return err;
	}
	/* A daemon that refuses may have said why before it closed: that is read first. */
	return err < 0 && err != -EPIPE && err != -ECONNRESET ? lost(kv, error) : 0;
}

int streamkv_receive(struct streamkv *kv, struct sk_frame *frame, Sk__ServerMessage **ret_message,
		     struct streamkv_error *error)
{
	struct sk_diag diag = {""};

	int filled = sk_channel_fill(kv->channel);
	int got = sk_channel_next(kv->channel, frame);
	if (got == 0)
		return filled < 0 ? lost(kv, error) : 0;
	if (got < 0)
		return broken(kv, EPROTO, "the daemon's answer is not of this protocol", error);
	int err = sk_server_message_unpack(frame, ret_message, &diag);
	if (err < 0) {
		sk_frame_finish(frame);
		kv->is_broken = true;
		return streamkv_fail(error, EPROTO,
				     "the daemon's answer is not of this protocol: %s", diag.text);
	}
	Sk__ServerMessage *message = *ret_message;
	if (message->body_case == SK__SERVER_MESSAGE__BODY_FAILED && message->request == 0) {
		kv->is_broken = true;
		err = streamkv_fail(error,
				    message->failed->error > 0 ? message->failed->error : EPROTO,
				    "%s", message->failed->reason);
		sk__server_message__free_unpacked(message, NULL);
		sk_frame_finish(frame);
		return err;
	}
	return 1;
}

uint32_t streamkv_next_request(struct streamkv *kv)
{
	if (++kv->last_request == 0)
		kv->last_request = 1;
	return kv->last_request;
}

int streamkv_call(struct streamkv *kv, Sk__ClientMessage *message, const int *fds, unsigned n_fds,
		  struct sk_frame *frame, Sk__ServerMessage **ret_message,
		  struct streamkv_error *error)
{
	int err = streamkv_send(kv, message, fds, n_fds, error);
	return err < 0 ? err : streamkv_answer(kv, message->request, frame, ret_message, error);
}

int streamkv_answer(struct streamkv *kv, uint32_t request, struct sk_frame *frame,
		    Sk__ServerMessage **ret_message, struct streamkv_error *error)
{
	for (;;) {
		int err = streamkv_receive(kv, frame, ret_message, error);
		if (err < 0)
			return err;
		if (err == 0) {
			err = streamkv_wait(kv, -1, -1, error);
			if (err < 0 && err != -EINTR)
				return err;
			continue;
		}
		Sk__ServerMessage *answer = *ret_message;
		if (answer->request != request) {
			sk_frame_finish(frame);
			streamkv_hand_on(kv, answer);
			continue;
		}
		if (answer->body_case != SK__SERVER_MESSAGE__BODY_FAILED)
			return 0;
		err = streamkv_fail(error, answer->failed->error > 0 ? answer->failed->error : EIO,
				    "%s", answer->failed->reason);
		sk__server_message__free_unpacked(answer, NULL);
		sk_frame_finish(frame);
		return err;
	}
}

int streamkv_unexpected(struct streamkv *kv, Sk__ServerMessage *answer, struct sk_frame *frame,
			struct streamkv_error *error)
{
	sk__server_message__free_unpacked(answer, NULL);
	sk_frame_finish(frame);
	return broken(kv, EPROTO, "the daemon answers something else than was asked", error);
}

/* --- Connecting --- */

/* How long it waits for a place among those that wait to be accepted: the kernel's connect() has no other bound. */
static int bound_connect(int fd, int timeout_ms)
{
	const int ms = timeout_ms ? timeout_ms : 1; /* 0 would be no bound */
	const struct timeval most = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
	return timeout_ms < 0 ? 0 : setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
}

static int open_socket(const char *path, int timeout_ms, struct streamkv_error *error)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof address.sun_path)
		return streamkv_fail(error, ENAMETOOLONG, "%s: too long for a socket's path", path);
	strcpy(address.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return streamkv_fail(error, errno, "socket: %s", strerror(errno));
	if (bound_connect(fd, timeout_ms) < 0 ||
	    connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		int code = errno;
		close(fd);
		if (code == EAGAIN)
			return streamkv_fail(error, ETIMEDOUT, LATE);
		if (code == ENOENT || code == ECONNREFUSED)
			return streamkv_fail(error, code,
					     "no streamkvd listens at %s; start one with: "
					     "streamkvd --model MODEL",
					     path);
		return streamkv_fail(error, code, "%s: %s", path, strerror(code));
	}
	return fd;
}

void streamkv_fill_policy(struct streamkv_policy *to, const Sk__Policy *from)
{
	to->mode = (int)from->mode; /* the values are alike */
	to->sink = from->has_sink_case ? (int64_t)from->sink : -1;
	to->window = from->has_window_case ? (int64_t)from->window : -1;
	to->slack = from->has_slack_case ? (int64_t)from->slack : -1;
}

static int take_welcome(struct streamkv *kv, Sk__ServerMessage *message, struct sk_frame *frame,
			struct streamkv_error *error)
{
	if (message->body_case != SK__SERVER_MESSAGE__BODY_WELCOME || frame->n_fds != 4) {
		sk__server_message__free_unpacked(message, NULL);
		return streamkv_fail(error, EPROTO, "what listens there is no streamkvd");
	}
	const Sk__Welcome *welcome = message->welcome;
	kv->welcome_message = message;
	kv->welcome.server = welcome->server;
	kv->welcome.model = welcome->model;
	kv->welcome.max_prompt_bytes = welcome->max_prompt_bytes;
	streamkv_fill_policy(&kv->welcome.policy, welcome->policy);
	int err = sk_ring_reader_create(frame->fds, welcome->ring_slots, &kv->ring);
	for (int i = 0; i < 4; i++) /* taken over, whatever came of it */
		frame->fds[i] = -1;
	return err < 0 ? streamkv_fail(error, EPROTO,
				       "the daemon's token ring is not of this protocol")
		       : 0;
}

static uint64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* timeout_ms, of which some has passed since since_ms. */
static int left_ms(int timeout_ms, uint64_t since_ms)
{
	const uint64_t passed_ms = now_ms() - since_ms;
	return timeout_ms < 0                     ? -1
	       : passed_ms < (uint64_t)timeout_ms ? timeout_ms - (int)passed_ms
						  : 0;
}

static int greet(struct streamkv *kv, uint32_t ring_slots, struct streamkv_error *error)
{
	Sk__ClientMessage message = SK__CLIENT_MESSAGE__INIT;
	Sk__Hello hello = SK__HELLO__INIT;

	hello.version = 1;
	hello.ring_slots = ring_slots;
	hello.client = "libstreamkv " SK_VERSION;
	message.body_case = SK__CLIENT_MESSAGE__BODY_HELLO;
	message.hello = &hello;
	return streamkv_send(kv, &message, NULL, 0, error);
}

int streamkv_call_up(const char *socket_path, uint32_t ring_slots, int timeout_ms,
		     struct streamkv **ret_kv, struct streamkv_error *error)
{
	int fd = open_socket(socket_path ? socket_path : streamkv_default_socket(), timeout_ms,
			     error);
	if (fd < 0)
		return fd;
	struct streamkv *kv = calloc(1, sizeof *kv);
	if (!kv) {
		close(fd);
		return streamkv_fail(error, ENOMEM, "not enough memory");
	}
	sk_list_init(&kv->streams);
	int err = sk_channel_create(fd, &kv->channel);
	if (err < 0) {
		free(kv);
		return streamkv_fail(error, -err, "%s", strerror(-err));
	}
	err = greet(kv, ring_slots, error);
	if (err < 0) {
		streamkv_close(kv);
		return err;
	}
	*ret_kv = kv;
	return 0;
}

int streamkv_await_welcome(struct streamkv *kv, int timeout_ms, struct streamkv_error *error)
{
	const uint64_t since_ms = now_ms();
	Sk__ServerMessage *answer;
	struct sk_frame frame;
	int err;

	while ((err = streamkv_receive(kv, &frame, &answer, error)) == 0) {
		err = streamkv_wait(kv, -1, left_ms(timeout_ms, since_ms), error);
		if (err < 0)
			return err;
	}
	if (err < 0)
		return err;
	err = take_welcome(kv, answer, &frame, error);
	sk_frame_finish(&frame);
	return err;
}

int streamkv_connect(const char *socket_path, int timeout_ms, struct streamkv **ret_kv,
		     struct streamkv_error *error)
{
	return streamkv_connect_ring(socket_path, 0, timeout_ms, ret_kv, error);
}

int streamkv_connect_ring(const char *socket_path, uint32_t ring_slots, int timeout_ms,
			  struct streamkv **ret_kv, struct streamkv_error *error)
{
	const uint64_t since_ms = now_ms();
	struct streamkv *kv;
	int err = streamkv_call_up(socket_path, ring_slots, timeout_ms, &kv, error);
	if (err < 0)
		return err;
	err = streamkv_await_welcome(kv, left_ms(timeout_ms, since_ms), error);
	if (err < 0) {
		streamkv_close(kv);
		return err;
	}
	*ret_kv = kv;
	return 0;
}

void streamkv_close(struct streamkv *kv)
{
	if (!kv)
		return;
	for (struct sk_list *node; (node = sk_list_pop(&kv->streams));)
		sk_container_of(node, struct streamkv_stream, node)->kv = NULL;
	sk_channel_destroy(kv->channel);
	sk_ring_reader_destroy(kv->ring);
	if (kv->welcome_message)
		sk__server_message__free_unpacked(kv->welcome_message, NULL);
	if (kv->shown)
		sk__server_message__free_unpacked(kv->shown, NULL);
	free(kv);
}

const struct streamkv_welcome *streamkv_welcome(const struct streamkv *kv)
{
	return &kv->welcome;
}

/* --- Status and model --- */

/* Asks and keeps the answer, since what is shown of it points into it. */
static int show(struct streamkv *kv, Sk__ClientMessage *message, int wanted,
		struct streamkv_error *error)
{
	struct sk_frame frame;
	Sk__ServerMessage *answer;

	message->request = streamkv_next_request(kv);
	int err = streamkv_call(kv, message, NULL, 0, &frame, &answer, error);
	if (err < 0)
		return err;
	sk_frame_finish(&frame);
	if ((int)answer->body_case != wanted)
		return streamkv_unexpected(kv, answer, &frame, error);
	if (kv->shown)
		sk__server_message__free_unpacked(kv->shown, NULL);
	kv->shown = answer;
	return 0;
}

int streamkv_status(struct streamkv *kv, struct streamkv_status *ret_status,
		    struct streamkv_error *error)
{
	return streamkv_profile(kv, 0, ret_status, error);
}

int streamkv_profile(struct streamkv *kv, uint32_t milliseconds, struct streamkv_status *ret_status,
		     struct streamkv_error *error)
{
	Sk__ClientMessage message = SK__CLIENT_MESSAGE__INIT;
	Sk__StatusRequest body = SK__STATUS_REQUEST__INIT;

	body.profile_ms = milliseconds;
	message.body_case = SK__CLIENT_MESSAGE__BODY_STATUS;
	message.status = &body;
	int err = show(kv, &message, SK__SERVER_MESSAGE__BODY_STATUS, error);
	if (err < 0)
		return err;
	const Sk__Status *from = kv->shown->status;
	*ret_status = (struct streamkv_status){
		.server = from->server,
		.model = from->model,
		.backend = from->backend,
		.uptime_ns = from->uptime_ns,
		.pid = from->pid,
		.connections = from->connections,
		.sessions = from->sessions,
		.running = from->running,
		.paused = from->paused,
		.queued = from->queued,
		.stored = from->stored,
		.page_tokens = from->page_tokens,
		.pages_total = from->pages_total,
		.pages_used = from->pages_used,
		.page_bytes = from->page_bytes,
		.weight_bytes = from->weight_bytes,
		.scratch_bytes = from->scratch_bytes,
		.steps = from->steps,
		.prompt_tokens = from->prompt_tokens,
		.generated_tokens = from->generated_tokens,
		.requests = from->requests,
		.profiled_steps = from->profiled_steps,
		.profiled_ns = from->profiled_ns,
	};
	for (size_t i = 0; i < from->n_operations && i < STREAMKV_MOST_OPERATIONS; i++) {
		ret_status->operations[i].name = from->operations[i]->name;
		ret_status->operations[i].ns = from->operations[i]->ns;
		ret_status->n_operations++;
	}
	return 0;
}

int streamkv_model(struct streamkv *kv, struct streamkv_model *ret_model,
		   struct streamkv_error *error)
{
	Sk__ClientMessage message = SK__CLIENT_MESSAGE__INIT;
	Sk__ModelRequest body = SK__MODEL_REQUEST__INIT;

	message.body_case = SK__CLIENT_MESSAGE__BODY_MODEL;
	message.model = &body;
	int err = show(kv, &message, SK__SERVER_MESSAGE__BODY_MODEL, error);
	if (err < 0)
		return err;
	const Sk__Model *from = kv->shown->model;
	*ret_model = (struct streamkv_model){
		.name = from->name,
		.path = from->path,
		.architecture = from->architecture,
		.file_format = from->file_format,
		.weights = from->weights,
		.chat = from->chat,
		.parameters = from->parameters,
		.weight_bytes = from->weight_bytes,
		.matrix_parameters = from->matrix_parameters,
		.kv_bytes_per_token = from->kv_bytes_per_token,
		.vocabulary = from->vocabulary,
		.context = from->context,
		.layers = from->layers,
		.width = from->width,
		.heads = from->heads,
		.kv_heads = from->kv_heads,
		.head_dim = from->head_dim,
		.rotary_dims = from->rotary_dims,
		.mlp_width = from->mlp_width,
		.rope_base = from->rope_base,
	};
	streamkv_fill_policy(&ret_model->policy, from->policy);
	return 0;
}
