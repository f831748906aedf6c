/* What one user may have, as the administrator says. Plain data: the daemon fills it from its configuration, the
 * engine copies it (struct sk_engine_options) and keeps to it (limits.c, allowance.h, scheduler.h).
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct sk_user_limits {
	uid_t uid;
	uint64_t weight; /* 1 to 1000, in whatever is scarce (scheduler.h); 0 stands for 1 */
	/* 0: no limit */
	uint64_t max_sessions;      /* named ones that exist */
	uint64_t max_queued;        /* requests that wait for pages */
	uint64_t kv_bytes;          /* of pages that its sessions hold or are promised */
	uint64_t tokens_per_second; /* run through the model: of prompts, texts and streams */
};

struct sk_limits_table {
	struct sk_user_limits others; /* of everybody who is not named; its uid means nothing */
	struct sk_user_limits *named; /* (n_named), each uid once */
	size_t n_named;
};

int sk_limits_copy(const struct sk_limits_table *from,
		   struct sk_limits_table *ret_table); /* 0 or -ENOMEM */
void sk_limits_finish(struct sk_limits_table *table);
