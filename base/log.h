/* Lines for the operator on standard error. Where that is the journal (JOURNAL_STREAM names it) each
 * carries its syslog priority as "<N>", elsewhere the program's name. Only daemon/ and client/ log above debug;
 * the rooms below return errors and sentences (base/diag.h). Safe from any thread: one write a
 * line.
 */
#pragma once

enum sk_log_level {
	SK_LOG_ERROR = 3, /* the syslog priorities */
	SK_LOG_WARNING = 4,
	SK_LOG_NOTICE = 5,
	SK_LOG_INFO = 6,
	SK_LOG_DEBUG = 7,
};

/* Call once, before the first line. `program` must stay valid. */
void sk_log_open(const char *program, enum sk_log_level most);
/* From now on. Any thread. */
void sk_log_set_most(enum sk_log_level most);

void sk_log(enum sk_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
