/* A GGUF file (versions 2 and 3, little-endian), mapped and checked. Source: the GGUF specification
 * (ggml project, docs/gguf.md). Every count, length and offset is checked against the file's size
 * before use; nesting of arrays is refused. Read-only after opening; any thread.
 */
#pragma once

#include "base/diag.h"
#include "base/tensor.h"

struct sk_gguf;

/* A string inside the file: not NUL-ended, may hold any bytes. */
struct sk_gguf_string {
	const char *text;
	size_t n_bytes;
};

int sk_gguf_open(const char *path, struct sk_gguf **ret_gguf, struct sk_diag *diag);
/* The same from memory, which must outlive the result (tests and fuzzers; `name` is for messages). */
int sk_gguf_open_memory(const void *data, size_t n_bytes, const char *name,
			struct sk_gguf **ret_gguf, struct sk_diag *diag);
void sk_gguf_close(struct sk_gguf *gguf);

const char *sk_gguf_path(const struct sk_gguf *gguf);

/* Metadata by key: 0, -ENOENT, or -EINVAL where the value has another type. Integers of any width
 * that fit; floats of either width. */
int sk_gguf_get_uint(const struct sk_gguf *gguf, const char *key, uint64_t *ret_value);
int sk_gguf_get_float(const struct sk_gguf *gguf, const char *key, double *ret_value);
int sk_gguf_get_bool(const struct sk_gguf *gguf, const char *key, bool *ret_value);
int sk_gguf_get_string(const struct sk_gguf *gguf, const char *key,
		       struct sk_gguf_string *ret_value);

/* Arrays by key: the count, then elements in order through a cursor (strings have no index). */
struct sk_gguf_array {
	uint64_t n_items;
	uint32_t type; /* GGUF value type of the items */
	const uint8_t *cursor, *end;
};
int sk_gguf_get_array(const struct sk_gguf *gguf, const char *key, struct sk_gguf_array *ret_array);
/* 0, -ENODATA at the end, -EINVAL where the items have another type. */
int sk_gguf_next_string(struct sk_gguf_array *array, struct sk_gguf_string *ret_value);
int sk_gguf_next_int(struct sk_gguf_array *array, int64_t *ret_value);
int sk_gguf_next_float(struct sk_gguf_array *array, double *ret_value);

/* Tensors: NULL where the file has none of that name. Order as in the file. */
size_t sk_gguf_n_tensors(const struct sk_gguf *gguf);
const struct sk_tensor *sk_gguf_tensor_at(const struct sk_gguf *gguf, size_t index);
const struct sk_tensor *sk_gguf_tensor(const struct sk_gguf *gguf, const char *name);
