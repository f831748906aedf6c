/* streamkv-client sessions: named sessions, one verb each. */
#include "client/command.h"

#include "base/cleanup.h"
#include "base/duration.h"
#include "client/json_out.h"
#include "client/listing_out.h"
#include "client/saved_file.h"
#include "client/user_name.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

struct opts {
	const char *socket;
	bool json, replace;
};

static const struct sk_option options[] = {
	{"replace", 0, SK_OPTION_FLAG, offsetof(struct opts, replace),
	 .help = "With fork and load: in the stead of a session that has the name already."},
	{"json", 0, SK_OPTION_FLAG, offsetof(struct opts, json),
	 .help = "With list and show: print a JSON array of objects, or one object."},
	{"socket", 's', SK_OPTION_STRING, offsetof(struct opts, socket), "PATH",
	 .help = "Where the daemon listens."},
	{0},
};

/* What a fault of the daemon's is for whoever asked for a session. */
static int say_fault(int err, const struct streamkv_error *error)
{
	int exit_code = err == -ENOENT    ? EX_NOINPUT
			: err == -EEXIST  ? EX_CANTCREAT
			: err == -EBADMSG ? EX_DATAERR
			: err == -EXDEV   ? EX_DATAERR /* of another model or layout */
					  : sk_exit_code_of(err);
	return sk_said(exit_code, "%s", error->text);
}

/* --- The verbs --- */

struct call {
	const struct opts *opts;
	char **arguments; /* of the verb */
	int n_arguments;
	struct streamkv *kv; /* NULL while it is prepared */
	int fd;              /* load: what was saved */
	uint64_t n_bytes;
	uint64_t ttl_ms; /* keep */
};

static int list(struct call *call)
{
	struct streamkv_error error;
	struct streamkv_list all;
	int exit_code;

	int err = streamkv_list(call->kv, &all, &error);
	if (err < 0)
		return say_fault(err, &error);
	sk_list_sort(&all, false);
	if (call->opts->json) {
		json_t *array = json_array();
		for (size_t i = 0; i < all.n_sessions; i++)
			json_array_append_new(array, sk_session_json(&all.sessions[i]));
		exit_code = sk_json_print(array, JSON_INDENT(2));
	} else {
		struct sk_page page = {0};
		if (sk_page_init(&page) < 0 || sk_put_sessions(&all, &page, SIZE_MAX) < 0)
			exit_code = sk_said(EX_OSERR, "not enough memory");
		else
			exit_code = sk_page_write(&page);
		sk_page_finish(&page);
	}
	streamkv_list_free(&all);
	return exit_code;
}

