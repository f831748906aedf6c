/* The metadata of a GGUF file: key-value pairs checked in one pass, sorted by key, then read in
 * place.
 */
#include "model/gguf_impl.h"
#include "model/printable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PAIRS = 1 << 16 };

/* Value types of metadata, as numbered by the specification. */
enum {
	TYPE_UINT8,
	TYPE_INT8,
	TYPE_UINT16,
	TYPE_INT16,
	TYPE_UINT32,
	TYPE_INT32,
	TYPE_FLOAT32,
	TYPE_BOOL,
	TYPE_STRING,
	TYPE_ARRAY,
	TYPE_UINT64,
	TYPE_INT64,
	TYPE_FLOAT64,
	N_TYPES,
};

static const uint8_t type_bytes[N_TYPES] = {
	[TYPE_UINT8] = 1,  [TYPE_INT8] = 1,  [TYPE_UINT16] = 2,  [TYPE_INT16] = 2,
	[TYPE_UINT32] = 4, [TYPE_INT32] = 4, [TYPE_FLOAT32] = 4, [TYPE_BOOL] = 1,
	[TYPE_UINT64] = 8, [TYPE_INT64] = 8, [TYPE_FLOAT64] = 8,
};

static bool skip_items(struct sk_gguf_cursor *c, uint32_t type, uint64_t n_items)
{
	struct sk_gguf_string string;
	const uint8_t *p;
	if (type != TYPE_STRING)
		return n_items <= sk_gguf_left(c) / type_bytes[type] &&
		       sk_gguf_take(c, n_items * type_bytes[type], &p);
	for (; n_items; n_items--) {
		if (!sk_gguf_take_string(c, &string))
			return false;
	}
	return true;
}

static int read_pair(const struct sk_gguf *gguf, struct sk_gguf_cursor *c,
		     struct sk_gguf_pair *pair, struct sk_diag *diag)
{
	struct sk_printable words;
	uint64_t type, item_type, n_items;

	if (!sk_gguf_take_string(c, &pair->key))
		return sk_gguf_cut_short(gguf, "the metadata", diag);
	const char *key = sk_printable(&words, pair->key.text, pair->key.n_bytes);
	if (!sk_gguf_take_uint(c, 4, &type))
		return sk_gguf_cut_short(gguf, "the metadata", diag);
	if (type >= N_TYPES)
		return sk_diag_fail(diag, EINVAL, "%s: metadata '%s' has an unknown type, %llu",
				    gguf->path, key, (unsigned long long)type);
	pair->type = (uint32_t)type;
	pair->value.at = c->at;
	bool is_whole;
	if (type == TYPE_ARRAY) {
		if (!sk_gguf_take_uint(c, 4, &item_type) || !sk_gguf_take_uint(c, 8, &n_items))
			return sk_gguf_cut_short(gguf, "the metadata", diag);
		if (item_type >= N_TYPES || item_type == TYPE_ARRAY)
			return sk_diag_fail(diag, EINVAL,
					    "%s: metadata '%s' is an array of items that cannot be "
					    "(type %llu)",
					    gguf->path, key, (unsigned long long)item_type);
		is_whole = skip_items(c, (uint32_t)item_type, n_items);
	} else {
		is_whole = skip_items(c, pair->type, 1);
	}
	if (!is_whole)
		return sk_diag_fail(diag, EINVAL, "%s: metadata '%s' runs past the end of the file",
				    gguf->path, key);
	pair->value.end = c->at;
	return 0;
}

static int compare_strings(struct sk_gguf_string a, struct sk_gguf_string b)
{
	int order = memcmp(a.text, b.text, a.n_bytes < b.n_bytes ? a.n_bytes : b.n_bytes);
	return order ? order : (a.n_bytes > b.n_bytes) - (a.n_bytes < b.n_bytes);
}

static int compare_pairs(const void *a, const void *b)
{
	const struct sk_gguf_pair *x = a, *y = b;
	return compare_strings(x->key, y->key);
}

int sk_gguf_read_pairs(struct sk_gguf *gguf, struct sk_gguf_cursor *c, uint64_t n_pairs,
		       struct sk_diag *diag)
{
	/* The least pair: an empty key, its length, a type and one byte. */
	if (n_pairs > MAX_PAIRS || n_pairs > sk_gguf_left(c) / 13)
		return sk_diag_fail(diag, EINVAL, "%s: %llu metadata pairs cannot be in this file",
				    gguf->path, (unsigned long long)n_pairs);
	gguf->pairs = calloc(n_pairs ? n_pairs : 1, sizeof *gguf->pairs);
	if (!gguf->pairs)
		return sk_diag_fail(diag, ENOMEM, "%s: no memory for its metadata", gguf->path);
	for (; gguf->n_pairs < n_pairs; gguf->n_pairs++) {
		int r = read_pair(gguf, c, &gguf->pairs[gguf->n_pairs], diag);
		if (r < 0)
			return r;
	}
	qsort(gguf->pairs, gguf->n_pairs, sizeof *gguf->pairs, compare_pairs);
	for (size_t i = 1; i < gguf->n_pairs; i++) {
		struct sk_printable words;
		struct sk_gguf_string key = gguf->pairs[i].key;
		if (compare_strings(gguf->pairs[i - 1].key, key) == 0)
			return sk_diag_fail(diag, EINVAL, "%s: metadata '%s' is there twice",
					    gguf->path,
					    sk_printable(&words, key.text, key.n_bytes));
	}
	return 0;
}

