/* Reads the .ref and .greedy files of this folder. README.md specifies the formats. Files are
 * little-endian, and so is every machine that this project runs on. */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum sk_reference_mode {
	SK_REFERENCE_DENSE,
	SK_REFERENCE_STREAMING,
	SK_REFERENCE_RECOMPUTE,
};

/* The first 64 bytes of a file. */
struct sk_reference_header {
	char magic[8];
	uint32_t n_tokens, n_rows, n_vocab, n_subset, mode, sink, window, slack;
	uint32_t reserved[6];
};

struct sk_reference {
	uint32_t n_tokens; /* in the text */
	uint32_t n_rows;   /* positions that the file tells about */
	uint32_t n_vocab;
	uint32_t n_subset; /* logits of a row */
	enum sk_reference_mode mode;
	uint32_t sink, window, slack;
	const double *logsumexp; /* (n_rows) over the whole vocabulary */
	const double *logprob; /* (n_rows) of the token after the row's; NaN after the last token */
	const int32_t *ids;    /* (n_tokens) */
	const uint32_t *position; /* (n_rows) ascending */
	const uint32_t *live;     /* (n_rows) entries cached before the row's token */
	const int32_t *best;      /* (n_rows) id of the greatest logit */
	const float *gap;         /* (n_rows) between the greatest logit and the second */
	const float *logits;      /* (n_rows, n_subset) */
	void *bytes;
};

/* The vocabulary id of logits[row * n_subset + i]: evenly spread, drifting with the position. */
static inline uint32_t sk_reference_id(const struct sk_reference *r, uint32_t row, uint32_t i)
{
	uint64_t first = r->n_subset == r->n_vocab ? 0 : (uint64_t)r->position[row] * 97;
	return (uint32_t)((first + (uint64_t)i * (r->n_vocab / r->n_subset)) % r->n_vocab);
}

static inline void sk_reference_close(struct sk_reference *r)
{
	if (!r)
		return;
	free(r->bytes);
	memset(r, 0, sizeof *r);
}

/* The whole file and its size; the caller frees it. 0 or -errno. */
static inline int sk_reference_slurp(const char *path, void **ret_bytes, size_t *ret_n_bytes)
{
	FILE *file = fopen(path, "rb");
	if (!file)
		return -errno;
	long n = -1;
	if (fseek(file, 0, SEEK_END) == 0)
		n = ftell(file);
	char *bytes = n >= 0 ? malloc((size_t)n + 1) : NULL;
	bool whole = bytes && fseek(file, 0, SEEK_SET) == 0 &&
		     fread(bytes, 1, (size_t)n, file) == (size_t)n;
	fclose(file);
	if (!whole) {
		free(bytes);
		return -EIO;
	}
	bytes[n] = '\0';
	*ret_bytes = bytes;
	*ret_n_bytes = (size_t)n;
	return 0;
}

