/* streamkvd: options, socket, model, engine, server; then the loop until a signal. */
#include "base/log.h"
#include "daemon/backends.h"
#include "daemon/held.h"
#include "daemon/holder.h"
#include "daemon/notify.h"
#include "daemon/parking.h"
#include "daemon/progress.h"
#include "daemon/server.h"
#include "engine/store.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

/* Everything that main opens, in order. */
struct daemon {
	struct sk_daemon_options options;
	struct sk_listener listener;
	struct sk_model *model;
	struct sk_tokenizer *tokenizer;
	struct sk_store *store;
	struct sk_held held; /* weights from a holder, ... */
	bool uses_held;      /* ... and they are of use */
	struct sk_handed handed;
	struct sk_daemon_parking parking;
	struct sk_parking *kept_by; /* NULL: nobody keeps sessions */
	struct sk_engine *engine;
	struct sk_holder *holder; /* instead of all that follows the model */
	struct sk_server server;
};

static int said(int exit_code, const struct sk_diag *diag)
{
	sk_log(SK_LOG_ERROR, "%s", diag->text);
	return exit_code;
}

/* 0 to go on, else the exit code; *ret_done: all is said already. */
static int read_options(struct sk_daemon_options *options, int argc, char **argv, bool *ret_done)
{
	struct sk_diag diag = {""};
	int n_rest;
	bool help;

	*ret_done = true;
	/* The command line is read for --config, and once more over what that file says. */
	if (sk_options_defaults(sk_daemon_option_table, options, &diag) < 0)
		return said(EX_SOFTWARE, &diag);
	if (sk_options_parse(sk_daemon_option_table, options, argc, argv, &n_rest, &help, &diag) <
	    0)
		return said(EX_USAGE, &diag);
	if (n_rest) {
		sk_diag_fail(&diag, EINVAL,
			     "'%s': streamkvd takes options only; see streamkvd --help", argv[1]);
		return said(EX_USAGE, &diag);
	}
	if (help) {
		sk_options_help(stdout, &sk_daemon_help, sk_daemon_option_table);
		return 0;
	}
	if (options->man) {
		sk_options_man(stdout, &sk_daemon_help, sk_daemon_option_table, 8);
		return 0;
	}
	if (options->version) {
		puts("streamkvd " SK_VERSION);
		return 0;
	}
	int exit_code = sk_daemon_settle(options, argc, argv, &diag);
	if (exit_code)
		return said(exit_code, &diag);
	*ret_done = options->check_config;
	return 0;
}

/* 600 as chmod writes it: the digits are octal. */
static unsigned octal(uint64_t digits)
{
	return (unsigned)(digits / 100 % 10 * 64 + digits / 10 % 10 * 8 + digits % 10);
}

static int exit_code_of(int err)
{
	switch (err) {
	case -ENOENT:
	case -EACCES:
		return EX_NOINPUT;
	case -ENOMEM:
	case -EMFILE:
	case -ENFILE:
		return EX_OSERR;
	case -ENODEV:
	case -ECONNREFUSED: /* no holder */
		return EX_UNAVAILABLE;
	case -ERANGE: /* a window that the model cannot have */
		return EX_USAGE;
	default:
		return EX_DATAERR;
	}
}

static enum sk_kv_format kv_format_of(const struct daemon *daemon)
{
	static const enum sk_kv_format chosen[] = {[SK_KV_CHOICE_F32] = SK_KV_F32,
						   [SK_KV_CHOICE_F16] = SK_KV_F16,
						   [SK_KV_CHOICE_BF16] = SK_KV_BF16};
	int weights = daemon->options.weights;
	if (daemon->options.kv != SK_KV_CHOICE_AUTO)
		return chosen[daemon->options.kv];
	bool exact =
		weights == SK_WEIGHTS_F32 ||
		(weights == SK_WEIGHTS_AUTO && sk_model_main_dtype(daemon->model) == SK_DTYPE_F32);
	return exact ? SK_KV_F32 : SK_KV_F16;
}

static struct sk_backend_options backend_options_of(const struct sk_daemon_options *options)
{
	return (struct sk_backend_options){
		.n_threads = (uint32_t)options->threads,
		.instructions = options->instructions,
		.exact = options->activations == SK_ACTIVATIONS_EXACT,
	};
}

