#include "engine/ledger.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <xxhash.h>

#define HEADER_BYTES 4096u
#define MOST_LIVES   3 /* without one that was good */
#define SEALS        (F_SEAL_SHRINK | F_SEAL_GROW)

static const char magic[8] = {'s', 'k', 'l', 'e', 'd', 'g', 'e', 'r'};

struct header {
	char magic[8];
	uint32_t version;
	uint32_t n_pages, n_slots;
	struct sk_ledger_kind kind;
	uint32_t n_touched; /* slots: those behind have never been written, nor take memory */
	uint32_t n_lives;
	uint32_t n_since_good;
	uint8_t id[SK_LEDGER_ID_BYTES];
};

/* One of a slot's two. Nothing is a whole one whose sequence is 0. */
struct copy {
	uint64_t sequence;
	uint64_t hash;    /* of all that follows, and of the sequence */
	uint32_t n_bytes; /* 0: the slot is empty */
	uint32_t zero;
	uint8_t bytes[];
};

struct sk_ledger {
	int fd, pages_fd;
	size_t map_bytes;
	uint8_t *map;
	uint32_t *free_slots; /* a stack of n_free */
	uint32_t n_free;
};

static struct header *header_of(const struct sk_ledger *ledger)
{
	return (struct header *)ledger->map;
}

static uint64_t copy_bytes(const struct sk_ledger_kind *kind)
{
	return (sizeof(struct copy) + kind->entry_bytes + 63) / 64 * 64;
}

static uint64_t ledger_bytes(const struct sk_ledger_kind *kind, uint32_t n_slots)
{
	return HEADER_BYTES + 2 * copy_bytes(kind) * n_slots;
}

static struct copy *copy_of(const struct sk_ledger *ledger, uint32_t slot, unsigned i)
{
	return (struct copy *)(ledger->map + HEADER_BYTES +
			       copy_bytes(&header_of(ledger)->kind) * (2 * (uint64_t)slot + i));
}

static uint64_t hash_of(const struct copy *copy, uint64_t sequence)
{
	const size_t at = offsetof(struct copy, n_bytes);
	return XXH3_64bits_withSeed((const uint8_t *)copy + at, sizeof *copy - at + copy->n_bytes,
				    sequence);
}

static bool is_whole(const struct sk_ledger *ledger, const struct copy *copy)
{
	return copy->sequence && copy->n_bytes <= header_of(ledger)->kind.entry_bytes &&
	       copy->hash == hash_of(copy, copy->sequence);
}

/* The newest whole one of a slot; NULL: nobody has ever written there. */
static const struct copy *newest(const struct sk_ledger *ledger, uint32_t slot)
{
	const struct copy *copies[] = {copy_of(ledger, slot, 0), copy_of(ledger, slot, 1)};
	const bool has[] = {is_whole(ledger, copies[0]), is_whole(ledger, copies[1])};

	if (has[0] && has[1])
		return copies[copies[1]->sequence > copies[0]->sequence];
	return has[0] ? copies[0] : has[1] ? copies[1] : NULL;
}

/* --- Making and finding one --- */

static int create_memfd(const char *name, uint64_t n_bytes, int *ret_fd)
{
	sk_autoclose int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || n_bytes > INT64_MAX || ftruncate(fd, (off_t)n_bytes) < 0 ||
	    fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return fd < 0 || errno ? -errno : -ENOMEM;
	*ret_fd = sk_steal_fd(&fd);
	return 0;
}

static int map(struct sk_ledger *ledger, uint64_t n_bytes)
{
	void *data = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			  ledger->fd, 0);
	if (data == MAP_FAILED)
		return -errno;
	ledger->map = data;
	ledger->map_bytes = n_bytes;
	return 0;
}

/* Slots without a session, the first on top. */
static int list_free(struct sk_ledger *ledger)
{
	uint32_t n_bytes;
	ledger->free_slots = calloc(header_of(ledger)->n_slots + 1u, sizeof *ledger->free_slots);
	if (!ledger->free_slots)
		return -ENOMEM;
	for (uint32_t slot = header_of(ledger)->n_slots; slot--;) {
		if (slot >= header_of(ledger)->n_touched || !sk_ledger_read(ledger, slot, &n_bytes))
			ledger->free_slots[ledger->n_free++] = slot;
	}
	return 0;
}

