/* Many clients of one user, for the tests of this folder: a line of standard input is a client, a JSON array of what it asks
 * for in turn; an answer is a line of standard output. Each has a thread and a connection of its own, over libstreamkv alone.
 *
 *     tenant SOCKET [UID] [together]     UID: the user to become first, who need not be able to read this program
 *                                        together: nobody asks before all are connected, or goes before all have
 *                                        their answers
 *
 * What one asks for: "prompt", "n", and where wanted "session", "mode", "sink", "window", "slack", and
 *     "cancel": K     cancels when K tokens have come
 *     "leave": K      closes the connection then, without a word, and goes on on another
 *     "pause": [K, MS]  does not read for so long then
 *     "again": true   on a new connection
 * The answer says all that the daemon says and that is no time; "scores" stands for every bit of the log-probabilities.
 */
#include "client/streamkv.h"

#include <err.h>
#include <errno.h>
#include <grp.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MS 20 /* how often a waiting client looks at its place in the queue */

struct client {
	pthread_t thread;
	json_int_t number;
	json_t *asks;
	struct streamkv *kv;
};

static const char *socket_path;
static bool is_together;
static pthread_barrier_t all_there;
static pthread_mutex_t telling = PTHREAD_MUTEX_INITIALIZER;

static void *checked(void *thing)
{
	if (!thing)
		errx(1, "not enough memory");
	return thing;
}

static int64_t number_in(const json_t *object, const char *name, int64_t otherwise)
{
	const json_t *value = json_object_get(object, name);
	return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

static uint64_t hash(uint64_t so_far, const void *data, size_t n_bytes) /* FNV-1a */
{
	const uint8_t *bytes = data;
	for (size_t i = 0; i < n_bytes; i++)
		so_far = (so_far ^ bytes[i]) * UINT64_C(0x100000001b3);
	return so_far;
}

static json_t *hex(const uint8_t *bytes, size_t n_bytes)
{
	char *text = checked(malloc(2 * n_bytes + 1));
	for (size_t i = 0; i < n_bytes; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	json_t *string = json_stringn(text, 2 * n_bytes);
	free(text);
	return string;
}

static void tell(const struct client *client, json_int_t ask, json_t *answer)
{
	json_object_set_new(answer, "client", json_integer(client->number));
	json_object_set_new(answer, "ask", json_integer(ask));
	char *line = checked(json_dumps(answer, JSON_COMPACT | JSON_SORT_KEYS));
	pthread_mutex_lock(&telling);
	puts(line);
	pthread_mutex_unlock(&telling);
	free(line);
	json_decref(answer);
}

/* --- One request --- */

struct heard {
	json_t *ids;
	uint8_t *text;
	size_t n_text;
	uint64_t scores;
	uint32_t place; /* in the queue, the furthest back */
};

static void hear(struct heard *heard, const struct streamkv_token *token)
{
	if (token->id >= 0) {
		json_array_append_new(heard->ids, json_integer(token->id));
		heard->scores = hash(heard->scores, &token->logprob, sizeof token->logprob);
	}
	if (!token->n_text_bytes)
		return;
	heard->text = checked(realloc(heard->text, heard->n_text + token->n_text_bytes));
	memcpy(heard->text + heard->n_text, token->text, token->n_text_bytes);
	heard->n_text += token->n_text_bytes;
}

static struct streamkv_generate generate_of(const json_t *ask)
{
	static const char *const modes[] = {"default", "streaming", "window", "dense"};
	struct streamkv_generate generate = STREAMKV_GENERATE_INIT;
	const json_t *prompt = json_object_get(ask, "prompt");
	const char *mode = json_string_value(json_object_get(ask, "mode"));

	generate.prompt = json_string_value(prompt);
	generate.n_prompt_bytes = json_string_length(prompt);
	generate.max_tokens = (uint64_t)number_in(ask, "n", 1);
	generate.ignore_eos = true;
	generate.session = json_string_value(json_object_get(ask, "session"));
	generate.policy.sink = number_in(ask, "sink", -1);
	generate.policy.window = number_in(ask, "window", -1);
	generate.policy.slack = number_in(ask, "slack", -1);
	for (unsigned i = 0; mode && i < sizeof modes / sizeof *modes; i++) {
		if (strcmp(mode, modes[i]) == 0)
			generate.policy.mode = i;
	}
	return generate;
}

static void pause_ms(int64_t ms)
{
	const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	nanosleep(&pause, NULL);
}

/* Reads to the end, or to where the ask says that it leaves: then true. */
static bool listen_to(struct streamkv_stream *stream, const json_t *ask, struct heard *heard,
		      struct streamkv_error *error)
{
	const json_t *pause = json_object_get(ask, "pause");
	int64_t cancel = number_in(ask, "cancel", -1), leave = number_in(ask, "leave", -1),
		pause_at = json_integer_value(json_array_get(pause, 0)), n;
	struct streamkv_token token;
	bool has_cancelled = false;

	for (;;) {
		n = (int64_t)json_array_size(heard->ids);
		if (leave >= 0 && n >= leave)
			return true;
		if (cancel >= 0 && n >= cancel && !has_cancelled) {
			has_cancelled = true;
			(void)streamkv_cancel(stream, NULL);
		}
		if (pause && n >= pause_at) {
			pause_ms(json_integer_value(json_array_get(pause, 1)));
			pause = NULL;
		}
		int got = streamkv_next(stream, LOOK_MS, &token, error);
		if (got == 1)
			hear(heard, &token);
		else if (got == -ETIMEDOUT && streamkv_queue_place(stream) > heard->place)
			heard->place = streamkv_queue_place(stream);
		else if (got != -ETIMEDOUT && got != -EINTR)
			return false;
	}
}

static json_t *answer_of(struct heard *heard, const struct streamkv_result *r)
{
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"place", heard->place},
		{"prompt_tokens", r->prompt_tokens},
		{"evaluated_tokens", r->evaluated_tokens},
		{"reused_tokens", r->reused_tokens},
		{"generated_tokens", r->generated_tokens},
		{"evicted_tokens", r->evicted_tokens},
		{"live_min", r->live_min},
		{"live_max", r->live_max},
		{"position", r->position},
		{"error", (uint64_t)-r->error},
	};
	char scores[17];
	json_t *answer = checked(json_object());

	snprintf(scores, sizeof scores, "%016llx", (unsigned long long)heard->scores);
	json_object_set_new(answer, "stop", json_string(streamkv_stop_name(r->stop)));
	json_object_set_new(answer, "reason", json_string(r->reason ? r->reason : ""));
	json_object_set_new(answer, "scores", json_string(scores));
	json_object_set_new(answer, "text", hex(heard->text, heard->n_text));
	json_object_set(answer, "ids", heard->ids);
	for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
		json_object_set_new(answer, numbers[i].name,
				    json_integer((json_int_t)numbers[i].value));
	return answer;
}

