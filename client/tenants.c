#include "client/tenants.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define CONNECT_MS  10000
#define N_ITS_FDS   6 /* a connection's socket, ring, cursor, doorbells, and one in passing */
#define N_OTHER_FDS 32

/* --- Opening --- */

/* What so many connections take, where the system lets us have it. */
static void raise_descriptors(unsigned n_tenants)
{
	struct rlimit limit;
	rlim_t wanted = (rlim_t)n_tenants * N_ITS_FDS + N_OTHER_FDS;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
		return;
	limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int connect_all(struct sk_tenants *tenants)
{
	const struct sk_tenants_options *options = tenants->options;
	struct streamkv_error error;

	for (unsigned i = 0; i < options->n_tenants; i++) {
		int err = streamkv_connect_ring(options->socket, options->ring_slots, CONNECT_MS,
						&tenants->items[i].kv, &error);
		if (sk_interrupted())
			return 128 + sk_interrupted();
		if (err == -ETIMEDOUT)
			return sk_said(EX_TEMPFAIL,
				       "the daemon took %u of %u clients and no more (its "
				       "--max-connections, or its descriptors)",
				       i, options->n_tenants);
		if (err < 0)
			return sk_said(sk_exit_code_of(err), "client %u of %u: %s", i + 1,
				       options->n_tenants, error.text);
		tenants->n_left++;
	}
	return 0;
}

int sk_tenants_open(const struct sk_tenants_options *options, struct sk_tenants *ret_tenants)
{
	unsigned n_tenants = options->n_tenants, n_places = n_tenants * options->n_places;
	struct sk_tenants tenants = {
		.options = options,
		.n_places = n_places,
		.items = calloc(n_tenants, sizeof *tenants.items),
		.places = calloc(n_places, sizeof *tenants.places),
		.fds = calloc(2 * (size_t)n_tenants, sizeof *tenants.fds),
	};
	bool has_memory = tenants.items && tenants.places && tenants.fds;

	for (unsigned i = 0; has_memory && i < n_tenants; i++) {
		tenants.items[i] = (struct sk_tenant){
			.number = i,
			.is_slow = i < options->n_slow,
			.places = &tenants.places[i * options->n_places],
		};
	}
	for (unsigned i = 0; has_memory && i < n_places; i++) {
		struct sk_place *place = &tenants.places[i];
		place->tenant = &tenants.items[i / options->n_places];
		snprintf(place->session, sizeof place->session, "%s.%d-%u-%u", options->label,
			 (int)getpid(), i / options->n_places, i % options->n_places);
	}
	raise_descriptors(n_tenants);
	int exit_code = has_memory ? connect_all(&tenants)
				   : sk_said(EX_OSERR, "not enough memory for so many clients");
	if (exit_code) {
		sk_tenants_close(&tenants);
		return exit_code;
	}
	*ret_tenants = tenants;
	return 0;
}

void sk_tenants_close(struct sk_tenants *tenants)
{
	for (unsigned i = 0; tenants->items && i < tenants->options->n_tenants; i++)
		streamkv_close(tenants->items[i].kv);
	free(tenants->items);
	free(tenants->places);
	free(tenants->fds);
	*tenants = (struct sk_tenants){0};
}

void sk_tenants_lose(struct sk_tenants *tenants, struct sk_tenant *tenant)
{
	streamkv_close(tenant->kv);
	tenant->kv = NULL;
	tenant->is_ready = tenant->is_awaited = false;
	tenants->n_left--;
}

/* --- Places --- */

struct sk_place *sk_tenants_find_place(struct sk_tenants *tenants, bool whole, double now_s,
				       double *wake_s)
{
	const struct sk_tenants_options *options = tenants->options;

	for (unsigned i = 0; i < options->n_tenants; i++) {
		unsigned number = (tenants->next + i) % options->n_tenants;
		struct sk_tenant *tenant = &tenants->items[number];
		for (unsigned j = 0; j < options->n_places; j++) {
			struct sk_place *place = &tenant->places[j];
			if (whole && place->turn)
				continue;
			if (sk_place_is_free(place, now_s)) {
				tenants->next = (number + 1) % options->n_tenants;
				return place;
			}
			if (tenant->kv && !place->stream)
				*wake_s = fmin(*wake_s, place->not_before_s);
		}
	}
	return NULL;
}

/* --- Waiting --- */

/* What of a tenant is to be waited for: *wake_s becomes less where it needs no descriptor. */
static void prepare(struct sk_tenant *tenant, struct pollfd fds[2], double now_s, double *wake_s)
{
	if (tenant->kv && tenant->n_running) {
		if (tenant->not_before_s > now_s) {
			*wake_s = fmin(*wake_s, tenant->not_before_s);
		} else {
			tenant->is_ready |= streamkv_poll_fds(tenant->kv, fds);
			tenant->is_awaited = !tenant->is_ready;
			*wake_s = tenant->is_ready ? now_s : *wake_s;
		}
	}
	if (!tenant->is_awaited)
		fds[0].fd = fds[1].fd = -1;
}

void sk_tenants_await(struct sk_tenants *tenants, double now_s, double wake_s)
{
	unsigned n = tenants->options->n_tenants;

	/* What a tenant waits for stays the same until it is read. */
	for (unsigned i = 0; i < n; i++) {
		if (!tenants->items[i].is_awaited)
			prepare(&tenants->items[i], &tenants->fds[2 * (size_t)i], now_s, &wake_s);
	}
	double left_s = fmax(wake_s - now_s, 0);
	struct timespec timeout = {.tv_sec = (time_t)left_s,
				   .tv_nsec = (long)(fmod(left_s, 1) * 1e9)};
	if (ppoll(tenants->fds, 2 * (nfds_t)n, &timeout, NULL) <= 0)
		return;
	for (unsigned i = 0; i < n; i++) {
		const struct pollfd *fds = &tenants->fds[2 * (size_t)i];
		if (fds[0].revents || fds[1].revents)
			tenants->items[i].is_ready = true;
	}
}

bool sk_tenant_take_ready(struct sk_tenant *tenant, double now_s)
{
	if (!tenant->kv || !tenant->is_ready || tenant->not_before_s > now_s)
		return false;
	tenant->is_ready = tenant->is_awaited = false;
	return true;
}