static int open_holder(struct daemon *daemon, struct sk_diag *diag)
{
	const struct sk_daemon_options *options = &daemon->options;
	struct sk_progress progress;
	struct sk_holder_options wanted = {
		.backend_options = backend_options_of(options),
		.weights = (enum sk_weight_format)options->weights,
		.progress = sk_progress_show,
		.progress_context = &progress,
	};
	int err = sk_choose_backend(options->backend, &wanted.backend, diag);
	if (err < 0)
		return err;
	sk_progress_begin(&progress, "loading");
	err = sk_holder_create(daemon->model, &wanted, &daemon->holder, diag);
	sk_progress_end(&progress);
	return err;
}

/* Nothing where weights come from nowhere else. A holder that is older or newer than this program, as after an upgrade, is
 * done without: else the service would be gone until somebody starts both again. */
static int open_held(struct daemon *daemon, struct sk_diag *diag)
{
	const struct sk_daemon_options *options = &daemon->options;
	const struct sk_backend_kind *kind;
	if (!options->weights_from)
		return 0;
	int err = sk_choose_backend(options->backend, &kind, diag);
	if (!err)
		err = sk_held_open(&daemon->held, options->weights_from, diag);
	if (!err)
		err = sk_held_check(&daemon->held, daemon->model,
				    (enum sk_weight_format)options->weights, kind, diag);
	daemon->uses_held = !err;
	if (err != -EPROTO && err != -ENOTSUP)
		return err;
	sk_log(SK_LOG_WARNING, "%s; until then this one packs its own", diag->text);
	return 0;
}

static int open_engine(struct daemon *daemon, struct sk_diag *diag)
{
	const struct sk_daemon_options *options = &daemon->options;
	struct sk_progress progress;
	struct sk_engine_options wanted = {
		.backend_options = backend_options_of(options),
		.held = daemon->uses_held ? &daemon->held.weights : NULL,
		.weights = (enum sk_weight_format)options->weights,
		.kv_format = kv_format_of(daemon),
		.kv_memory_bytes = options->kv_memory,
		.max_batch = (uint32_t)options->max_batch,
		.step_tokens = (uint32_t)options->step_tokens,
		.prompt_share = options->prompt_share,
		.policy = {(enum sk_mode)options->mode, (uint32_t)options->sink,
			   (uint32_t)options->window, (uint32_t)options->slack},
		.stall_timeout_ns = (uint64_t)(options->stall_timeout * 1e9),
		.queue_most = (uint32_t)options->queue,
		.queue_timeout_ns = (uint64_t)(options->queue_timeout * 1e9),
		.session_ttl_ns = (uint64_t)(options->session_ttl * 1e9),
		.store = daemon->store,
		.parking = daemon->kept_by,
		.limits = options->limits,
		.keeping = sk_progress_keeping,
		.progress = sk_progress_show,
		.progress_context = &progress,
	};
	int err = sk_choose_backend(options->backend, &wanted.backend, diag);
	if (err < 0)
		return err;
	sk_progress_begin(&progress, "loading");
	err = sk_engine_create(daemon->model, daemon->tokenizer, &wanted, &daemon->engine, diag);
	sk_progress_end(&progress);
	return err;
}

/* Without a place for its sessions the daemon serves all the same, unless one was named. */
static int open_store(struct daemon *daemon, struct sk_diag *diag)
{
	const char *path = sk_daemon_state_dir(&daemon->options);
	uint8_t fingerprint[SK_FINGERPRINT_BYTES];

	if (!path)
		return 0;
	int err = sk_model_fingerprint(daemon->model, fingerprint);
	if (err < 0)
		return sk_diag_fail(diag, -err, "not enough memory");
	err = sk_store_open(path, fingerprint, &daemon->store, diag);
	if (err < 0 && !daemon->options.state_dir) {
		sk_log(SK_LOG_WARNING, "%s; sessions end with this daemon", diag->text);
		err = 0;
	}
	return err;
}

