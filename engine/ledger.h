/* Memory that outlives the process: the pool's KV pages in one memfd, and beside them, in another, a ledger with an entry
 * for each named session that holds some. Somebody else keeps the descriptors (parking.h); the next process finds the
 * sessions as they were at the end of the last step.
 *
 *     ledger:  header | slot 0: copy, copy | slot 1: copy, copy | ...
 *
 * An entry is written over the older of its slot's two copies, its checksum last: whoever dies in between leaves the other
 * one. That holds what was true before, as long as no page of it has been written to since; so entries are written before
 * pages that were given back are taken again (survive.c). What an entry says is record.h's.
 *
 * Engine thread, or whoever makes the engine.
 */
#pragma once

#include "base/diag.h"
#include "model/fingerprint.h"

#include <stddef.h>
#include <stdint.h>

#define SK_LEDGER_VERSION  2
#define SK_LEDGER_ID_BYTES 16
#define SK_NO_SLOT         UINT32_MAX

struct sk_ledger;

/* What pages and entries are of. Another daemon's fit only where all is alike. */
struct sk_ledger_kind {
	uint8_t model[SK_FINGERPRINT_BYTES];
	char layout[32]; /* sk_backend_page_layout() */
	uint64_t page_bytes;
	uint32_t entry_bytes; /* the most that an entry takes */
};

/* With n_pages zeroed pages and n_slots empty slots; nothing takes memory before it is written. -ENOMEM, ... */
int sk_ledger_create(const struct sk_ledger_kind *kind, uint32_t n_pages, uint32_t n_slots,
		     struct sk_ledger **ret_ledger);
/* What an earlier process left: takes both descriptors over, also on failure. -ESTALE where they are of another kind or
 * version, or where three processes in turn ended before the first of them called sk_ledger_is_good(); and a sentence. */
int sk_ledger_open(const struct sk_ledger_kind *kind, int ledger_fd, int pages_fd,
		   struct sk_ledger **ret_ledger, struct sk_diag *diag);
/* What it holds stays as it is, for whoever has the descriptors; and it was no fault of it that this process ends. */
void sk_ledger_close(struct sk_ledger *ledger);

/* Drawn at random when it was created: no other has it. SK_LEDGER_ID_BYTES. */
const uint8_t *sk_ledger_id(const struct sk_ledger *ledger);
int sk_ledger_fd(const struct sk_ledger *ledger);
int sk_ledger_pages_fd(const struct sk_ledger *ledger);
uint32_t sk_ledger_n_pages(const struct sk_ledger *ledger);
/* Slots from here on have always been empty. */
uint32_t sk_ledger_n_touched(const struct sk_ledger *ledger);
/* How many processes have had it, this one included. */
uint32_t sk_ledger_n_lives(const struct sk_ledger *ledger);
/* This process has come to run with it. */
void sk_ledger_is_good(struct sk_ledger *ledger);

/* The slot's newest whole entry, or NULL: it is empty. Valid until it is written. */
const void *sk_ledger_read(const struct sk_ledger *ledger, uint32_t slot, uint32_t *ret_n_bytes);
/* An empty slot, or SK_NO_SLOT. */
uint32_t sk_ledger_take(struct sk_ledger *ledger);
/* Its next entry: at most entry_bytes. */
void sk_ledger_write(struct sk_ledger *ledger, uint32_t slot, const void *bytes, uint32_t n_bytes);
/* It is empty, and may be taken again. */
void sk_ledger_clear(struct sk_ledger *ledger, uint32_t slot);
