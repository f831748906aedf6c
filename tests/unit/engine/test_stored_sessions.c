/* Sessions beside the pool: forked, saved, loaded, spilled, kept from one engine to the next. Whatever happens to one,
 * its text goes on as if nothing had. */
#define ENGINE_KV_BYTES (11 << 20) /* two sessions of the policy, and what a step borrows */
#include "engine_test.h"

#include "engine/image.h"
#include "engine/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

static struct answer a, b;
static char state_dir[] = "/tmp/streamkv-stored-XXXXXX";

static int open_all(void **state)
{
	struct sk_diag diag = {""};
	uint8_t fingerprint[SK_FINGERPRINT_BYTES];
	struct sk_model *same;

	if (!mkdtemp(state_dir) || sk_model_open(sk_test_model("pythia-books"), &same, &diag) < 0 ||
	    sk_model_fingerprint(same, fingerprint) < 0 ||
	    sk_store_open(state_dir, fingerprint, &engine_store, &diag) < 0) {
		print_error("%s\n", diag.text);
		return -1;
	}
	sk_model_close(same);
	return open_engine(state);
}

static int close_all(void **state)
{
	char command[80];
	close_engine(state);
	sk_store_close(engine_store);
	snprintf(command, sizeof command, "rm -r %s", state_dir);
	return system(command);
}

/* Another engine, as after a restart of the daemon. */
static void restart(void)
{
	void *state = NULL;
	close_engine(&state);
	assert_int_equal(open_engine(&state), 0);
}

static struct sk_event *verb(const struct client *client, enum sk_session_verb v, const char *name,
			     const char *to)
{
	static uint32_t id = 1000;
	struct sk_request *request = sk_request_create(SK_REQUEST_SESSION);
	request->connection = client->connection;
	request->id = ++id;
	request->uid = 1000;
	request->verb = v;
	strcpy(request->session, name);
	strcpy(request->to, to);
	sk_engine_submit(engine, request);
	struct sk_event *event = next_event();
	assert_int_equal(event->request, id);
	return event;
}

static struct sk_session_info show(const struct client *client, const char *name)
{
	struct sk_event *event = verb(client, SK_SESSION_SHOW, name, "");
	assert_int_equal(event->kind, SK_EVENT_SESSION);
	struct sk_session_info info = event->session;
	sk_event_destroy(event);
	return info;
}

static void done(struct sk_event *event)
{
	if (event->kind != SK_EVENT_SESSION)
		fail_msg("%s", event->reason);
	sk_event_destroy(event);
}

static void refused(struct sk_event *event, int error, const char *words)
{
	assert_int_equal(event->kind, SK_EVENT_FAILED);
	assert_int_equal(event->error, error);
	if (!strstr(event->reason, words))
		fail_msg("'%s' does not say '%s'", event->reason, words);
	sk_event_destroy(event);
}

/* Appends what the session says to `answer`. */
static uint64_t say(struct client *client, const char *session, const char *prompt, uint64_t n,
		    struct answer *answer)
{
	static struct answer part;
	struct sk_request *request = ask(client, 1, prompt, n);
	strcpy(request->session, session);
	struct sk_event *event = run(client, request, &part);
	if (event->result.stop != SK_STOP_LIMIT)
		fail_msg("%s: %s", session, event->reason);
	uint64_t reused = event->result.reused_tokens;
	sk_event_destroy(event);
	memcpy(answer->ids + answer->n_ids, part.ids, part.n_ids * sizeof *part.ids);
	answer->n_ids += part.n_ids;
	return reused;
}

static void clear(struct answer *answer)
{
	memset(answer, 0, sizeof *answer);
}

/* What the story is without interruptions; n at most 260. */
static void assert_as_in_one(struct client *client, const char *prompt, const struct answer *told)
{
	static struct answer whole;
	clear(&whole);
	say(client, "", prompt, told->n_ids, &whole);
	assert_memory_equal(whole.ids, told->ids, told->n_ids * sizeof *told->ids);
}

