/* A client that writes anything into its page of the ring at any time, while the writer goes on.
 *
 * Input: operations of one byte, some with operands behind. The writer's books must stay within its
 * slots, it must never block, and once it has found a lie it must stand by it.
 */
#include "driver.h"

#include "shm/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define N_SLOTS      SK_RING_LEAST_SLOTS
#define CURSOR_BYTES 4096
#define WAITING_AT   64
#define MOST_STEPS   4096

static void demand(int holds)
{
	if (!holds)
		abort();
}

struct input {
	const uint8_t *at, *end;
};

static uint64_t take(struct input *in, size_t n_bytes)
{
	uint64_t value = 0;
	for (size_t i = 0; i < n_bytes && in->at < in->end; i++)
		value |= (uint64_t)*in->at++ << 8 * i;
	return value;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	static uint8_t text[N_SLOTS * SK_SLOT_TEXT_BYTES + 100];
	struct input in = {bytes, bytes + n_bytes};
	struct sk_ring_writer *writer;
	uint64_t n_put = 0, n_published = 0;
	int fds[4], broken = 0;

	if (sk_ring_writer_create(N_SLOTS, &writer) < 0)
		return 0;
	sk_ring_writer_fds(writer, fds);
	uint8_t *cursor = mmap(NULL, CURSOR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);
	demand(cursor != MAP_FAILED);
	uint64_t tail = 0;

	for (int step = 0; step < MOST_STEPS && in.at < in.end; step++) {
		uint8_t operation = (uint8_t)take(&in, 1);
		switch (operation % 8) {
		case 0: /* any cursor */
			tail = take(&in, 8);
			memcpy(cursor, &tail, sizeof tail);
			break;
		case 1: /* one near the truth */
			tail = n_published + (uint64_t)(int64_t)(int8_t)take(&in, 1);
			memcpy(cursor, &tail, sizeof tail);
			break;
		case 2: /* any flag */
			cursor[WAITING_AT] = (uint8_t)take(&in, 1);
			break;
		case 3: /* any bytes anywhere */
			cursor[take(&in, 2) % CURSOR_BYTES] = (uint8_t)take(&in, 1);
			break;
		case 4: {
			int64_t room = sk_ring_writer_room(writer);
			demand(room == -EPROTO || (room >= 0 && room <= N_SLOTS));
			demand(!broken || room == -EPROTO);
			broken |= room < 0;
			memcpy(&tail, cursor, sizeof tail);
			if (room >= 0) {
				demand(tail <= n_published);
				demand((uint64_t)room == N_SLOTS - (n_put - tail));
			}
			break;
		}
		case 5: {
			size_t n = take(&in, 2) % sizeof text;
			struct sk_slot slot = {.request = 1, .flags = (uint8_t)take(&in, 1)};
			uint64_t n_slots = n ? (n - 1) / SK_SLOT_TEXT_BYTES + 1 : 1;
			int r = sk_ring_writer_put(writer, &slot, text, n);
			demand(r == 0 || r == -EAGAIN || r == -EPROTO || r == -EMSGSIZE);
			demand((r == -EMSGSIZE) == (n_slots > N_SLOTS));
			demand(!broken || r == -EPROTO || r == -EMSGSIZE);
			broken |= r == -EPROTO;
			n_put += r == 0 ? n_slots : 0;
			break;
		}
		case 6:
			sk_ring_writer_publish(writer);
			n_published = n_put;
			break;
		default:
			/* A broken ring does not put the writer to sleep. */
			demand(sk_ring_writer_wait(writer) || !broken);
		}
	}
	munmap(cursor, CURSOR_BYTES);
	sk_ring_writer_destroy(writer);
	return 0;
}

size_t sk_fuzz_seed(unsigned index, uint8_t *out, size_t room)
{
	static const uint8_t honest[] = {5, 10, 0, 0, 5, 100, 0, 16, 6, 4, 1,
					 0, 4,  7, 5, 3, 0,   0, 6,  2, 1, 6};
	static const uint8_t full[] = {5, 0, 40, 0, 5, 1, 0, 0, 7,  6, 1, 0xff,
				       5, 1, 0,  0, 1, 0, 5, 0, 40, 0, 6, 7};
	static const uint8_t lies[] = {5, 1, 0, 0, 6, 1, 1, 4, 0, 0, 0, 0,
				       0, 0, 0, 0, 0, 4, 5, 1, 0, 0, 7};
	static const struct {
		const uint8_t *bytes;
		size_t n;
	} seeds[] = {{honest, sizeof honest}, {full, sizeof full}, {lies, sizeof lies}};

	if (index >= sizeof seeds / sizeof *seeds || seeds[index].n > room)
		return 0;
	memcpy(out, seeds[index].bytes, seeds[index].n);
	return seeds[index].n;
}
