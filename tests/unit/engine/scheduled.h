/* A scheduler before made-up loads: sessions of users of weight 1, by a clock of steps. MOST_USERS and MOST_SESSIONS: how many. */
#pragma once

#include "engine/scheduler.h"
#include "sk_test.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static struct sk_scheduler scheduler;
static struct sk_tenant users[MOST_USERS];
static struct sk_share shares[MOST_SESSIONS];
static struct sk_want wants[MOST_SESSIONS];

static inline uint32_t below(uint32_t n)
{
	return (uint32_t)rand() % n;
}

static inline void begin(unsigned seed)
{
	srand(seed);
	memset(&scheduler, 0, sizeof scheduler);
	memset(users, 0, sizeof users);
	memset(shares, 0, sizeof shares);
	memset(wants, 0, sizeof wants);
	for (int i = 0; i < MOST_USERS; i++)
		users[i].weight = 1;
	for (int i = 0; i < MOST_SESSIONS; i++)
		wants[i] = (struct sk_want){.tenant = users, .share = &shares[i]};
}
