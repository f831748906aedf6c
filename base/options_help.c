/* What --help and the man page say: an options table as text and as troff. */
#include "base/options.h"

#include <stdlib.h>
#include <string.h>

#define HELP                                                                                       \
	"Print what there is to know, and end." /* which every program can, and is in no table */

/* Prints words wrapped at column 80, each line but the first begun with `opening` and filled up to `indent`; `column` is
 * where the cursor is. */
static void wrap(FILE *out, const char *text, const char *opening, int indent, int column)
{
	while (*text) {
		int n = (int)strcspn(text, " \n");
		if (column > indent && column + 1 + n > 80) {
			fprintf(out, "\n%-*s", indent, opening);
			column = indent;
		} else if (column > indent) {
			fputc(' ', out);
			column++;
		}
		fprintf(out, "%.*s", n, text);
		column += n;
		text += n;
		if (text[0] == '\n' && text[1] == '\n') {
			fprintf(out, "\n%s\n%-*s", opening, indent, opening);
			column = indent;
		}
		text += strspn(text, " \n");
	}
	fputc('\n', out);
}

/* "-s, --sink N"; in a configuration file "sink = N". */
static void option_words(const struct sk_option *option, bool in_file, char *head, size_t n)
{
	char names[256];
	const char *value = option->value_name;
	if (option->kind == SK_OPTION_CHOICE) {
		size_t at = 0;
		for (int i = 0; option->choices[i]; i++)
			at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? "|" : "",
					       option->choices[i]);
		value = names;
	}
	if (in_file) {
		snprintf(head, n, "%s = %s", option->name, value ? value : "yes|no");
		return;
	}
	char letter[8] = "";
	if (option->letter)
		snprintf(letter, sizeof letter, "-%c, ", option->letter);
	snprintf(head, n, "%s--%s%s%s", letter, option->name, value ? " " : "", value ? value : "");
}

static bool tells_default(const struct sk_option *option)
{
	const char *text = option->default_text;
	return text && text[0] && option->kind != SK_OPTION_FLAG &&
	       strcmp(text, SK_OPTION_UNSET_TEXT) != 0;
}

static bool is_told(const struct sk_option *option, bool in_file)
{
	return option->help && !(in_file && option->not_in_file);
}

static void help_options(FILE *out, const struct sk_option *table, bool in_file)
{
	for (const struct sk_option *option = table; option->name; option++) {
		char head[400], text[1200];
		if (!is_told(option, in_file))
			continue;
		option_words(option, in_file, head, sizeof head);
		int column = fprintf(out, "  %s", head);
		if (column > 26)
			fprintf(out, "\n%28s", "");
		else
			fprintf(out, "%*s", 28 - column, "");
		bool tell = tells_default(option);
		snprintf(text, sizeof text, "%s%s%s%s", option->help, tell ? " Default: " : "",
			 tell ? option->default_text : "", tell ? "." : "");
		wrap(out, text, "", 28, 28);
	}
}

void sk_options_help(FILE *out, const struct sk_command_help *help, const struct sk_option *table)
{
	fprintf(out, "%s: %s\n\nusage: %s [options]%s%s\n\n", help->name, help->summary, help->name,
		help->synopsis[0] ? " " : "", help->synopsis);
	wrap(out, help->text, "", 0, 0);
	fprintf(out, "\noptions:\n");
	help_options(out, table, false);
	fprintf(out, "  -h, --help                " HELP "\n");
	if (help->sections) {
		fprintf(out, "\nin the configuration file:\n");
		wrap(out, help->sections, "", 0, 0);
		fprintf(out, "\n");
		help_options(out, help->section_table, true);
	}
	if (help->examples)
		fprintf(out, "\nexamples:\n%s", help->examples);
	if (help->exits)
		fprintf(out, "\nexit codes:\n%s", help->exits);
}

/* Text for troff: a line must not begin with a dot or a quote, and backslashes are its own. */
static void troff(FILE *out, const char *text)
{
	bool at_line_start = true;
	for (; *text; text++) {
		if (at_line_start && (*text == '.' || *text == '\''))
			fputs("\\&", out);
		if (*text == '\\')
			fputs("\\e", out);
		else if (*text == '-')
			fputs("\\-", out);
		else
			fputc(*text, out);
		at_line_start = *text == '\n';
	}
}