static int print_session(const struct streamkv_session *s)
{
	char age[SK_DURATION_BYTES], idle[SK_DURATION_BYTES], ttl[SK_DURATION_BYTES], text[1024];
	bool is_running = s->state == STREAMKV_SESSION_RUNNING,
	     is_idle = s->state == STREAMKV_SESSION_IDLE;

	int n = snprintf(text, sizeof text,
			 "session   %s of %s, begun %s ago\n"
			 "state     %s%s%s, kept %s%s\n"
			 "cache     %s, sink %lld, window %lld, slack %lld; %llu entries live\n"
			 "text      position %llu; %llu requests, %llu tokens generated\n"
			 "memory    %llu pages, %llu of them shared; %llu bytes stored elsewhere\n",
			 s->name, sk_user_name(s->uid), sk_duration_print(s->age_ns, age),
			 streamkv_session_state_name((int)s->state),
			 is_running ? ""
			 : is_idle  ? " for "
				    : ", idle for ",
			 is_running ? "" : sk_duration_print(s->idle_ns, idle),
			 s->ttl_ms ? sk_duration_print(s->ttl_ms * 1000000, ttl) : "for ever",
			 s->ttl_ms ? " after its last request" : "",
			 streamkv_mode_name(s->policy.mode), (long long)s->policy.sink,
			 (long long)s->policy.window, (long long)s->policy.slack,
			 (unsigned long long)s->live, (unsigned long long)s->position,
			 (unsigned long long)s->requests, (unsigned long long)s->generated_tokens,
			 (unsigned long long)s->pages, (unsigned long long)s->shared_pages,
			 (unsigned long long)s->stored_bytes);
	return sk_write_out(text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
}

static int show(struct call *call)
{
	struct streamkv_session session;
	struct streamkv_error error;

	int err = streamkv_session_show(call->kv, call->arguments[0], &session, &error);
	if (err < 0)
		return say_fault(err, &error);
	return call->opts->json ? sk_json_print(sk_session_json(&session), JSON_INDENT(2))
				: print_session(&session);
}

static int prepare_fork(struct call *call)
{
	return strcmp(call->arguments[0], call->arguments[1])
		       ? 0
		       : sk_said(EX_USAGE, "a session and what is made of it have two names");
}

static int fork_session(struct call *call)
{
	struct streamkv_error error;
	int err = streamkv_session_fork(call->kv, call->arguments[0], call->arguments[1],
					call->opts->replace, NULL, &error);
	return err < 0 ? say_fault(err, &error) : 0;
}

static int reset(struct call *call)
{
	struct streamkv_error error;
	int err = streamkv_session_reset(call->kv, call->arguments[0], NULL, &error);
	return err < 0 ? say_fault(err, &error) : 0;
}

/* All that can be; the first fault is the exit code. */
static int delete (struct call *call)
{
	struct streamkv_error error;
	int exit_code = 0;

	for (int i = 0; i < call->n_arguments; i++) {
		int err = streamkv_session_delete(call->kv, call->arguments[i], NULL, &error);
		int code = err < 0 ? say_fault(err, &error) : 0;
		exit_code = exit_code ? exit_code : code;
	}
	return exit_code;
}

static int prepare_save(struct call *call)
{
	if (strcmp(call->arguments[1], "-") == 0 && isatty(STDOUT_FILENO))
		return sk_said(EX_USAGE, "a saved session is nothing for a terminal: name a file, "
					 "or redirect standard output");
	return 0;
}

static int save(struct call *call)
{
	struct streamkv_error error;
	sk_autoclose int fd = -1;
	uint64_t n_bytes;

	int err = streamkv_session_save(call->kv, call->arguments[0], &fd, &n_bytes, NULL, &error);
	if (err < 0)
		return say_fault(err, &error);
	sk_interrupt_catch();
	return sk_saved_write(call->arguments[1], fd, n_bytes);
}

/* Before there is a connection: in a pipeline of two the second must not hold a place while it waits for the first. */
static int prepare_load(struct call *call)
{
	if (strcmp(call->arguments[0], "-") == 0 && isatty(STDIN_FILENO))
		return sk_said(EX_USAGE, "a saved session does not come from a terminal: name a "
					 "file, or redirect standard input");
	return sk_saved_read(call->arguments[0], &call->fd, &call->n_bytes);
}

static int load(struct call *call)
{
	struct streamkv_error error;
	int err = streamkv_session_load(call->kv, call->arguments[1], call->fd, call->n_bytes,
					call->opts->replace, NULL, &error);
	return err < 0 ? say_fault(err, &error) : 0;
}

static int prepare_keep(struct call *call)
{
	const char *text = call->arguments[1];
	uint64_t ns;

	if (strcmp(text, "forever") == 0)
		call->ttl_ms = 0;
	else if (strcmp(text, "default") == 0)
		call->ttl_ms = STREAMKV_KEEP_DEFAULT;
	else if (sk_duration_parse(text, &ns) && ns >= 1000000)
		call->ttl_ms = ns / 1000000;
	else
		return sk_said(EX_USAGE,
			       "'%s' is no time to keep a session for; allowed are a time like "
			       "90s, 10m, 2h or 7d, up to 36500d, and forever and default",
			       text);
	return 0;
}

static int keep(struct call *call)
{
	struct streamkv_error error;
	int err = streamkv_session_keep(call->kv, call->arguments[0], call->ttl_ms, NULL, &error);
	return err < 0 ? say_fault(err, &error) : 0;
}

/* --- The command --- */

enum { FIRST = 1, SECOND = 2, ALL = -1 };

static const struct verb {
	const char *name, *arguments;
	int n_least, n_most; /* of them */
	int names;           /* those that are names of sessions */
	bool takes_json, takes_replace;
	int (*prepare)(struct call *call); /* before it is connected; or NULL */
	int (*run)(struct call *call);     /* both: 0, or the exit code of what has been said */
} verbs[] = {
	{"list", "", 0, 0, 0, .takes_json = true, .run = list},
	{"show", " NAME", 1, 1, FIRST, .takes_json = true, .run = show},
	{"fork", " NAME NEW-NAME", 2, 2, FIRST | SECOND, .takes_replace = true,
	 .prepare = prepare_fork, .run = fork_session},
	{"reset", " NAME", 1, 1, FIRST, .run = reset},
	{"delete", " NAME...", 1, INT_MAX, ALL, .run = delete},
	{"save", " NAME FILE", 2, 2, FIRST, .prepare = prepare_save, .run = save},
	{"load", " FILE NAME", 2, 2, SECOND, .takes_replace = true, .prepare = prepare_load,
	 .run = load},
	{"keep", " NAME DURATION|forever|default", 2, 2, FIRST, .prepare = prepare_keep,
	 .run = keep},
};

static const struct verb *find(const char *name)
{
	for (unsigned i = 0; i < sizeof verbs / sizeof *verbs; i++) {
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	}
	return NULL;
}

static int check(const struct verb *verb, const struct call *call)
{
	if (call->n_arguments < verb->n_least || call->n_arguments > verb->n_most)
		return sk_said(EX_USAGE, "usage: streamkv-client sessions %s%s", verb->name,
			       verb->arguments);
	if (call->opts->json && !verb->takes_json)
		return sk_said(EX_USAGE, "--json: goes with list and show, not with %s",
			       verb->name);
	if (call->opts->replace && !verb->takes_replace)
		return sk_said(EX_USAGE, "--replace: goes with fork and load, not with %s",
			       verb->name);
	for (int i = 0; i < call->n_arguments; i++) {
		if (verb->names != ALL && !(verb->names & 1 << i))
			continue;
		int exit_code = sk_check_session("NAME", call->arguments[i]);
		if (exit_code)
			return exit_code;
	}
	return 0;
}

static int run(const void *from, int n_rest, char **rest)
{
	const struct opts *opts = from;
	const struct verb *verb = find(n_rest ? rest[0] : "list");
	struct call call = {.opts = opts,
			    .arguments = rest + 1,
			    .n_arguments = n_rest ? n_rest - 1 : 0,
			    .fd = -1};

	if (!verb)
		return sk_said(EX_USAGE,
			       "there is no 'sessions %s'; there are: list, show, fork, reset, "
			       "delete, save, load and keep",
			       rest[0]);
	int exit_code = check(verb, &call);
	if (!exit_code && verb->prepare)
		exit_code = verb->prepare(&call);
	if (!exit_code)
		call.kv = sk_connect(opts->socket, &exit_code);
	if (call.kv)
		exit_code = verb->run(&call);
	streamkv_close(call.kv);
	if (call.fd >= 0)
		close(call.fd);
	return exit_code;
}

const struct sk_command sk_command_sessions = {
	.help = {.name = "streamkv-client sessions",
		 .synopsis = "[list | show NAME | fork NAME NEW-NAME | reset NAME | delete NAME... "
			     "| save NAME FILE | load FILE NAME | keep NAME DURATION]",
		 .summary = "list, copy, save and delete named sessions",
		 .text = "A session begins with the first request that names it (generate "
			 "--session NAME) and stays when its client has gone. This command works "
			 "on "
			 "those that no request runs on; whatever fails changes nothing.\n\n"
			 "list shows one's own sessions (to root and the daemon's own user: "
			 "everybody's), and show tells of one. fork makes another that goes on "
			 "from "
			 "the same place, at no cost in memory until they differ. reset empties a "
			 "session and leaves its policy; delete takes it away.\n\nsave writes a "
			 "session to a file, which is whole or as it was before, and can be read "
			 "by "
			 "its owner alone; load makes a session from it, also in another daemon "
			 "with "
			 "the same model. - stands for standard output and input.\n\nkeep sets how "
			 "long a session stays after its last request: a time like 90s, 10m, 2h or "
			 "7d, forever, or the daemon's default.",
		 .examples =
			 "  streamkv-client sessions\n"
			 "  streamkv-client sessions fork notes notes-2\n"
			 "  streamkv-client sessions save notes - | zstd > notes.zst\n"
			 "  zstd -dc notes.zst | streamkv-client sessions load --replace - notes\n"
			 "  streamkv-client sessions keep notes 7d\n",
		 .exits = "   0  all is well\n"
			  "  64  an option or argument is wrong\n"
			  "  65  the file is no saved session, or one of another model or --kv "
			  "format\n"
			  "  66  there is no session of that name, or the file cannot be read\n"
			  "  69  no daemon listens\n"
			  "  71  the system refused something (memory, descriptors)\n"
			  "  73  there is a session of that name already, or the file cannot be "
			  "made\n"
			  "  74  the file cannot be written\n"
			  "  75  the daemon refused (a request runs on the session, its memory is "
			  "full), or died: try again\n"
			  "  76  what answers is no streamkvd, or of another version\n"
			  " 130  ended by Ctrl-C (143: by SIGTERM)\n"
			  " 141  the reader of standard output has gone (as the shell shows "
			  "SIGPIPE)\n"},
	.options = options,
	.opts_bytes = sizeof(struct opts),
	.run = run,
};
