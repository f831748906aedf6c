/* The daemon's options: one table for argv, the configuration file, --help and the man page; and one for what the file
 * says of users. */
#pragma once

#include "base/options.h"
#include "engine/limits.h"

struct sk_daemon_options {
	const char *model, *socket, *config, *instructions, *state_dir;
	const char *weights_from, *holder_socket;
	int backend, weights, activations, kv, mode, log_level;
	uint64_t sink, window, slack, kv_memory, max_batch, step_tokens, threads;
	uint64_t max_tokens, max_prompt, max_connections, ring_slots, socket_mode, queue;
	int survival;
	double prompt_share, stall_timeout, hello_timeout, queue_timeout, session_ttl,
		drain_timeout;
	bool version, man, check_config, hold_weights;
	struct sk_limits_table limits;  /* from the configuration alone */
	struct sk_config_value *values; /* that strings of the configuration point into */
	const char *config_path;        /* of that; NULL: there is none */
};

enum { SK_BACKEND_AUTO, SK_BACKEND_CUDA, SK_BACKEND_CPU };
enum { SK_ACTIVATIONS_ROUNDED, SK_ACTIVATIONS_EXACT };
enum { SK_SURVIVAL_AUTO, SK_SURVIVAL_OFF };
enum { SK_KV_CHOICE_AUTO, SK_KV_CHOICE_F32, SK_KV_CHOICE_F16, SK_KV_CHOICE_BF16 };

extern const struct sk_option sk_daemon_option_table[];
extern const struct sk_option sk_user_option_table[]; /* of struct sk_user_limits */
extern const struct sk_command_help sk_daemon_help;

/* Sets the options to the defaults and to what the configuration says: options->config, else /etc/streamkv/streamkvd.conf
 * where there is one, then the files in FILE.d that end in .conf, in the order of their names. Lines "name = value", the
 * daemon's at first or under [streamkvd], a user's under [user NAME], [user UID] or [user *], which says what the others
 * leave out. A later file's lines come before an earlier one's. -ENOENT where one cannot be read, -EINVAL and a sentence
 * with file and line; then the options are as they were. */
int sk_daemon_read_config(struct sk_daemon_options *options, struct sk_diag *diag);
/* "file:line" where the configuration said an option's value last, with so many values of any option after it; NULL: nowhere. */
const char *sk_daemon_where(const struct sk_daemon_options *options, const char *name,
			    unsigned *ret_n_after);
/* The same, and then argv (without anything but options) over it; and whether all of it goes together. 0, or an exit code
 * and a sentence. */
int sk_daemon_settle(struct sk_daemon_options *options, int argc, char **argv,
		     struct sk_diag *diag);
/* Frees what reading made. The options' strings may not be used any more. */
void sk_daemon_options_finish(struct sk_daemon_options *options);

/* --socket, else $STREAMKV_SOCKET, else $XDG_RUNTIME_DIR/streamkv.sock, else
 * /run/streamkv/streamkvd.sock. */
const char *sk_daemon_socket_path(const struct sk_daemon_options *options);
/* --holder-socket, else $XDG_RUNTIME_DIR/streamkv-weights.sock, else /run/streamkv/weights.sock. */
const char *sk_daemon_holder_path(const struct sk_daemon_options *options);
/* --state-dir, else $STATE_DIRECTORY (systemd's), else $XDG_STATE_HOME/streamkv, else ~/.local/state/streamkv. NULL:
 * none of them, or "none". */
const char *sk_daemon_state_dir(const struct sk_daemon_options *options);
