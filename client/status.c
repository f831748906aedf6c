#include "client/command.h"
#include "client/json_out.h"

#include <math.h>
#include <string.h>
#include <time.h>

struct opts {
	const char *socket;
	bool json, profile;
	double seconds;
};

static const struct sk_option options[] = {
	{"json", 0, SK_OPTION_FLAG, offsetof(struct opts, json), .help = "Print one JSON object."},
	{"profile", 'p', SK_OPTION_FLAG, offsetof(struct opts, profile),
	 .help = "Time the operations of every step for a while, and show where the time went. "
		 "Steps are a little slower meanwhile."},
	{"seconds", 0, SK_OPTION_FLOAT, offsetof(struct opts, seconds), "SECONDS", "2",
	 .fmin = 0.01, .fmax = 3600, .help = "How long --profile watches."},
	{"socket", 's', SK_OPTION_STRING, offsetof(struct opts, socket), "PATH",
	 .help = "Where the daemon listens."},
	{0},
};

/* Makes the counters of a profile those of the steps between two looks. */
static void subtract(struct streamkv_status *s, const struct streamkv_status *before)
{
	s->profiled_steps -= before->profiled_steps;
	s->profiled_ns -= before->profiled_ns;
	for (uint32_t i = 0; i < s->n_operations; i++)
		if (i < before->n_operations)
			s->operations[i].ns -= before->operations[i].ns;
}

static json_t *profile_of(const struct streamkv_status *s)
{
	json_t *profile = json_pack("{s:I, s:I}", "steps", (json_int_t)s->profiled_steps, "ns",
				    (json_int_t)s->profiled_ns);
	for (uint32_t i = 0; profile && i < s->n_operations; i++)
		json_object_set_new(profile, s->operations[i].name,
				    json_integer((json_int_t)s->operations[i].ns));
	return profile;
}

static int print_json(const struct streamkv_status *s, bool profile)
{
	json_t *object =
		json_pack("{s:s%, s:s%, s:s%}", "server", s->server, strlen(s->server), "model",
			  s->model, strlen(s->model), "backend", s->backend, strlen(s->backend));
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"pid", s->pid},
		{"uptime_ns", s->uptime_ns},
		{"connections", s->connections},
		{"sessions", s->sessions},
		{"stored", s->stored},
		{"running", s->running},
		{"paused", s->paused},
		{"queued", s->queued},
		{"pages_total", s->pages_total},
		{"pages_used", s->pages_used},
		{"page_bytes", s->page_bytes},
		{"page_tokens", s->page_tokens},
		{"weight_bytes", s->weight_bytes},
		{"scratch_bytes", s->scratch_bytes},
		{"steps", s->steps},
		{"prompt_tokens", s->prompt_tokens},
		{"generated_tokens", s->generated_tokens},
		{"requests", s->requests},
		{"profiled_steps", s->profiled_steps},
	};
	for (unsigned i = 0; object && i < sizeof numbers / sizeof *numbers; i++)
		json_object_set_new(object, numbers[i].name,
				    json_integer((json_int_t)numbers[i].value));
	if (profile)
		json_object_set_new(object, "profile", profile_of(s));
	return sk_json_print(object, JSON_INDENT(2));
}

static int print_profile(const struct streamkv_status *s)
{
	char text[2048];
	double steps = (double)s->profiled_steps, all = (double)s->profiled_ns;
	uint64_t rest = s->profiled_ns;

	if (!s->profiled_steps)
		return sk_write_out("profile      no step ran\n", 25);
	int n = snprintf(text, sizeof text, "profile      %llu steps of %.3f ms\n",
			 (unsigned long long)s->profiled_steps, all * 1e-6 / steps);
	for (uint32_t i = 0; i < s->n_operations && n < (int)sizeof text - 100; i++) {
		double ns = (double)s->operations[i].ns;
		rest -= s->operations[i].ns < rest ? s->operations[i].ns : rest;
		n += snprintf(text + n, sizeof text - (size_t)n,
			      "  %-10.20s %9.3f ms a step  %5.1f %%\n", s->operations[i].name,
			      ns * 1e-6 / steps, 100 * ns / all);
	}
	n += snprintf(text + n, sizeof text - (size_t)n, "  %-10s %9.3f ms a step  %5.1f %%\n",
		      "the rest", (double)rest * 1e-6 / steps, 100 * (double)rest / all);
	return sk_write_out(text, (size_t)n);
}

