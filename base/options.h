/* One table of options drives everything that a user sees of them: argv, the configuration file,
 * --help and the man page. Each program (and each client command) owns one table.
 *
 *     static const struct sk_option options[] = {
 *             {"sink", 'S', SK_OPTION_UINT, offsetof(struct opts, sink), "N", "4", .max = 1 << 20,
 *              .help = "First tokens of a session that are never evicted."},
 *             {0},
 *     };
 *
 * Values land in the caller's struct at `offset`, first the defaults. Strings point into argv, the
 * table or the configuration text, which the caller keeps. No global state; any thread.
 */
#pragma once

#include "base/diag.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum sk_option_kind {
	SK_OPTION_FLAG,     /* bool; no value */
	SK_OPTION_STRING,   /* const char * */
	SK_OPTION_UINT,     /* uint64_t, min..max */
	SK_OPTION_BYTES,    /* uint64_t, min..max; K, M, G, T are powers of 1024 */
	SK_OPTION_FLOAT,    /* double, fmin..fmax */
	SK_OPTION_DURATION, /* uint64_t, nanoseconds, min..max (base/duration.h) */
	SK_OPTION_CHOICE,   /* int: the index into `choices` */
	SK_OPTION_LIST,     /* struct sk_option_list: may be given again */
};

struct sk_option {
	const char *name; /* long name without dashes; NULL ends the table */
	char letter;      /* short name, or 0 */
	enum sk_option_kind kind;
	size_t offset;
	const char *value_name;     /* for --help: "N", "FILE" */
	const char *default_text;   /* parsed like a value; NULL: 0, NULL, false */
	uint64_t min, max;          /* max 0: no bound */
	double fmin, fmax;          /* fmax 0: no bound */
	const char *const *choices; /* NULL-ended */
	const char *help;           /* whole sentences */
	bool not_in_file;           /* not accepted from a configuration file */
};

/* Of a number that was not given, where 0 means something: help does not tell this default. */
#define SK_OPTION_UNSET      UINT64_MAX
#define SK_OPTION_UNSET_TEXT "18446744073709551615"

struct sk_option_list {
	const char *items[16];
	unsigned n_items;
};

/* What --help and the man page say around the options. */
struct sk_command_help {
	const char *name;     /* "streamkvd", "streamkv-client generate" */
	const char *synopsis; /* "[PROMPT]", after the options */
	const char *summary;  /* one line, for the NAME section */
	const char *text;     /* paragraphs, divided by empty lines */
	const char *examples; /* lines "command\n    what it does", or NULL */
	const char *exits;    /* lines "code  meaning", or NULL */
	/* Of a program whose configuration file has sections with options of their own, else NULL: */
	const char *sections; /* paragraphs about them */
	const struct sk_option *section_table;
};

/* Sets every default. A default that does not parse is a fault of the table: -EINVAL and a
 * sentence. */
int sk_options_defaults(const struct sk_option *table, void *opts, struct sk_diag *diag);

/* Parses argv[1..): "--name value", "--name=value", "-x value", "-xVALUE"; "--" ends the options.
 * What is left is moved to argv[1..] and counted in *ret_n_rest. -h and --help are options of every
 * table: they set *ret_help. A bad value or unknown name: -EINVAL and a sentence that says what is
 * allowed (and the nearest known name). */
int sk_options_parse(const struct sk_option *table, void *opts, int argc, char **argv,
		     int *ret_n_rest, bool *ret_help, struct sk_diag *diag);

/* Sets one option by name from a configuration file; `where` ("file:line") opens the sentence. */
int sk_options_set(const struct sk_option *table, void *opts, const char *name, const char *value,
		   const char *where, struct sk_diag *diag);

void sk_options_help(FILE *out, const struct sk_command_help *help, const struct sk_option *table);

/* The same as a man page in mdoc-free troff (man(7)), section `section`. */
void sk_options_man(FILE *out, const struct sk_command_help *help, const struct sk_option *table,
		    int section);
/* The man page of the program's configuration file (section 5), whose table and sections are as above. `page` says what
 * the program's own help does not: the file's name, where it lies (synopsis), and so on. */
void sk_options_man_file(FILE *out, const struct sk_command_help *page,
			 const struct sk_command_help *program, const struct sk_option *table);
/* Such a file with every option in it, told and commented out. */
void sk_options_sample_file(FILE *out, const struct sk_command_help *program,
			    const struct sk_option *table);

/* --- options_completion.c --- */

struct sk_completion {
	const char *
		command; /* the program's first argument; NULL: it has no commands, and this one table */
	const struct sk_option *table;
};
/* What bash completes of a program: its commands, their options, and what an option takes. */
void sk_options_completion(FILE *out, const char *program, const struct sk_completion *commands,
			   unsigned n_commands);
