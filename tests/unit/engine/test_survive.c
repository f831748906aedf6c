/* Whenever a step begins, the ledger tells of no entry that the step writes over: so that whoever finds it after a crash in
 * the middle of the step finds nothing torn. Seen from the device's side, under all that gives pages back. One long file, since
 * all of it looks through the same hooks at one ledger and its memory. */
#define ENGINE_KV_BYTES (8 << 20) /* some sessions of the policy, and what a step borrows */
#define ENGINE_STALL_NS UINT64_C(600000000000) /* nobody is to be thrown out here */
#include "engine_test.h"

#include "engine/ledger.h"
#include "engine/parking.h"
#include "engine/record.h"
#include "engine/state.h"
#include "engine/store.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

static char state_dir[] = "/tmp/streamkv-survive-XXXXXX";
static int ledger_fd = -1, pages_fd = -1;
static struct sk_ledger *ledger; /* the same memory, through eyes of its own */
static atomic_uint n_seen, n_fetched, n_entries, n_torn;
static struct sk_ring_reader *_Atomic looked_at; /* at the next step's beginning: */
static struct sk_slot first_slot;

static int keep(void *context, const char *name, int fd)
{
	(void)context;
	*(strstr(name, "pages") ? &pages_fd : &ledger_fd) = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return 0;
}

static void drop(void *context, const char *name)
{
	(void)context;
	(void)name;
}

static struct sk_parking parking = {.keep = keep, .drop = drop};

/* --- The device's side --- */

int __real_sk_backend_begin_step(struct sk_backend *backend, const struct sk_batch *batch);
int __wrap_sk_backend_begin_step(struct sk_backend *backend, const struct sk_batch *batch);
int __real_sk_backend_write_page(struct sk_backend *backend, uint32_t page, const void *bytes);
int __wrap_sk_backend_write_page(struct sk_backend *backend, uint32_t page, const void *bytes);

/* Whether an entry has that place of that page live in that window. */
static bool is_live(const struct sk_record *record, const struct sk_window *w, uint32_t page,
		    uint32_t slot)
{
	const uint32_t *sinks = (const uint32_t *)((const struct sk_mark *)(record + 1) +
						   record->n_ahead),
		       *window = sinks + record->n_sinks;
	for (uint32_t i = 0; i < record->n_sinks; i++) {
		const uint64_t entry = (uint64_t)i * SK_PAGE_TOKENS + slot;
		if (sinks[i] == page && entry < w->n_sink)
			return true;
	}
	for (uint32_t i = 0; i < record->n_window; i++) {
		const uint64_t entry = (record->page0 + i) * SK_PAGE_TOKENS + slot;
		if (window[i] == page && entry >= w->first && entry < w->next)
			return true;
	}
	return false;
}

/* In any window that its session may go back to: its own, or one where its client may have read to. */
static bool is_needed(const struct sk_record *record, uint32_t page, uint32_t slot)
{
	const struct sk_mark *ahead = (const struct sk_mark *)(record + 1);
	bool is = is_live(record, &record->window, page, slot);
	if (record->is_answering &&
	    (record->is_prompt_done ||
	     sk_window_is_still_there(&record->given.window, &record->window)))
		is |= is_live(record, &record->given.window, page, slot);
	for (uint32_t i = 0; i < record->n_ahead; i++)
		is |= is_live(record, &ahead[i].window, page, slot);
	return is;
}

static uint32_t n_needed(uint32_t page, uint32_t slot)
{
	uint32_t n_bytes, n = 0;
	for (uint32_t i = 0; i < sk_ledger_n_touched(ledger); i++) {
		const struct sk_record *record = sk_ledger_read(ledger, i, &n_bytes);
		if (!record)
			continue;
		n_entries++;
		n += is_needed(record, page, slot);
	}
	return n;
}