static const char *const stories[] = {"It was a dark night", "The captain said", "She had never",
				      "In the garden there", "A letter came",    "The old man"};
#define N_STORIES 6

/* --- Tests --- */

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

/* --- Files --- */

static char *saved;
static uint64_t n_saved;

static void save(const struct client *client, const char *name)
{
	struct sk_event *event = verb(client, SK_SESSION_SAVE, name, "");
	assert_int_equal(event->kind, SK_EVENT_SESSION);
	assert_true(event->saved_fd >= 0);
	assert_int_equal(fcntl(event->saved_fd, F_GET_SEALS) & F_SEAL_WRITE, F_SEAL_WRITE);
	n_saved = event->n_saved_bytes;
	free(saved);
	saved = malloc(n_saved);
	assert_int_equal(pread(event->saved_fd, saved, n_saved, 0), n_saved);
	sk_event_destroy(event);
}

static struct sk_event *load(const struct client *client, const char *name, const void *bytes,
			     uint64_t n_bytes, bool replace)
{
	struct sk_request *request = sk_request_create(SK_REQUEST_SESSION);
	request->connection = client->connection;
	request->id = 77;
	request->uid = 1000;
	request->verb = SK_SESSION_LOAD;
	request->replace = replace;
	strcpy(request->session, name);
	request->input = bytes;
	request->n_input_bytes = n_bytes;
	sk_engine_submit(engine, request);
	return next_event();
}

static void test_saved_and_loaded(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	clear(&a);
	say(&client, "page", stories[2], 90, &a);
	save(&client, "page");
	done(load(&client, "again", saved, n_saved, false));
	assert_int_equal(show(&client, "again").position, show(&client, "page").position);
	b = a;
	say(&client, "page", "", 90, &a);
	assert_true(say(&client, "again", "", 90, &b) > 90);
	assert_int_equal(a.n_ids, 180);
	assert_memory_equal(a.ids, b.ids, 180 * sizeof *a.ids);

	/* In the stead of one that has gone on; of one that is not in the pool. */
	refused(load(&client, "page", saved, n_saved, false), -EEXIST, "already");
	done(load(&client, "page", saved, n_saved, true));
	assert_int_equal(show(&client, "page").state, SK_SESSION_STORED);
	char *first = saved;
	uint64_t n_first = n_saved;
	saved = NULL;
	save(&client, "page");
	assert_int_equal(n_saved, n_first);
	assert_memory_equal(saved + SK_IMAGE_HEADER_BYTES, first + SK_IMAGE_HEADER_BYTES,
			    n_saved - SK_IMAGE_HEADER_BYTES);
	free(first);
	b.n_ids = 90;
	say(&client, "page", "", 90, &b);
	assert_memory_equal(a.ids, b.ids, 180 * sizeof *a.ids);
	done(verb(&client, SK_SESSION_DELETE, "page", ""));
	done(verb(&client, SK_SESSION_DELETE, "again", ""));
	assert_as_in_one(&client, stories[2], &a);
	assert_idle();
	disconnect_client(&client);
}

static void seal(struct sk_image *image)
{
	sk_image_seal(image);
	memcpy(saved, image, sizeof *image);
}

