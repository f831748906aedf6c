/* Traffic for the ring tests: a writer that puts numbered tokens and a reader that checks each of
 * them, both asleep in poll when they cannot go on. Every property of token i follows from i.
 */
#pragma once

#include "shm/ring.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#define TRAFFIC_MOST_TEXT   200
#define TRAFFIC_PATIENCE_MS 60000 /* a wake-up that takes longer was lost */

struct traffic_count {
	uint64_t n_tokens, n_slots, n_sleeps;
};

static inline uint64_t traffic_hash(uint64_t i)
{
	i = (i + 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
	i = (i ^ i >> 27) * 0x94d049bb133111ebu;
	return i ^ i >> 31;
}

/* Mostly short, as tokens are; now and then over several slots, exactly one, or nothing. */
static inline size_t traffic_text(uint64_t i, uint8_t text[TRAFFIC_MOST_TEXT])
{
	uint64_t hash = traffic_hash(i);
	size_t n = hash % 64 == 0 ? hash / 64 % (TRAFFIC_MOST_TEXT + 1) : hash / 64 % 13;

	for (size_t k = 0; k < n; k++)
		text[k] = (uint8_t)(hash >> k % 8 * 8) + (uint8_t)k;
	return n;
}

static inline struct sk_slot traffic_slot(uint64_t i, uint64_t n_tokens)
{
	uint64_t hash = traffic_hash(i);
	return (struct sk_slot){
		.request = (uint32_t)(1 + i % 7),
		.id = (int32_t)(i & INT32_MAX),
		.logprob = -(float)(hash % 1000),
		.put_us = (uint32_t)hash,
		.live = (uint32_t)(hash >> 8),
		.evicted = (uint16_t)(hash >> 16),
		.flags = (uint8_t)((hash >> 40 & 1 ? SK_SLOT_SPECIAL : 0) |
				   (i + 1 == n_tokens ? SK_SLOT_LAST : 0)),
	};
}

/* 0, or a sentence on standard error and -1. */
static inline int traffic_sleep(int doorbell, const char *who, uint64_t i)
{
	struct pollfd p = {.fd = doorbell, .events = POLLIN};
	int r = poll(&p, 1, TRAFFIC_PATIENCE_MS);
	if (r == 1 && p.revents & POLLIN)
		return 0;
	fprintf(stderr, "%s was not woken at token %llu (poll %d, revents %#x)\n", who,
		(unsigned long long)i, r, (unsigned)p.revents);
	return -1;
}

static inline int traffic_write(struct sk_ring_writer *writer, uint64_t n_tokens,
				struct traffic_count *count)
{
	uint8_t text[TRAFFIC_MOST_TEXT];

	for (uint64_t i = 0; i < n_tokens;) {
		struct sk_slot slot = traffic_slot(i, n_tokens);
		int r = sk_ring_writer_put(writer, &slot, text, traffic_text(i, text));
		if (r == 0) {
			i++;
			/* Steps of several sizes between two publications. */
			if (traffic_hash(i) % 5 == 0 || i == n_tokens)
				sk_ring_writer_publish(writer);
			continue;
		}
		if (r != -EAGAIN) {
			fprintf(stderr, "put of token %llu: %s\n", (unsigned long long)i,
				strerror(-r));
			return -1;
		}
		sk_ring_writer_publish(writer);
		if (sk_ring_writer_wait(writer))
			continue;
		count->n_sleeps++;
		if (traffic_sleep(sk_ring_writer_doorbell(writer), "the writer", i) < 0)
			return -1;
	}
	count->n_tokens = n_tokens;
	return 0;
}

/* Joins the slots of one token and compares all of it. */
static inline int traffic_read(struct sk_ring_reader *reader, uint64_t n_tokens,
			       struct traffic_count *count)
{
	uint8_t text[TRAFFIC_MOST_TEXT], expected_text[TRAFFIC_MOST_TEXT];
	size_t n_text = 0;
	struct sk_slot first = {0};
	bool inside = false;

	for (uint64_t i = 0; i < n_tokens;) {
		struct sk_slot slot;
		int r = sk_ring_reader_next(reader, &slot);
		if (r < 0) {
			fprintf(stderr, "next at token %llu: %s\n", (unsigned long long)i,
				strerror(-r));
			return -1;
		}
		if (r == 0) {
			if (sk_ring_reader_wait(reader))
				continue;
			count->n_sleeps++;
			if (traffic_sleep(sk_ring_reader_doorbell(reader), "the reader", i) < 0)
				return -1;
			continue;
		}
		count->n_slots++;
		if (inside != !!(slot.flags & SK_SLOT_CONTINUES) ||
		    n_text + slot.n_text_bytes > sizeof text) {
			fprintf(stderr, "token %llu: slot out of place\n", (unsigned long long)i);
			return -1;
		}
		if (!inside)
			first = slot;
		memcpy(text + n_text, slot.text, slot.n_text_bytes);
		n_text += slot.n_text_bytes;
		inside = slot.flags & SK_SLOT_MORE;
		if (inside)
			continue;

		struct sk_slot expected = traffic_slot(i, n_tokens);
		size_t n_expected = traffic_text(i, expected_text);
		if (first.request != expected.request || first.id != expected.id ||
		    first.logprob != expected.logprob || first.put_us != expected.put_us ||
		    first.live != expected.live || first.evicted != expected.evicted ||
		    (first.flags & SK_SLOT_SPECIAL) != (expected.flags & SK_SLOT_SPECIAL) ||
		    (slot.flags & SK_SLOT_LAST) != (expected.flags & SK_SLOT_LAST) ||
		    n_text != n_expected || memcmp(text, expected_text, n_text) != 0) {
			fprintf(stderr, "token %llu came as id %d of request %u with %zu bytes\n",
				(unsigned long long)i, first.id, first.request, n_text);
			return -1;
		}
		n_text = 0;
		i++;
	}
	count->n_tokens = n_tokens;
	return 0;
}

/* STREAMKV_RING_TOKENS, for a longer or shorter run. */
static inline uint64_t traffic_n_tokens(void)
{
	const char *text = getenv("STREAMKV_RING_TOKENS");
	return text ? strtoull(text, NULL, 10) : 10000000;
}
