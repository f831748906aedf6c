/* From the command line and the configuration to options that go together. */
#include "daemon/backends.h"
#include "daemon/listener.h"
#include "daemon/options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

struct settling {
	struct sk_daemon_options *options;
	int argc;
	char **argv;
	struct sk_diag *diag;
};

/* Whether the command line gives that option, of a number or a string. */
static bool is_in_argv(const struct settling *settling, const char *name)
{
	struct sk_daemon_options probe = {.version = false};
	struct sk_diag ignored;
	int n_rest;
	bool help;

	const struct sk_option *option = sk_daemon_option_table;
	while (strcmp(option->name, name) != 0)
		option++;
	uint64_t nothing = UINT64_MAX;
	memcpy((char *)&probe + option->offset, &nothing, sizeof nothing);
	(void)sk_options_parse(sk_daemon_option_table, &probe, settling->argc, settling->argv,
			       &n_rest, &help, &ignored);
	return memcmp((char *)&probe + option->offset, &nothing, sizeof nothing) != 0;
}

/* The exit code for a value that is wrong, after a sentence that begins with where it stands. */
static int wrong(const struct settling *settling, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static int wrong(const struct settling *settling, const char *name, const char *format, ...)
{
	const char *where = NULL;
	unsigned n_after;
	char text[640];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (!is_in_argv(settling, name))
		where = sk_daemon_where(settling->options, name, &n_after);
	sk_diag_fail(settling->diag, EINVAL, "%s%s%s%s", where ? where : "--", where ? ": " : "",
		     name, text);
	return where ? EX_CONFIG : EX_USAGE;
}

static int check_path(const struct settling *settling, const char *name, const char *path)
{
	struct sk_diag diag = {""};
	if (!path)
		return 0;
	if (!path[0])
		return wrong(settling, name, ": '' is not allowed; allowed is a path");
	return sk_listener_check_path(path, &diag) < 0 ? wrong(settling, name, ": %s", diag.text)
						       : 0;
}

/* Where both stand in files, the later line is at fault. */
static int check_step(const struct settling *settling)
{
	const struct sk_daemon_options *options = settling->options;
	const unsigned long long tokens = options->step_tokens, batch = options->max_batch;
	unsigned n_after_step, n_after_batch;

	if (tokens >= batch)
		return 0;
	const bool is_argv =
		is_in_argv(settling, "step-tokens") || is_in_argv(settling, "max-batch");
	const char *step = sk_daemon_where(options, "step-tokens", &n_after_step),
		   *most = sk_daemon_where(options, "max-batch", &n_after_batch);
	if (is_argv || (!step && !most)) {
		sk_diag_fail(settling->diag, EINVAL,
			     "--step-tokens %llu is less than --max-batch %llu", tokens, batch);
		return EX_USAGE;
	}
	if (!step || (most && n_after_batch < n_after_step))
		return wrong(settling, "max-batch", " %llu is more than step-tokens %llu", batch,
			     tokens);
	return wrong(settling, "step-tokens", " %llu is less than max-batch %llu", tokens, batch);
}

static int check_model(const struct settling *settling)
{
	const struct sk_daemon_options *options = settling->options;

	if (options->model && options->model[0])
		return 0;
	if (options->model)
		return wrong(settling, "model",
			     ": '' is not allowed; allowed are a directory and a .gguf file");
	if (options->config_path) {
		sk_diag_fail(settling->diag, EINVAL,
			     "%s: no model is named; say model = DIR or model = FILE.gguf there, "
			     "or give one with --model",
			     options->config_path);
		return EX_CONFIG;
	}
	sk_diag_fail(settling->diag, EINVAL,
		     "no model is named; give one with --model DIR or --model FILE.gguf");
	return EX_USAGE;
}

static int check(const struct settling *settling)
{
	const struct sk_daemon_options *options = settling->options;
	struct sk_diag diag = {""};

	for (uint64_t digits = options->socket_mode; digits; digits /= 10) {
		if (digits % 10 > 7)
			return wrong(settling, "socket-mode",
				     ": '%llu' is not allowed; allowed are three octal digits",
				     (unsigned long long)options->socket_mode);
	}
	int exit_code = check_path(settling, "socket", options->socket);
	if (!exit_code)
		exit_code = check_path(settling, "holder-socket", options->holder_socket);
	if (!exit_code)
		exit_code = check_step(settling);
	if (!exit_code && options->instructions &&
	    sk_check_instructions(options->backend, options->instructions, &diag) < 0)
		exit_code = wrong(settling, "instructions", ": %s", diag.text);
	return exit_code ? exit_code : check_model(settling);
}

int sk_daemon_settle(struct sk_daemon_options *options, int argc, char **argv, struct sk_diag *diag)
{
	const struct settling settling = {options, argc, argv, diag};
	int n_rest;
	bool help;

	if (sk_daemon_read_config(options, diag) < 0)
		return EX_CONFIG;
	if (sk_options_parse(sk_daemon_option_table, options, argc, argv, &n_rest, &help, diag) < 0)
		return EX_USAGE;
	return check(&settling);
}
