/* The descriptors that this process was started with: a socket to listen on (activation), and what an earlier process of
 * the same service had its manager keep (parking.h). */
#pragma once

#include "base/diag.h"
#include "engine/parking.h"

struct sk_handed {
	int socket_fd; /* the first of them; the listener's to close */
	unsigned n_sockets;
	struct sk_parked *parked; /* (n_parked) */
	uint32_t n_parked;
};

/* Closes what nobody has taken of them, and frees the array. */
void sk_parked_finish(struct sk_parked *parked, uint32_t n_parked);

/* Once a process: later there is nothing more. */
int sk_handed_take(struct sk_handed *handed, struct sk_diag *diag);
void sk_handed_finish(
	struct sk_handed
		*handed); /* closes what nobody has taken of `parked`; zeroed ones are accepted */
