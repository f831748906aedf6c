#include "daemon/options.h"

#include "shm/ring.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const backends[] = {"auto", "cuda", "cpu", NULL};
static const char *const weights[] = {"auto", "f32", "bf16", "q8", "q4", NULL};
static const char *const activations[] = {"rounded", "exact", NULL};
static const char *const kvs[] = {"auto", "f32", "f16", "bf16", NULL};
static const char *const survivals[] = {"auto", "off", NULL};
static const char *const modes[] = {"streaming", "window", "dense", NULL};
static const char *const levels[] = {"error", "warning", "notice", "info", "debug", NULL};

#define AT(member) offsetof(struct sk_daemon_options, member)

const struct sk_option sk_daemon_option_table[] = {
	{"model", 'm', SK_OPTION_STRING, AT(model), "PATH", NULL,
	 .help = "The model to keep: a Hugging Face directory (config.json, model.safetensors, "
		 "tokenizer.json) or a GGUF file."},
	{"backend", 'b', SK_OPTION_CHOICE, AT(backend), NULL, "auto", .choices = backends,
	 .help = "The device that runs it."},
	{"weights", 'w', SK_OPTION_CHOICE, AT(weights), NULL, "auto", .choices = weights,
	 .help = "How weights are kept in memory; auto keeps what the file has."},
	{"hold-weights", 0, SK_OPTION_FLAG, AT(hold_weights), NULL, NULL, .not_in_file = true,
	 .help = "Serve nobody: pack the model's weights and hold them for engines that are "
		 "started with "
		 "--weights-from, so that these have them at once, and share one copy. It reads "
		 "the same configuration file, of which it needs the model, the backend and the "
		 "format of weights."},
	{"holder-socket", 0, SK_OPTION_STRING, AT(holder_socket), "PATH", NULL,
	 .help = "Where --hold-weights listens: for the same user, and root. Without it "
		 "$XDG_RUNTIME_DIR/streamkv-weights.sock, else /run/streamkv/weights.sock."},
	{"weights-from", 0, SK_OPTION_STRING, AT(weights_from), "PATH", NULL,
	 .help = "Use the weights that are held there (see --hold-weights) instead of packing "
		 "them. The model's files are read all the same for its shape and its "
		 "vocabulary. Where the holder is of another version the daemon says so, and packs "
		 "its own."},
	{"activations", 0, SK_OPTION_CHOICE, AT(activations), NULL, "rounded",
	 .choices = activations,
	 .help = "How activations meet weights of 8 or 4 bits and bf16 where the machine has "
		 "instructions for it: rounded to 8 bits, in blocks that stand out to 16, and to "
		 "bf16; or exact, which takes up to twice the time for prompts."},
	{"kv", 0, SK_OPTION_CHOICE, AT(kv), NULL, "auto", .choices = kvs,
	 .help = "How cached keys and values are kept; auto is f32 with f32 weights, else f16. "
		 "bf16 takes the room of f16 with three bits less, and holds what is too large for "
		 "it: keys and values of a model that was trained in bf16 may lie above 65504."},
	{"mode", 0, SK_OPTION_CHOICE, AT(mode), NULL, "streaming", .choices = modes,
	 .help = "What a session is that asks for nothing else."},
	{"sink", 'S', SK_OPTION_UINT, AT(sink), "N", "4", .max = 1 << 20,
	 .help = "First tokens of a session that are never evicted."},
	{"window", 'W', SK_OPTION_UINT, AT(window), "N", "0", .max = 1 << 24,
	 .help = "Most recent tokens that a session keeps; 0 stands for 1020, or less where the "
		 "model's context is shorter."},
	{"slack", 'K', SK_OPTION_UINT, AT(slack), "N", "0", .max = 1 << 20,
	 .help = "Entries that a cache may grow past sink + window before it is cut back."},
	{"kv-memory", 0, SK_OPTION_BYTES, AT(kv_memory), "SIZE", "2G", .min = 1 << 20,
	 .help = "Memory for the KV caches of all sessions together. It is used as sessions need "
		 "it."},
	{"max-batch", 0, SK_OPTION_UINT, AT(max_batch), "N", "64", .min = 1, .max = 4096,
	 .help = "Sessions that take part in one step at most."},
	{"step-tokens", 0, SK_OPTION_UINT, AT(step_tokens), "N", "256", .min = 1, .max = 65535,
	 .help = "Tokens in one step at most, prompts included; at least max-batch."},
	{"prompt-share", 0, SK_OPTION_FLOAT, AT(prompt_share), "PART", "0.4", .fmin = 0.01,
	 .fmax = 1,
	 .help = "Of a step's time, what prompts may take while other sessions generate: with 0.5 "
		 "these go on at half of their speed. Where more sessions want to have prompts "
		 "read "
		 "than generate, they get as large a part as theirs, up to three quarters. A "
		 "prompt "
		 "that comes after a pause is let through at once, up to five steps' worth. 1: "
		 "--step-tokens alone bounds prompts, which are then through sooner."},
	{"threads", 't', SK_OPTION_UINT, AT(threads), "N", "0", .max = 1024,
	 .help = "Threads of the CPU backend; 0 is one for each core that the process may use."},
	{"instructions", 0, SK_OPTION_STRING, AT(instructions), "NAME", NULL,
	 .help = "Instruction set of the CPU backend (scalar, avx2, avx512, ...), instead of the "
		 "best there is."},
	{"socket", 's', SK_OPTION_STRING, AT(socket), "PATH", NULL,
	 .help = "Where clients connect. Without it $STREAMKV_SOCKET, else "
		 "$XDG_RUNTIME_DIR/streamkv.sock, else "
		 "/run/streamkv/streamkvd.sock. A socket handed over by systemd comes before all "
		 "of them."},
	{"socket-mode", 0, SK_OPTION_UINT, AT(socket_mode), "MODE", "600", .max = 777,
	 .help = "Permissions of the socket, as chmod writes them: 600 for its owner alone, 666 "
		 "for every user."},
	{"max-connections", 0, SK_OPTION_UINT, AT(max_connections), "N", "256", .min = 1,
	 .max = 100000,
	 .help = "Clients at once at most; further ones wait to be accepted. One user "
		 "other than root and the daemon's own has three quarters of them at "
		 "most."},
	{"max-prompt", 0, SK_OPTION_BYTES, AT(max_prompt), "SIZE", "256M", .min = 1024,
	 .max = 1u << 30,
	 .help = "The longest prompt that is taken. A longer one is refused, never cut."},
	{"max-tokens", 'n', SK_OPTION_UINT, AT(max_tokens), "N", "256", .min = 1,
	 .help = "Tokens generated for a request that names no number."},
	{"ring-slots", 0, SK_OPTION_UINT, AT(ring_slots), "N", "4096", .min = SK_RING_LEAST_SLOTS,
	 .max = SK_RING_MOST_SLOTS,
	 .help = "Slots of a client's token ring where it asks for no number; rounded up to a "
		 "power of two."},
	{"stall-timeout", 0, SK_OPTION_FLOAT, AT(stall_timeout), "SECONDS", "30", .fmax = 1e6,
	 .help = "A client whose ring stays full for so long has its request cancelled; 0 waits "
		 "for ever."},
	{"queue", 0, SK_OPTION_UINT, AT(queue), "N", "256", .max = 4096,
	 .help = "Requests that may wait for room in the KV cache; further ones are refused."},
	{"queue-timeout", 0, SK_OPTION_FLOAT, AT(queue_timeout), "SECONDS", "60", .fmax = 1e6,
	 .help = "A request that has waited for so long is refused; 0 lets it wait for ever. For a "
		 "quarter of it, and 15 s at most, free room is kept for one that needs more than "
		 "there is; then others pass it, and streams that have run for as long give way to "
		 "it and go on in their turn."},
	{"state-dir", 0, SK_OPTION_STRING, AT(state_dir), "DIR", NULL,
	 .help = "Where sessions are kept that are idle while others need the KV cache, and all "
		 "named ones from one start of the daemon to the next; 'none' keeps none. Without "
		 "it "
		 "$STATE_DIRECTORY, else $XDG_STATE_HOME/streamkv, else ~/.local/state/streamkv."},
	{"session-ttl", 0, SK_OPTION_FLOAT, AT(session_ttl), "SECONDS", "0", .fmax = 1e9,
	 .help = "A named session that nobody has used for so long is deleted; 0 keeps it for "
		 "ever. A session can be given another time (streamkv-client sessions keep)."},
	{"survival", 0, SK_OPTION_CHOICE, AT(survival), NULL, "auto", .choices = survivals,
	 .help = "What a crash leaves of named sessions: all of them, to the token that their "
		 "clients had read, where somebody keeps memory for the next daemon: the service "
		 "manager (FileDescriptorStoreMax=), else the holder of weights; or nothing but "
		 "what was in its file, which makes generating 2 to 4 % faster."},
	{"hello-timeout", 0, SK_OPTION_FLOAT, AT(hello_timeout), "SECONDS", "10", .fmin = 0.01,
	 .fmax = 1e6, .help = "A client that has not said hello by then is dropped."},
	{"drain-timeout", 0, SK_OPTION_FLOAT, AT(drain_timeout), "SECONDS", "30", .fmax = 1e6,
	 .help = "For so long requests that run may go on after SIGTERM, while new ones are "
		 "refused; then they are cancelled. Streams without an end are not waited for. 0 "
		 "cancels all at once."},
	{"config", 'c', SK_OPTION_STRING, AT(config), "FILE", NULL, .not_in_file = true,
	 .help = "Read options from FILE first (name = value); the command line comes before it. "
		 "Without it /etc/streamkv/streamkvd.conf is read where it exists. Then "
		 "FILE.d/*.conf are read, in the order of their names: a later file comes before "
		 "an earlier one."},
	{"check-config", 0, SK_OPTION_FLAG, AT(check_config), NULL, NULL, .not_in_file = true,
	 .help = "Check options and configuration file, then end."},
	{"log-level", 0, SK_OPTION_CHOICE, AT(log_level), NULL, "notice", .choices = levels,
	 .help = "What is worth a line on standard error."},
	{"version", 'V', SK_OPTION_FLAG, AT(version), NULL, NULL, .not_in_file = true,
	 .help = "Print the version."},
	{"man", 0, SK_OPTION_FLAG, AT(man), NULL, NULL,
	 .not_in_file = true}, /* for the build: this page as troff */
	{0},
};

