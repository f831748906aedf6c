#include "daemon/keeper.h"

#include "engine/parking.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct kept {
	struct sk_list node;
	char *key;
	char name[SK_PARKED_NAME_BYTES];
	int fd;
};

void sk_keeper_init(struct sk_keeper *keeper)
{
	sk_list_init(&keeper->kept);
	keeper->n_kept = 0;
}

static void forget(struct sk_keeper *keeper, struct kept *kept)
{
	sk_list_remove(&kept->node);
	keeper->n_kept--;
	close(kept->fd);
	free(kept->key);
	free(kept);
}

void sk_keeper_finish(struct sk_keeper *keeper)
{
	sk_list_for_each (node, &keeper->kept)
		forget(keeper, sk_container_of(node, struct kept, node));
}

static struct kept *find(const struct sk_keeper *keeper, const char *key, const char *name)
{
	sk_list_for_each (node, &keeper->kept) {
		struct kept *kept = sk_container_of(node, struct kept, node);
		if (strcmp(kept->key, key) == 0 && strcmp(kept->name, name) == 0)
			return kept;
	}
	return NULL;
}

int sk_keeper_keep(struct sk_keeper *keeper, const char *key, const char *name, int fd)
{
	struct kept *there = find(keeper, key, name);
	if (there) {
		close(there->fd);
		there->fd = fd;
		return 0;
	}
	struct kept *kept = keeper->n_kept < SK_KEEPER_MOST ? calloc(1, sizeof *kept) : NULL;
	if (!kept || strlen(name) >= sizeof kept->name || !(kept->key = strdup(key))) {
		free(kept);
		close(fd);
		return keeper->n_kept < SK_KEEPER_MOST ? -ENOMEM : -ENOSPC;
	}
	strcpy(kept->name, name);
	kept->fd = fd;
	sk_list_append(&keeper->kept, &kept->node);
	keeper->n_kept++;
	return 0;
}

void sk_keeper_drop(struct sk_keeper *keeper, const char *key, const char *name)
{
	struct kept *there = find(keeper, key, name);
	if (there)
		forget(keeper, there);
}

int sk_keeper_find(const struct sk_keeper *keeper, const char *key, const char *name)
{
	const struct kept *there = find(keeper, key, name);
	return there ? there->fd : -1;
}

unsigned sk_keeper_names(const struct sk_keeper *keeper, const char *key, char **names,
			 unsigned n_most)
{
	unsigned n = 0;
	sk_list_for_each (node, &keeper->kept) {
		struct kept *kept = sk_container_of(node, struct kept, node);
		if (n < n_most && strcmp(kept->key, key) == 0)
			names[n++] = kept->name;
	}
	return n;
}
