/* GGUF bytes through the reader, its accessors, and the model that is made of it. */
#include "driver.h"

#include "../unit/model/make_files.h"
#include "model/gguf.h"
#include "model/model_impl.h"

#include <stdlib.h>

static volatile float sink;

static void read_matrix(const struct sk_matrix *m)
{
	if (sk_matrix_is_absent(m))
		return;
	float *row = malloc(m->n_cols * sizeof *row);
	if (!row)
		return;
	for (uint32_t i = 0; i < m->n_rows; i++) {
		sk_matrix_decode_row(m, i, row);
		sink = row[m->n_cols - 1];
	}
	free(row);
}

static void read_metadata(const struct sk_gguf *gguf)
{
	static const char *const keys[] = {
		"general.name",          "llama.block_count",         "tokenizer.ggml.tokens",
		"tokenizer.ggml.scores", "tokenizer.ggml.token_type", "absent"};
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		struct sk_gguf_array array;
		struct sk_gguf_string string;
		uint64_t number;
		int64_t item;
		double real;
		bool truth;
		sk_gguf_get_uint(gguf, keys[i], &number);
		sk_gguf_get_float(gguf, keys[i], &real);
		sk_gguf_get_bool(gguf, keys[i], &truth);
		if (sk_gguf_get_string(gguf, keys[i], &string) == 0 && string.n_bytes)
			sink = string.text[string.n_bytes - 1];
		if (sk_gguf_get_array(gguf, keys[i], &array) < 0)
			continue;
		while (sk_gguf_next_string(&array, &string) == 0 ||
		       sk_gguf_next_int(&array, &item) == 0 ||
		       sk_gguf_next_float(&array, &real) == 0)
			;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	struct sk_gguf *gguf;
	struct sk_model *model;
	struct sk_diag diag = {""};
	if (sk_gguf_open_memory(bytes, n_bytes, "input", &gguf, &diag) < 0) {
		if (!*diag.text)
			abort(); /* every refusal has its sentence */
		return 0;
	}
	read_metadata(gguf);
	for (size_t i = 0; i < sk_gguf_n_tensors(gguf); i++) {
		const struct sk_tensor *t = sk_gguf_tensor_at(gguf, i);
		if (sk_gguf_tensor(gguf, t->name) != t)
			abort();
	}
	if (sk_model_open_gguf(gguf, &model, &diag) < 0) {
		if (!*diag.text)
			abort();
		return 0;
	}
	read_matrix(sk_model_embedding(model));
	read_matrix(sk_model_output(model));
	for (uint32_t i = 0; i < sk_model_config(model)->n_layers; i++) {
		/* A layer is nothing but matrices. */
		const struct sk_matrix *m = (const struct sk_matrix *)sk_model_layer(model, i);
		for (size_t k = 0; k < sizeof(struct sk_model_layer) / sizeof *m; k++)
			read_matrix(&m[k]);
	}
	sk_model_close(model);
	return 0;
}

/* A file with arrays, which the tiny models lack, and a block format. */
static struct bytes seed_with_arrays(void)
{
	struct bytes b = {0};
	bytes_put_text(&b, "GGUF");
	bytes_put_uint(&b, 3, 4);
	bytes_put_uint(&b, 1, 8);
	bytes_put_uint(&b, 3, 8);
	put_gguf_string(&b, "tokenizer.ggml.tokens");
	bytes_put_uint(&b, GGUF_ARRAY, 4);
	bytes_put_uint(&b, GGUF_STRING, 4);
	bytes_put_uint(&b, 2, 8);
	put_gguf_string(&b, "a");
	put_gguf_string(&b, "bc");
	put_gguf_string(&b, "tokenizer.ggml.scores");
	bytes_put_uint(&b, GGUF_ARRAY, 4);
	bytes_put_uint(&b, GGUF_F32, 4);
	bytes_put_uint(&b, 2, 8);
	bytes_put_uint(&b, 0x3f800000, 4);
	bytes_put_uint(&b, 0x40000000, 4);
	put_gguf_string(&b, "tokenizer.ggml.token_type");
	bytes_put_uint(&b, GGUF_ARRAY, 4);
	bytes_put_uint(&b, GGUF_I32, 4);
	bytes_put_uint(&b, 2, 8);
	bytes_put_uint(&b, 1, 4);
	bytes_put_uint(&b, 3, 4);
	put_gguf_string(&b, "t");
	bytes_put_uint(&b, 2, 4);
	bytes_put_uint(&b, 32, 8);
	bytes_put_uint(&b, 2, 8);
	bytes_put_uint(&b, 8, 4); /* Q8_0 */
	bytes_put_uint(&b, 0, 8);
	while (b.n % 32)
		bytes_put_uint(&b, 0, 1);
	for (unsigned i = 0; i < 68; i++)
		bytes_put_uint(&b, i, 1);
	return b;
}

size_t sk_fuzz_seed(unsigned index, uint8_t *out, size_t room)
{
	struct bytes b = {0};
	size_t n = 0;
	if (index == 0)
		b = make_gguf(3, llama_pairs, llama_gguf_tensors, 32);
	else if (index == 1)
		b = make_gguf(2, neox_pairs, neox_gguf_tensors, 8);
	else if (index == 2)
		b = seed_with_arrays();
	if (b.n <= room) {
		n = b.n;
		if (n)
			memcpy(out, b.at, n);
	}
	bytes_free(&b);
	return n;
}