static void test_bad_files_change_nothing(void **state)
{
	(void)state;
	struct client client;
	struct sk_image whole, image;

	connect_client(&client, 1024);
	clear(&a);
	say(&client, "good", stories[3], 60, &a);
	save(&client, "good");
	memcpy(&whole, saved, sizeof whole);

	refused(load(&client, "bad", saved, 0, false), -EBADMSG, "empty");
	refused(load(&client, "bad", "no session", 10, false), -EBADMSG, "no saved session");
	refused(load(&client, "bad", saved, SK_IMAGE_HEADER_BYTES - 1, false), -EBADMSG,
		"no saved session");
	refused(load(&client, "bad", saved, n_saved - 1, false), -EBADMSG, "cut short");
	saved[n_saved / 2] ^= 4;
	refused(load(&client, "bad", saved, n_saved, false), -EBADMSG, "checksum");
	refused(load(&client, "good", saved, n_saved, true), -EBADMSG, "checksum");
	saved[n_saved / 2] ^= 4;
	saved[100] ^= 1;
	refused(load(&client, "bad", saved, n_saved, false), -EBADMSG, "header");
	saved[100] ^= 1;

	image = whole, image.version++;
	seal(&image);
	refused(load(&client, "bad", saved, n_saved, false), -EPROTONOSUPPORT, "newer");
	image = whole, image.model[3] ^= 1;
	seal(&image);
	refused(load(&client, "bad", saved, n_saved, false), -EXDEV, "another model");
	image = whole, image.layout[0] ^= 1;
	seal(&image);
	refused(load(&client, "bad", saved, n_saved, false), -EXDEV, "layout");
	/* Whole by their checksums, and lies. */
	image = whole, image.next += 32;
	seal(&image);
	refused(load(&client, "bad", saved, n_saved, false), -EBADMSG, "do not fit");
	image = whole, image.first = image.next + 1;
	seal(&image);
	refused(load(&client, "bad", saved, n_saved, false), -EBADMSG, "do not fit");
	image = whole, image.n_sink = image.first + 1;
	seal(&image);
	refused(load(&client, "bad", saved, n_saved, false), -EBADMSG, "do not fit");
	image = whole, image.last_id = 1 << 30;
	seal(&image);
	refused(load(&client, "bad", saved, n_saved, false), -EBADMSG, "do not fit");
	image = whole, image.mode = 3;
	seal(&image);
	refused(load(&client, "bad", saved, n_saved, false), -EBADMSG, "do not fit");
	image = whole, image.recent[0] = -5;
	seal(&image);
	refused(load(&client, "bad", saved, n_saved, false), -EBADMSG, "do not fit");
	image = whole, image.window = 1u << 20;
	seal(&image);
	refused(load(&client, "bad", saved, n_saved, false), -EINVAL, "window");

	refused(verb(&client, SK_SESSION_SHOW, "bad", ""), -ENOENT, "no session");
	assert_int_equal(stats().n_sessions, 1);
	say(&client, "good", "", 60, &a);
	done(verb(&client, SK_SESSION_DELETE, "good", ""));
	assert_as_in_one(&client, stories[3], &a);
	disconnect_client(&client);
}

/* A file in the store that was damaged while the session lay there. */
static void test_a_damaged_store(void **state)
{
	(void)state;
	struct client client;
	char path[4200];

	connect_client(&client, 1024);
	clear(&a);
	say(&client, "hurt", stories[4], 60, &a);
	save(&client, "hurt");
	disconnect_client(&client);
	restart();
	connect_client(&client, 1024);
	snprintf(path, sizeof path, "%s/1000-hurt.kv", engine_store->path);
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	uint8_t byte;
	off_t at = (off_t)n_saved - 5;
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);

	struct sk_request *request = ask(&client, 1, "and", 5);
	strcpy(request->session, "hurt");
	struct sk_event *event = run(&client, request, &b);
	assert_int_equal(event->result.stop, SK_STOP_ERROR);
	assert_non_null(strstr(event->reason, "damaged"));
	sk_event_destroy(event);
	assert_int_equal(show(&client, "hurt").state, SK_SESSION_STORED);
	assert_int_equal(stats().n_pages_used, 0);

	byte ^= 1; /* mended, it goes on: nothing was lost */
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
	say(&client, "hurt", "", 60, &a);
	done(verb(&client, SK_SESSION_DELETE, "hurt", ""));
	assert_as_in_one(&client, stories[4], &a);
	disconnect_client(&client);
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

