/* What bash completes: an options table as a shell function. */
#include "base/options.h"

#include <string.h>

/* Whether its value is a path, by the names that help gives. */
static bool is_path(const struct sk_option *option)
{
	const char *value = option->value_name ? option->value_name : "";
	return strstr(value, "PATH") || strstr(value, "FILE") || strstr(value, "DIR") ||
	       strcmp(option->name, "file") == 0;
}

static bool is_shown(const struct sk_option *option)
{
	return option->help;
}

/* The patterns of a case: "command --name" and "command -x". */
static void pattern(FILE *out, const char *command, const struct sk_option *option)
{
	fprintf(out, "\t'%s --%s'", command, option->name);
	if (option->letter)
		fprintf(out, " | '%s -%c'", command, option->letter);
	fprintf(out, ")");
}

/* What each option's value is; one that is anything completes to nothing. */
static void values(FILE *out, const char *command, const struct sk_option *table)
{
	for (const struct sk_option *option = table; option->name; option++) {
		if (!is_shown(option) || option->kind == SK_OPTION_FLAG)
			continue;
		pattern(out, command, option);
		if (option->kind == SK_OPTION_CHOICE) {
			fprintf(out, " words='");
			for (int i = 0; option->choices[i]; i++)
				fprintf(out, "%s%s", i ? " " : "", option->choices[i]);
			fprintf(out, "' ;;\n");
		} else {
			fprintf(out, " %s ;;\n", is_path(option) ? "files=1" : "");
		}
	}
}

static void names(FILE *out, const char *command, const struct sk_option *table)
{
	fprintf(out, "\t\t'%s') words='", command);
	for (const struct sk_option *option = table; option->name; option++) {
		if (is_shown(option))
			fprintf(out, "--%s ", option->name);
	}
	fprintf(out, "--help' ;;\n");
}

void sk_options_completion(FILE *out, const char *program, const struct sk_completion *commands,
			   unsigned n_commands)
{
	bool has_commands = n_commands && commands[0].command;

	fprintf(out,
		"# bash completion of %s. Made from its tables of options.\n"
		"_%s()\n{\n"
		"\tlocal current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n"
		"\tlocal command='' words='' files=''\n"
		"\t# bash divides --name=value at its sign.\n"
		"\t[ \"$current\" != = ] || current=\n"
		"\t[ \"$before\" != = ] || before=${COMP_WORDS[COMP_CWORD - 2]}\n"
		"\tCOMPREPLY=()\n",
		program, program);
	if (has_commands) {
		fprintf(out, "\tif [ \"$COMP_CWORD\" = 1 ]; then\n\t\tmapfile -t COMPREPLY < "
			     "<(compgen -W '");
		for (unsigned i = 0; i < n_commands; i++)
			fprintf(out, "%s ", commands[i].command);
		fprintf(out, "help --help --version' -- \"$current\")\n\t\treturn\n\tfi\n"
			     "\tcommand=${COMP_WORDS[1]}\n");
	}
	fprintf(out, "\tcase \"$command $before\" in\n");
	for (unsigned i = 0; i < n_commands; i++)
		values(out, has_commands ? commands[i].command : "", commands[i].table);
	fprintf(out, "\t*)\n\t\tfiles=1\n\t\tcase \"$command\" in\n");
	for (unsigned i = 0; i < n_commands; i++)
		names(out, has_commands ? commands[i].command : "", commands[i].table);
	fprintf(out,
		"\t\tesac\n"
		"\t\tcase \"$current\" in\n\t\t-*) files= ;;\n\t\t*) words= ;;\n\t\tesac ;;\n"
		"\tesac\n"
		"\t[ -z \"$words\" ] || mapfile -t COMPREPLY < <(compgen -W \"$words\" -- "
		"\"$current\")\n"
		"\tif [ -n \"$files\" ]; then\n"
		"\t\tcompopt -o filenames 2>/dev/null\n"
		"\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n\tfi\n}\n"
		"complete -F _%s %s\n",
		program, program);
}