static int connect_client(struct client *client, struct streamkv_error *error)
{
	return streamkv_connect(socket_path, -1, &client->kv, error);
}

static json_t *run_ask(struct client *client, const json_t *ask)
{
	struct heard heard = {.ids = checked(json_array())};
	struct streamkv_generate generate = generate_of(ask);
	struct streamkv_error error = {""};
	struct streamkv_stream *stream = NULL;
	bool leaves = false;

	if (json_is_true(json_object_get(ask, "again"))) {
		streamkv_close(client->kv);
		client->kv = NULL;
	}
	int err = client->kv ? 0 : connect_client(client, &error);
	if (!err)
		err = streamkv_generate(client->kv, &generate, &stream, &error);
	if (!err)
		leaves = listen_to(stream, ask, &heard, &error);
	json_t *answer =
		stream ? answer_of(&heard, streamkv_result(stream)) : checked(json_object());
	if (!stream || (!leaves && streamkv_result(stream)->stop == STREAMKV_STOP_UNKNOWN)) {
		json_object_set_new(answer, "stop", json_string("lost"));
		json_object_set_new(answer, "reason", json_string(error.text));
	}
	if (leaves) {
		json_object_set_new(answer, "stop", json_string("left"));
		streamkv_close(client->kv);
		client->kv = NULL;
	}
	streamkv_stream_close(stream);
	json_decref(heard.ids);
	free(heard.text);
	return answer;
}

/* --- All --- */

static void *client_main(void *context)
{
	struct client *client = context;
	struct streamkv_error error;
	size_t i;
	json_t *ask;

	if (is_together) {
		if (connect_client(client, &error) < 0)
			warnx("%s", error.text);
		pthread_barrier_wait(&all_there);
	}
	json_array_foreach (client->asks, i, ask)
		tell(client, (json_int_t)i, run_ask(client, ask));
	if (is_together)
		pthread_barrier_wait(&all_there);
	streamkv_close(client->kv);
	return NULL;
}

static void become(uid_t uid)
{
	if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
		err(1, "cannot become user %u", (unsigned)uid);
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* which that has undone */
}

static struct client *read_clients(size_t *ret_n)
{
	struct client *clients = NULL;
	char *line = NULL;
	size_t n = 0, n_allocated = 0;
	json_error_t error;

	while (getline(&line, &n_allocated, stdin) > 0) {
		json_t *asks = json_loads(line, 0, &error);
		if (!asks)
			errx(1, "line %zu: %s", n + 1, error.text);
		clients = checked(realloc(clients, (n + 1) * sizeof *clients));
		clients[n] = (struct client){.number = (json_int_t)n, .asks = asks};
		n++;
	}
	free(line);
	*ret_n = n;
	return clients;
}

int main(int argc, char **argv)
{
	struct rlimit limit;
	pthread_attr_t small;
	size_t n;

	if (argc < 2)
		errx(1, "usage: tenant SOCKET [UID] [together]");
	socket_path = argv[1];
	for (int i = 2; i < argc; i++) {
		if (strcmp(argv[i], "together") == 0)
			is_together = true;
		else
			become((uid_t)atol(argv[i]));
	}
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	struct client *clients = read_clients(&n);
	pthread_barrier_init(&all_there, NULL, (unsigned)n);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 512 << 10);
	for (size_t i = 0; i < n; i++) {
		if (pthread_create(&clients[i].thread, &small, client_main, &clients[i]))
			errx(1, "no thread for client %zu", i);
	}
	for (size_t i = 0; i < n; i++) {
		pthread_join(clients[i].thread, NULL);
		json_decref(clients[i].asks);
	}
	free(clients);
	return fflush(stdout) == 0 ? 0 : 1;
}
