#include "client/user_name.h"

#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>

#define N_REMEMBERED 256

const char *sk_user_name(uint32_t uid)
{
	static struct {
		bool is_set;
		uint32_t uid;
		char name[33];
	} remembered[N_REMEMBERED], *at;

	at = &remembered[uid % N_REMEMBERED];
	if (at->is_set && at->uid == uid)
		return at->name;
	const struct passwd *user = getpwuid(uid);
	if (user)
		snprintf(at->name, sizeof at->name, "%s", user->pw_name);
	else
		snprintf(at->name, sizeof at->name, "%u", uid);
	at->uid = uid;
	at->is_set = true;
	return at->name;
}