int sk_ledger_create(const struct sk_ledger_kind *kind, uint32_t n_pages, uint32_t n_slots,
		     struct sk_ledger **ret_ledger)
{
	struct sk_ledger *ledger = calloc(1, sizeof *ledger);
	if (!ledger)
		return -ENOMEM;
	ledger->fd = ledger->pages_fd = -1;
	int err = create_memfd("streamkv-ledger", ledger_bytes(kind, n_slots), &ledger->fd);
	if (!err)
		err = create_memfd("streamkv-pages", n_pages * kind->page_bytes, &ledger->pages_fd);
	if (!err)
		err = map(ledger, ledger_bytes(kind, n_slots));
	if (!err) {
		struct header *header = header_of(ledger);
		*header = (struct header){.version = SK_LEDGER_VERSION,
					  .n_pages = n_pages,
					  .n_slots = n_slots,
					  .kind = *kind,
					  .n_lives = 1};
		memcpy(header->magic, magic, sizeof magic);
		if (getrandom(header->id, sizeof header->id, 0) != sizeof header->id)
			err = -errno;
		else
			err = list_free(ledger);
	}
	if (err < 0) {
		sk_ledger_close(ledger);
		return err;
	}
	*ret_ledger = ledger;
	return 0;
}

/* Whether the files are what the header says. */
static bool has_room(const struct sk_ledger *ledger, const struct header *header)
{
	struct stat own, pages;
	return fstat(ledger->fd, &own) == 0 && fstat(ledger->pages_fd, &pages) == 0 &&
	       header->n_pages && header->n_touched <= header->n_slots &&
	       (uint64_t)own.st_size == ledger_bytes(&header->kind, header->n_slots) &&
	       (uint64_t)pages.st_size == header->n_pages * header->kind.page_bytes &&
	       (fcntl(ledger->fd, F_GET_SEALS) & SEALS) == SEALS &&
	       (fcntl(ledger->pages_fd, F_GET_SEALS) & SEALS) == SEALS;
}

static int check(const struct sk_ledger *ledger, const struct header *header,
		 const struct sk_ledger_kind *kind, struct sk_diag *diag)
{
	if (memcmp(header->magic, magic, sizeof magic) != 0)
		return sk_diag_fail(diag, ESTALE, "they are no streamkvd's");
	if (header->version != SK_LEDGER_VERSION)
		return sk_diag_fail(diag, ESTALE,
				    "they have format %u, this daemon knows %u: %s streamkvd left "
				    "them",
				    header->version, SK_LEDGER_VERSION,
				    header->version > SK_LEDGER_VERSION ? "a newer" : "an older");
	if (memcmp(header->kind.model, kind->model, sizeof kind->model) != 0)
		return sk_diag_fail(diag, ESTALE, "they are of another model");
	if (strncmp(header->kind.layout, kind->layout, sizeof kind->layout) != 0 ||
	    header->kind.page_bytes != kind->page_bytes)
		return sk_diag_fail(diag, ESTALE,
				    "their cache has the layout '%.31s', this daemon's '%s': it "
				    "runs with another --kv or --backend",
				    header->kind.layout, kind->layout);
	if (header->kind.entry_bytes != kind->entry_bytes)
		return sk_diag_fail(diag, ESTALE, "another build of streamkvd left them");
	if (!has_room(ledger, header))
		return sk_diag_fail(diag, ESTALE, "they are cut short");
	if (header->n_since_good >= MOST_LIVES)
		return sk_diag_fail(diag, ESTALE,
				    "%u daemons in turn have ended with them before they ran",
				    header->n_since_good);
	return 0;
}