int __wrap_sk_backend_begin_step(struct sk_backend *backend, const struct sk_batch *batch)
{
	struct sk_ring_reader *reader = atomic_exchange(&looked_at, NULL);
	if (reader && sk_ring_reader_next(reader, &first_slot) != 1)
		first_slot.flags = 0;
	for (uint32_t i = 0; ledger && i < batch->n_spans; i++) {
		const struct sk_span *span = &batch->spans[i];
		for (uint32_t row = 0; row < span->n_rows; row++) {
			const uint64_t entry = batch->rows[span->row + row].entry;
			n_torn += n_needed(span->pages[entry / SK_PAGE_TOKENS - span->page0],
					   entry % SK_PAGE_TOKENS);
			n_seen++;
		}
	}
	return __real_sk_backend_begin_step(backend, batch);
}

static uint32_t n_needed_of(uint32_t page)
{
	uint32_t n = 0;
	for (uint32_t slot = 0; slot < SK_PAGE_TOKENS; slot++)
		n += n_needed(page, slot);
	return n;
}

/* The mover's, beside the engine's thread: an entry that is seen half-written is the one before, and is looked at again. */
int __wrap_sk_backend_write_page(struct sk_backend *backend, uint32_t page, const void *bytes)
{
	if (ledger && n_needed_of(page)) {
		usleep(1000);
		n_torn += n_needed_of(page);
	}
	n_fetched++;
	return __real_sk_backend_write_page(backend, page, bytes);
}

static unsigned n_until_short; /* 0: there is memory */

int __real_sk_record_apply(const struct sk_record *record, struct sk_session *session,
			   int cursor_fd);
int __wrap_sk_record_apply(const struct sk_record *record, struct sk_session *session,
			   int cursor_fd);

int __wrap_sk_record_apply(const struct sk_record *record, struct sk_session *session,
			   int cursor_fd)
{
	if (n_until_short && !--n_until_short)
		return -ENOMEM;
	return __real_sk_record_apply(record, session, cursor_fd);
}

static atomic_uint n_ends, n_ends_unknown; /* that were told, and of which no entry did */

static bool is_answering(const char *name)
{
	uint32_t n_bytes;
	for (uint32_t i = 0; i < sk_ledger_n_touched(ledger); i++) {
		const struct sk_record *record = sk_ledger_read(ledger, i, &n_bytes);
		if (record && strcmp(record->name, name) == 0)
			return record->is_answering;
	}
	return false;
}

void __real_sk_mailbox_post(struct sk_mailbox *mailbox, struct sk_list *node);
void __wrap_sk_mailbox_post(struct sk_mailbox *mailbox, struct sk_list *node);

void __wrap_sk_mailbox_post(struct sk_mailbox *mailbox, struct sk_list *node)
{
	if (ledger && engine && mailbox == &engine->events &&
	    sk_container_of(node, struct sk_event, node)->kind == SK_EVENT_FINISHED) {
		n_ends++;
		n_ends_unknown += is_answering("ends");
	}
	__real_sk_mailbox_post(mailbox, node);
}

/* --- The clients' --- */

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
	engine_parking = &parking;
	return open_engine(state);
}

static int close_all(void **state)
{
	char command[80];
	close_engine(state); /* its threads look into it */
	sk_ledger_close(ledger);
	sk_store_close(engine_store);
	snprintf(command, sizeof command, "rm -r %s", state_dir);
	return system(command);
}

static void open_ledger(void)
{
	struct sk_ledger_kind kind;
	uint8_t header[512];
	struct sk_diag diag = {""};
	/* Of its own kind, whatever that is: it lies behind magic, version and two numbers. */
	assert_int_equal(pread(ledger_fd, header, sizeof header, 0), sizeof header);
	memcpy(&kind, header + 24, sizeof kind);
	assert_int_equal(sk_ledger_open(&kind, ledger_fd, pages_fd, &ledger, &diag), 0);
}