#undef AT
#define AT(member) offsetof(struct sk_user_limits, member)

const struct sk_option sk_user_option_table[] = {
	{"weight", 0, SK_OPTION_UINT, AT(weight), "N", "1", .min = 1, .max = 1000,
	 .help = "The user's share of whatever users are short of: tokens of a step, places in it, "
		 "room in the KV cache. Beside a user of weight 1, one of weight 3 gets three "
		 "times as much."},
	{"max-sessions", 0, SK_OPTION_UINT, AT(max_sessions), "N", "4096", .max = 1000000,
	 .help = "Named sessions that the user may have. 0: any number."},
	{"max-queued", 0, SK_OPTION_UINT, AT(max_queued), "N", "0", .max = 4096,
	 .help = "Requests of the user that may wait for room in the KV cache; further ones are "
		 "refused. 0: as many as --queue has places."},
	{"kv-memory", 0, SK_OPTION_BYTES, AT(kv_bytes), "SIZE", "0",
	 .help = "Memory for the KV caches of all the user's sessions together. A request that "
		 "would need more waits for the user's own, and nobody waits behind it. 0: all "
		 "that there is."},
	{"tokens-per-second", 0, SK_OPTION_UINT, AT(tokens_per_second), "N", "0", .max = 1u << 30,
	 .help = "Tokens that the model runs for the user in a second, prompts included; what is "
		 "left of a second is kept for one more. 0: no limit."},
	{0},
};

