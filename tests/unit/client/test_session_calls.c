/* What libstreamkv asks of sessions, and what it takes for an answer. */
#include "played_daemon.h"

/* --- Verbs --- */

static Sk__SessionInfo info_of(Sk__Policy *policy, const char *name)
{
	Sk__SessionInfo info = SK__SESSION_INFO__INIT;

	*policy = (Sk__Policy)SK__POLICY__INIT;
	policy->mode = SK__MODE__MODE_WINDOW;
	policy->has_window_case = SK__POLICY__HAS_WINDOW_WINDOW;
	policy->window = 99;
	info.policy = policy;
	info.name = (char *)name;
	info.uid = 12;
	info.state = SK__SESSION_STATE__SESSION_STORED;
	info.position = 1;
	info.live = 2;
	info.pages = 3;
	info.shared_pages = 4;
	info.stored_bytes = 5;
	info.age_ns = 6;
	info.idle_ns = 7;
	info.ttl_ms = 8;
	info.requests = 9;
	info.generated_tokens = 10;
	return info;
}

/* What was asked, in words; what was saved is "SAVED". */
static char asked[256];
static int saved_fd;

static void answer_session(struct sk_channel *channel, const Sk__ClientMessage *message,
			   struct sk_frame *frame)
{
	Sk__ServerMessage answered = SK__SERVER_MESSAGE__INIT;
	Sk__SessionAnswer body = SK__SESSION_ANSWER__INIT;
	const Sk__SessionRequest *r = message->session;
	Sk__Policy policy;
	Sk__SessionInfo info = info_of(&policy, *r->to ? r->to : r->name);
	const void *loaded = "";

	if (r->in_memfd && sk_payload_map(frame->fds[0], r->saved_bytes, &loaded, NULL) < 0)
		abort();
	snprintf(asked, sizeof asked, "%d %s>%s%s%s %.*s", (int)r->verb, r->name, r->to,
		 r->replace ? " replace" : "", r->has_ttl_case ? " ttl" : "", (int)r->saved_bytes,
		 (const char *)loaded);
	if (r->has_ttl_case)
		snprintf(asked + strlen(asked), 32, "%llu", (unsigned long long)r->ttl_ms);
	if (r->in_memfd)
		sk_payload_unmap(loaded, r->saved_bytes);
	body.session = &info;
	if (r->verb == SK__SESSION_VERB__SESSION_SAVE) {
		body.in_memfd = 1;
		body.saved_bytes = 5;
	}
	answered.request = message->request;
	answered.body_case = SK__SERVER_MESSAGE__BODY_SESSION;
	answered.session = &body;
	send_message(channel, &answered, &saved_fd, body.in_memfd);
}

static void every_verb(void **state)
{
	struct streamkv_session session;
	uint64_t n = 0;
	char text[8];
	int fd = -1;
	(void)state;
	begin(answer_session);
	assert_int_equal(sk_payload_create("SAVED", 5, &saved_fd), 0);

	assert_int_equal(streamkv_session_show(kv, "a", &session, &error), 0);
	assert_string_equal(asked, "1 a> ");
	assert_string_equal(session.name, "a");
	assert_int_equal(session.uid, 12);
	assert_int_equal(session.state, STREAMKV_SESSION_STORED);
	assert_int_equal(session.policy.mode, STREAMKV_WINDOW);
	assert_int_equal(session.policy.window, 99);
	assert_int_equal(session.policy.sink, -1);
	const uint64_t numbers[] = {session.position,        session.live,         session.pages,
				    session.shared_pages,    session.stored_bytes, session.age_ns,
				    session.idle_ns,         session.ttl_ms,       session.requests,
				    session.generated_tokens};
	for (uint64_t i = 0; i < 10; i++)
		assert_int_equal(numbers[i], i + 1);

	assert_int_equal(streamkv_session_fork(kv, "a", "b", false, &session, &error), 0);
	assert_string_equal(asked, "2 a>b ");
	assert_string_equal(session.name, "b");
	assert_int_equal(streamkv_session_fork(kv, "a", "b", true, NULL, NULL), 0);
	assert_string_equal(asked, "2 a>b replace ");
	assert_int_equal(streamkv_session_reset(kv, "a", NULL, &error), 0);
	assert_string_equal(asked, "3 a> ");
	assert_int_equal(streamkv_session_delete(kv, "a", NULL, &error), 0);
	assert_string_equal(asked, "4 a> ");
	assert_int_equal(streamkv_session_save(kv, "a", &fd, &n, NULL, &error), 0);
	assert_string_equal(asked, "5 a> ");
	assert_int_equal(n, 5);
	assert_int_equal(pread(fd, text, sizeof text, 0), 5);
	assert_memory_equal(text, "SAVED", 5);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(streamkv_session_load(kv, "c", fd, n, true, &session, &error), 0);
	assert_string_equal(asked, "6 c> replace SAVED");
	close(fd);
	assert_int_equal(streamkv_session_load(kv, "c", -1, 1, true, NULL, &error), -EBADF);
	assert_int_equal(streamkv_session_keep(kv, "a", 0, NULL, &error), 0);
	assert_string_equal(asked, "7 a> ttl 0");
	assert_int_equal(streamkv_session_keep(kv, "a", 90000, NULL, &error), 0);
	assert_string_equal(asked, "7 a> ttl 90000");
	assert_int_equal(streamkv_session_keep(kv, "a", STREAMKV_KEEP_DEFAULT, NULL, &error), 0);
	assert_string_equal(asked, "7 a> ");
	end();
	close(saved_fd);
}

