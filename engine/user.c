#include "engine/user.h"

#include <stdlib.h>

struct sk_user *sk_user_of(struct sk_list *users, uid_t uid)
{
	sk_list_for_each (node, users) {
		struct sk_user *user = sk_container_of(node, struct sk_user, node);
		if (user->uid == uid)
			return user;
	}
	struct sk_user *user = calloc(1, sizeof *user);
	if (!user)
		return NULL;
	user->uid = uid;
	user->tenant.weight = 1;
	sk_list_append(users, &user->node);
	return user;
}

void sk_users_finish(struct sk_list *users)
{
	sk_list_for_each (node, users) {
		sk_list_remove(node);
		free(sk_container_of(node, struct sk_user, node));
	}
}
