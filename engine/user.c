#include "engine/user.h"

#include <stdlib.h>

static const struct sk_user_limits *limits_of(const struct sk_limits_table *limits, uid_t uid)
{
	for (size_t i = 0; i < limits->n_named; i++)
		if (limits->named[i].uid == uid)
			return &limits->named[i];
	return &limits->others;
}

static void limit(struct sk_user *user, const struct sk_limits_table *limits)
{
	user->limits = limits_of(limits, user->uid);
	user->tenant.weight = user->limits->weight ? (uint32_t)user->limits->weight : 1;
	user->allowance.per_second = user->limits->tokens_per_second;
}

struct sk_user *sk_user_of(struct sk_list *users, const struct sk_limits_table *limits, uid_t uid)
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
	limit(user, limits);
	sk_list_append(users, &user->node);
	return user;
}

void sk_users_limit(struct sk_list *users, const struct sk_limits_table *limits)
{
	sk_list_for_each (node, users)
		limit(sk_container_of(node, struct sk_user, node), limits);
}

void sk_users_finish(struct sk_list *users)
{
	sk_list_for_each (node, users) {
		sk_list_remove(node);
		free(sk_container_of(node, struct sk_user, node));
	}
}