static void a_memfd_that_may_change(void **state)
{
	uint64_t n = 77;
	int fd = -7;
	(void)state;
	begin(answer_session);
	saved_fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(write(saved_fd, "SAVED", 5), 5);
	assert_int_equal(streamkv_session_save(kv, "a", &fd, &n, NULL, &error), -EPROTO);
	assert_non_null(strstr(error.text, "not sealed"));
	assert_int_equal(fd, -7);
	assert_int_equal(n, 77);
	close(saved_fd);
	assert_int_equal(sk_payload_create("SAV", 3, &saved_fd), 0);
	assert_int_equal(streamkv_session_save(kv, "a", &fd, &n, NULL, &error), -EPROTO);
	assert_non_null(strstr(error.text, "holds 3 bytes, but 5"));
	assert_int_equal(fd, -7);
	end();
	close(saved_fd);
}

static void refuse(struct sk_channel *channel, const Sk__ClientMessage *message,
		   struct sk_frame *frame)
{
	Sk__ServerMessage answered = SK__SERVER_MESSAGE__INIT;
	Sk__Failed body = SK__FAILED__INIT;
	(void)frame;

	body.error = ENOENT;
	body.reason = (char *)"there is none";
	answered.request = message->request;
	answered.body_case = SK__SERVER_MESSAGE__BODY_FAILED;
	answered.failed = &body;
	send_message(channel, &answered, NULL, 0);
}

static void refusals(void **state)
{
	struct streamkv_session session = {.name = "as it was"};
	struct streamkv_list list = {.n_users = 55};
	(void)state;
	begin(refuse);
	assert_int_equal(streamkv_session_show(kv, "a", &session, &error), -ENOENT);
	assert_string_equal(error.text, "there is none");
	assert_string_equal(session.name, "as it was");
	assert_int_equal(streamkv_list(kv, &list, &error), -ENOENT);
	assert_int_equal(list.n_users, 55);
	assert_int_equal(streamkv_session_show(kv, "a", NULL, &error), -ENOENT); /* it goes on */
	end();
}

static void mistake(struct sk_channel *channel, const Sk__ClientMessage *message,
		    struct sk_frame *frame)
{
	Sk__ServerMessage answered = SK__SERVER_MESSAGE__INIT;
	Sk__Progress body = SK__PROGRESS__INIT;
	(void)frame;

	answered.request = message->request;
	answered.body_case = SK__SERVER_MESSAGE__BODY_PROGRESS;
	answered.progress = &body;
	send_message(channel, &answered, NULL, 0);
}

static void an_answer_to_something_else(void **state)
{
	struct streamkv_list list;
	(void)state;
	begin(mistake);
	assert_int_equal(streamkv_session_show(kv, "a", NULL, &error), -EPROTO);
	assert_int_equal(streamkv_session_show(kv, "a", NULL, &error), -ECONNRESET);
	end();
	begin(mistake);
	assert_int_equal(streamkv_list(kv, &list, &error), -EPROTO);
	end();
}

/* --- Lists --- */

#define N_PARTS 5

