/* The safetensors reader. */
#include "model/safetensors.h"

#include "base/cleanup.h"
#include "model/json.h"
#include "model/mapped_file.h"
#include "model/printable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	HEADER_MAX_BYTES = 100 << 20,
	/* Seven or so values describe a tensor: room for half a million tensors. */
	HEADER_MAX_VALUES = 4 << 20,
	MAX_DIMENSIONS = 8,
};

struct sk_safetensors {
	struct sk_mapped_file map; /* unused for a file in memory */
	char *path;
	json_t *header; /* keeps the tensors' names */
	struct sk_tensor *tensors;
	size_t n_tensors;
};

/* Where a tensor lies in the data, for the check that they cover it. */
struct span {
	uint64_t begin, end;
	const char *name;
};

static const struct {
	const char *name;
	unsigned element_bits;
	enum sk_dtype dtype; /* SK_N_DTYPES: not for weights here */
} dtypes[] = {
	{"F32", 32, SK_DTYPE_F32}, {"F16", 16, SK_DTYPE_F16},   {"BF16", 16, SK_DTYPE_BF16},
	{"F64", 64, SK_N_DTYPES},  {"I64", 64, SK_N_DTYPES},    {"U64", 64, SK_N_DTYPES},
	{"I32", 32, SK_N_DTYPES},  {"U32", 32, SK_N_DTYPES},    {"I16", 16, SK_N_DTYPES},
	{"U16", 16, SK_N_DTYPES},  {"I8", 8, SK_N_DTYPES},      {"U8", 8, SK_N_DTYPES},
	{"BOOL", 8, SK_N_DTYPES},  {"F8_E4M3", 8, SK_N_DTYPES}, {"F8_E5M2", 8, SK_N_DTYPES},
};
enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };

static uint64_t u64_at(const uint8_t *p)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < 8; i++)
		value |= (uint64_t)p[i] << 8 * i;
	return value;
}

/* A whole number from 0 on; jansson has refused what does not fit 63 bits. */
static bool read_offset(const json_t *json, uint64_t *ret)
{
	if (!json_is_integer(json) || json_integer_value(json) < 0)
		return false;
	*ret = (uint64_t)json_integer_value(json);
	return true;
}

/* Checks one entry of the header. An unwanted tensor leaves only its span. */
static int read_tensor(struct sk_safetensors *file, const char *name, const json_t *entry,
		       bool is_wanted, const uint8_t *data, uint64_t data_bytes, struct span *span,
		       struct sk_diag *diag)
{
	const char *path = file->path;
	const char *dtype_name = json_string_value(json_object_get(entry, "dtype"));
	const json_t *shape = json_object_get(entry, "shape");
	const json_t *offsets = json_object_get(entry, "data_offsets");
	struct sk_printable words;

	if (!dtype_name || !json_is_array(shape) || json_array_size(offsets) != 2)
		return sk_diag_fail(diag, EINVAL,
				    "%s: tensor '%s' lacks a dtype, shape or data_offsets", path,
				    name);
	unsigned d = 0;
	while (d < N_DTYPES && strcmp(dtypes[d].name, dtype_name) != 0)
		d++;
	if (d == N_DTYPES || (is_wanted && dtypes[d].dtype == SK_N_DTYPES))
		return sk_diag_fail(diag, ENOTSUP,
				    "%s: tensor '%s' has the format %s, and only F32, F16 and BF16 "
				    "are supported in safetensors",
				    path, name,
				    sk_printable(&words, dtype_name, strlen(dtype_name)));

	size_t n_dims = json_array_size(shape);
	uint64_t n_elements = 1, n_cols = 1, n_bits;
	if (n_dims > MAX_DIMENSIONS)
		return sk_diag_fail(diag, ENOTSUP, "%s: tensor '%s' has %zu dimensions", path, name,
				    n_dims);
	for (size_t i = 0; i < n_dims; i++) {
		uint64_t n;
		if (!read_offset(json_array_get(shape, i), &n))
			return sk_diag_fail(diag, EINVAL,
					    "%s: tensor '%s' has a shape that is not whole numbers",
					    path, name);
		if (__builtin_mul_overflow(n_elements, n, &n_elements))
			return sk_diag_fail(diag, EINVAL, "%s: tensor '%s' has an impossible shape",
					    path, name);
		if (i > 0 && i == n_dims - 1)
			n_cols = n;
	}
	if (__builtin_mul_overflow(n_elements, dtypes[d].element_bits, &n_bits))
		return sk_diag_fail(diag, EINVAL, "%s: tensor '%s' has an impossible shape", path,
				    name);

	uint64_t begin, end;
	if (!read_offset(json_array_get(offsets, 0), &begin) ||
	    !read_offset(json_array_get(offsets, 1), &end) || begin > end)
		return sk_diag_fail(diag, EINVAL, "%s: tensor '%s' has malformed data_offsets",
				    path, name);
	if (end > data_bytes)
		return sk_diag_fail(
			diag, EINVAL,
			"%s: tensor '%s' ends at byte %llu of the data, which has %llu: the "
			"file is cut short",
			path, name, (unsigned long long)end, (unsigned long long)data_bytes);
	if (end - begin != n_bits / 8)
		return sk_diag_fail(diag, EINVAL,
				    "%s: tensor '%s' has %llu bytes where its shape needs %llu",
				    path, name, (unsigned long long)(end - begin),
				    (unsigned long long)(n_bits / 8));

