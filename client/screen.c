#include "client/screen.h"

#include "base/duration.h"
#include "client/listing_out.h"

#include <limits.h>
#include <string.h>

#define BAR_WIDTH 20

static double rate(uint64_t now, uint64_t before, double seconds)
{
	return seconds > 0 && now > before ? (double)(now - before) / seconds : 0;
}

static void put_speeds(struct sk_page *page, const struct streamkv_status *now,
		       const struct streamkv_status *was, double seconds)
{
	if (seconds > 0)
		sk_page_line(
			page,
			"speed     %.1f prompt tokens/s, %.1f generated tokens/s, %.1f steps/s",
			rate(now->prompt_tokens, was->prompt_tokens, seconds),
			rate(now->generated_tokens, was->generated_tokens, seconds),
			rate(now->steps, was->steps, seconds));
	else
		sk_page_line(page, "speed     -");
}

static void put_daemon(struct sk_page *page, const struct sk_look *now,
		       const struct sk_look *before)
{
	const struct streamkv_status *s = &now->status;
	char uptime[SK_DURATION_BYTES], bar[BAR_WIDTH + 1];
	const double page_mb = (double)s->page_bytes * 1e-6,
		     part = s->pages_total ? (double)s->pages_used / (double)s->pages_total : 0;

	for (int i = 0; i < BAR_WIDTH; i++)
		bar[i] = i < part * BAR_WIDTH ? '#' : '.';
	bar[BAR_WIDTH] = '\0';
	sk_page_line(page, "%s  %s on %s, up %s, %u clients", s->server, s->model, s->backend,
		     sk_duration_print(s->uptime_ns, uptime), s->connections);
	put_speeds(page, s, before ? &before->status : s, before ? now->at_s - before->at_s : 0);
	sk_page_line(page,
		     "memory    [%s] %llu of %llu KV pages, %.0f of %.0f MB; weights %.0f MB, "
		     "scratch %.0f MB",
		     bar, (unsigned long long)s->pages_used, (unsigned long long)s->pages_total,
		     (double)s->pages_used * page_mb, (double)s->pages_total * page_mb,
		     (double)s->weight_bytes * 1e-6, (double)s->scratch_bytes * 1e-6);
	sk_page_line(
		page,
		"requests  %u running, %u of them paused, %u queued; %llu finished   sessions  "
		"%u, %u of them stored",
		s->running, s->paused, s->queued, (unsigned long long)s->requests, s->sessions,
		s->stored);
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* What a part of the page may have, of the lines that are left: the empty line before it is taken off. 0: nothing that
 * says anything. */
static size_t share(const struct sk_page *page, size_t n_rows, double part)
{
	unsigned left = sk_page_left(page);
	if (left == UINT_MAX)
		return SIZE_MAX;
	size_t n = least((size_t)(left * part), n_rows + 2);
	return n > 2 ? n - 1 : 0; /* a heading and a row at least */
}

int sk_screen_draw(struct sk_page *page, struct sk_look *now, const struct sk_look *before)
{
	const struct sk_list_before since = {
		.list = before ? &before->list : NULL,
		.seconds = before ? now->at_s - before->at_s : 0,
	};
	struct streamkv_list *list = &now->list;
	size_t n_lines;
	int err = 0;

	sk_list_sort(list, true);
	put_daemon(page, now, before);
	/* Users at most a third of what is left, requests two thirds of the rest; who needs less leaves it to the next. */
	if (list->n_users && (n_lines = share(page, list->n_users, 1.0 / 3))) {
		sk_page_line(page, "%s", "");
		err = sk_put_users(list, &since, page, n_lines);
	}
	if (!err && list->n_requests && (n_lines = share(page, list->n_requests, 2.0 / 3))) {
		sk_page_line(page, "%s", "");
		err = sk_put_requests(list, page, n_lines);
	}
	if (!err && list->n_sessions && (n_lines = share(page, list->n_sessions, 1))) {
		sk_page_line(page, "%s", "");
		err = sk_put_sessions(list, page, n_lines);
	}
	return err;
}
