/* What `top` shows: the daemon, its users, requests and sessions on one page. Pure: from two looks at the daemon to
 * lines of text.
 */
#pragma once

#include "client/page.h"
#include "client/streamkv.h"

/* One look. The strings of `status` are the connection's. */
struct sk_look {
	struct streamkv_status status;
	struct streamkv_list list;
	double at_s; /* of the monotonic clock */
};

/* Lists as long as the page is high, all of them where it has no bound. `before` is an earlier look, whose strings are
 * not read, or NULL: then there are no rates. Sorts the list. 0 or -ENOMEM. */
int sk_screen_draw(struct sk_page *page, struct sk_look *now, const struct sk_look *before);
