/* The ring between two who keep to its rules: what goes in comes out, whatever its length, and whoever waits is woken. */
#include "ring_rig.h"

static void texts_of_every_length(void **state)
{
	(void)state;
	struct rig rig = rig_create();
	for (size_t n = 0; n <= 500; n++) {
		uint8_t flags =
			(uint8_t)((n % 2 ? SK_SLOT_SPECIAL : 0) | (n % 3 ? SK_SLOT_LAST : 0) |
				  (n % 5 ? 0 : SK_SLOT_MORE | SK_SLOT_CONTINUES));
		expect_empty(&rig);
		assert_int_equal(put(&rig, n, n, flags), 0);
		expect_empty(&rig); /* not published */
		publish(&rig);
		expect_token(&rig, n, n, flags);
	}
	rig_finish(&rig);
}

static void full_and_all_or_nothing(void **state)
{
	(void)state;
	struct rig rig = rig_create();
	const size_t most = (size_t)N_SLOTS * SK_SLOT_TEXT_BYTES;

	assert_int_equal(put(&rig, 1, most + 1, 0), -EMSGSIZE);
	assert_int_equal(put(&rig, 1, most, 0), 0);
	assert_int_equal(put(&rig, 2, 0, 0), -EAGAIN);
	publish(&rig);
	assert_int_equal(put(&rig, 2, 0, 0), -EAGAIN);
	expect_token(&rig, 1, most, 0);
	expect_empty(&rig);

	for (uint64_t i = 0; i < N_SLOTS - 2; i++)
		assert_int_equal(put(&rig, i, 3, 0), 0);
	assert_int_equal(put(&rig, 99, 81, SK_SLOT_LAST), -EAGAIN); /* wants 3 of 2 */
	assert_int_equal(put(&rig, 99, 80, SK_SLOT_LAST), 0);
	assert_int_equal(put(&rig, 100, 1, 0), -EAGAIN);
	publish(&rig);
	for (uint64_t i = 0; i < N_SLOTS - 2; i++)
		expect_token(&rig, i, 3, 0);
	expect_token(&rig, 99, 80, SK_SLOT_LAST);
	expect_empty(&rig);
	rig_finish(&rig);
}

/* A long random walk against the model, around the ring many times. */
static void random_walk(void **state)
{
	(void)state;
	struct rig rig = rig_create();
	static struct {
		uint64_t token;
		size_t n;
	} queue[4 * N_SLOTS];
	uint64_t n_in = 0, n_out = 0, n_visible = 0, random = 1;

	for (int step = 0; step < 200000; step++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		uint32_t dice = (uint32_t)(random >> 33);
		/* The mood changes slowly, so that the ring runs full and empty. */
		bool reading = (step / 700) % 2 ? dice % 4 : !(dice % 4);
		if (reading) {
			if (n_out == n_visible)
				expect_empty(&rig);
			else {
				expect_token(&rig, queue[n_out % (4 * N_SLOTS)].token,
					     queue[n_out % (4 * N_SLOTS)].n, 0);
				n_out++;
			}
		} else {
			size_t n = dice / 4 % 50 ? dice / 200 % 20 : dice / 200 % 1000;
			if (put(&rig, n_in, n, 0) == 0) {
				queue[n_in % (4 * N_SLOTS)].token = n_in;
				queue[n_in++ % (4 * N_SLOTS)].n = n;
			}
			if (dice % 7 == 0) {
				publish(&rig);
				n_visible = n_in;
			}
		}
	}
	assert_true(rig.n_read > 20 * N_SLOTS);
	rig_finish(&rig);
}

/* --- Waiting --- */

static void the_reader_is_rung_only_when_it_waits(void **state)
{
	(void)state;
	struct rig rig = rig_create();
	int bell = sk_ring_reader_doorbell(rig.reader);

	assert_int_equal(put(&rig, 1, 1, 0), 0);
	publish(&rig);
	assert_false(is_rung(bell));
	assert_true(sk_ring_reader_wait(rig.reader)); /* a slot is there already */
	assert_int_equal(put(&rig, 2, 1, 0), 0);
	publish(&rig);
	assert_false(is_rung(bell)); /* it does not wait */
	expect_token(&rig, 1, 1, 0);
	expect_token(&rig, 2, 1, 0);
	expect_empty(&rig);

	for (uint64_t i = 0; i < 10; i++) {
		assert_false(sk_ring_reader_wait(rig.reader));
		rig.n_known = rig.n_read; /* at the latest now */
		check_rig(&rig);
		assert_false(is_rung(bell));
		assert_int_equal(put(&rig, i, 1, 0), 0);
		assert_false(is_rung(bell));
		publish(&rig);
		assert_true(is_rung(bell));
		expect_token(&rig, i, 1, 0);
		assert_false(is_rung(bell)); /* silenced */
		publish(&rig);               /* of nothing */
		assert_false(is_rung(bell));
	}
	/* A wake-up without a slot: it can wait again at once. */
	assert_false(sk_ring_reader_wait(rig.reader));
	assert_int_equal(write(rig.fds[2], "", 1), -1); /* its end is for reading */
	assert_false(sk_ring_reader_wait(rig.reader));
	rig_finish(&rig);
}

