/* Sessions beside the pool: forked, spilled, kept from one engine to the next. Whatever happens to one, its text goes on as
 * if nothing had.
 */
#include "sessions.h"

static void test_more_sessions_than_the_pool_holds(void **state)
{
	(void)state;
	static struct answer told[N_STORIES];
	struct client client;
	char name[32];
	uint64_t most_stored = 0;

	connect_client(&client, 1024);
	for (int turn = 0; turn < 3; turn++) {
		for (int i = 0; i < N_STORIES; i++) {
			snprintf(name, sizeof name, "story%d", i);
			uint64_t reused = say(&client, name, turn ? "" : stories[i], 50, &told[i]);
			assert_true(turn ? reused >= 50 : reused == 0);
			uint64_t n_stored = stats().n_stored;
			most_stored = n_stored > most_stored ? n_stored : most_stored;
		}
	}
	assert_true(most_stored >= N_STORIES - 3);
	assert_int_equal(stats().n_sessions, N_STORIES);
	for (int i = 0; i < N_STORIES; i++) {
		snprintf(name, sizeof name, "story%d", i);
		done(verb(&client, SK_SESSION_DELETE, name, ""));
		assert_as_in_one(&client, stories[i], &told[i]);
	}
	assert_idle();
	disconnect_client(&client);
}

static void test_a_fork_goes_its_own_way(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	clear(&a);
	say(&client, "trunk", stories[0], 50, &a); /* ends within a page */
	uint64_t n_used = stats().n_pages_used;
	struct sk_event *event = verb(&client, SK_SESSION_FORK, "trunk", "branch");
	assert_int_equal(event->kind, SK_EVENT_SESSION);
	assert_string_equal(event->session.name, "branch");
	assert_int_equal(event->session.pages, n_used);
	assert_int_equal(event->session.shared_pages, n_used);
	sk_event_destroy(event);
	assert_int_equal(stats().n_pages_used, n_used); /* stored once */

	b = a;
	say(&client, "branch", "", 70, &b);
	assert_true(show(&client, "trunk").shared_pages <
		    n_used); /* but no longer what was written to */
	say(&client, "trunk", "", 70, &a);
	assert_memory_equal(a.ids, b.ids, 120 * sizeof *a.ids);
	refused(verb(&client, SK_SESSION_FORK, "trunk", "branch"), -EEXIST, "already");
	refused(verb(&client, SK_SESSION_FORK, "trunk", "trunk"), -EINVAL, "itself");
	refused(verb(&client, SK_SESSION_FORK, "nothing", "other"), -ENOENT,
		"no session 'nothing'");

	/* A reset one begins anew, and the other does not notice. */
	done(verb(&client, SK_SESSION_RESET, "branch", ""));
	assert_int_equal(show(&client, "branch").live, 0);
	clear(&b);
	assert_int_equal(say(&client, "branch", stories[1], 60, &b), 0);
	say(&client, "trunk", "", 60, &a);
	done(verb(&client, SK_SESSION_DELETE, "trunk", ""));
	done(verb(&client, SK_SESSION_DELETE, "branch", ""));
	assert_as_in_one(&client, stories[0], &a);
	assert_as_in_one(&client, stories[1], &b);
	assert_idle();
	disconnect_client(&client);
}

static void test_an_engine_that_ends_keeps_them(void **state)
{
	(void)state;
	static struct answer told[3];
	struct client client;
	char name[32];

	memset(told, 0, sizeof told);
	for (int turn = 0; turn < 3; turn++) {
		connect_client(&client, 1024);
		for (int i = 0; i < 3; i++) {
			snprintf(name, sizeof name, "kept%d", i);
			say(&client, name, turn ? "" : stories[i], 40, &told[i]);
		}
		assert_int_equal(show(&client, "kept1").requests, turn + 1);
		assert_int_equal(show(&client, "kept1").generated_tokens, 40 * (turn + 1));
		disconnect_client(&client);
		restart();
		assert_int_equal(sk_engine_kept(engine)->n_found, 3);
		assert_int_equal(sk_engine_kept(engine)->n_unusable, 0);
		assert_int_equal(stats().n_stored, 3);
	}
	connect_client(&client, 1024);
	/* Forks of what is stored, and deletion, without bringing it back. */
	done(verb(&client, SK_SESSION_FORK, "kept0", "copy"));
	done(verb(&client, SK_SESSION_DELETE, "kept0", ""));
	assert_int_equal(show(&client, "copy").state, SK_SESSION_STORED);
	assert_int_equal(stats().n_pages_used, 0);
	say(&client, "copy", "", 40, &told[0]);
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof name, i ? "kept%d" : "copy", i);
		done(verb(&client, SK_SESSION_DELETE, name, ""));
		assert_as_in_one(&client, stories[i], &told[i]);
	}
	assert_idle();
	disconnect_client(&client);
	restart();
	assert_int_equal(sk_engine_kept(engine)->n_found, 0);
}

