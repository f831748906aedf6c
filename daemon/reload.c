#include "daemon/reload.h"

#include "base/clock.h"
#include "base/log.h"
#include "daemon/notify.h"
#include "daemon/server.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool is_same(const struct sk_option *option, const struct sk_daemon_options *a,
		    const struct sk_daemon_options *b)
{
	const void *left = (const char *)a + option->offset,
		   *right = (const char *)b + option->offset;

	switch (option->kind) {
	case SK_OPTION_FLAG:
		return *(const bool *)left == *(const bool *)right;
	case SK_OPTION_CHOICE:
		return *(const int *)left == *(const int *)right;
	case SK_OPTION_STRING: {
		const char *one = *(const char *const *)left, *other = *(const char *const *)right;
		return one && other ? strcmp(one, other) == 0 : one == other;
	}
	case SK_OPTION_LIST:
		return memcmp(left, right, sizeof(struct sk_option_list)) == 0;
	default: /* 8 bytes of a number */
		return memcmp(left, right, sizeof(uint64_t)) == 0;
	}
}

/* What differs from what runs and will until the next start. */
static void tell_others(const struct sk_daemon_options *runs, const struct sk_daemon_options *fresh)
{
	char names[512];
	size_t at = 0;
	const char *between = "";

	for (const struct sk_option *option = sk_daemon_option_table; option->name; option++) {
		if (option->not_in_file || strcmp(option->name, "log-level") == 0 ||
		    is_same(option, runs, fresh) || at >= sizeof names)
			continue;
		at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", between,
				       option->name);
		between = ", ";
	}
	if (at)
		sk_log(SK_LOG_NOTICE, "changed, and in force after the next start: %s", names);
}

void sk_server_reload(struct sk_server *server)
{
	struct sk_daemon_options fresh = {.config = server->options->config};
	struct sk_diag diag = {""};

	sk_notify("RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(sk_clock_ns() / 1000));
	bool is_good = sk_daemon_settle(&fresh, server->argc, server->argv, &diag) == 0;
	if (is_good && sk_engine_set_limits(server->engine, &fresh.limits) < 0) {
		sk_diag_fail(&diag, ENOMEM, "not enough memory");
		is_good = false;
	}
	if (is_good) {
		sk_log_set_most((enum sk_log_level)(fresh.log_level + SK_LOG_ERROR));
		sk_log(SK_LOG_NOTICE, "SIGHUP: the configuration has been read again");
		tell_others(server->options, &fresh);
	} else {
		sk_log(SK_LOG_ERROR, "SIGHUP: the configuration stays as it was: %s", diag.text);
	}
	sk_daemon_options_finish(&fresh);
	sk_manager_announce(&server->manager);
}
