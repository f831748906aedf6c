/* JSON from outside: parsed under limits, then read key by key with one sentence for a wrong value.
 * A key that is absent or null leaves the value as it is, so defaults are set before.
 */
#pragma once

#include "base/diag.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parses one object. Text that could grow into more than `most_values` values is refused before it
 * is parsed, since a value costs some fifty times its shortest text in memory. `source` opens the
 * sentence. */
int sk_json_parse(const void *text, size_t n_bytes, size_t most_values, const char *source,
		  json_t **ret_object, struct sk_diag *diag);
int sk_json_parse_file(const char *path, json_t **ret_object, struct sk_diag *diag);

static inline void sk_cleanup_json(json_t **json)
{
	json_decref(*json);
}
#define sk_autojson __attribute__((cleanup(sk_cleanup_json)))

/* The value of `key`, or NULL where it is absent or null. */
const json_t *sk_json_get(const json_t *object, const char *key);

/* A whole number of 1 to `most`. */
int sk_json_read_count(const json_t *object, const char *key, uint32_t most, uint32_t *value,
		       const char *source, struct sk_diag *diag);
/* A number above zero. */
int sk_json_read_positive(const json_t *object, const char *key, double *value, const char *source,
			  struct sk_diag *diag);
int sk_json_read_bool(const json_t *object, const char *key, bool *value, const char *source,
		      struct sk_diag *diag);
/* The string stays owned by the object. */
int sk_json_read_string(const json_t *object, const char *key, const char **value,
			const char *source, struct sk_diag *diag);