static void submit(const struct client *client, uint32_t id, const char *name, const char *prompt,
		   uint64_t n, uint32_t window)
{
	struct sk_request *request = ask(client, id, prompt, n);
	snprintf(request->session, sizeof request->session, "%s", name);
	request->policy.has_window = true;
	request->policy.to.window = window;
	sk_engine_submit(engine, request);
}

static void verb(const struct client *client, uint32_t id, enum sk_session_verb v, const char *name,
		 const char *to)
{
	struct sk_request *request = sk_request_create(SK_REQUEST_SESSION);
	request->connection = client->connection;
	request->id = id;
	request->uid = 1000;
	request->verb = v;
	request->replace = true;
	snprintf(request->session, sizeof request->session, "%s", name);
	snprintf(request->to, sizeof request->to, "%s", to);
	sk_engine_submit(engine, request);
}

/* Two streams go on; beside them sessions grow, shrink, fork, are reset, cancelled, dropped, stored and fetched. */
static void test_no_step_writes_over_what_the_ledger_has(void **state)
{
	(void)state;
	static struct answer a;
	static char prompt[4096];
	struct client client;
	uint32_t id = 0, n_wanted = 0;

	for (size_t i = 0; i + 5 < sizeof prompt; i += 5)
		memcpy(prompt + i, "word ", 5);
	open_ledger();
	connect_client(&client, 4096);
	srandom(4);
	for (unsigned round = 0; round < 500; round++) {
		char name[8], other[8];
		snprintf(name, sizeof name, "s%ld", random() % 6);
		snprintf(other, sizeof other, "s%ld", random() % 6);
		const uint32_t window = 20 + 40 * (uint32_t)(random() % 3);
		const size_t n_words = 5 * (size_t)(1 + random() % 150);
		/* Several at once, so that they are heard between the same two steps. */
		submit(&client, ++id, name, prompt + sizeof prompt - 1 - n_words,
		       1 + (uint64_t)random() % 30, window);
		n_wanted++;
		const long what = random() % 5;
		if (what < 3) {
			verb(&client, ++id,
			     what == 0   ? SK_SESSION_RESET
			     : what == 1 ? SK_SESSION_DELETE
					 : SK_SESSION_FORK,
			     other, name);
			n_wanted++;
		} else if (what == 3) {
			assert_int_equal(sk_engine_cancel(engine, client.connection, id), 0);
		}
		while (n_wanted > 3) {
			struct sk_event *event = sk_engine_next_event(engine);
			memset(&a, 0, sizeof a);
			struct sk_slot slot;
			while (sk_ring_reader_next(client.reader, &slot) == 1) {
			}
			(void)sk_ring_reader_wait(client.reader);
			sk_engine_nudge(engine);
			if (event && !is_by_the_way(event))
				n_wanted--;
			if (!event)
				usleep(200);
			sk_event_destroy(event);
		}
	}
	assert_int_equal(n_torn, 0);
	assert_true(n_seen > 5000 && n_fetched > 20 && n_entries > n_seen);
	print_message("%u rows and %u fetched pages, %u entries looked at\n", n_seen, n_fetched,
		      n_entries);
	disconnect_client(&client);
}

/* A client that has a token, or a part of whose prompt has run, can say where its session should stand. */
static void test_where_it_begins_is_known_before_it_runs(void **state)
{
	(void)state;
	static struct answer a;
	struct client client;
	struct sk_slot_begun begun;
	uint64_t position = 0;

	connect_client(&client, 1024);
	for (uint32_t id = 1; id < 4; id++) {
		struct sk_request *request = ask(&client, id, "It was a dark night", 5);
		strcpy(request->session, "log");
		request->begun = true;
		first_slot.flags = 0;
		atomic_store(&looked_at, client.reader);
		sk_engine_submit(engine, request);
		struct sk_event *event = next_event();
		for (; event->connection != client.connection; event = next_event())
			sk_event_destroy(event); /* what an earlier client had asked last */
		assert_int_equal(first_slot.flags, SK_SLOT_BEGUN | SK_SLOT_NO_TOKEN);
		assert_int_equal(first_slot.request, id);
		assert_int_equal(first_slot.n_text_bytes, sizeof begun);
		memcpy(&begun, first_slot.text, sizeof begun);
		assert_int_equal(begun.position, position);
		assert_int_equal(begun.n_prompt_tokens, event->result.prompt_tokens);
		position = event->result.position;
		memset(&a, 0, sizeof a);
		drain(&client, &a);
		assert_int_equal(a.n_ids, 5);
		assert_int_equal(position, begun.position + begun.n_prompt_tokens + 5);
		sk_event_destroy(event);
	}
	disconnect_client(&client);
}

