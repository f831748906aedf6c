/* The GGUF reader: one pass over the header with a cursor that knows its end, after which every
 * value, name and tensor is known to lie within the file.
 */
#include "model/gguf_impl.h"
#include "model/printable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	MAX_TENSORS = 1 << 18,
	MAX_DIMENSIONS = 4,
	DEFAULT_ALIGNMENT = 32,
};

/* Tensor formats, as numbered by the specification; the names of those not supported are for the
 * sentence. */
static const struct {
	const char *name;
	bool is_supported;
	enum sk_dtype dtype;
} formats[] = {
	[0] = {"F32", true, SK_DTYPE_F32},
	[1] = {"F16", true, SK_DTYPE_F16},
	[2] = {"Q4_0", true, SK_DTYPE_Q4_0},
	[3] = {"Q4_1", true, SK_DTYPE_Q4_1},
	[6] = {"Q5_0", true, SK_DTYPE_Q5_0},
	[7] = {"Q5_1", true, SK_DTYPE_Q5_1},
	[8] = {"Q8_0", true, SK_DTYPE_Q8_0},
	[9] = {.name = "Q8_1"},
	[10] = {.name = "Q2_K"},
	[11] = {.name = "Q3_K"},
	[12] = {"Q4_K", true, SK_DTYPE_Q4_K},
	[13] = {"Q5_K", true, SK_DTYPE_Q5_K},
	[14] = {"Q6_K", true, SK_DTYPE_Q6_K},
	[15] = {.name = "Q8_K"},
	[16] = {.name = "IQ2_XXS"},
	[17] = {.name = "IQ2_XS"},
	[18] = {.name = "IQ3_XXS"},
	[19] = {.name = "IQ1_S"},
	[20] = {.name = "IQ4_NL"},
	[21] = {.name = "IQ3_S"},
	[22] = {.name = "IQ2_S"},
	[23] = {.name = "IQ4_XS"},
	[24] = {.name = "I8"},
	[25] = {.name = "I16"},
	[26] = {.name = "I32"},
	[27] = {.name = "I64"},
	[28] = {.name = "F64"},
	[29] = {.name = "IQ1_M"},
	[30] = {"BF16", true, SK_DTYPE_BF16},
	[34] = {.name = "TQ1_0"},
	[35] = {.name = "TQ2_0"},
	[39] = {.name = "MXFP4"},
};
enum { N_FORMATS = sizeof formats / sizeof formats[0] };

int sk_gguf_cut_short(const struct sk_gguf *gguf, const char *where, struct sk_diag *diag)
{
	return sk_diag_fail(diag, EINVAL, "%s: the file is cut short within %s", gguf->path, where);
}

/* Reads what the file says of one tensor. Its data is left as an offset, since where the data
 * starts is known only after the last tensor. `name` has room for SK_NAME_MAX_BYTES and a NUL. */
static int read_tensor(const struct sk_gguf *gguf, struct sk_gguf_cursor *c, char *name,
		       struct sk_tensor *tensor, uint64_t *ret_offset, struct sk_diag *diag)
{
	struct sk_printable words;
	struct sk_gguf_string text;
	uint64_t n_dims, dims[MAX_DIMENSIONS] = {0}, format;

	if (!sk_gguf_take_string(c, &text))
		return sk_gguf_cut_short(gguf, "the list of tensors", diag);
	if (!sk_name_is_good(text.text, text.n_bytes))
		return sk_diag_fail(diag, EINVAL, "%s: tensor '%s' has a name that cannot be",
				    gguf->path, sk_printable(&words, text.text, text.n_bytes));
	memcpy(name, text.text, text.n_bytes);
	name[text.n_bytes] = '\0';

	if (!sk_gguf_take_uint(c, 4, &n_dims))
		return sk_gguf_cut_short(gguf, "the list of tensors", diag);
	if (n_dims < 1 || n_dims > MAX_DIMENSIONS)
		return sk_diag_fail(diag, EINVAL, "%s: tensor '%s' has %llu dimensions", gguf->path,
				    name, (unsigned long long)n_dims);
	for (uint64_t i = 0; i < n_dims; i++) {
		if (!sk_gguf_take_uint(c, 8, &dims[i]))
			return sk_gguf_cut_short(gguf, "the list of tensors", diag);
	}
	if (!sk_gguf_take_uint(c, 4, &format) || !sk_gguf_take_uint(c, 8, ret_offset))
		return sk_gguf_cut_short(gguf, "the list of tensors", diag);
	if (format >= N_FORMATS || !formats[format].is_supported) {
		const char *known = format < N_FORMATS ? formats[format].name : NULL;
		return sk_diag_fail(
			diag, ENOTSUP,
			"%s: tensor '%s' has the format %s (%llu), which is not supported",
			gguf->path, name, known ? known : "unknown", (unsigned long long)format);
	}

