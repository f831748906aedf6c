/* A safetensors file, mapped and checked: an 8-byte little-endian header length, a JSON header,
 * then the data, which the tensors must cover without holes or overlaps. Source: the safetensors
 * project's format description. Read-only after opening; any thread.
 *
 * Tensors of more than two dimensions are seen with all but the last folded into rows; a vector is
 * (n, 1), a scalar (1, 1).
 */
#pragma once

#include "base/diag.h"
#include "base/tensor.h"

struct sk_safetensors;

/* Says which tensors will be asked for. The others are checked for their place in the file, and may
 * have any element format; they are left out. */
typedef bool sk_tensor_wanted_fn(const char *name);

/* `is_wanted` NULL: all. */
int sk_safetensors_open(const char *path, sk_tensor_wanted_fn *is_wanted,
			struct sk_safetensors **ret_file, struct sk_diag *diag);
/* The same from memory, which must outlive the result (tests and fuzzers). */
int sk_safetensors_open_memory(const void *data, size_t n_bytes, const char *name,
			       sk_tensor_wanted_fn *is_wanted, struct sk_safetensors **ret_file,
			       struct sk_diag *diag);
void sk_safetensors_close(struct sk_safetensors *file);

const char *sk_safetensors_path(const struct sk_safetensors *file);
size_t sk_safetensors_n_tensors(const struct sk_safetensors *file);
const struct sk_tensor *sk_safetensors_tensor_at(const struct sk_safetensors *file, size_t index);