	*span = (struct span){begin, end, name};
	if (!is_wanted)
		return 0;
	if (n_elements == 0)
		return sk_diag_fail(diag, EINVAL, "%s: tensor '%s' has no elements", path, name);
	file->tensors[file->n_tensors++] = (struct sk_tensor){
		.name = name,
		.dtype = dtypes[d].dtype,
		.n_rows = n_elements / n_cols,
		.n_cols = n_cols,
		.data = data + begin,
	};
	return 0;
}

static int compare_spans(const void *a, const void *b)
{
	const struct span *x = a, *y = b;
	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	return (x->end > y->end) - (x->end < y->end);
}

/* The format allows neither holes nor overlaps. */
static int check_cover(const struct sk_safetensors *file, struct span *spans, size_t n_spans,
		       uint64_t data_bytes, struct sk_diag *diag)
{
	uint64_t at = 0;
	qsort(spans, n_spans, sizeof *spans, compare_spans);
	for (size_t i = 0; i < n_spans; i++) {
		if (spans[i].begin != at)
			return sk_diag_fail(diag, EINVAL, "%s: tensor '%s' %s", file->path,
					    spans[i].name,
					    spans[i].begin < at ? "overlaps another"
								: "leaves a hole before it");
		at = spans[i].end;
	}
	if (at != data_bytes)
		return sk_diag_fail(diag, EINVAL,
				    "%s: %llu bytes after the last tensor belong to none",
				    file->path, (unsigned long long)(data_bytes - at));
	return 0;
}

static int read_header(struct sk_safetensors *file, const uint8_t *bytes, size_t n_bytes,
		       sk_tensor_wanted_fn *is_wanted, struct sk_diag *diag)
{
	if (n_bytes < 8)
		return sk_diag_fail(diag, EINVAL,
				    "%s: %zu bytes are too few for a safetensors file", file->path,
				    n_bytes);
	uint64_t header_bytes = u64_at(bytes);
	if (header_bytes > HEADER_MAX_BYTES)
		return sk_diag_fail(
			diag, EINVAL,
			"%s: a header of %llu bytes is more than the format allows; is it a "
			"safetensors file?",
			file->path, (unsigned long long)header_bytes);
	if (header_bytes > n_bytes - 8)
		return sk_diag_fail(diag, EINVAL, "%s: the file is cut short within its header",
				    file->path);
	int r = sk_json_parse(bytes + 8, header_bytes, HEADER_MAX_VALUES, file->path, &file->header,
			      diag);
	if (r < 0)
		return r;

	const uint8_t *data = bytes + 8 + header_bytes;
	uint64_t data_bytes = n_bytes - 8 - header_bytes;
	size_t n_entries = json_object_size(file->header), n_spans = 0;
	if (n_entries == 0)
		return sk_diag_fail(diag, EINVAL, "%s: the file has no tensors", file->path);
	sk_autofree struct span *spans = calloc(n_entries, sizeof *spans);
	file->tensors = calloc(n_entries, sizeof *file->tensors);
	if (!spans || !file->tensors)
		return sk_diag_fail(diag, ENOMEM, "%s: no memory for its list of tensors",
				    file->path);

	const char *name;
	json_t *entry;
	json_object_foreach (file->header, name, entry) {
		struct sk_printable words;
		if (strcmp(name, "__metadata__") == 0)
			continue;
		if (!sk_name_is_good(name, strlen(name)))
			return sk_diag_fail(diag, EINVAL,
					    "%s: tensor '%s' has a name that cannot be", file->path,
					    sk_printable(&words, name, strlen(name)));
		r = read_tensor(file, name, entry, !is_wanted || is_wanted(name), data, data_bytes,
				&spans[n_spans++], diag);
		if (r < 0)
			return r;
	}
	return check_cover(file, spans, n_spans, data_bytes, diag);
}

static struct sk_safetensors *create(const char *path, struct sk_diag *diag)
{
	struct sk_safetensors *file = calloc(1, sizeof *file);
	if (file)
		file->path = strdup(path);
	if (!file || !file->path) {
		free(file);
		sk_diag_fail(diag, ENOMEM, "%s: no memory to open it", path);
		return NULL;
	}
	return file;
}

int sk_safetensors_open_memory(const void *data, size_t n_bytes, const char *name,
			       sk_tensor_wanted_fn *is_wanted, struct sk_safetensors **ret_file,
			       struct sk_diag *diag)
{
	struct sk_safetensors *file = create(name, diag);
	if (!file)
		return -ENOMEM;
	int r = read_header(file, data, n_bytes, is_wanted, diag);
	if (r < 0) {
		sk_safetensors_close(file);
		return r;
	}
	*ret_file = file;
	return 0;
}

int sk_safetensors_open(const char *path, sk_tensor_wanted_fn *is_wanted,
			struct sk_safetensors **ret_file, struct sk_diag *diag)
{
	struct sk_safetensors *file = create(path, diag);
	if (!file)
		return -ENOMEM;
	int r = sk_mapped_file_open(&file->map, path, diag);
	if (r == 0)
		r = read_header(file, file->map.data, file->map.n_bytes, is_wanted, diag);
	if (r < 0) {
		sk_safetensors_close(file);
		return r;
	}
	*ret_file = file;
	return 0;
}

void sk_safetensors_close(struct sk_safetensors *file)
{
	if (!file)
		return;
	json_decref(file->header);
	free(file->tensors);
	sk_mapped_file_close(&file->map);
	free(file->path);
	free(file);
}

const char *sk_safetensors_path(const struct sk_safetensors *file)
{
	return file->path;
}

size_t sk_safetensors_n_tensors(const struct sk_safetensors *file)
{
	return file->n_tensors;
}

const struct sk_tensor *sk_safetensors_tensor_at(const struct sk_safetensors *file, size_t index)
{
	return &file->tensors[index];
}