/* Whoever is told how a request ended finds its session there after a crash: also one whose text was scored, which would be
 * taken back else. */
static void test_an_end_is_known_before_it_is_told(void **state)
{
	(void)state;
	static struct answer a;
	struct client client;

	n_ends = 0;
	connect_client(&client, 1024);
	for (uint32_t id = 1; id < 7; id++) {
		struct sk_request *request = ask(&client, id, "It was a dark night", 5);
		request->kind = id % 2 ? SK_REQUEST_EVALUATE : SK_REQUEST_GENERATE;
		strcpy(request->session, "ends");
		sk_event_destroy(run(&client, request, &a));
	}
	assert_int_equal(n_ends, 6);
	assert_int_equal(n_ends_unknown, 0);
	disconnect_client(&client);
}

/* An engine without a store leaves its n sessions in the ledger, as one that dies would: of five pages each,
 * which no other round has stored. */
static void leave_sessions(uint32_t n, uint32_t round)
{
	struct client client;
	struct sk_store *store = engine_store;

	engine_store = NULL;
	engine_max_batch = 8;
	parking.n_parked = 0;
	assert_int_equal(open_engine(NULL), 0);
	connect_client(&client, 4096);
	for (uint32_t i = 0; i < n; i++) {
		char name[24], prompt[512] = "";
		snprintf(name, sizeof name, "r%u-%u", round, i);
		for (unsigned word = 0; word < 80; word++)
			snprintf(prompt + strlen(prompt), 8, "%c%u ", 'a' + (int)i, word % 7);
		submit(&client, i + 1, name, prompt, 5, 100);
		struct sk_event *event = next_event();
		assert_int_equal(event->kind, SK_EVENT_FINISHED);
		assert_int_equal(event->result.generated_tokens, 5);
		sk_event_destroy(event);
	}
	disconnect_client(&client);
	open_ledger();
	close_engine(NULL);
	engine_store = store;
}

/* Sessions go to the disk for the sake of larger steps, and the first step takes their pages. With some of these --max-batch it
 * is such pages alone that are free. */
static void test_no_first_step_writes_over_what_the_ledger_has(void **state)
{
	(void)state;
	const uint32_t last = 30;
	struct client client;

	close_engine(NULL);
	sk_ledger_close(ledger);
	ledger = NULL;
	n_torn = n_entries = 0;
	engine_kv_bytes = 2 * ENGINE_KV_BYTES;
	for (uint32_t max_batch = 16; max_batch <= last; max_batch++) {
		leave_sessions(4, max_batch);
		struct sk_parked parked[] = {{.name = "streamkv-ledger", .fd = dup(ledger_fd)},
					     {.name = "streamkv-pages", .fd = dup(pages_fd)}};
		parking.parked = parked;
		parking.n_parked = 2;
		engine_max_batch = max_batch;
		assert_int_equal(open_engine(NULL), 0);
		assert_int_equal(sk_engine_kept(engine)->n_adopted, 4);
		assert_int_equal(n_torn, 0);
		connect_client(&client, 4096);
		submit(&client, 1, "new", "x", 5, 100);
		struct sk_event *event = next_event();
		assert_int_equal(event->kind, SK_EVENT_FINISHED);
		assert_int_equal(event->result.generated_tokens, 5);
		sk_event_destroy(event);
		disconnect_client(&client);
		if (max_batch < last)
			close_engine(NULL);
		sk_ledger_close(ledger);
		ledger = NULL;
	}
	assert_true(n_entries > 0);
}

