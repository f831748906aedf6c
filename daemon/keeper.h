/* Descriptors that the holder of weights keeps for engines, by key and name (proto/holder.proto). One thread. */
#pragma once

#include "base/list.h"

#define SK_KEEPER_MOST 4096 /* descriptors, of all keys together */

struct sk_keeper {
	struct sk_list kept;
	unsigned n_kept;
};

void sk_keeper_init(struct sk_keeper *keeper);
void sk_keeper_finish(struct sk_keeper *keeper);
/* Takes fd over, in the stead of one of that name. -ENOMEM, -ENOSPC (too many): it is closed. */
int sk_keeper_keep(struct sk_keeper *keeper, const char *key, const char *name, int fd);
void sk_keeper_drop(struct sk_keeper *keeper, const char *key, const char *name);
/* The keeper's; -1: there is none. */
int sk_keeper_find(const struct sk_keeper *keeper, const char *key, const char *name);
/* Up to n_most names of a key, the keeper's. Returns how many. */
unsigned sk_keeper_names(const struct sk_keeper *keeper, const char *key, char **names,
			 unsigned n_most);