const struct sk_command_help sk_daemon_help = {
	.name = "streamkvd",
	.synopsis = "",
	.summary = "keep a language model warm, and its streaming KV caches",
	.text = "streamkvd loads the model once and serves it on a Unix socket to streamkv-client "
		"and to programs that use "
		"libstreamkv. Each session has a streaming KV cache: its first tokens (sinks) and "
		"the most recent ones (a "
		"window), so that it may run for ever in constant memory.\n\n"
		"The socket is there as soon as the daemon starts: clients that come while the "
		"model is being loaded wait and "
		"are served.\n\n"
		"SIGTERM and SIGINT end it: new requests are refused, those that run may finish "
		"within --drain-timeout, the others finish as cancelled, and named sessions are "
		"stored. A second one ends the waiting, and one more, while sessions are being "
		"stored, ends the process at once.\n\n"
		"SIGHUP makes it read the configuration again: limits of users and the log level "
		"hold from then on; other options that have changed are named in the log, and hold "
		"after the next start. Where there is a mistake in it, that is logged and nothing "
		"changes.\n\n"
		"Under systemd it says when it is ready (Type=notify), how it does (STATUS), and, "
		"where WatchdogSec is set, that its engine moves: one that is stuck for longer in "
		"a "
		"step is started again.\n\n"
		"With --hold-weights it is a holder instead: it packs the weights and keeps them "
		"for daemons that are started with --weights-from, now and after a crash or an "
		"upgrade of theirs.",
	.examples =
		"  streamkvd --model SmolLM2-135M-Instruct.Q4_1.gguf\n"
		"  streamkvd --model pythia-2.8b --weights q8 --sink 8 --window 248 --slack 64\n",
	.exits = "   0  ended as asked\n"
		 "  64  an option is wrong\n"
		 "  65  the model's files are not what they should be, or not supported\n"
		 "  66  the model is not there\n"
		 "  69  another streamkvd has the socket, or the device is not there\n"
		 "  70  the device failed\n"
		 "  71  the system refused something (memory, descriptors)\n"
		 "  73  the socket could not be made\n"
		 "  78  the configuration file is wrong\n",
	.sections =
		"Options stand in the configuration file as name = value, without dashes, before "
		"any section or under [streamkvd]. What follows is for users: a section "
		"[user NAME] or [user UID] for one of them, and [user *] for those who have none. "
		"What a user's section leaves out is as [user *] says it.",
	.section_table = sk_user_option_table,
};

