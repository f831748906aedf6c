/* Who keeps descriptors of this process beyond its end, and gives them to the next one: the service manager's store, or
 * the holder of weights (daemon/parking.h). What is kept under a name stays until it is dropped.
 */
#pragma once

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

#define SK_PARKED_NAME_BYTES 64

/* One that an earlier process parked. */
struct sk_parked {
	char name[SK_PARKED_NAME_BYTES];
	int fd; /* -1: taken */
};

/* Before the threads begin, whoever makes the engine; then the loop thread. */
struct sk_parking {
	void *context;
	/* Keeps a copy of fd. 0, or -errno: it is not kept. */
	int (*keep)(void *context, const char *name, int fd);
	void (*drop)(void *context, const char *name);
	struct sk_parked *parked; /* (n_parked): take one by setting its fd to -1 */
	uint32_t n_parked;
	uint32_t
		n_lives; /* sk_ledger_n_lives(), set with the engine: what names of this process begin with. 0: nothing
			     of it survives */
};

/* Under which a reader's cursor (the second descriptor of its ring) is kept. */
static inline void sk_parking_cursor_name(uint64_t number, char ret_name[SK_PARKED_NAME_BYTES])
{
	snprintf(ret_name, SK_PARKED_NAME_BYTES, "streamkv-cursor-%" PRIx64, number);
}
