/* JSON under limits, and typed reads of it. */
#include "model/json.h"

#include "model/mapped_file.h"
#include "model/printable.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* No configuration or index of a model comes near these. */
enum { FILE_MAX_BYTES = 64 << 20, FILE_MAX_VALUES = 1 << 20 };

/* An upper bound on the values in the text: each is opened by a bracket or follows one, a comma or
 * a colon. Commas inside strings are counted too, which only makes it larger. */
static size_t count_values(const char *text, size_t n_bytes)
{
	size_t n = 1;
	for (size_t i = 0; i < n_bytes; i++)
		n += text[i] == ',' || text[i] == ':' || text[i] == '[' || text[i] == '{';
	return n;
}

int sk_json_parse(const void *text, size_t n_bytes, size_t most_values, const char *source,
		  json_t **ret_object, struct sk_diag *diag)
{
	struct sk_printable words;
	json_error_t error;

	if (count_values(text, n_bytes) > most_values)
		return sk_diag_fail(diag, EINVAL, "%s: the JSON has more than %zu values", source,
				    most_values);
	json_t *json = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &error);
	if (!json)
		return sk_diag_fail(diag, EINVAL, "%s: the JSON is malformed at line %d: %s",
				    source, error.line,
				    sk_printable(&words, error.text, strlen(error.text)));
	if (!json_is_object(json)) {
		json_decref(json);
		return sk_diag_fail(diag, EINVAL, "%s: the JSON is not an object", source);
	}
	*ret_object = json;
	return 0;
}

int sk_json_parse_file(const char *path, json_t **ret_object, struct sk_diag *diag)
{
	struct sk_mapped_file file = {0};
	int r = sk_mapped_file_open(&file, path, diag);
	if (r < 0)
		return r;
	if (file.n_bytes > FILE_MAX_BYTES)
		r = sk_diag_fail(diag, EFBIG, "%s: %zu bytes are too many for JSON", path,
				 file.n_bytes);
	else
		r = sk_json_parse(file.data, file.n_bytes, FILE_MAX_VALUES, path, ret_object, diag);
	sk_mapped_file_close(&file);
	return r;
}

const json_t *sk_json_get(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	return json_is_null(value) ? NULL : value;
}

int sk_json_read_count(const json_t *object, const char *key, uint32_t most, uint32_t *value,
		       const char *source, struct sk_diag *diag)
{
	const json_t *json = sk_json_get(object, key);
	if (!json)
		return 0;
	json_int_t n = json_integer_value(json); /* 0 for any other type */
	if (n < 1 || (uint64_t)n > most)
		return sk_diag_fail(diag, EINVAL, "%s: '%s' is not a whole number of 1 to %u",
				    source, key, most);
	*value = (uint32_t)n;
	return 0;
}

int sk_json_read_positive(const json_t *object, const char *key, double *value, const char *source,
			  struct sk_diag *diag)
{
	const json_t *json = sk_json_get(object, key);
	if (!json)
		return 0;
	double number = json_number_value(json); /* 0 for any other type */
	if (!isfinite(number) || number <= 0)
		return sk_diag_fail(diag, EINVAL, "%s: '%s' is not a number above 0", source, key);
	*value = number;
	return 0;
}

int sk_json_read_bool(const json_t *object, const char *key, bool *value, const char *source,
		      struct sk_diag *diag)
{
	const json_t *json = sk_json_get(object, key);
	if (!json)
		return 0;
	if (!json_is_boolean(json))
		return sk_diag_fail(diag, EINVAL, "%s: '%s' is neither true nor false", source,
				    key);
	*value = json_is_true(json);
	return 0;
}

int sk_json_read_string(const json_t *object, const char *key, const char **value,
			const char *source, struct sk_diag *diag)
{
	const json_t *json = sk_json_get(object, key);
	if (!json)
		return 0;
	if (!json_is_string(json))
		return sk_diag_fail(diag, EINVAL, "%s: '%s' is not a string", source, key);
	*value = json_string_value(json);
	return 0;
}