/* --- Time, and the sampler --- */

static void test_unused_ones_go(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	clear(&a);
	say(&client, "brief", stories[0], 5, &a);
	say(&client, "lasting", stories[1], 5, &a);
	struct sk_request *request = sk_request_create(SK_REQUEST_SESSION);
	request->connection = client.connection;
	request->id = 9;
	request->uid = 1000;
	request->verb = SK_SESSION_KEEP;
	request->has_ttl = true;
	request->ttl_ns = 100000000;
	strcpy(request->session, "brief");
	sk_engine_submit(engine, request);
	done(next_event());
	while (stats().n_sessions >
	       1) /* the engine wakes by itself; looking is only for the test */
		usleep(20000);
	refused(verb(&client, SK_SESSION_SHOW, "brief", ""), -ENOENT, "no session");
	done(verb(&client, SK_SESSION_DELETE, "lasting", ""));
	assert_idle();
	disconnect_client(&client);
}

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

static void say_warm(struct client *client, const char *session, const char *prompt, uint64_t n,
		     bool has_seed, struct answer *answer)
{
	static struct answer part;
	struct sk_request *request = ask(client, 1, prompt, n);
	request->sampling = (struct sk_sampling){.temperature = 1,
						 .top_p = 1,
						 .repeat_penalty = 1.3f,
						 .repeat_last = 64,
						 .seed = has_seed ? 5 : 999,
						 .has_seed = has_seed};
	request->ignore_eos = true;
	strcpy(request->session, session);
	struct sk_event *event = run(client, request, &part);
	assert_int_equal(event->result.stop, SK_STOP_LIMIT);
	assert_int_equal(event->result.seed, 5);
	sk_event_destroy(event);
	memcpy(answer->ids + answer->n_ids, part.ids, part.n_ids * sizeof *part.ids);
	answer->n_ids += part.n_ids;
}

/* Chance and the repetition penalty go on as well, through a fork and a file. */
static void test_the_sampler_goes_on(void **state)
{
	(void)state;
	struct client client;
	connect_client(&client, 1024);
	clear(&a);
	clear(&b);
	say_warm(&client, "", stories[5], 120, true, &b);
	say_warm(&client, "dice", stories[5], 40, true, &a);
	done(verb(&client, SK_SESSION_FORK, "dice", "forked"));
	save(&client, "dice");
	say_warm(&client, "forked", "", 80, false, &a);
	assert_memory_equal(a.ids, b.ids, 120 * sizeof *a.ids);
	done(load(&client, "loaded", saved, n_saved, false));
	a.n_ids = 40;
	say_warm(&client, "loaded", "", 80, false, &a);
	assert_memory_equal(a.ids, b.ids, 120 * sizeof *a.ids);
	done(verb(&client, SK_SESSION_DELETE, "dice", ""));
	done(verb(&client, SK_SESSION_DELETE, "forked", ""));
	done(verb(&client, SK_SESSION_DELETE, "loaded", ""));
	free(saved);
	saved = NULL;
	assert_idle();
	disconnect_client(&client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_more_sessions_than_the_pool_holds),
		cmocka_unit_test(test_a_fork_goes_its_own_way),
		cmocka_unit_test(test_an_engine_that_ends_keeps_them),
		cmocka_unit_test(test_saved_and_loaded),
		cmocka_unit_test(test_bad_files_change_nothing),
		cmocka_unit_test(test_a_damaged_store),
		cmocka_unit_test(test_asked_for_while_it_moves),
		cmocka_unit_test(test_forks_are_spilled),
		cmocka_unit_test(test_stored_and_changed),
		cmocka_unit_test(test_unused_ones_go),
		cmocka_unit_test(test_a_stored_one_is_kept_for_another_time),
		cmocka_unit_test(test_the_sampler_goes_on),
	};
	return sk_test_run(tests, open_all, close_all);
}