/* Requests that come while a session is on its way, whichever way: it goes on all the same. */
static void test_asked_for_while_it_moves(void **state)
{
	(void)state;
	struct client client;

	connect_client(&client, 1024);
	clear(&a);
	say(&client, "moving", stories[0], 40, &a);
	disconnect_client(&client);
	restart();
	connect_client(&client, 1024);
	/* Stored, and being saved; then in the pool, and being saved. */
	for (int i = 0; i < 2; i++) {
		static struct answer part;
		struct sk_request *save_it = sk_request_create(SK_REQUEST_SESSION);
		save_it->connection = client.connection;
		save_it->id = 55;
		save_it->uid = 1000;
		save_it->verb = SK_SESSION_SAVE;
		strcpy(save_it->session, "moving");
		sk_engine_submit(engine, save_it);
		struct sk_request *request = ask(&client, 1, "", 40);
		strcpy(request->session, "moving");
		sk_engine_submit(engine, request);
		clear(&part);
		for (int n = 0; n < 2; n++) {
			struct sk_event *event = next_event();
			if (event->request == 55)
				assert_int_equal(event->kind, SK_EVENT_SESSION);
			else
				assert_int_equal(event->result.stop, SK_STOP_LIMIT);
			sk_event_destroy(event);
		}
		drain(&client, &part);
		assert_int_equal(part.n_ids, 40);
		memcpy(a.ids + a.n_ids, part.ids, 40 * sizeof *part.ids);
		a.n_ids += 40;
		assert_int_equal(show(&client, "moving").state, SK_SESSION_IDLE);
	}
	done(verb(&client, SK_SESSION_DELETE, "moving", ""));
	assert_as_in_one(&client, stories[0], &a);
	assert_idle();
	disconnect_client(&client);
}

/* With a window that takes most of the pool. */
static void say_at_length(struct client *client, const char *session, const char *prompt,
			  uint64_t n, struct answer *answer)
{
	static struct answer part;
	struct sk_request *request = ask(client, 1, prompt, n);
	strcpy(request->session, session);
	request->policy = (struct sk_policy_change){.has_window = true, .to = {.window = 400}};
	request->ignore_eos = true;
	struct sk_event *event = run(client, request, &part);
	if (event->result.stop != SK_STOP_LIMIT)
		fail_msg("%s: %s", session, event->reason);
	sk_event_destroy(event);
	memcpy(answer->ids + answer->n_ids, part.ids, n * sizeof *part.ids);
	answer->n_ids += n;
}

/* Forks that share all they have go out as well when others need the pool, and come back. */
static void test_forks_are_spilled(void **state)
{
	(void)state;
	static struct answer whole;
	struct client client;
	char name[32];

	connect_client(&client, 1024);
	clear(&a);
	clear(&b);
	clear(&whole);
	say_at_length(&client, "", stories[1], 400, &whole);
	say_at_length(&client, "fork0", stories[1], 350, &a);
	for (int i = 1; i < 4; i++) {
		snprintf(name, sizeof name, "fork%d", i);
		done(verb(&client, SK_SESSION_FORK, "fork0", name));
	}
	say_at_length(&client, "other", stories[2], 350, &b);
	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof name, "fork%d", i);
		assert_int_equal(show(&client, name).state, SK_SESSION_STORED);
	}
	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof name, "fork%d", i);
		a.n_ids = 350;
		say_at_length(&client, name, "", 50, &a);
		assert_memory_equal(a.ids, whole.ids, 400 * sizeof *a.ids);
		done(verb(&client, SK_SESSION_DELETE, name, ""));
	}
	done(verb(&client, SK_SESSION_DELETE, "other", ""));
	assert_idle();
	disconnect_client(&client);
}