static const struct sk_gguf_pair *find_pair(const struct sk_gguf *gguf, const char *key)
{
	struct sk_gguf_pair wanted = {.key = {key, strlen(key)}};
	return bsearch(&wanted, gguf->pairs, gguf->n_pairs, sizeof *gguf->pairs, compare_pairs);
}

/* An integer of any type as its 64 bits, and whether those are negative. */
static bool read_integer(uint32_t type, const uint8_t *p, uint64_t *ret_bits, bool *ret_is_negative)
{
	uint64_t bits;
	switch (type) {
	case TYPE_UINT8:
	case TYPE_UINT16:
	case TYPE_UINT32:
	case TYPE_UINT64:
		*ret_bits = sk_gguf_little_endian(p, type_bytes[type]);
		*ret_is_negative = false;
		return true;
	case TYPE_INT8:
	case TYPE_INT16:
	case TYPE_INT32:
	case TYPE_INT64: {
		unsigned spare = 64 - 8 * type_bytes[type];
		bits = sk_gguf_little_endian(p, type_bytes[type]) << spare;
		*ret_bits = (uint64_t)((int64_t)bits >> spare);
		*ret_is_negative = (int64_t)bits < 0;
		return true;
	}
	default:
		return false;
	}
}

static bool read_real(uint32_t type, const uint8_t *p, double *ret)
{
	if (type == TYPE_FLOAT32) {
		uint32_t bits = (uint32_t)sk_gguf_little_endian(p, 4);
		float value;
		memcpy(&value, &bits, sizeof value);
		*ret = (double)value;
	} else if (type == TYPE_FLOAT64) {
		uint64_t bits = sk_gguf_little_endian(p, 8);
		memcpy(ret, &bits, sizeof *ret);
	} else {
		return false;
	}
	return true;
}

int sk_gguf_get_uint(const struct sk_gguf *gguf, const char *key, uint64_t *ret_value)
{
	const struct sk_gguf_pair *pair = find_pair(gguf, key);
	uint64_t value;
	bool is_negative;
	if (!pair)
		return -ENOENT;
	if (!read_integer(pair->type, pair->value.at, &value, &is_negative) || is_negative)
		return -EINVAL;
	*ret_value = value;
	return 0;
}

int sk_gguf_get_float(const struct sk_gguf *gguf, const char *key, double *ret_value)
{
	const struct sk_gguf_pair *pair = find_pair(gguf, key);
	if (!pair)
		return -ENOENT;
	return read_real(pair->type, pair->value.at, ret_value) ? 0 : -EINVAL;
}

int sk_gguf_get_bool(const struct sk_gguf *gguf, const char *key, bool *ret_value)
{
	const struct sk_gguf_pair *pair = find_pair(gguf, key);
	if (!pair)
		return -ENOENT;
	if (pair->type != TYPE_BOOL || *pair->value.at > 1)
		return -EINVAL;
	*ret_value = *pair->value.at == 1;
	return 0;
}

int sk_gguf_get_string(const struct sk_gguf *gguf, const char *key,
		       struct sk_gguf_string *ret_value)
{
	const struct sk_gguf_pair *pair = find_pair(gguf, key);
	if (!pair)
		return -ENOENT;
	if (pair->type != TYPE_STRING)
		return -EINVAL;
	struct sk_gguf_cursor c = pair->value;
	return sk_gguf_take_string(&c, ret_value) ? 0 : -EINVAL;
}

int sk_gguf_get_array(const struct sk_gguf *gguf, const char *key, struct sk_gguf_array *ret_array)
{
	const struct sk_gguf_pair *pair = find_pair(gguf, key);
	if (!pair)
		return -ENOENT;
	if (pair->type != TYPE_ARRAY)
		return -EINVAL;
	const uint8_t *p = pair->value.at;
	*ret_array = (struct sk_gguf_array){
		.type = (uint32_t)sk_gguf_little_endian(p, 4),
		.n_items = sk_gguf_little_endian(p + 4, 8),
		.cursor = p + 12,
		.end = pair->value.end,
	};
	return 0;
}

int sk_gguf_next_string(struct sk_gguf_array *array, struct sk_gguf_string *ret_value)
{
	struct sk_gguf_cursor c = {array->cursor, array->end};
	if (array->type != TYPE_STRING)
		return -EINVAL;
	if (!sk_gguf_take_string(&c, ret_value))
		return -ENODATA;
	array->cursor = c.at;
	return 0;
}

int sk_gguf_next_int(struct sk_gguf_array *array, int64_t *ret_value)
{
	uint64_t bits;
	bool is_negative;
	if (array->type >= N_TYPES || array->type == TYPE_STRING)
		return -EINVAL;
	if (array->cursor == array->end)
		return -ENODATA;
	if (!read_integer(array->type, array->cursor, &bits, &is_negative) ||
	    (!is_negative && bits > INT64_MAX))
		return -EINVAL;
	*ret_value = (int64_t)bits;
	array->cursor += type_bytes[array->type];
	return 0;
}

int sk_gguf_next_float(struct sk_gguf_array *array, double *ret_value)
{
	if (array->type != TYPE_FLOAT32 && array->type != TYPE_FLOAT64)
		return -EINVAL;
	if (array->cursor == array->end)
		return -ENODATA;
	read_real(array->type, array->cursor, ret_value);
	array->cursor += type_bytes[array->type];
	return 0;
}
