#include "client/command.h"
#include "client/json_out.h"

struct opts {
	const char *socket;
	bool json;
};

static const struct sk_option options[] = {
	{"json", 0, SK_OPTION_FLAG, offsetof(struct opts, json), .help = "Print one JSON object."},
	{"socket", 's', SK_OPTION_STRING, offsetof(struct opts, socket), "PATH",
	 .help = "Where the daemon listens."},
	{0},
};

static int print_json(const struct streamkv_model *m)
{
	const struct {
		const char *name;
		const char *value;
	} strings[] = {
		{"name", m->name},
		{"path", m->path},
		{"architecture", m->architecture},
		{"file_format", m->file_format},
		{"weights", m->weights},
		{"chat", m->chat},
		{"mode", streamkv_mode_name(m->policy.mode)},
	};
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"parameters", m->parameters},
		{"matrix_parameters", m->matrix_parameters},
		{"weight_bytes", m->weight_bytes},
		{"kv_bytes_per_token", m->kv_bytes_per_token},
		{"vocabulary", m->vocabulary},
		{"context", m->context},
		{"layers", m->layers},
		{"width", m->width},
		{"heads", m->heads},
		{"kv_heads", m->kv_heads},
		{"head_dim", m->head_dim},
		{"rotary_dims", m->rotary_dims},
		{"mlp_width", m->mlp_width},
		{"sink", (uint64_t)m->policy.sink},
		{"window", (uint64_t)m->policy.window},
		{"slack", (uint64_t)m->policy.slack},
	};
	json_t *object = json_object();
	for (unsigned i = 0; i < sizeof strings / sizeof *strings; i++) {
		json_t *value = json_string(strings[i].value);
		json_object_set_new(object, strings[i].name,
				    value ? value : json_null()); /* a path may be no UTF-8 */
	}
	for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
		json_object_set_new(object, numbers[i].name,
				    json_integer((json_int_t)numbers[i].value));
	json_object_set_new(object, "rope_base", json_real(m->rope_base));
	return sk_json_print(object, JSON_INDENT(2));
}

static int print_text(const struct streamkv_model *m)
{
	char text[4096];
	int n = snprintf(
		text, sizeof text,
		"name        %s\n"
		"file        %s (%s, mostly %s)\n"
		"size        %.1f M parameters, %.0f MB of weights in memory (%s)\n"
		"shape       %u layers of width %u, MLP %u, vocabulary %u\n"
		"attention   %u heads of %u, %u for keys and values; %u dims rotary, base %g\n"
		"context     %u tokens in training: what a dense session can hold\n"
		"KV cache    %llu bytes a token\n"
		"session     %s, sink %lld, window %lld, slack %lld\n"
		"chat        %s\n",
		m->name, m->path, m->architecture, m->file_format, (double)m->parameters / 1e6,
		(double)m->weight_bytes / 1e6, m->weights, m->layers, m->width, m->mlp_width,
		m->vocabulary, m->heads, m->head_dim, m->kv_heads, m->rotary_dims, m->rope_base,
		m->context, (unsigned long long)m->kv_bytes_per_token,
		streamkv_mode_name(m->policy.mode), (long long)m->policy.sink,
		(long long)m->policy.window, (long long)m->policy.slack,
		m->chat[0] ? m->chat : "no template");
	return sk_write_out(text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
}

static int run(const void *from, int n_rest, char **rest)
{
	const struct opts *opts = from;
	struct streamkv_error error;
	struct streamkv_model model;
	int exit_code;

	if (n_rest)
		return sk_said(EX_USAGE, "'%s': model takes options only", rest[0]);
	struct streamkv *kv = sk_connect(opts->socket, &exit_code);
	if (!kv)
		return exit_code;
	int err = streamkv_model(kv, &model, &error);
	exit_code = err < 0 ? sk_said(sk_exit_code_of(err), "%s", error.text)
			    : (opts->json ? print_json : print_text)(&model);
	streamkv_close(kv);
	return exit_code;
}

const struct sk_command sk_command_model = {
	.help = {.name = "streamkv-client model",
		 .synopsis = "",
		 .summary = "show the model that the daemon keeps",
		 .text = "Shows the model's shape, what it takes in memory, and what a session is "
			 "that asks for nothing else.",
		 .exits = sk_command_exits},
	.options = options,
	.opts_bytes = sizeof(struct opts),
	.run = run,
};