/* A stored session that is asked for with fewer sinks, or none: at every place in a page. */
static void test_stored_and_changed(void **state)
{
	(void)state;
	struct client client;
	static struct answer first, second;

	connect_client(&client, 1024);
	for (uint32_t n = 90; n < 150; n += 19) {
		for (int way = 0; way < 2; way++) {
			struct answer *told = way ? &second : &first;
			clear(told);
			say(&client, "changed", stories[5], n, told);
			if (way) {
				disconnect_client(&client);
				restart();
				connect_client(&client, 1024);
			}
			static struct answer part;
			struct sk_request *request = ask(&client, 1, "", 30);
			strcpy(request->session, "changed");
			request->policy = (struct sk_policy_change){.has_mode = true,
								    .to = {.mode = SK_MODE_WINDOW}};
			struct sk_event *event = run(&client, request, &part);
			if (event->result.stop != SK_STOP_LIMIT)
				fail_msg("%u: %s", n, event->reason);
			sk_event_destroy(event);
			memcpy(told->ids + n, part.ids, 30 * sizeof *part.ids);
			done(verb(&client, SK_SESSION_DELETE, "changed", ""));
		}
		assert_memory_equal(first.ids, second.ids, (n + 30) * sizeof *first.ids);
	}
	assert_idle();
	disconnect_client(&client);
}

/* --- Time --- */

static void keep(const struct client *client, const char *session, bool has_ttl, uint64_t ttl_ns)
{
	struct sk_request *request = sk_request_create(SK_REQUEST_SESSION);
	request->connection = client->connection;
	request->id = 9;
	request->uid = 1000;
	request->verb = SK_SESSION_KEEP;
	request->has_ttl = has_ttl;
	request->ttl_ns = ttl_ns;
	strcpy(request->session, session);
	sk_engine_submit(engine, request);
	done(next_event());
}

static void test_unused_ones_go(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	clear(&a);
	say(&client, "brief", stories[0], 5, &a);
	say(&client, "lasting", stories[1], 5, &a);
	keep(&client, "brief", true, 100000000);
	while (stats().n_sessions > 1) /* the engine wakes by itself; looking is for the test */
		usleep(20000);
	refused(verb(&client, SK_SESSION_SHOW, "brief", ""), -ENOENT, "no session");
	done(verb(&client, SK_SESSION_DELETE, "lasting", ""));
	assert_idle();
	disconnect_client(&client);
}

/* Said of one that lies in the store: the next engine knows as well. Its fork is not meant. */
static void test_a_stored_one_is_kept_for_another_time(void **state)
{
	(void)state;
	struct client client;
	const uint64_t s = 1000000000;
	clear(&a);
	connect_client(&client, 1024);
	say(&client, "kept", stories[0], 40, &a);
	keep(&client, "kept", true, 5000 * s);
	disconnect_client(&client);
	restart();
	connect_client(&client, 1024);
	assert_int_equal(show(&client, "kept").state, SK_SESSION_STORED);
	done(verb(&client, SK_SESSION_FORK, "kept", "fork"));
	keep(&client, "kept", true, 7000 * s);
	assert_int_equal(show(&client, "kept").ttl_ns, 7000 * s);
	assert_int_equal(show(&client, "fork").ttl_ns, 5000 * s);
	disconnect_client(&client);
	restart();
	connect_client(&client, 1024);
	assert_int_equal(show(&client, "kept").ttl_ns, 7000 * s);
	assert_int_equal(show(&client, "fork").ttl_ns, 5000 * s);
	keep(&client, "kept", false, 0); /* as the daemon keeps others */
	disconnect_client(&client);
	restart();
	connect_client(&client, 1024);
	assert_int_equal(show(&client, "kept").ttl_ns, 0);
	b = a;
	say(&client, "kept", "", 40, &a);
	assert_as_in_one(&client, stories[0], &a);
	say(&client, "fork", "", 40, &b);
	assert_as_in_one(&client, stories[0], &b);
	done(verb(&client, SK_SESSION_DELETE, "kept", ""));
	done(verb(&client, SK_SESSION_DELETE, "fork", ""));
	assert_idle();
	disconnect_client(&client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_more_sessions_than_the_pool_holds),
		cmocka_unit_test(test_a_fork_goes_its_own_way),
		cmocka_unit_test(test_an_engine_that_ends_keeps_them),
		cmocka_unit_test(test_asked_for_while_it_moves),
		cmocka_unit_test(test_forks_are_spilled),
		cmocka_unit_test(test_stored_and_changed),
		cmocka_unit_test(test_unused_ones_go),
		cmocka_unit_test(test_a_stored_one_is_kept_for_another_time),
	};
	return sk_test_run(tests, open_stored_engine, close_stored_engine);
}