static void tell_found(const struct sk_engine *engine)
{
	const struct sk_engine_kept *kept = sk_engine_kept(engine);
	if (kept->n_found)
		sk_log(SK_LOG_NOTICE, "%u named session%s of an earlier start", kept->n_found,
		       kept->n_found == 1 ? "" : "s");
	if (kept->n_adopted)
		sk_log(SK_LOG_NOTICE,
		       "%u named session%s of a daemon that ended without storing them, %u in the "
		       "middle of an answer",
		       kept->n_adopted, kept->n_adopted == 1 ? "" : "s", kept->n_broken);
	if (kept->not_adopted[0])
		sk_log(SK_LOG_WARNING,
		       "the sessions that an earlier daemon left cannot be used, and are let go: "
		       "%s",
		       kept->not_adopted);
	if (kept->n_not_adopted)
		sk_log(SK_LOG_WARNING, "%u session%s that an earlier daemon left %s damaged",
		       kept->n_not_adopted, kept->n_not_adopted == 1 ? "" : "s",
		       kept->n_not_adopted == 1 ? "is" : "are");
	if (kept->n_outdated)
		sk_log(SK_LOG_NOTICE,
		       "%u session%s that an earlier daemon left %s let go: another has stored "
		       "what is newer",
		       kept->n_outdated, kept->n_outdated == 1 ? "" : "s",
		       kept->n_outdated == 1 ? "is" : "are");
	if (kept->n_no_room)
		sk_log(SK_LOG_WARNING,
		       "%u session%s that an earlier daemon left had no room beside the pages that "
		       "--max-batch and --step-tokens take, and could not be stored",
		       kept->n_no_room, kept->n_no_room == 1 ? "" : "s");
	if (kept->not_parked[0])
		sk_log(SK_LOG_NOTICE, "named sessions will not survive a crash: %s",
		       kept->not_parked);
	if (kept->n_unusable)
		sk_log(SK_LOG_WARNING, "%u stored session%s cannot be used and stay%s in %s: %s",
		       kept->n_unusable, kept->n_unusable == 1 ? "" : "s",
		       kept->n_unusable == 1 ? "s" : "", "the state directory", kept->reason);
}

static void tell_kept(const struct sk_engine *engine)
{
	const struct sk_engine_kept *kept = sk_engine_kept(engine);
	if (kept->n_kept)
		sk_log(SK_LOG_NOTICE, "%u named session%s stored", kept->n_kept,
		       kept->n_kept == 1 ? "" : "s");
	if (kept->n_lost)
		sk_log(SK_LOG_ERROR, "%u named session%s could not be stored: %s", kept->n_lost,
		       kept->n_lost == 1 ? "" : "s", kept->reason);
}

/* A client takes 7 descriptors (its socket, ring and doorbells). The soft limit is raised as far as one may; where that is too
 * little, fewer clients are taken at once. */
static uint64_t most_connections(const struct sk_daemon_options *options)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return options->max_connections;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0 && getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return options->max_connections;
	uint64_t most = limit.rlim_cur > 64 ? (limit.rlim_cur - 56) / 8 : 1;
	if (options->max_connections <= most)
		return options->max_connections;
	sk_log(SK_LOG_WARNING, "%llu descriptors are enough for %llu clients at once, not for %llu",
	       (unsigned long long)limit.rlim_cur, (unsigned long long)most,
	       (unsigned long long)options->max_connections);
	return most;
}

static const char *bound_path; /* for the handler below */

/* A signal during the load, before the loop takes signals over: the socket must not stay behind. */
static void leave(int number)
{
	unlink(bound_path);
	signal(number, SIG_DFL);
	raise(number);
}

