/* The commands of streamkv-client: one file each, one options table each, and what they share. */
#pragma once

#include "base/options.h"
#include "client/streamkv.h"

#include <sys/types.h>
#include <sysexits.h>

struct sk_command {
	struct sk_command_help help; /* .name is "streamkv-client NAME" */
	const struct sk_option *options;
	size_t opts_bytes; /* of the struct that the options fill */
	/* rest[0..n_rest): what is left of argv. Returns the exit code. */
	int (*run)(const void *opts, int n_rest, char **rest);
};

extern const struct sk_command sk_command_generate, sk_command_tokenize, sk_command_detokenize,
	sk_command_status, sk_command_model, sk_command_ppl, sk_command_compare, sk_command_bench,
	sk_command_sessions, sk_command_ps, sk_command_top;

extern const char sk_command_exits[]; /* the exit codes, for help */

/* Prints "streamkv-client: SENTENCE" to standard error and returns `exit_code`. */
int sk_said(int exit_code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The exit code for a libstreamkv error. */
int sk_exit_code_of(int err);

/* Connects to `socket` or the default; NULL after saying why, with the exit code. While the daemon
 * loads its model a terminal is told so. */
struct streamkv *sk_connect(const char *socket, int *ret_exit_code);

/* The same, trying again for so long where nobody listens. */
struct streamkv *sk_connect_within(const char *socket, double seconds, int *ret_exit_code);

struct sk_input {
	char *bytes; /* heap */
	size_t n_bytes;
};
/* Arguments joined by spaces, "-" standing for all of standard input; no arguments: standard input.
 */
int sk_read_input(int n_rest, char **rest, struct sk_input *ret_input);

/* A file's bytes; "-" is standard input. */
int sk_read_file(const char *path, struct sk_input *ret_input);
/* 0, or the exit code after saying that `name` is not UTF-8, and where. */
int sk_check_utf8(const char *name, const struct sk_input *input);

/* How a session's cache is cut, as options say it; UNSET numbers are the daemon's or the session's. */
struct sk_cache_opts {
	uint64_t sink, window, slack;
};
#define SK_CACHE_OPTIONS(offset)                                                                   \
	{"sink",                                                                                   \
	 'S',                                                                                      \
	 SK_OPTION_UINT,                                                                           \
	 (offset) + offsetof(struct sk_cache_opts, sink),                                          \
	 "N",                                                                                      \
	 SK_OPTION_UNSET_TEXT,                                                                     \
	 .help = "First tokens that are never evicted."},                                          \
		{"window",                                                                         \
		 'W',                                                                              \
		 SK_OPTION_UINT,                                                                   \
		 (offset) + offsetof(struct sk_cache_opts, window),                                \
		 "N",                                                                              \
		 SK_OPTION_UNSET_TEXT,                                                             \
		 .help = "Most recent tokens that are kept."},                                     \
	{                                                                                          \
		"slack", 'K', SK_OPTION_UINT, (offset) + offsetof(struct sk_cache_opts, slack),    \
			"N", SK_OPTION_UNSET_TEXT,                                                 \
			.help = "Entries that the cache may grow past sink + window before it is " \
				"cut back."                                                        \
	}
/* What the table cannot: numbers whose default lies beyond their bound, sinks in window mode (enum of
 * struct streamkv_policy). 0, or the exit code. */
int sk_check_cache(int mode, const struct sk_cache_opts *cache);
/* 0, or the exit code after saying, of `what`, how a session may be named; NULL is fine. */
int sk_check_session(const char *what, const char *name);
struct streamkv_policy sk_policy_of(int mode, const struct sk_cache_opts *cache);

double sk_now_s(void); /* seconds of the monotonic clock */

/* What a stream that is over comes to: 0 where it ended as asked, 128 + the signal where sk_interrupted(), else the exit
 * code of what has been said, behind `label` where that is not NULL. */
int sk_conclude(const struct streamkv_result *result, const char *label);

/* For people: "standard input" for "-". */
const char *sk_file_name(const char *path);

/* Writes all to standard output: 0, or the exit code (quietly where the reader has gone). */
int sk_write_out(const void *bytes, size_t n_bytes);

/* --- interrupt.c --- */

/* From now on the first SIGINT or SIGTERM is only noted, and waits return; a second one, half
 * a second later or more, ends the process. */
void sk_interrupt_catch(void);
int sk_interrupted(void); /* the signal, or 0 */

/* --- terminal.c --- */

/* A line on a terminal's standard error that is drawn over; nothing elsewhere. */
void sk_terminal_bar(const char *what, double part, double per_second, const char *unit);
/* In the bar's place that the stream's request is queued; false: it is not. */
bool sk_show_place(const struct streamkv_stream *stream);
void sk_terminal_clear(void);
