/* Inside the GGUF reader: a cursor that never passes its end, and the metadata read with it. gguf.c
 * reads the file and its tensors, gguf_values.c the metadata. Private to the two.
 */
#pragma once

#include "model/gguf.h"
#include "model/mapped_file.h"
#include "model/tensor_index.h"

struct sk_gguf_cursor {
	const uint8_t *at, *end;
};

struct sk_gguf_pair {
	struct sk_gguf_string key;
	uint32_t type;
	struct sk_gguf_cursor value;
};

struct sk_gguf {
	struct sk_mapped_file map; /* unused for a file in memory */
	char *path;
	struct sk_gguf_pair *pairs; /* by key */
	size_t n_pairs;
	struct sk_tensor *tensors;
	size_t n_tensors;
	char *names; /* of the tensors, each ended by a NUL */
	struct sk_tensor_index index;
};

static inline uint64_t sk_gguf_little_endian(const uint8_t *p, unsigned n_bytes)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < n_bytes; i++)
		value |= (uint64_t)p[i] << 8 * i;
	return value;
}

static inline size_t sk_gguf_left(const struct sk_gguf_cursor *c)
{
	return (size_t)(c->end - c->at);
}

static inline bool sk_gguf_take(struct sk_gguf_cursor *c, uint64_t n_bytes, const uint8_t **ret)
{
	if (n_bytes > sk_gguf_left(c))
		return false;
	*ret = c->at;
	c->at += n_bytes;
	return true;
}

static inline bool sk_gguf_take_uint(struct sk_gguf_cursor *c, unsigned n_bytes, uint64_t *ret)
{
	const uint8_t *p;
	if (!sk_gguf_take(c, n_bytes, &p))
		return false;
	*ret = sk_gguf_little_endian(p, n_bytes);
	return true;
}

static inline bool sk_gguf_take_string(struct sk_gguf_cursor *c, struct sk_gguf_string *ret)
{
	uint64_t n_bytes;
	const uint8_t *p;
	if (!sk_gguf_take_uint(c, 8, &n_bytes) || !sk_gguf_take(c, n_bytes, &p))
		return false;
	*ret = (struct sk_gguf_string){(const char *)p, n_bytes};
	return true;
}

/* Fills the sentence for a file that ends within `where`; returns -EINVAL. */
int sk_gguf_cut_short(const struct sk_gguf *gguf, const char *where, struct sk_diag *diag);

/* Reads the metadata at the cursor and leaves the cursor behind it. */
int sk_gguf_read_pairs(struct sk_gguf *gguf, struct sk_gguf_cursor *c, uint64_t n_pairs,
		       struct sk_diag *diag);