static int open_listener(struct daemon *daemon, struct sk_diag *diag)
{
	const struct sk_daemon_options *options = &daemon->options;
	sigset_t ends, before;

	/* A signal between the socket's birth and its handler waits for the handler. */
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	sigprocmask(SIG_BLOCK, &ends, &before);
	int err = options->hold_weights
			  ? sk_listener_open(&daemon->listener, &daemon->handed,
					     sk_daemon_holder_path(options), 0600, diag)
			  : sk_listener_open(&daemon->listener, &daemon->handed,
					     sk_daemon_socket_path(options),
					     octal(options->socket_mode), diag);
	if (err >= 0 && daemon->listener.path[0]) {
		bound_path = daemon->listener.path;
		signal(SIGTERM, leave);
		signal(SIGINT, leave);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	return err;
}

static int hold(struct daemon *daemon)
{
	const struct sk_daemon_options *options = &daemon->options;
	struct sk_diag diag = {""};
	int err = open_holder(daemon, &diag);
	if (err < 0)
		return said(exit_code_of(err), &diag);
	sk_log(SK_LOG_NOTICE, "ready: holding %.0f MB of %s on %s, at %s",
	       (double)sk_holder_weights(daemon->holder)->n_bytes / 1e6,
	       sk_model_config(daemon->model)->name, sk_holder_backend_name(daemon->holder),
	       daemon->listener.path[0] ? daemon->listener.path : "the socket handed over");
	int exit_code =
		sk_holder_serve(daemon->holder, daemon->model,
				(enum sk_weight_format)options->weights, &daemon->listener, &diag);
	return diag.text[0] ? said(exit_code, &diag) : exit_code;
}

static int run(struct daemon *daemon)
{
	const struct sk_daemon_options *options = &daemon->options;
	struct sk_diag diag = {""};

	/* It is for the loop, also when it comes before that. */
	sigset_t later;
	sigemptyset(&later);
	if (!options->hold_weights)
		sigaddset(&later, SIGHUP);
	sigprocmask(SIG_BLOCK, &later, NULL);
	int err = sk_handed_take(&daemon->handed, &diag);
	if (!err)
		err = open_listener(daemon, &diag);
	if (err < 0)
		return said(err == -EADDRINUSE ? EX_UNAVAILABLE : EX_CANTCREAT, &diag);
	err = sk_model_open(options->model, &daemon->model, &diag);
	if (!err && options->hold_weights)
		return hold(daemon);
	if (!err)
		err = sk_tokenizer_open(daemon->model, &daemon->tokenizer, &diag);
	if (!err)
		err = open_store(daemon, &diag);
	if (err < 0 && daemon->tokenizer)
		return said(EX_CANTCREAT, &diag);
	if (!err)
		err = open_held(daemon, &diag);
	if (!err)
		err = sk_parking_open(&daemon->parking, &daemon->handed,
				      daemon->held.channel ? &daemon->held : NULL,
				      sk_daemon_socket_path(options), &daemon->kept_by, &diag);
	if (!err && daemon->kept_by && options->survival == SK_SURVIVAL_OFF) {
		sk_parking_forget(daemon->kept_by);
		daemon->kept_by = NULL;
	}
	if (!err)
		err = open_engine(daemon, &diag);
	if (err < 0)
		return said(exit_code_of(err), &diag);
	tell_found(daemon->engine);

	daemon->server.options = options;
	daemon->server.engine = daemon->engine;
	daemon->server.model = daemon->model;
	daemon->server.tokenizer = daemon->tokenizer;
	daemon->server.listener = &daemon->listener;
	daemon->server.parking = daemon->kept_by;
	err = sk_server_init(&daemon->server, &diag);
	if (!err) {
		err = sk_engine_start(daemon->engine);
		if (err < 0)
			sk_diag_fail(&diag, -err, "the engine's threads: %s", strerror(-err));
	}
	if (err < 0)
		return said(EX_OSERR, &diag);
	sk_log(SK_LOG_NOTICE, "ready: %s on %s, %.0f MB of weights, at %s",
	       sk_model_config(daemon->model)->name, sk_engine_backend_name(daemon->engine),
	       (double)sk_engine_weight_bytes(daemon->engine) / 1e6,
	       daemon->listener.path[0] ? daemon->listener.path : "the socket handed over");
	int exit_code = sk_server_run(&daemon->server);
	tell_kept(daemon->engine);
	return exit_code;
}

int main(int argc, char **argv)
{
	static struct daemon daemon = {.listener = {.fd = -1, .lock_fd = -1}};
	bool done;

	sk_log_open("streamkvd", SK_LOG_NOTICE);
	int exit_code = read_options(&daemon.options, argc, argv, &done);
	if (exit_code || done)
		return exit_code;
	sk_log_open("streamkvd", (enum sk_log_level)(daemon.options.log_level + SK_LOG_ERROR));
	daemon.server.max_connections = most_connections(&daemon.options);
	daemon.server.argc = argc;
	daemon.server.argv = argv;
	exit_code = run(&daemon);
	if (daemon.server.base)
		sk_server_finish(&daemon.server);
	sk_engine_destroy(daemon.engine);
	sk_parking_close(&daemon.parking);
	sk_handed_finish(&daemon.handed);
	sk_held_close(&daemon.held); /* after the last use of the weights */
	sk_holder_destroy(daemon.holder);
	sk_store_close(daemon.store);
	sk_tokenizer_close(daemon.tokenizer);
	sk_model_close(daemon.model);
	sk_listener_close(&daemon.listener);
	sk_daemon_options_finish(&daemon.options);
	return exit_code;
}
