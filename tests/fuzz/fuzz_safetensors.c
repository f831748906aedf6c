/* Safetensors bytes through the reader, and every byte of every tensor that it lets through. */
#include "driver.h"

#include "../unit/model/make_files.h"
#include "model/names.h"
#include "model/safetensors.h"

#include <stdlib.h>

static volatile float sink;

static bool is_wanted(const char *name)
{
	return !sk_name_is_buffer(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	struct sk_safetensors *file;
	struct sk_diag diag = {""};
	if (sk_safetensors_open_memory(bytes, n_bytes, "input", is_wanted, &file, &diag) < 0) {
		if (!*diag.text)
			abort(); /* every refusal has its sentence */
		return 0;
	}
	for (size_t i = 0; i < sk_safetensors_n_tensors(file); i++) {
		const struct sk_tensor *t = sk_safetensors_tensor_at(file, i);
		size_t row_bytes = sk_dtype_row_bytes(t->dtype, t->n_cols);
		float *row = malloc(t->n_cols * sizeof *row);
		if (!row)
			continue;
		for (uint64_t k = 0; k < t->n_rows; k++) {
			sk_dtype_decode_row(t->dtype, (const uint8_t *)t->data + k * row_bytes,
					    t->n_cols, row);
			sink = row[t->n_cols - 1];
		}
		free(row);
	}
	sk_safetensors_close(file);
	return 0;
}

size_t sk_fuzz_seed(unsigned index, uint8_t *out, size_t room)
{
	static const struct made_tensor few[] = {
		{"a", {2, 3}, NULL},
		{"b", {4}, NULL},
		{"gpt_neox.layers.0.attention.bias", {1, 1, 2, 2}, NULL},
		{NULL, {0}, NULL},
	};
	struct bytes b = {0};
	size_t n = 0;
	if (index == 0)
		b = make_safetensors(few);
	else if (index == 1)
		b = make_safetensors(neox_tensors);
	else if (index == 2)
		b = make_safetensors(llama_tensors);
	if (b.n <= room) {
		n = b.n;
		if (n)
			memcpy(out, b.at, n);
	}
	bytes_free(&b);
	return n;
}