static void answer_list(struct sk_channel *channel, const Sk__ClientMessage *message,
			struct sk_frame *frame)
{
	Sk__ServerMessage answered = SK__SERVER_MESSAGE__INIT;
	(void)frame;

	answered.request = message->request;
	answered.body_case = SK__SERVER_MESSAGE__BODY_LISTING;
	for (uint32_t i = 0; i < N_PARTS; i++) {
		Sk__Listing body = SK__LISTING__INIT;
		Sk__Policy policy;
		Sk__SessionInfo info = info_of(&policy, "s"), *infos[] = {&info, &info};
		Sk__RequestInfo request = SK__REQUEST_INFO__INIT, *requests[] = {&request};
		Sk__UserInfo user = SK__USER_INFO__INIT, *users[] = {&user};
		request.uid = i;
		request.pid = 1;
		request.request = 2;
		request.state = SK__REQUEST_STATE__REQUEST_PAUSED;
		request.evaluates = 1;
		request.session = (char *)"log";
		request.prompt_tokens = 3;
		request.evaluated_tokens = 4;
		request.generated_tokens = 5;
		request.live = 6;
		request.age_ns = 7;
		request.queue_place = 8;
		request.ring_fill = 9;
		request.ring_slots = 10;
		user.uid = i;
		user.weight = 1;
		user.sessions = 2;
		user.running = 3;
		user.queued = 4;
		user.pages = 5;
		user.prompt_tokens = 6;
		user.generated_tokens = 7;
		body.sessions = infos;
		body.n_sessions = i == 2 ? 0 : 2;
		body.requests = requests;
		body.n_requests = i > 0;
		body.users = users;
		body.n_users = i == N_PARTS - 1;
		body.more = i < N_PARTS - 1;
		answered.listing = &body;
		send_message(channel, &answered, NULL, 0);
	}
}

static void a_list_in_parts(void **state)
{
	struct streamkv_list list;
	(void)state;
	begin(answer_list);
	for (int again = 0; again < 2; again++) {
		assert_int_equal(streamkv_list(kv, &list, &error), 0);
		assert_int_equal(list.n_sessions, 2 * (N_PARTS - 1));
		assert_int_equal(list.n_requests, N_PARTS - 1);
		assert_int_equal(list.n_users, 1);
		assert_string_equal(list.sessions[7].name, "s");
		assert_int_equal(list.sessions[7].generated_tokens, 10);
		const struct streamkv_request *r = &list.requests[2];
		assert_int_equal(r->uid, 3);
		assert_int_equal(r->pid, 1);
		assert_int_equal(r->request, 2);
		assert_int_equal(r->state, STREAMKV_REQUEST_PAUSED);
		assert_true(r->evaluates);
		assert_string_equal(r->session, "log");
		const uint64_t numbers[] = {
			r->prompt_tokens, r->evaluated_tokens, r->generated_tokens, r->live,
			r->age_ns,        r->queue_place,      r->ring_fill,        r->ring_slots};
		for (uint64_t i = 0; i < 8; i++)
			assert_int_equal(numbers[i], i + 3);
		const struct streamkv_user *u = &list.users[0];
		assert_int_equal(u->uid, N_PARTS - 1);
		const uint64_t counts[] = {u->weight,          u->sessions, u->running,
					   u->queued,          u->pages,    u->prompt_tokens,
					   u->generated_tokens};
		for (uint64_t i = 0; i < 7; i++)
			assert_int_equal(counts[i], i + 1);
		streamkv_list_free(&list);
		assert_null(list.sessions);
		streamkv_list_free(&list);
	}
	end();
}

static void names_of_states(void **state)
{
	(void)state;
	assert_string_equal(streamkv_session_state_name(STREAMKV_SESSION_MOVING), "moving");
	assert_string_equal(streamkv_session_state_name(4), "unknown");
	assert_string_equal(streamkv_session_state_name(-1), "unknown");
	assert_string_equal(streamkv_request_state_name(STREAMKV_REQUEST_FETCHING), "fetching");
	assert_string_equal(streamkv_request_state_name(6), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_verb),      cmocka_unit_test(a_memfd_that_may_change),
		cmocka_unit_test(refusals),        cmocka_unit_test(an_answer_to_something_else),
		cmocka_unit_test(a_list_in_parts), cmocka_unit_test(names_of_states),
	};
	return sk_test_run(tests, NULL, NULL);
}