/* 0, -EINVAL where the file is not a reference, or -errno. Undone by sk_reference_close(). */
static inline int sk_reference_open(const char *path, struct sk_reference *ret)
{
	struct sk_reference_header h;
	void *bytes = NULL;
	size_t n_bytes = 0;
	int r = sk_reference_slurp(path, &bytes, &n_bytes);
	if (r < 0)
		return r;

	uint64_t need = sizeof h;
	if (n_bytes >= sizeof h) {
		memcpy(&h, bytes, sizeof h);
		need += 16ull * h.n_rows + 4ull * h.n_tokens + 16ull * h.n_rows;
	}
	/* Counts below 2^24 keep every product within 64 bits. */
	if (n_bytes < sizeof h || memcmp(h.magic, "SKREF1\0", sizeof h.magic) != 0 ||
	    h.n_tokens == 0 || h.n_tokens >> 24 || h.n_rows == 0 || h.n_rows > h.n_tokens ||
	    h.n_vocab == 0 || h.n_vocab >> 24 || h.n_subset == 0 || h.n_subset > h.n_vocab ||
	    h.mode > SK_REFERENCE_RECOMPUTE || n_bytes != need + 4ull * h.n_rows * h.n_subset)
		goto invalid;

	const char *at = (const char *)bytes + sizeof h;
	struct sk_reference ref = {
		.n_tokens = h.n_tokens,
		.n_rows = h.n_rows,
		.n_vocab = h.n_vocab,
		.n_subset = h.n_subset,
		.mode = (enum sk_reference_mode)h.mode,
		.sink = h.sink,
		.window = h.window,
		.slack = h.slack,
		.bytes = bytes,
	};
	size_t n_rows = h.n_rows;
	ref.logsumexp = (const double *)(const void *)at;
	ref.logprob = ref.logsumexp + n_rows;
	ref.ids = (const int32_t *)(const void *)(ref.logprob + n_rows);
	ref.position = (const uint32_t *)(const void *)(ref.ids + h.n_tokens);
	ref.live = ref.position + n_rows;
	ref.best = (const int32_t *)(const void *)(ref.live + n_rows);
	ref.gap = (const float *)(const void *)(ref.best + n_rows);
	ref.logits = ref.gap + n_rows;
	for (size_t i = 0; i < h.n_tokens; i++)
		if (ref.ids[i] < 0 || (uint32_t)ref.ids[i] >= h.n_vocab)
			goto invalid;
	for (size_t i = 0; i < n_rows; i++)
		if (ref.position[i] >= h.n_tokens ||
		    (i > 0 && ref.position[i] <= ref.position[i - 1]) || ref.best[i] < 0 ||
		    (uint32_t)ref.best[i] >= h.n_vocab)
			goto invalid;
	*ret = ref;
	return 0;
invalid:
	free(bytes);
	return -EINVAL;
}

enum { SK_GREEDY_MAX_CASES = 8, SK_GREEDY_MAX_IDS = 128, SK_GREEDY_MAX_TEXT = 256 };

struct sk_greedy_case {
	char text[SK_GREEDY_MAX_TEXT];
	uint32_t n_prompt, n_tokens;
	int32_t prompt[SK_GREEDY_MAX_IDS], tokens[SK_GREEDY_MAX_IDS];
	float gap; /* the smallest between the two greatest logits, of all steps */
};

/* "WORD n id id ...\n" into `ids`; the text after it, or NULL. */
static inline char *sk_greedy_ids(char *at, const char *word, int32_t *ids, uint32_t *n)
{
	size_t n_word = strlen(word);
	if (strncmp(at, word, n_word) != 0 || at[n_word] != ' ')
		return NULL;
	unsigned long count = strtoul(at + n_word, &at, 10);
	if (count == 0 || count > SK_GREEDY_MAX_IDS)
		return NULL;
	for (unsigned long i = 0; i < count; i++)
		ids[i] = (int32_t)strtol(at, &at, 10);
	*n = (uint32_t)count;
	return *at == '\n' ? at + 1 : NULL;
}

/* The number of cases read (up to SK_GREEDY_MAX_CASES), -EINVAL, or -errno. */
static inline int sk_greedy_read(const char *path, struct sk_greedy_case ret[SK_GREEDY_MAX_CASES])
{
	void *bytes = NULL;
	size_t n_bytes = 0;
	int n = 0, r = sk_reference_slurp(path, &bytes, &n_bytes);
	if (r < 0)
		return r;
	for (char *at = bytes; at && *at; n++) {
		char *end = strchr(at, '\n');
		struct sk_greedy_case *c = &ret[n];
		if (n == SK_GREEDY_MAX_CASES || !end || strncmp(at, "text ", 5) != 0 ||
		    (size_t)(end - at) - 5 >= sizeof c->text)
			break;
		memcpy(c->text, at + 5, (size_t)(end - at) - 5);
		c->text[end - at - 5] = '\0';
		at = sk_greedy_ids(end + 1, "prompt", c->prompt, &c->n_prompt);
		at = at ? sk_greedy_ids(at, "tokens", c->tokens, &c->n_tokens) : NULL;
		if (!at || strncmp(at, "gap ", 4) != 0)
			break;
		c->gap = strtof(at + 4, &at);
		at = *at == '\n' ? at + 1 : NULL;
		if (at && !*at) {
			free(bytes);
			return n + 1;
		}
	}
	free(bytes);
	return -EINVAL;
}
