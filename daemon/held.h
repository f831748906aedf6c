/* Weights that another process holds (--weights-from): what it gives, and the connection that keeps it there.
 */
#pragma once

#include "backend/backend.h"
#include "engine/parking.h"
#include "model/fingerprint.h"
#include "proto/channel.h"

#define SK_HELD_VERSION 2

struct sk_held {
	struct sk_channel *channel; /* open as long as the weights are in use */
	struct sk_shared_weights weights;
	uint8_t fingerprint[SK_FINGERPRINT_BYTES];
	uint32_t format; /* enum sk_weight_format */
	char model[256];
};

/* Connects and waits until the holder has loaded them, with a line for the log where that is not at once. Blocks.
 * -ECONNREFUSED where none listens, -EACCES another user's, -EBADMSG what it says makes no sense, -EPROTO another
 * version; and a sentence. */
int sk_held_open(struct sk_held *held, const char *path, struct sk_diag *diag);
/* Whether they are that model's in that format, and lie as that kind of backend wants them: 0, or -ESTALE, -ENOTSUP and a
 * sentence. */
int sk_held_check(const struct sk_held *held, const struct sk_model *model,
		  enum sk_weight_format format, const struct sk_backend_kind *kind,
		  struct sk_diag *diag);
/* The holder keeps descriptors under that key for this process and the next. *ret_parked: (*ret_n_parked) of an earlier
 * one, in an array of the caller's, who closes them. -EBUSY: another process has the key; -errno and a sentence. */
int sk_held_claim(struct sk_held *held, const char *key, struct sk_parked **ret_parked,
		  uint32_t *ret_n_parked, struct sk_diag *diag);
/* 0, or -errno: it is not kept. Once claimed. */
int sk_held_keep(struct sk_held *held, const char *name, int fd);
int sk_held_drop(struct sk_held *held, const char *name);
void sk_held_close(struct sk_held *held); /* zeroed ones are accepted */