	/* The innermost dimension comes first; a vector becomes (n, 1). */
	uint64_t n_rows = n_dims == 1 ? dims[0] : 1, n_cols = n_dims == 1 ? 1 : dims[0];
	bool is_possible = n_cols > 0 && n_rows > 0;
	for (uint64_t i = 1; i < n_dims; i++)
		is_possible = is_possible && dims[i] > 0 &&
			      !__builtin_mul_overflow(n_rows, dims[i], &n_rows);
	if (!is_possible)
		return sk_diag_fail(diag, EINVAL, "%s: tensor '%s' has an impossible shape",
				    gguf->path, name);
	enum sk_dtype dtype = formats[format].dtype;
	size_t row_bytes = sk_dtype_row_bytes(dtype, n_cols);
	if (row_bytes == 0)
		return sk_diag_fail(
			diag, EINVAL,
			"%s: tensor '%s' has rows of %llu elements, not whole %s blocks",
			gguf->path, name, (unsigned long long)n_cols, formats[format].name);
	*tensor = (struct sk_tensor){name, dtype, n_rows, n_cols, NULL};
	return 0;
}

static int place_tensor(const struct sk_gguf *gguf, struct sk_tensor *tensor, uint64_t offset,
			const uint8_t *data, uint64_t data_bytes, uint64_t alignment,
			struct sk_diag *diag)
{
	size_t n_bytes;
	if (offset % alignment != 0)
		return sk_diag_fail(diag, EINVAL,
				    "%s: tensor '%s' lies off its alignment of %llu bytes",
				    gguf->path, tensor->name, (unsigned long long)alignment);
	if (__builtin_mul_overflow(sk_dtype_row_bytes(tensor->dtype, tensor->n_cols),
				   tensor->n_rows, &n_bytes) ||
	    offset > data_bytes || n_bytes > data_bytes - offset)
		return sk_diag_fail(
			diag, EINVAL,
			"%s: tensor '%s' runs past the end of the file, which may be cut short",
			gguf->path, tensor->name);
	tensor->data = data + offset;
	return 0;
}

/* Absent leaves it as it is. */
static int read_alignment(const struct sk_gguf *gguf, uint64_t *ret_alignment, struct sk_diag *diag)
{
	uint64_t alignment = *ret_alignment;
	int r = sk_gguf_get_uint(gguf, "general.alignment", &alignment);
	if ((r < 0 && r != -ENOENT) || alignment == 0 || alignment > 1 << 20 ||
	    (alignment & (alignment - 1)) != 0)
		return sk_diag_fail(diag, EINVAL,
				    "%s: 'general.alignment' is no power of two up to 1048576",
				    gguf->path);
	*ret_alignment = alignment;
	return 0;
}

static int read_tensors(struct sk_gguf *gguf, struct sk_gguf_cursor *c, const uint8_t *start,
			uint64_t n_tensors, struct sk_diag *diag)
{
	/* The least tensor: a length, one byte of name, a count, one dimension, format and offset.
	 */
	if (n_tensors > MAX_TENSORS || n_tensors > sk_gguf_left(c) / 33)
		return sk_diag_fail(diag, EINVAL, "%s: %llu tensors cannot be in this file",
				    gguf->path, (unsigned long long)n_tensors);
	if (n_tensors == 0)
		return sk_diag_fail(diag, EINVAL, "%s: the file has no tensors", gguf->path);
	uint64_t *offsets = calloc(n_tensors, sizeof *offsets);
	gguf->tensors = calloc(n_tensors, sizeof *gguf->tensors);
	gguf->names = malloc(n_tensors * (SK_NAME_MAX_BYTES + 1));
	int r = 0;
	if (!offsets || !gguf->tensors || !gguf->names) {
		r = sk_diag_fail(diag, ENOMEM, "%s: no memory for its list of tensors", gguf->path);
		goto out;
	}

	char *name = gguf->names;
	for (; gguf->n_tensors < n_tensors; gguf->n_tensors++) {
		size_t i = gguf->n_tensors;
		r = read_tensor(gguf, c, name, &gguf->tensors[i], &offsets[i], diag);
		if (r < 0)
			goto out;
		name += strlen(name) + 1;
	}

	uint64_t alignment = DEFAULT_ALIGNMENT;
	r = read_alignment(gguf, &alignment, diag);
	if (r < 0)
		goto out;
	uint64_t padding = -(uint64_t)(c->at - start) & (alignment - 1);
	if (padding > sk_gguf_left(c)) {
		r = sk_gguf_cut_short(gguf, "the list of tensors", diag);
		goto out;
	}
	const uint8_t *data = c->at + padding;
	for (size_t i = 0; i < n_tensors; i++) {
		r = place_tensor(gguf, &gguf->tensors[i], offsets[i], data,
				 (uint64_t)(c->end - data), alignment, diag);
		if (r < 0)
			goto out;
		r = sk_tensor_index_add(&gguf->index, &gguf->tensors[i], gguf->path, diag);
		if (r < 0)
			goto out;
	}
	r = sk_tensor_index_seal(&gguf->index, diag);
out:
	free(offsets);
	return r;
}

