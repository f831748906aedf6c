/* The daemon's options: one table for argv, the configuration file, --help and the man page; and one for what the file
 * says of users. */
#pragma once

#include "base/options.h"
#include "engine/limits.h"

struct sk_daemon_options {
	const char *model, *socket, *config, *instructions, *state_dir;
	int backend, weights, activations, kv, mode, log_level;
	uint64_t sink, window, slack, kv_memory, max_batch, step_tokens, threads;
	uint64_t max_tokens, max_prompt, max_connections, ring_slots, socket_mode, queue;
	double prompt_share, stall_timeout, hello_timeout, queue_timeout, session_ttl;
	bool version, man, check_config;
	struct sk_limits_table limits; /* from the configuration file alone */
};

enum { SK_BACKEND_AUTO, SK_BACKEND_CUDA, SK_BACKEND_CPU };
enum { SK_ACTIVATIONS_ROUNDED, SK_ACTIVATIONS_EXACT };
enum { SK_KV_CHOICE_AUTO, SK_KV_CHOICE_F32, SK_KV_CHOICE_F16 };

extern const struct sk_option sk_daemon_option_table[];
extern const struct sk_option sk_user_option_table[]; /* of struct sk_user_limits */
extern const struct sk_command_help sk_daemon_help;

/* Reads a configuration file into the options: lines "name = value", the daemon's at first or under [streamkvd], a
 * user's under [user NAME], [user UID] or [user *], which says what the others leave out. What it points to is kept until
 * the program ends. -ENOENT where there is none, -EINVAL and a sentence with file and line. */
int sk_daemon_read_config(const char *path, struct sk_daemon_options *options,
			  struct sk_diag *diag);

/* --socket, else $STREAMKV_SOCKET, else $XDG_RUNTIME_DIR/streamkv.sock, else
 * /run/streamkv/streamkvd.sock. */
const char *sk_daemon_socket_path(const struct sk_daemon_options *options);
/* --state-dir, else $STATE_DIRECTORY (systemd's), else $XDG_STATE_HOME/streamkv, else ~/.local/state/streamkv. NULL:
 * none of them, or "none". */
const char *sk_daemon_state_dir(const struct sk_daemon_options *options);
