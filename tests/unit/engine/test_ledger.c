/* The ledger: whoever dies in the middle of writing leaves what was there before; and what another cannot use, it does not. */
#include "engine/ledger.h"
#include "sk_test.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define ENTRY_BYTES 1000

static const struct sk_ledger_kind kind = {
	.model = "of the test", .layout = "layout", .page_bytes = 4096, .entry_bytes = ENTRY_BYTES};

static struct sk_ledger *created(void)
{
	struct sk_ledger *ledger = NULL;
	assert_int_equal(sk_ledger_create(&kind, 3, 10, &ledger), 0);
	return ledger;
}

/* As the next process would. */
static int reopen(const struct sk_ledger *ledger, const struct sk_ledger_kind *as,
		  struct sk_ledger **ret_again, struct sk_diag *diag)
{
	return sk_ledger_open(as, dup(sk_ledger_fd(ledger)), dup(sk_ledger_pages_fd(ledger)),
			      ret_again, diag);
}

static void assert_entry(const struct sk_ledger *ledger, uint32_t slot, const char *text)
{
	uint32_t n_bytes = 0;
	const void *entry = sk_ledger_read(ledger, slot, &n_bytes);
	assert_non_null(entry);
	assert_int_equal(n_bytes, strlen(text));
	assert_memory_equal(entry, text, n_bytes);
}

static void put(struct sk_ledger *ledger, uint32_t slot, const char *text)
{
	sk_ledger_write(ledger, slot, text, (uint32_t)strlen(text));
}

static void test_entries_come_and_go(void **state)
{
	(void)state;
	struct sk_ledger *ledger = created(), *again;
	struct sk_diag diag = {""};
	uint32_t slots[10], n_bytes;

	for (uint32_t i = 0; i < 10; i++) {
		slots[i] = sk_ledger_take(ledger);
		assert_int_equal(slots[i], i);
		assert_null(sk_ledger_read(ledger, i, &n_bytes));
	}
	assert_int_equal(sk_ledger_take(ledger), SK_NO_SLOT);
	put(ledger, 3, "one");
	put(ledger, 3, "two");
	put(ledger, 3, "three");
	put(ledger, 5, "five");
	put(ledger, 6, "six");
	sk_ledger_clear(ledger, 5);
	assert_int_equal(sk_ledger_take(ledger), 5);
	assert_int_equal(sk_ledger_n_touched(ledger), 7);

	assert_int_equal(reopen(ledger, &kind, &again, &diag), 0);
	assert_int_equal(sk_ledger_n_pages(again), 3);
	assert_int_equal(sk_ledger_n_lives(again), 2);
	assert_entry(again, 3, "three");
	assert_entry(again, 6, "six");
	assert_null(sk_ledger_read(again, 5, &n_bytes));
	assert_int_equal(sk_ledger_take(again), 0);
	assert_int_equal(sk_ledger_take(again), 1);
	assert_int_equal(sk_ledger_take(again), 2);
	assert_int_equal(sk_ledger_take(again), 4); /* 3 is in use */
	sk_ledger_close(again);
	sk_ledger_close(ledger);
}

