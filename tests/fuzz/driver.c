/* Runs a fuzz target as an ordinary test: its seeds, then mutations of them, from a fixed
 * generator, so that a failure comes back at the next run. Arguments: files to feed once each
 * instead (to replay what libFuzzer found). SK_FUZZ_ROUNDS in the environment sets the number of
 * mutations.
 */
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SEEDS = 64, MAX_INPUT_BYTES = 1 << 16, DEFAULT_ROUNDS = 20000 };

/* A target without seeds starts from nothing. */
__attribute__((weak)) size_t sk_fuzz_seed(unsigned index, uint8_t *out, size_t room)
{
	(void)index, (void)out, (void)room;
	return 0;
}

struct input {
	uint8_t *bytes;
	size_t n_bytes;
};

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static uint32_t random_below(uint32_t limit) /* xorshift64* */
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t)((random_state * 0x2545f4914f6cdd1du) >> 32) % limit;
}

/* Values at which a length or a sign check is likely to be wrong. */
static const uint64_t edges[] = {
	0,
	1,
	0x7f,
	0x80,
	0xff,
	0x7fff,
	0x8000,
	0xffff,
	0x7fffffff,
	0x80000000,
	0xffffffff,
	0x100000000,
	UINT64_MAX,
	INT64_MAX,
	1ull << 63,
	1ull << 61,
	0x5555555555555556,
	UINT64_MAX - 7,
};

static void mutate_once(struct input *in)
{
	uint32_t n = (uint32_t)in->n_bytes;
	if (n == 0) {
		in->bytes[0] = (uint8_t)random_below(256);
		in->n_bytes = 1;
		return;
	}
	uint32_t at = random_below(n), left = n - at;

	switch (random_below(8)) {
	case 0:
		in->bytes[at] ^= (uint8_t)(1u << random_below(8));
		break;
	case 1:
		in->bytes[at] = (uint8_t)random_below(256);
		break;
	case 2: { /* an edge value of 1, 2, 4 or 8 bytes, little-endian */
		uint64_t value = edges[random_below(sizeof edges / sizeof edges[0])];
		uint32_t width = 1u << random_below(4);
		memcpy(in->bytes + at, &value, width < left ? width : left);
		break;
	}
	case 3: /* cut the end off */
		in->n_bytes = at;
		break;
	case 4: { /* take some out */
		uint32_t length = 1 + random_below(left < 32 ? left : 32);
		memmove(in->bytes + at, in->bytes + at + length, left - length);
		in->n_bytes -= length;
		break;
	}
	case 5: { /* double some */
		uint32_t length = 1 + random_below(left < 32 ? left : 32);
		if (n + length > MAX_INPUT_BYTES)
			break;
		memmove(in->bytes + at + length, in->bytes + at, left);
		in->n_bytes += length;
		break;
	}
	case 6: { /* copy some elsewhere */
		uint32_t from = random_below(n), length = 1 + random_below(16);
		if (length > left)
			length = left;
		if (length > n - from)
			length = n - from;
		memmove(in->bytes + at, in->bytes + from, length);
		break;
	}
	default: /* digits: counts in text formats */
		for (uint32_t i = at; i < n && i < at + 64; i++) {
			if (in->bytes[i] >= '0' && in->bytes[i] <= '9') {
				in->bytes[i] = (uint8_t)('0' + random_below(10));
				break;
			}
		}
	}
}

/* From a block of its very size, so that a sanitizer sees a read of one byte too many. */
static int feed(const uint8_t *bytes, size_t n_bytes)
{
	uint8_t *exact = malloc(n_bytes ? n_bytes : 1);
	if (!exact)
		return -1;
	memcpy(exact, bytes, n_bytes);
	LLVMFuzzerTestOneInput(exact, n_bytes);
	free(exact);
	return 0;
}

static int feed_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	if (!file) {
		perror(path);
		return -1;
	}
	size_t room = 1 << 26;
	uint8_t *bytes = malloc(room);
	int r = -1;
	if (bytes)
		r = feed(bytes, fread(bytes, 1, room, file));
	free(bytes);
	fclose(file);
	return r;
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		for (int i = 1; i < argc; i++) {
			if (feed_file(argv[i]) != 0)
				return 1;
		}
		return 0;
	}

	const char *wanted = getenv("SK_FUZZ_ROUNDS");
	unsigned long n_rounds = wanted ? strtoul(wanted, NULL, 10) : DEFAULT_ROUNDS;
	struct input seeds[MAX_SEEDS] = {0}, scratch = {malloc(MAX_INPUT_BYTES), 0};
	unsigned n_seeds = 0;
	int r = 1;

	if (!scratch.bytes)
		goto out;
	for (; n_seeds < MAX_SEEDS; n_seeds++) {
		size_t n = sk_fuzz_seed(n_seeds, scratch.bytes, MAX_INPUT_BYTES);
		if (n == 0)
			break;
		seeds[n_seeds].bytes = malloc(n);
		if (!seeds[n_seeds].bytes)
			goto out;
		memcpy(seeds[n_seeds].bytes, scratch.bytes, n);
		seeds[n_seeds].n_bytes = n;
		if (feed(scratch.bytes, n) != 0)
			goto out;
	}
	if (feed(scratch.bytes, 0) != 0)
		goto out;

	for (unsigned long round = 0; round < n_rounds; round++) {
		scratch.n_bytes = 0;
		if (n_seeds) {
			const struct input *seed = &seeds[random_below(n_seeds)];
			memcpy(scratch.bytes, seed->bytes, seed->n_bytes);
			scratch.n_bytes = seed->n_bytes;
		}
		for (uint32_t n = 1 + random_below(6); n; n--)
			mutate_once(&scratch);
		if (feed(scratch.bytes, scratch.n_bytes) != 0)
			goto out;
	}
	fprintf(stderr, "%u seeds, %lu mutations\n", n_seeds, n_rounds);
	r = 0;
out:
	for (unsigned i = 0; i < n_seeds; i++)
		free(seeds[i].bytes);
	free(scratch.bytes);
	return r;
}