/* "code  meaning" or "command\n    what it does": verbatim. */
static void verbatim(FILE *out, const char *heading, const char *text)
{
	if (!text)
		return;
	fprintf(out, ".SH %s\n.nf\n", heading);
	troff(out, text);
	fprintf(out, ".fi\n");
}

static void troff_paragraphs(FILE *out, const char *text)
{
	while (*text) {
		const char *end = strstr(text, "\n\n");
		size_t n = end ? (size_t)(end - text) : strlen(text);
		char *paragraph = strndup(text, n);
		if (!paragraph)
			return;
		troff(out, paragraph);
		free(paragraph);
		fprintf(out, end ? "\n.PP\n" : "\n");
		text += n + (end ? 2 : 0);
	}
}

static void troff_options(FILE *out, const struct sk_option *table, bool in_file)
{
	for (const struct sk_option *option = table; option->name; option++) {
		char head[400];
		if (!is_told(option, in_file))
			continue;
		option_words(option, in_file, head, sizeof head);
		fprintf(out, ".TP\n.B ");
		troff(out, head);
		fprintf(out, "\n");
		troff(out, option->help);
		if (tells_default(option)) {
			fprintf(out, " Default: ");
			troff(out, option->default_text);
			fprintf(out, ".");
		}
		fprintf(out, "\n");
	}
}

/* Up to the description's text. */
static void troff_head(FILE *out, const struct sk_command_help *help, int section)
{
	char page[128];
	snprintf(page, sizeof page, "%s", help->name);
	for (char *c = page; *c; c++)
		*c = *c == ' ' ? '-' : *c;
	fprintf(out, ".TH %s %d \"\" streamkv\n.SH NAME\n", page, section);
	troff(out, page);
	fprintf(out, " \\- ");
	troff(out, help->summary);
	fprintf(out, "\n.SH SYNOPSIS\n");
}

void sk_options_man(FILE *out, const struct sk_command_help *help, const struct sk_option *table,
		    int section)
{
	troff_head(out, help, section);
	fprintf(out, ".B ");
	troff(out, help->name);
	fprintf(out, "\n[options] ");
	troff(out, help->synopsis);
	fprintf(out, "\n.SH DESCRIPTION\n");
	troff_paragraphs(out, help->text);
	fprintf(out, ".SH OPTIONS\n");
	troff_options(out, table, false);
	fprintf(out, ".TP\n.B \\-h, \\-\\-help\n" HELP "\n");
	if (help->sections) {
		fprintf(out, ".SH CONFIGURATION FILE\n");
		troff_paragraphs(out, help->sections);
		troff_options(out, help->section_table, true);
	}
	verbatim(out, "EXAMPLES", help->examples);
	verbatim(out, "EXIT STATUS", help->exits);
	if (help->sections) /* sk_options_man_file() */
		fprintf(out, ".SH SEE ALSO\n.BR %s.conf (5)\n", help->name);
}

void sk_options_man_file(FILE *out, const struct sk_command_help *page,
			 const struct sk_command_help *program, const struct sk_option *table)
{
	troff_head(out, page, 5);
	fprintf(out, ".I ");
	troff(out, page->synopsis);
	fprintf(out, "\n.SH DESCRIPTION\n");
	troff_paragraphs(out, page->text);
	fprintf(out, ".PP\n");
	troff_paragraphs(out, program->sections);
	fprintf(out, ".SH OPTIONS\n");
	troff_options(out, table, true);
	fprintf(out, ".SH OPTIONS OF A USER\n");
	troff_options(out, program->section_table, true);
	verbatim(out, "EXAMPLES", page->examples);
	fprintf(out, ".SH SEE ALSO\n.BR %s (8)\n", program->name);
}

static void sample_options(FILE *out, const struct sk_option *table)
{
	for (const struct sk_option *option = table; option->name; option++) {
		char head[400];
		if (!is_told(option, true))
			continue;
		fprintf(out, "\n# ");
		wrap(out, option->help, "# ", 2, 2);
		option_words(option, true, head, sizeof head);
		fprintf(out, "# %s\n", head);
		if (tells_default(option))
			fprintf(out, "#%s = %s\n", option->name, option->default_text);
	}
}

void sk_options_sample_file(FILE *out, const struct sk_command_help *program,
			    const struct sk_option *table)
{
	fprintf(out, "# ");
	wrap(out, program->sections, "# ", 2, 2);
	sample_options(out, table);
	fprintf(out, "\n# For users without a section of their own:\n#[user *]\n");
	sample_options(out, program->section_table);
}
