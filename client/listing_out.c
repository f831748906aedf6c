#include "client/listing_out.h"

#include "base/duration.h"
#include "client/user_name.h"

#include <stdlib.h>
#include <string.h>

/* --- In order --- */

static int three_way(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

static int by_name(const void *x, const void *y)
{
	const struct streamkv_session *a = x, *b = y;
	int order = three_way(a->uid, b->uid);
	return order ? order : strcmp(a->name, b->name);
}

static int by_use(const void *x, const void *y)
{
	const struct streamkv_session *a = x, *b = y;
	int order = three_way(a->idle_ns, b->idle_ns);
	return order ? order : by_name(x, y);
}

/* Those that run, those that wait for room, those that are not that far. */
static unsigned rank(const struct streamkv_request *request)
{
	return request->state == STREAMKV_REQUEST_TOKENIZING ? 2
	       : request->state == STREAMKV_REQUEST_QUEUED   ? 1
							     : 0;
}

static int by_turn(const void *x, const void *y)
{
	const struct streamkv_request *a = x, *b = y;
	int order = three_way(rank(a), rank(b));
	if (!order)
		order = three_way(a->queue_place, b->queue_place);
	return order ? order : three_way(b->age_ns, a->age_ns);
}

static int by_uid(const void *x, const void *y)
{
	const struct streamkv_user *a = x, *b = y;
	return three_way(a->uid, b->uid);
}

static void sort(void *things, size_t n, size_t n_bytes_each,
		 int (*order)(const void *x, const void *y))
{
	if (n)
		qsort(things, n, n_bytes_each, order);
}

void sk_list_sort(struct streamkv_list *list, bool sessions_by_use)
{
	sort(list->sessions, list->n_sessions, sizeof *list->sessions,
	     sessions_by_use ? by_use : by_name);
	sort(list->requests, list->n_requests, sizeof *list->requests, by_turn);
	sort(list->users, list->n_users, sizeof *list->users, by_uid);
}

/* --- For people --- */

static void add_number(struct sk_columns *table, uint64_t number)
{
	sk_columns_add(table, "%llu", (unsigned long long)number);
}

static void add_text(struct sk_columns *table, const char *text)
{
	sk_columns_add(table, "%s", text[0] ? text : "-");
}

static void add_duration(struct sk_columns *table, uint64_t ns)
{
	char text[SK_DURATION_BYTES];
	sk_columns_add(table, "%s", sk_duration_print(ns, text));
}

static int put(struct sk_columns *table, struct sk_page *page, size_t most_lines)
{
	int err = sk_columns_put(table, page, most_lines);
	sk_columns_finish(table);
	return err;
}

int sk_put_sessions(const struct streamkv_list *list, struct sk_page *page, size_t most_lines)
{
	static const char *const columns[] = {"USER",  "SESSION", "STATE",   ">POSITION",
					      ">LIVE", ">PAGES",  ">STORED", ">AGE",
					      ">IDLE", ">KEPT",   NULL};
	struct sk_columns table;
	sk_columns_init(&table, columns);
	for (size_t i = 0; i < list->n_sessions; i++) {
		const struct streamkv_session *session = &list->sessions[i];
		add_text(&table, sk_user_name(session->uid));
		add_text(&table, session->name);
		add_text(&table, streamkv_session_state_name((int)session->state));
		add_number(&table, session->position);
		add_number(&table, session->live);
		add_number(&table, session->pages);
		add_number(&table, session->stored_bytes);
		add_duration(&table, session->age_ns);
		if (session->state == STREAMKV_SESSION_RUNNING)
			add_text(&table, "");
		else
			add_duration(&table, session->idle_ns);
		if (session->ttl_ms)
			add_duration(&table, session->ttl_ms * 1000000);
		else
			add_text(&table, "");
	}
	return put(&table, page, most_lines);
}

/* Of a prompt that is being read, how far. */
static void add_prompt(struct sk_columns *table, const struct streamkv_request *request)
{
	if (request->state == STREAMKV_REQUEST_PROMPT)
		sk_columns_add(table, "%llu/%llu", (unsigned long long)request->evaluated_tokens,
			       (unsigned long long)request->prompt_tokens);
	else
		add_number(table, request->prompt_tokens);
}

int sk_put_requests(const struct streamkv_list *list, struct sk_page *page, size_t most_lines)
{
	static const char *const columns[] = {"USER",    ">PID",    ">REQ",    "STATE",
					      "SESSION", ">PROMPT", ">TOKENS", ">LIVE",
					      ">PLACE",  ">RING",   ">AGE",    NULL};
	struct sk_columns table;
	sk_columns_init(&table, columns);
	for (size_t i = 0; i < list->n_requests; i++) {
		const struct streamkv_request *request = &list->requests[i];
		bool is_scoring = request->evaluates && request->state == STREAMKV_REQUEST_PROMPT;
		add_text(&table, sk_user_name(request->uid));
		add_number(&table, request->pid);
		add_number(&table, request->request);
		add_text(&table,
			 is_scoring ? "scoring" : streamkv_request_state_name((int)request->state));
		add_text(&table, request->session);
		add_prompt(&table, request);
		add_number(&table, request->generated_tokens);
		add_number(&table, request->live);
		if (request->queue_place)
			add_number(&table, request->queue_place);
		else
			add_text(&table, "");
		sk_columns_add(&table, "%u%%",
			       request->ring_slots ? (unsigned)((uint64_t)request->ring_fill * 100 /
								request->ring_slots)
						   : 0);
		add_duration(&table, request->age_ns);
	}
	return put(&table, page, most_lines);
}

static void add_rate(struct sk_columns *table, uint64_t now, uint64_t before, double seconds)
{
	if (seconds > 0)
		sk_columns_add(table, "%.1f", now > before ? (double)(now - before) / seconds : 0);
	else
		add_text(table, "");
}

/* The user in an earlier list; nothing where there was none. */
static struct streamkv_user user_before(const struct sk_list_before *before, uint32_t uid)
{
	for (size_t i = 0; before->seconds > 0 && i < before->list->n_users; i++) {
		if (before->list->users[i].uid == uid)
			return before->list->users[i];
	}
	return (struct streamkv_user){.uid = uid};
}

int sk_put_users(const struct streamkv_list *list, const struct sk_list_before *before,
		 struct sk_page *page, size_t most_lines)
{
	static const char *const columns[] = {"USER",    ">WEIGHT", ">SESSIONS", ">RUNNING",
					      ">QUEUED", ">PAGES",  ">PROMPT/S", ">TOKENS/S",
					      ">PROMPT", ">TOKENS", NULL};
	struct sk_columns table;
	sk_columns_init(&table, columns);
	for (size_t i = 0; i < list->n_users; i++) {
		const struct streamkv_user *user = &list->users[i];
		const struct streamkv_user was = user_before(before, user->uid);
		add_text(&table, sk_user_name(user->uid));
		add_number(&table, user->weight);
		add_number(&table, user->sessions);
		add_number(&table, user->running);
		add_number(&table, user->queued);
		add_number(&table, user->pages);
		add_rate(&table, user->prompt_tokens, was.prompt_tokens, before->seconds);
		add_rate(&table, user->generated_tokens, was.generated_tokens, before->seconds);
		add_number(&table, user->prompt_tokens);
		add_number(&table, user->generated_tokens);
	}
	return put(&table, page, most_lines);
}

/* --- For programs --- */

struct number {
	const char *name;
	uint64_t value;
};

static void set_text(json_t *object, const char *name, const char *text)
{
	json_t *value = json_string(text);
	json_object_set_new(object, name,
			    value ? value : json_null()); /* a user's may be no UTF-8 */
}

static void set_user(json_t *object, uint32_t uid)
{
	set_text(object, "user", sk_user_name(uid));
	json_object_set_new(object, "uid", json_integer(uid));
}

static void set_numbers(json_t *object, const struct number *numbers, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		json_object_set_new(object, numbers[i].name,
				    json_integer((json_int_t)numbers[i].value));
}

json_t *sk_session_json(const struct streamkv_session *s)
{
	const struct number numbers[] = {
		{"sink", (uint64_t)s->policy.sink},
		{"window", (uint64_t)s->policy.window},
		{"slack", (uint64_t)s->policy.slack},
		{"position", s->position},
		{"live", s->live},
		{"pages", s->pages},
		{"shared_pages", s->shared_pages},
		{"stored_bytes", s->stored_bytes},
		{"age_ns", s->age_ns},
		{"idle_ns", s->idle_ns},
		{"ttl_ms", s->ttl_ms},
		{"requests", s->requests},
		{"generated_tokens", s->generated_tokens},
	};
	json_t *object = json_object();
	set_text(object, "name", s->name);
	set_user(object, s->uid);
	set_text(object, "state", streamkv_session_state_name((int)s->state));
	set_text(object, "mode", streamkv_mode_name(s->policy.mode));
	set_numbers(object, numbers, sizeof numbers / sizeof *numbers);
	return object;
}

json_t *sk_request_json(const struct streamkv_request *r)
{
	const struct number numbers[] = {
		{"pid", r->pid},
		{"request", r->request},
		{"prompt_tokens", r->prompt_tokens},
		{"evaluated_tokens", r->evaluated_tokens},
		{"generated_tokens", r->generated_tokens},
		{"live", r->live},
		{"age_ns", r->age_ns},
		{"queue_place", r->queue_place},
		{"ring_fill", r->ring_fill},
		{"ring_slots", r->ring_slots},
	};
	json_t *object = json_object();
	set_user(object, r->uid);
	set_text(object, "kind", r->evaluates ? "evaluate" : "generate");
	set_text(object, "state", streamkv_request_state_name((int)r->state));
	set_text(object, "session", r->session);
	set_numbers(object, numbers, sizeof numbers / sizeof *numbers);
	return object;
}