static void the_writer_is_rung_when_there_is_room(void **state)
{
	(void)state;
	struct rig rig = rig_create();
	int bell = sk_ring_writer_doorbell(rig.writer);

	assert_true(sk_ring_writer_wait(rig.writer)); /* there is room */
	for (uint64_t i = 0; i < N_SLOTS; i++)
		assert_int_equal(put(&rig, i, 1, 0), 0);
	publish(&rig);
	assert_int_equal(put(&rig, 0, 100, 0), -EAGAIN);
	assert_false(sk_ring_writer_wait(rig.writer));
	assert_false(is_rung(bell));
	uint64_t n_rung = 0;
	for (uint64_t i = 0; i < N_SLOTS; i++) {
		expect_token(&rig, i, 1, 0);
		if (is_rung(bell)) {
			n_rung++;
			/* Room for a token of three slots, or else it waits on. */
			assert_true(sk_ring_writer_room(rig.writer) >= 3);
			assert_true(sk_ring_writer_wait(rig.writer));
			assert_false(is_rung(bell));
			assert_int_equal(put(&rig, 0, 100, 0), 0);
			break;
		}
	}
	assert_int_equal(n_rung, 1);
	rig_finish(&rig);

	/* Less room than the last put wanted is no room; all there is, is enough. */
	rig = rig_create();
	for (uint64_t i = 0; i < N_SLOTS - 2; i++)
		assert_int_equal(put(&rig, i, 1, 0), 0);
	publish(&rig);
	assert_true(sk_ring_writer_wait(rig.writer));
	assert_int_equal(put(&rig, 0, 100, 0), -EAGAIN);
	assert_false(sk_ring_writer_wait(rig.writer));
	assert_int_equal(put(&rig, 0, 80, 0), 0);
	rig_finish(&rig);

	/* The reader gives the last slots back when it goes to sleep, and rings for them. */
	rig = rig_create();
	for (uint64_t i = 0; i < N_SLOTS; i++)
		assert_int_equal(put(&rig, i, 1, 0), 0);
	publish(&rig);
	assert_int_equal(put(&rig, 0, 1, 0), -EAGAIN);
	assert_false(sk_ring_writer_wait(rig.writer));
	expect_token(&rig, 0, 1, 0);
	assert_false(is_rung(sk_ring_writer_doorbell(rig.writer)));
	assert_true(sk_ring_reader_wait(
		rig.reader)); /* slots are there; room is given back all the same */
	assert_true(is_rung(sk_ring_writer_doorbell(rig.writer)));
	assert_int_equal(put(&rig, 0, 1, 0), 0);
	assert_false(is_rung(sk_ring_writer_doorbell(rig.writer)));
	rig_finish(&rig);
}

static void sizes_that_are_none(void **state)
{
	(void)state;
	static const uint32_t sizes[] = {
		0, 1, N_SLOTS - 1, N_SLOTS / 2, N_SLOTS + 1, UINT32_MAX, SK_RING_MOST_SLOTS * 2};
	struct sk_ring_writer *writer = NULL;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
		assert_int_equal(sk_ring_writer_create(sizes[i], &writer), -EINVAL);
	assert_null(writer);
	sk_ring_writer_destroy(NULL);
	sk_ring_reader_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_of_every_length),
		cmocka_unit_test(full_and_all_or_nothing),
		cmocka_unit_test(random_walk),
		cmocka_unit_test(the_reader_is_rung_only_when_it_waits),
		cmocka_unit_test(the_writer_is_rung_when_there_is_room),
		cmocka_unit_test(sizes_that_are_none),
	};
	return sk_test_run(tests, NULL, NULL);
}
