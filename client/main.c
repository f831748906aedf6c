/* streamkv-client: picks the command, reads its options, runs it. */
#include "client/command.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct sk_command *const commands[] = {
	&sk_command_generate, &sk_command_tokenize, &sk_command_detokenize, &sk_command_ppl,
	&sk_command_compare,  &sk_command_bench,    &sk_command_sessions,   &sk_command_ps,
	&sk_command_top,      &sk_command_status,   &sk_command_model,
};
#define N_COMMANDS (sizeof commands / sizeof *commands)

static const char *short_name(const struct sk_command *command)
{
	return strrchr(command->help.name, ' ') + 1;
}

static const struct sk_command *find(const char *name)
{
	for (unsigned i = 0; i < N_COMMANDS; i++) {
		if (strcmp(short_name(commands[i]), name) == 0)
			return commands[i];
	}
	return NULL;
}

static const struct sk_option own_options[] = {
	{"version", 'V', SK_OPTION_FLAG, 0, .help = "Print the version."},
	{0},
};
static const struct sk_command_help overview = {
	.name = "streamkv-client",
	.synopsis = "COMMAND ...",
	.summary = "talk to streamkvd, which keeps a language model warm",
	.text = "Each command has options of its own: streamkv-client COMMAND --help.\n\n"
		"The daemon is looked for at $STREAMKV_SOCKET, else at "
		"$XDG_RUNTIME_DIR/streamkv.sock where that exists, else "
		"at /run/streamkv/streamkvd.sock; every command takes --socket PATH.",
	.examples =
		"  streamkv-client generate \"Once upon a time\"\n"
		"  git log -5 | streamkv-client generate --chat auto -n 100 \"What changed?\" -\n",
	.exits = sk_command_exits,
};

static int show_overview(void)
{
	sk_options_help(stdout, &overview, own_options);
	printf("\ncommands:\n");
	for (unsigned i = 0; i < N_COMMANDS; i++)
		printf("  %-12s %s\n", short_name(commands[i]), commands[i]->help.summary);
	return 0;
}

static int show_man(const char *name)
{
	const struct sk_command *command = name ? find(name) : NULL;
	if (name && !command)
		return sk_said(EX_USAGE, "there is no command '%s'", name);
	if (command) {
		sk_options_man(stdout, &command->help, command->options, 1);
		return 0;
	}
	sk_options_man(stdout, &overview, own_options, 1);
	printf(".SH COMMANDS\n");
	for (unsigned i = 0; i < N_COMMANDS; i++)
		printf(".TP\n.BR streamkv\\-client\\-%s (1)\n%s\n", short_name(commands[i]),
		       commands[i]->help.summary);
	printf(".SH SEE ALSO\n.BR streamkvd (8),\n.BR streamkv\\-protocol (7)\n");
	return 0;
}

static int show_completion(void)
{
	struct sk_completion all[N_COMMANDS];
	for (unsigned i = 0; i < N_COMMANDS; i++)
		all[i] = (struct sk_completion){short_name(commands[i]), commands[i]->options};
	sk_options_completion(stdout, "streamkv-client", all, N_COMMANDS);
	return 0;
}

static int run(const struct sk_command *command, int argc, char **argv)
{
	struct sk_diag diag = {""};
	int n_rest;
	bool help;

	void *opts = calloc(1, command->opts_bytes);
	if (!opts)
		return sk_said(EX_OSERR, "not enough memory");
	int exit_code;
	if (sk_options_defaults(command->options, opts, &diag) < 0)
		exit_code = sk_said(EX_SOFTWARE, "%s", diag.text);
	else if (sk_options_parse(command->options, opts, argc, argv, &n_rest, &help, &diag) < 0)
		exit_code = sk_said(EX_USAGE, "%s; see %s --help", diag.text, command->help.name);
	else if (help)
		exit_code = (sk_options_help(stdout, &command->help, command->options), 0);
	else
		exit_code = command->run(opts, n_rest, argv + 1);
	free(opts);
	return exit_code;
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN); /* a reader that has gone shows in write(), and ends us quietly */
	const char *name = argc > 1 ? argv[1] : NULL;

	if (!name)
		return sk_said(EX_USAGE, "a command is wanted: generate, sessions, ps, top, status "
					 "and more; see streamkv-client --help");
	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
		return show_overview();
	if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
		return puts("streamkv-client " SK_VERSION) < 0 ? EX_IOERR : 0;
	if (strcmp(name, "--man") == 0)
		return show_man(argc > 2 ? argv[2] : NULL);
	if (strcmp(name, "--completion") == 0)
		return show_completion();
	if (strcmp(name, "help") == 0) {
		const struct sk_command *command = argc > 2 ? find(argv[2]) : NULL;
		if (!command)
			return show_overview();
		sk_options_help(stdout, &command->help, command->options);
		return 0;
	}
	const struct sk_command *command = find(name);
	if (!command)
		return sk_said(EX_USAGE, "there is no command '%s'; see streamkv-client --help",
			       name);
	return run(command, argc - 1, argv + 1);
}
