/* Sessions in files: saved, loaded again, and files that are none or lie, of which nothing comes into a session.
 */
#include "sessions.h"

#include "engine/image.h"

#include <fcntl.h>

static char *saved; /* by save(), until the next */
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
		cmocka_unit_test(test_saved_and_loaded),
		cmocka_unit_test(test_bad_files_change_nothing),
		cmocka_unit_test(test_a_damaged_store),
		cmocka_unit_test(test_the_sampler_goes_on),
	};
	return sk_test_run(tests, open_stored_engine, close_stored_engine);
}