/* A start that is short of memory adopts none of them, and the next one all. */
static void test_all_are_adopted_or_none(void **state)
{
	(void)state;

	close_engine(NULL);
	engine = NULL;
	for (unsigned n = 1; n <= 5; n++) {
		if (n == 1)
			leave_sessions(4, 100);
		struct sk_parked parked[] = {{.name = "streamkv-ledger", .fd = dup(ledger_fd)},
					     {.name = "streamkv-pages", .fd = dup(pages_fd)}};
		parking.parked = parked;
		parking.n_parked = 2;
		engine = NULL;
		n_until_short = n < 5 ? n : 0;
		assert_int_equal(open_engine(NULL), n < 5 ? -1 : 0);
		if (n < 5)
			close_engine(NULL); /* what there is of it */
	}
	assert_int_equal(sk_engine_kept(engine)->n_adopted, 4);
	assert_int_equal(sk_engine_kept(engine)->n_not_adopted, 0);
}

/* What lies in it now, as another file that can be parked. */
static int copy_of(int fd)
{
	static char bytes[1 << 16];
	const off_t end = lseek(fd, 0, SEEK_END);
	const int copy = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(copy, end), 0);
	for (off_t at = 0; at < end && (at = lseek(fd, at, SEEK_DATA)) >= 0;) {
		const ssize_t n = pread(fd, bytes, sizeof bytes, at);
		assert_int_equal(pwrite(copy, bytes, (size_t)n, at), n);
		at += n;
	}
	assert_int_equal(fcntl(copy, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	return copy;
}

/* Answers that were broken off, of sessions for all of which there is no room: those that are let go are not counted. */
static void test_broken_off_without_room(void **state)
{
	(void)state;
	static struct answer a;
	struct client clients[2];
	struct sk_store *store = engine_store;

	close_engine(NULL);
	engine_store = NULL;
	engine_kv_bytes = 2 * ENGINE_KV_BYTES;
	engine_max_batch = 8;
	parking.n_parked = 0;
	assert_int_equal(open_engine(NULL), 0);
	for (uint32_t i = 0; i < 2; i++) {
		connect_client(&clients[i], 1024);
		submit(&clients[i], 1, i ? "one" : "other", "It was a dark night", UINT64_MAX, 100);
		memset(&a, 0, sizeof a);
		wait_for_tokens(&clients[i], &a, 150);
	}
	while (stats().n_paused < 2)
		;
	struct sk_parked parked[] = {{.name = "streamkv-ledger", .fd = copy_of(ledger_fd)},
				     {.name = "streamkv-pages", .fd = copy_of(pages_fd)}};
	const uint32_t n_pages = engine->pool.n_pages;
	for (uint32_t i = 0; i < 2; i++)
		disconnect_client(&clients[i]);
	close_engine(NULL);

	parking.parked = parked;
	parking.n_parked = 2;
	engine_max_batch = n_pages - 64 / SK_PAGE_TOKENS - 7;
	assert_int_equal(open_engine(NULL), 0);
	const struct sk_engine_kept *kept = sk_engine_kept(engine);
	assert_int_equal(kept->n_no_room, 1);
	assert_int_equal(kept->n_adopted, 1);
	assert_int_equal(kept->n_broken, 1);
	engine_store = store;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_step_writes_over_what_the_ledger_has),
		cmocka_unit_test(test_where_it_begins_is_known_before_it_runs),
		cmocka_unit_test(test_an_end_is_known_before_it_is_told),
		cmocka_unit_test(test_no_first_step_writes_over_what_the_ledger_has),
		cmocka_unit_test(test_all_are_adopted_or_none),
		cmocka_unit_test(test_broken_off_without_room),
	};
	return sk_test_run(tests, open_all, close_all);
}