static int print_text(const struct streamkv_status *s, bool profile)
{
	char text[2048];
	double used = (double)(s->pages_used * s->page_bytes) / 1e6,
	       total = (double)(s->pages_total * s->page_bytes) / 1e6;
	int n = snprintf(
		text, sizeof text,
		"server       %s, process %u, up %.0f s\n"
		"model        %s on %s, %.0f MB of weights, %.0f MB of scratch\n"
		"clients      %u connected, %u requests running, %u of them paused, %u queued\n"
		"sessions     %u, %u of them stored\n"
		"KV cache     %llu of %llu pages of %u tokens in use, %.0f of %.0f MB\n"
		"since start  %llu requests, %llu prompt tokens, %llu generated tokens, %llu "
		"steps\n",
		s->server, s->pid, (double)s->uptime_ns * 1e-9, s->model, s->backend,
		(double)s->weight_bytes / 1e6, (double)s->scratch_bytes / 1e6, s->connections,
		s->running, s->paused, s->queued, s->sessions, s->stored,
		(unsigned long long)s->pages_used, (unsigned long long)s->pages_total,
		s->page_tokens, used, total, (unsigned long long)s->requests,
		(unsigned long long)s->prompt_tokens, (unsigned long long)s->generated_tokens,
		(unsigned long long)s->steps);
	int err = sk_write_out(text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
	return err || !profile ? err : print_profile(s);
}

/* Second by second, so that the daemon goes on timing steps only as long as somebody watches. */
static int watch(struct streamkv *kv, double seconds, struct streamkv_status *ret_before,
		 struct streamkv_error *error)
{
	double end_s = sk_now_s() + seconds;
	struct streamkv_status status;
	bool is_first = true;

	for (double left_s; (left_s = end_s - sk_now_s()) > 0; is_first = false) {
		double part_s = left_s < 1 ? left_s : 1;
		int err = streamkv_profile(kv, (uint32_t)(part_s * 1e3) + 1, &status, error);
		if (err < 0)
			return err;
		if (is_first)
			*ret_before = status;
		const struct timespec part = {.tv_sec = (time_t)part_s,
					      .tv_nsec = (long)(fmod(part_s, 1) * 1e9)};
		nanosleep(&part, NULL);
	}
	return 0;
}

static int run(const void *from, int n_rest, char **rest)
{
	const struct opts *opts = from;
	struct streamkv_error error;
	struct streamkv_status status;
	int exit_code;

	if (n_rest)
		return sk_said(EX_USAGE, "'%s': status takes options only", rest[0]);
	struct streamkv *kv = sk_connect(opts->socket, &exit_code);
	if (!kv)
		return exit_code;
	int err = 0;
	struct streamkv_status before = {0};
	if (opts->profile)
		err = watch(kv, opts->seconds, &before, &error);
	if (!err)
		err = streamkv_status(kv, &status, &error);
	if (!err)
		subtract(&status, &before);
	exit_code = err < 0 ? sk_said(sk_exit_code_of(err), "%s", error.text)
			    : (opts->json ? print_json : print_text)(&status, opts->profile);
	streamkv_close(kv);
	return exit_code;
}

const struct sk_command sk_command_status = {
	.help = {.name = "streamkv-client status",
		 .synopsis = "",
		 .summary = "show what the daemon is doing",
		 .text = "Shows the daemon's model, clients, sessions, memory and work since its "
			 "start. The connection that asks is "
			 "counted among the clients.",
		 .exits = sk_command_exits},
	.options = options,
	.opts_bytes = sizeof(struct opts),
	.run = run,
};
