/* Many clients in one thread: connections to the daemon, each with places for requests, and the wait for what comes to
 * any of them. What is sent and what is made of it is client/load.h's business. One thread.
 */
#pragma once

#include "client/command.h"

#include <poll.h>

#define SK_TENANT_MOST_PLACES 16 /* the daemon runs no more requests of a connection */

struct sk_tenants_options {
	const char *socket;
	unsigned n_tenants, n_places; /* of each */
	unsigned n_slow;     /* of the tenants: the first so many sleep after every token, ... */
	double slow_s;       /* ... so long */
	uint32_t ring_slots; /* of each; 0: the daemon's default */
	const char *label;   /* begins the names of their sessions */
};

/* Where a request of a tenant runs. */
struct sk_place {
	struct sk_tenant *tenant;
	struct streamkv_stream *stream; /* NULL: none runs */
	bool is_dropping;               /* the stream is its session's end */
	double not_before_s;            /* nor shall one begin */
	char session[80];
	/* The load's: */
	size_t record;
	unsigned turn; /* the next one's */
	int64_t cancel_at;
};

struct sk_tenant {
	struct streamkv *kv; /* NULL: lost */
	unsigned number, n_running;
	bool is_slow;
	bool is_ready;       /* there is something to read, or may be */
	bool is_awaited;     /* its descriptors are in `fds`, and tell when there is */
	double not_before_s; /* it does not read */
	struct sk_place *places;
};

struct sk_tenants {
	const struct sk_tenants_options *options;
	struct sk_tenant *items;
	struct sk_place *places;   /* of all, those of a tenant in a row */
	struct pollfd *fds;        /* two of each tenant */
	unsigned n_places, n_left; /* places in all; tenants that are not lost */
	unsigned next;             /* tenant, that is asked first for a place */
};

/* Connects them all: 0, or the exit code of what has been said. The options are kept. */
int sk_tenants_open(const struct sk_tenants_options *options, struct sk_tenants *ret_tenants);
void sk_tenants_close(struct sk_tenants *tenants);

/* A free place of the next tenant that has one, so that all have their turn; not in the middle of a conversation, where
 * `whole` ones are wanted. NULL: none now, and *wake_s becomes less where there may be one before. */
struct sk_place *sk_tenants_find_place(struct sk_tenants *tenants, bool whole, double now_s,
				       double *wake_s);
static inline bool sk_place_is_free(const struct sk_place *place, double now_s)
{
	return place->tenant->kv && !place->stream && place->not_before_s <= now_s;
}
/* A tenant without its connection; its streams have been closed. */
void sk_tenants_lose(struct sk_tenants *tenants, struct sk_tenant *tenant);

/* Waits until a tenant is ready that may read, or until wake_s, or a signal. */
void sk_tenants_await(struct sk_tenants *tenants, double now_s, double wake_s);
/* Whether it is to be read now: with is_ready and is_awaited cleared. */
bool sk_tenant_take_ready(struct sk_tenant *tenant, double now_s);
