/* Sessions, requests and users as people and programs read them. */
#pragma once

#include "client/columns.h"
#include "client/streamkv.h"

#include <jansson.h>

/* Sorts the list for people: requests that run (the oldest first), then those that wait by their place; users by number;
 * sessions by user and name, or those that run and then the least idle first. */
void sk_list_sort(struct streamkv_list *list, bool sessions_by_use);

/* What was counted between two lists; seconds 0: there is no earlier one. */
struct sk_list_before {
	const struct streamkv_list *list;
	double seconds;
};

/* Onto the page, in at most so many lines: 0 or -ENOMEM. */
int sk_put_sessions(const struct streamkv_list *list, struct sk_page *page, size_t most_lines);
int sk_put_requests(const struct streamkv_list *list, struct sk_page *page, size_t most_lines);
int sk_put_users(const struct streamkv_list *list, const struct sk_list_before *before,
		 struct sk_page *page, size_t most_lines);

/* NULL without memory. */
json_t *sk_session_json(const struct streamkv_session *session);
json_t *sk_request_json(const struct streamkv_request *request);