static int read_file(struct sk_gguf *gguf, const uint8_t *bytes, size_t n_bytes,
		     struct sk_diag *diag)
{
	struct sk_gguf_cursor c = {bytes, bytes + n_bytes};
	uint64_t version, n_tensors, n_pairs;
	const uint8_t *magic;

	if (!sk_gguf_take(&c, 4, &magic) || memcmp(magic, "GGUF", 4) != 0)
		return sk_diag_fail(diag, EINVAL, "%s: is not a GGUF file", gguf->path);
	if (!sk_gguf_take_uint(&c, 4, &version))
		return sk_gguf_cut_short(gguf, "its first bytes", diag);
	if (version != 0 && (version & 0xffff) == 0)
		return sk_diag_fail(diag, ENOTSUP, "%s: a big-endian GGUF file is not supported",
				    gguf->path);
	if (version != 2 && version != 3)
		return sk_diag_fail(diag, ENOTSUP,
				    "%s: GGUF version %llu is not supported, only 2 and 3",
				    gguf->path, (unsigned long long)version);
	if (!sk_gguf_take_uint(&c, 8, &n_tensors) || !sk_gguf_take_uint(&c, 8, &n_pairs))
		return sk_gguf_cut_short(gguf, "its first bytes", diag);
	int r = sk_gguf_read_pairs(gguf, &c, n_pairs, diag);
	if (r < 0)
		return r;
	return read_tensors(gguf, &c, bytes, n_tensors, diag);
}

static struct sk_gguf *create(const char *path, struct sk_diag *diag)
{
	struct sk_gguf *gguf = calloc(1, sizeof *gguf);
	if (gguf)
		gguf->path = strdup(path);
	if (!gguf || !gguf->path) {
		free(gguf);
		sk_diag_fail(diag, ENOMEM, "%s: no memory to open it", path);
		return NULL;
	}
	return gguf;
}

int sk_gguf_open_memory(const void *data, size_t n_bytes, const char *name,
			struct sk_gguf **ret_gguf, struct sk_diag *diag)
{
	struct sk_gguf *gguf = create(name, diag);
	if (!gguf)
		return -ENOMEM;
	int r = read_file(gguf, data, n_bytes, diag);
	if (r < 0) {
		sk_gguf_close(gguf);
		return r;
	}
	*ret_gguf = gguf;
	return 0;
}

int sk_gguf_open(const char *path, struct sk_gguf **ret_gguf, struct sk_diag *diag)
{
	struct sk_gguf *gguf = create(path, diag);
	if (!gguf)
		return -ENOMEM;
	int r = sk_mapped_file_open(&gguf->map, path, diag);
	if (r == 0)
		r = read_file(gguf, gguf->map.data, gguf->map.n_bytes, diag);
	if (r < 0) {
		sk_gguf_close(gguf);
		return r;
	}
	*ret_gguf = gguf;
	return 0;
}

void sk_gguf_close(struct sk_gguf *gguf)
{
	if (!gguf)
		return;
	sk_tensor_index_finish(&gguf->index);
	free(gguf->pairs);
	free(gguf->tensors);
	free(gguf->names);
	sk_mapped_file_close(&gguf->map);
	free(gguf->path);
	free(gguf);
}

const char *sk_gguf_path(const struct sk_gguf *gguf)
{
	return gguf->path;
}

size_t sk_gguf_n_tensors(const struct sk_gguf *gguf)
{
	return gguf->n_tensors;
}

const struct sk_tensor *sk_gguf_tensor_at(const struct sk_gguf *gguf, size_t index)
{
	return &gguf->tensors[index];
}

const struct sk_tensor *sk_gguf_tensor(const struct sk_gguf *gguf, const char *name)
{
	const struct sk_tensor_entry *entry = sk_tensor_index_find(&gguf->index, name);
	return entry ? entry->tensor : NULL;
}