static void *map(int fd, size_t *ret_n_bytes)
{
	struct stat info;
	assert_int_equal(fstat(fd, &info), 0);
	*ret_n_bytes = (size_t)info.st_size;
	void *data = mmap(NULL, *ret_n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(data, MAP_FAILED);
	return data;
}

/* Whatever part of the bytes that a write changes has been changed, as long as its last store, the sequence, has not. */
static void test_a_torn_entry_is_the_one_before(void **state)
{
	(void)state;
	static uint8_t before[65536], after[65536];
	struct sk_ledger *ledger = created();
	size_t n_bytes;
	uint8_t *bytes = map(sk_ledger_fd(ledger), &n_bytes);
	assert_true(n_bytes <= sizeof before);
	char old[ENTRY_BYTES], new[ENTRY_BYTES];
	memset(old, 'o', sizeof old - 1);
	memset(new, 'n', sizeof new - 1);
	old[sizeof old - 1] = new[sizeof new - 1] = '\0';
	(void)sk_ledger_take(ledger);
	put(ledger, 0, "oldest");
	put(ledger, 0, old);
	memcpy(before, bytes, n_bytes);
	put(ledger, 0, new);
	assert_entry(ledger, 0, new);
	memcpy(after, bytes, n_bytes);

	size_t first = 0, n_changed = 0;
	while (before[first] == after[first]) /* the copy's first field: its sequence */
		first++;
	for (size_t i = 0; i < n_bytes; i++)
		n_changed += before[i] != after[i];
	assert_true(n_changed > ENTRY_BYTES / 2);
	srandom(1);
	for (unsigned round = 0; round < 2000; round++) {
		const long threshold = random();
		memcpy(bytes, before, n_bytes);
		memset(bytes + first, 0, sizeof(uint64_t)); /* a write's first store */
		for (size_t i = first + sizeof(uint64_t); i < n_bytes; i++) {
			if (random() < threshold)
				bytes[i] = after[i];
		}
		assert_entry(ledger, 0, old);
	}
	/* And any other fault in it. */
	for (size_t i = first; i < n_bytes; i++) {
		if (before[i] == after[i])
			continue;
		memcpy(bytes, after, n_bytes);
		bytes[i] ^= 1;
		assert_entry(ledger, 0, old);
	}
	munmap(bytes, n_bytes);
	sk_ledger_close(ledger);
}

/* The next write goes over the torn one, not over the last that is whole. */
static void test_after_a_torn_entry(void **state)
{
	(void)state;
	struct sk_ledger *ledger = created();
	size_t n_bytes;
	(void)sk_ledger_take(ledger);
	put(ledger, 0, "one");
	put(ledger, 0, "two");
	uint8_t *bytes = map(sk_ledger_fd(ledger), &n_bytes);
	uint8_t *one = memmem(bytes, n_bytes, "one", 3), *two = memmem(bytes, n_bytes, "two", 3);
	assert_non_null(one);
	memset(one - 24, 0, 8); /* whose sequence is the first of three eights before it */
	assert_entry(ledger, 0, "two");
	put(ledger, 0, "three");
	assert_memory_equal(two, "two", 3);
	assert_entry(ledger, 0, "three");
	munmap(bytes, n_bytes);
	sk_ledger_close(ledger);
}

static void assert_stale(const struct sk_ledger *ledger, const struct sk_ledger_kind *as,
			 const char *words)
{
	struct sk_ledger *again = NULL;
	struct sk_diag diag = {""};
	assert_int_equal(reopen(ledger, as, &again, &diag), -ESTALE);
	assert_null(again);
	if (!strstr(diag.text, words))
		fail_msg("'%s' is not in '%s'", words, diag.text);
}

static void test_what_is_of_another_kind(void **state)
{
	(void)state;
	struct sk_ledger *ledger = created();
	struct sk_ledger_kind other = kind;
	other.model[0] ^= 1;
	assert_stale(ledger, &other, "another model");
	other = kind;
	other.layout[0] = 'L';
	assert_stale(ledger, &other, "has the layout 'layout', this daemon's 'Layout'");
	other = kind;
	other.page_bytes++;
	assert_stale(ledger, &other, "another --kv or --backend");
	other = kind;
	other.entry_bytes++;
	assert_stale(ledger, &other, "another build");

	struct sk_diag diag = {""};
	struct sk_ledger *again = NULL;
	assert_int_equal(sk_ledger_open(&kind, open("/dev/null", O_RDWR), open("/dev/null", O_RDWR),
					&again, &diag),
			 -ESTALE);
	int fd = memfd_create("other", 0);
	assert_int_equal(sk_ledger_open(&kind, dup(sk_ledger_fd(ledger)), fd, &again, &diag),
			 -ESTALE);
	assert_non_null(strstr(diag.text, "cut short"));
	sk_ledger_close(ledger);
}

static void test_no_two_are_the_same(void **state)
{
	(void)state;
	struct sk_ledger *ledger = created(), *other = created(), *again;
	struct sk_diag diag = {""};
	assert_int_equal(reopen(ledger, &kind, &again, &diag), 0);
	assert_memory_equal(sk_ledger_id(again), sk_ledger_id(ledger), SK_LEDGER_ID_BYTES);
	assert_memory_not_equal(sk_ledger_id(other), sk_ledger_id(ledger), SK_LEDGER_ID_BYTES);
	sk_ledger_close(again);
	sk_ledger_close(other);
	sk_ledger_close(ledger);
}

/* A daemon that they kill each time is not to be killed for ever; one that ends in order was not. */
static void test_whom_it_kills(void **state)
{
	(void)state;
	struct sk_ledger *ledger = created(), *killed[3], *again;
	struct sk_diag diag = {""};
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(reopen(ledger, &kind, &again, &diag), 0);
		sk_ledger_close(again);
	}
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(reopen(ledger, &kind, &killed[i], &diag), 0);
	assert_stale(ledger, &kind, "3 daemons in turn have ended with them before they ran");
	sk_ledger_is_good(ledger);
	assert_int_equal(reopen(ledger, &kind, &again, &diag), 0);
	sk_ledger_close(again);
	for (unsigned i = 0; i < 3; i++)
		sk_ledger_close(killed[i]);
	sk_ledger_close(ledger);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entries_come_and_go),
		cmocka_unit_test(test_a_torn_entry_is_the_one_before),
		cmocka_unit_test(test_after_a_torn_entry),
		cmocka_unit_test(test_what_is_of_another_kind),
		cmocka_unit_test(test_no_two_are_the_same),
		cmocka_unit_test(test_whom_it_kills),
	};
	return sk_test_run(tests, NULL, NULL);
}
