/* A device that fails while pages are copied: nothing of what it did not give is ever taken for a session. */
#include "sessions.h"

#include <stdatomic.h>

int __real_sk_backend_read_page(struct sk_backend *backend, uint32_t page, void *bytes);
int __wrap_sk_backend_read_page(struct sk_backend *backend, uint32_t page, void *bytes);
int __real_sk_backend_write_page(struct sk_backend *backend, uint32_t page, const void *bytes);
int __wrap_sk_backend_write_page(struct sk_backend *backend, uint32_t page, const void *bytes);

static atomic_int fails_after = -1; /* so many copies that go well; then all fail */

static bool fails(void)
{
	int n = atomic_load(&fails_after);
	if (n > 0)
		atomic_store(&fails_after, n - 1);
	return n == 0;
}

int __wrap_sk_backend_read_page(struct sk_backend *backend, uint32_t page, void *bytes)
{
	return fails() ? -EIO : __real_sk_backend_read_page(backend, page, bytes);
}

int __wrap_sk_backend_write_page(struct sk_backend *backend, uint32_t page, const void *bytes)
{
	return fails() ? -EIO : __real_sk_backend_write_page(backend, page, bytes);
}

static void said(struct sk_event *event, const char *words)
{
	if (!strstr(event->reason, words))
		fail_msg("'%s' does not say '%s'", event->reason, words);
	sk_event_destroy(event);
}

static void test_it_is_not_saved(void **state)
{
	struct client client;
	(void)state;
	connect_client(&client, 1024);
	clear(&a);
	say(&client, "story", stories[0], 90, &a);
	for (int n = 0; n < 2; n++) {
		fails_after = n;
		refused(verb(&client, SK_SESSION_SAVE, "story", ""), -EIO,
			"the device failed while a session was being stored");
	}
	fails_after = -1;
	done(verb(&client, SK_SESSION_SAVE, "story", ""));
	say(&client, "story", "", 90, &a);
	done(verb(&client, SK_SESSION_DELETE, "story", ""));
	assert_as_in_one(&client, stories[0], &a);
	assert_idle();
	disconnect_client(&client);
}

/* With a window that takes most of the pool. */
static struct sk_event *say_at_length(struct client *client, const char *session, uint64_t n,
				      struct answer *answer)
{
	static struct answer part;
	struct sk_request *request = ask(client, 1, answer->n_ids ? "" : stories[1], n);
	strcpy(request->session, session);
	request->policy = (struct sk_policy_change){.has_window = true, .to = {.window = 400}};
	request->ignore_eos = true;
	struct sk_event *event = run(client, request, &part);
	memcpy(answer->ids + answer->n_ids, part.ids, part.n_ids * sizeof *part.ids);
	answer->n_ids += part.n_ids;
	return event;
}

/* Another wants its pages: they are not given up. */
static void test_it_keeps_its_pages(void **state)
{
	struct client client;
	(void)state;
	connect_client(&client, 1024);
	clear(&a);
	clear(&b);
	sk_event_destroy(say_at_length(&client, "story", 350, &a));
	fails_after = 1;
	said(say_at_length(&client, "", 350, &b), "none can be stored: Input/output error");
	assert_int_equal(b.n_ids, 0);
	fails_after = -1;
	assert_int_equal(show(&client, "story").state, SK_SESSION_IDLE);
	sk_event_destroy(say_at_length(&client, "story", 50, &a));
	done(verb(&client, SK_SESSION_DELETE, "story", ""));
	sk_event_destroy(say_at_length(&client, "", 400, &b));
	assert_int_equal(b.n_ids, 400);
	assert_memory_equal(a.ids, b.ids, 400 * sizeof *a.ids);
	assert_idle();
	disconnect_client(&client);
}

static void test_it_stays_stored(void **state)
{
	static struct answer part;
	struct client client;
	(void)state;
	connect_client(&client, 1024);
	clear(&a);
	say(&client, "story", stories[2], 90, &a);
	disconnect_client(&client);
	restart();
	connect_client(&client, 1024);
	for (int n = 0; n < 2; n++) {
		fails_after = n;
		struct sk_request *request = ask(&client, 1, "", 90);
		strcpy(request->session, "story");
		struct sk_event *event = run(&client, request, &part);
		said(event, "the device failed while a session was being brought back");
		assert_int_equal(show(&client, "story").state, SK_SESSION_STORED);
		assert_int_equal(stats().n_pages_used, 0);
	}
	fails_after = -1;
	say(&client, "story", "", 90, &a);
	done(verb(&client, SK_SESSION_DELETE, "story", ""));
	assert_as_in_one(&client, stories[2], &a);
	assert_idle();
	disconnect_client(&client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_it_is_not_saved),
		cmocka_unit_test(test_it_keeps_its_pages),
		cmocka_unit_test(test_it_stays_stored),
	};
	return sk_test_run(tests, open_stored_engine, close_stored_engine);
}