const char *sk_daemon_state_dir(const struct sk_daemon_options *options)
{
	static char path[4096];
	const char *given = getenv("STATE_DIRECTORY"), *state = getenv("XDG_STATE_HOME");
	const char *home = getenv("HOME");

	if (options->state_dir)
		return strcmp(options->state_dir, "none") == 0 ? NULL : options->state_dir;
	if (given && given[0]) /* the first of several */
		snprintf(path, sizeof path, "%.*s", (int)strcspn(given, ":"), given);
	else if (state && state[0] == '/')
		snprintf(path, sizeof path, "%s/streamkv", state);
	else if (home && home[0] == '/')
		snprintf(path, sizeof path, "%s/.local/state/streamkv", home);
	else
		return NULL;
	return path;
}

const char *sk_daemon_holder_path(const struct sk_daemon_options *options)
{
	static char path[512];
	const char *runtime = getenv("XDG_RUNTIME_DIR");

	if (options->holder_socket)
		return options->holder_socket;
	if (!runtime || !runtime[0])
		return "/run/streamkv/weights.sock";
	snprintf(path, sizeof path, "%s/streamkv-weights.sock", runtime);
	return path;
}

const char *sk_daemon_socket_path(const struct sk_daemon_options *options)
{
	static char path[512];
	const char *named = getenv("STREAMKV_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");

	if (options->socket)
		return options->socket;
	if (named && named[0])
		return named;
	if (!runtime || !runtime[0])
		return "/run/streamkv/streamkvd.sock";
	snprintf(path, sizeof path, "%s/streamkv.sock", runtime);
	return path;
}