int sk_ledger_open(const struct sk_ledger_kind *kind, int ledger_fd, int pages_fd,
		   struct sk_ledger **ret_ledger, struct sk_diag *diag)
{
	struct header header = {.version = 0};
	struct sk_ledger *ledger = calloc(1, sizeof *ledger);
	if (!ledger) {
		close(ledger_fd);
		close(pages_fd);
		return sk_diag_fail(diag, ENOMEM, "not enough memory");
	}
	ledger->fd = ledger_fd;
	ledger->pages_fd = pages_fd;
	(void)!pread(ledger_fd, &header, sizeof header, 0); /* else it is not magic */
	int err = check(ledger, &header, kind, diag);
	if (!err) {
		err = map(ledger, ledger_bytes(kind, header.n_slots));
		if (!err) {
			header_of(ledger)->n_lives++;
			header_of(ledger)->n_since_good++;
			err = list_free(ledger);
		}
		if (err < 0)
			sk_diag_fail(diag, -err, "%s", strerror(-err));
	}
	if (err < 0) {
		sk_ledger_close(ledger);
		return err;
	}
	*ret_ledger = ledger;
	return 0;
}

void sk_ledger_close(struct sk_ledger *ledger)
{
	if (!ledger)
		return;
	if (ledger->map) {
		sk_ledger_is_good(ledger); /* it did not kill this process */
		munmap(ledger->map, ledger->map_bytes);
	}
	sk_cleanup_close(&ledger->fd);
	sk_cleanup_close(&ledger->pages_fd);
	free(ledger->free_slots);
	free(ledger);
}

const uint8_t *sk_ledger_id(const struct sk_ledger *ledger)
{
	return header_of(ledger)->id;
}

int sk_ledger_fd(const struct sk_ledger *ledger)
{
	return ledger->fd;
}

int sk_ledger_pages_fd(const struct sk_ledger *ledger)
{
	return ledger->pages_fd;
}

uint32_t sk_ledger_n_pages(const struct sk_ledger *ledger)
{
	return header_of(ledger)->n_pages;
}

uint32_t sk_ledger_n_touched(const struct sk_ledger *ledger)
{
	return header_of(ledger)->n_touched;
}

uint32_t sk_ledger_n_lives(const struct sk_ledger *ledger)
{
	return header_of(ledger)->n_lives;
}

void sk_ledger_is_good(struct sk_ledger *ledger)
{
	header_of(ledger)->n_since_good = 0;
}

/* --- Slots --- */

const void *sk_ledger_read(const struct sk_ledger *ledger, uint32_t slot, uint32_t *ret_n_bytes)
{
	const struct copy *copy = newest(ledger, slot);
	if (!copy || !copy->n_bytes)
		return NULL;
	*ret_n_bytes = copy->n_bytes;
	return copy->bytes;
}

uint32_t sk_ledger_take(struct sk_ledger *ledger)
{
	return ledger->n_free ? ledger->free_slots[--ledger->n_free] : SK_NO_SLOT;
}

void sk_ledger_write(struct sk_ledger *ledger, uint32_t slot, const void *bytes, uint32_t n_bytes)
{
	struct copy *copies[] = {copy_of(ledger, slot, 0), copy_of(ledger, slot, 1)};
	struct copy *older = copies[copies[0]->sequence > copies[1]->sequence];

	/* In this order also for the compiler: a process that is killed leaves what it had stored until then. */
	const uint64_t sequence = copies[older == copies[0]]->sequence + 1;
	older->sequence = 0;
	atomic_signal_fence(memory_order_seq_cst);
	older->n_bytes = n_bytes;
	older->zero = 0;
	if (n_bytes)
		memcpy(older->bytes, bytes, n_bytes);
	older->hash = hash_of(older, sequence);
	if (slot >= header_of(ledger)->n_touched)
		header_of(ledger)->n_touched = slot + 1;
	atomic_signal_fence(memory_order_seq_cst);
	older->sequence = sequence;
	atomic_signal_fence(memory_order_seq_cst);
}

void sk_ledger_clear(struct sk_ledger *ledger, uint32_t slot)
{
	sk_ledger_write(ledger, slot, NULL, 0);
	ledger->free_slots[ledger->n_free++] = slot;
}
