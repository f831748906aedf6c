/* Small model files made in memory, for tests and fuzz seeds: safetensors and GGUF with tiny
 * GPT-NeoX and Llama models. Every F32 tensor made here holds row * 1000 + column, so that a value
 * tells where in the file it lay. Nothing here can fail but for memory, which ends the program. A third of it are tables.
 */
#pragma once

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct bytes {
	uint8_t *at;
	size_t n, room;
};

static inline void bytes_put(struct bytes *b, const void *data, size_t n)
{
	if (b->n + n > b->room) {
		b->room = 2 * (b->n + n) + 256;
		b->at = realloc(b->at, b->room);
		if (!b->at)
			abort();
	}
	if (n)
		memcpy(b->at + b->n, data, n);
	b->n += n;
}

static inline void bytes_put_uint(struct bytes *b, uint64_t value, unsigned n_bytes)
{
	for (unsigned i = 0; i < n_bytes; i++) {
		uint8_t byte = (uint8_t)(value >> 8 * i);
		bytes_put(b, &byte, 1);
	}
}

static inline void bytes_put_text(struct bytes *b, const char *text)
{
	bytes_put(b, text, strlen(text));
}

static inline void bytes_free(struct bytes *b)
{
	free(b->at);
	*b = (struct bytes){0};
}

/* A tensor to be made; `dims` as in safetensors, outermost first, up to the first 0. */
struct made_tensor {
	const char *name;
	uint64_t dims[4];
	const char *dtype; /* NULL: F32 */
};

static inline unsigned made_n_dims(const struct made_tensor *t)
{
	unsigned n = 0;
	while (n < 4 && t->dims[n])
		n++;
	return n;
}

static inline void put_tensor_values(struct bytes *b, const struct made_tensor *t)
{
	unsigned n_dims = made_n_dims(t);
	uint64_t n_cols = n_dims > 1 ? t->dims[n_dims - 1] : 1, n = 1;
	for (unsigned i = 0; i < n_dims; i++)
		n *= t->dims[i];
	for (uint64_t i = 0; i < n; i++) {
		float value = (float)(i / n_cols * 1000 + i % n_cols);
		bytes_put(b, &value, sizeof value);
	}
}

/* A safetensors file around a header and data. */
static inline struct bytes wrap_safetensors(const char *header, const void *data, size_t n_data)
{
	struct bytes b = {0};
	bytes_put_uint(&b, strlen(header), 8);
	bytes_put_text(&b, header);
	bytes_put(&b, data, n_data);
	return b;
}

/* Tensors end with one without a name; those called "" are left out. */
static inline struct bytes make_safetensors(const struct made_tensor *tensors)
{
	struct bytes header = {0}, data = {0}, file;
	char text[512];
	bytes_put_text(&header, "{\"__metadata__\":{\"format\":\"pt\"}");
	for (const struct made_tensor *t = tensors; t->name; t++) {
		size_t begin = data.n;
		if (!*t->name)
			continue;
		put_tensor_values(&data, t);
		snprintf(text, sizeof text, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name,
			 t->dtype ? t->dtype : "F32");
		bytes_put_text(&header, text);
		for (unsigned i = 0; i < made_n_dims(t); i++) {
			snprintf(text, sizeof text, "%s%llu", i ? "," : "",
				 (unsigned long long)t->dims[i]);
			bytes_put_text(&header, text);
		}
		snprintf(text, sizeof text, "],\"data_offsets\":[%zu,%zu]}", begin, data.n);
		bytes_put_text(&header, text);
	}
	bytes_put(&header, "}", 2);
	file = wrap_safetensors((const char *)header.at, data.at, data.n);
	bytes_free(&header);
	bytes_free(&data);
	return file;
}

/* GGUF value types that the tests write. */
enum {
	GGUF_U32 = 4,
	GGUF_I32 = 5,
	GGUF_F32 = 6,
	GGUF_BOOL = 7,
	GGUF_STRING = 8,
	GGUF_ARRAY = 9,
	GGUF_U64 = 10
};

static inline void put_gguf_string(struct bytes *b, const char *text)
{
	bytes_put_uint(b, strlen(text), 8);
	bytes_put_text(b, text);
}

static inline void put_gguf_uint(struct bytes *b, const char *key, uint32_t value)
{
	put_gguf_string(b, key);
	bytes_put_uint(b, GGUF_U32, 4);
	bytes_put_uint(b, value, 4);
}

static inline void put_gguf_float(struct bytes *b, const char *key, float value)
{
	put_gguf_string(b, key);
	bytes_put_uint(b, GGUF_F32, 4);
	bytes_put(b, &value, 4);
}

static inline void put_gguf_bool(struct bytes *b, const char *key, bool value)
{
	put_gguf_string(b, key);
	bytes_put_uint(b, GGUF_BOOL, 4);
	bytes_put_uint(b, value, 1);
}

static inline void put_gguf_text(struct bytes *b, const char *key, const char *value)
{
	put_gguf_string(b, key);
	bytes_put_uint(b, GGUF_STRING, 4);
	put_gguf_string(b, value);
}

/* One of the three metadata values in a test's list of pairs. */
struct made_pair {
	const char *key; /* NULL ends the list, "" is left out */
	uint32_t type;
	const char *text;
	double number;
};

/* A whole GGUF file of F32 tensors; their dims are given as for safetensors and written reversed.
 */
static inline struct bytes make_gguf(uint32_t version, const struct made_pair *pairs,
				     const struct made_tensor *tensors, uint32_t alignment)
{
	struct bytes b = {0}, data = {0};
	uint64_t n_pairs = 0, n_tensors = 0;
	for (const struct made_pair *p = pairs; p->key; p++)
		n_pairs += *p->key != 0;
	for (const struct made_tensor *t = tensors; t->name; t++)
		n_tensors += *t->name != 0;
	bytes_put_text(&b, "GGUF");
	bytes_put_uint(&b, version, 4);
	bytes_put_uint(&b, n_tensors, 8);
	bytes_put_uint(&b, n_pairs + (alignment != 32), 8);
	for (const struct made_pair *p = pairs; p->key; p++) {
		if (!*p->key)
			continue;
		if (p->type == GGUF_STRING)
			put_gguf_text(&b, p->key, p->text);
		else if (p->type == GGUF_F32)
			put_gguf_float(&b, p->key, (float)p->number);
		else if (p->type == GGUF_BOOL)
			put_gguf_bool(&b, p->key, p->number != 0);
		else
			put_gguf_uint(&b, p->key, (uint32_t)p->number);
	}
	if (alignment != 32)
		put_gguf_uint(&b, "general.alignment", alignment);
	for (const struct made_tensor *t = tensors; t->name; t++) {
		unsigned n_dims = made_n_dims(t);
		if (!*t->name)
			continue;
		while (data.n % alignment)
			bytes_put_uint(&data, 0, 1);
		put_gguf_string(&b, t->name);
		bytes_put_uint(&b, n_dims, 4);
		for (unsigned i = n_dims; i; i--)
			bytes_put_uint(&b, t->dims[i - 1], 8);
		bytes_put_uint(&b, 0, 4);
		bytes_put_uint(&b, data.n, 8);
		put_tensor_values(&data, t);
	}
	while (b.n % alignment)
		bytes_put_uint(&b, 0, 1);
	bytes_put(&b, data.at, data.n);
	bytes_free(&data);
	return b;
}

/* Tiny models: width 8, MLP 12, vocabulary 10, one layer. NeoX: 2 heads of 4. Llama: 2 heads of 4
 * that share one key-value head. */
#define MAX_MADE 24

static const char neox_config[] =
	"{\"model_type\":\"gpt_neox\",\"vocab_size\":10,\"hidden_size\":8,\"num_hidden_layers\":1,"
	"\"num_attention_heads\":2,\"intermediate_size\":12,\"max_position_embeddings\":64,"
	"\"rotary_pct\":0.5,\"rotary_emb_base\":10000,\"hidden_act\":\"gelu\",\"layer_norm_eps\":"
	"1e-05,"
	"\"bos_token_id\":0,\"eos_token_id\":1,\"tie_word_embeddings\":false,"
	"\"use_parallel_residual\":true}";

static const struct made_tensor neox_tensors[MAX_MADE] = {
	{"gpt_neox.embed_in.weight", {10, 8}, NULL},
	{"embed_out.weight", {10, 8}, NULL},
	{"gpt_neox.final_layer_norm.weight", {8}, NULL},
	{"gpt_neox.final_layer_norm.bias", {8}, NULL},
	{"gpt_neox.layers.0.input_layernorm.weight", {8}, NULL},
	{"gpt_neox.layers.0.input_layernorm.bias", {8}, NULL},
	{"gpt_neox.layers.0.post_attention_layernorm.weight", {8}, NULL},
	{"gpt_neox.layers.0.post_attention_layernorm.bias", {8}, NULL},
	{"gpt_neox.layers.0.attention.query_key_value.weight", {24, 8}, NULL},
	{"gpt_neox.layers.0.attention.query_key_value.bias", {24}, NULL},
	{"gpt_neox.layers.0.attention.dense.weight", {8, 8}, NULL},
	{"gpt_neox.layers.0.attention.dense.bias", {8}, NULL},
	{"gpt_neox.layers.0.mlp.dense_h_to_4h.weight", {12, 8}, NULL},
	{"gpt_neox.layers.0.mlp.dense_h_to_4h.bias", {12}, NULL},
	{"gpt_neox.layers.0.mlp.dense_4h_to_h.weight", {8, 12}, NULL},
	{"gpt_neox.layers.0.mlp.dense_4h_to_h.bias", {8}, NULL},
};

static const char llama_config[] =
	"{\"model_type\":\"llama\",\"vocab_size\":10,\"hidden_size\":8,\"num_hidden_layers\":1,"
	"\"num_attention_heads\":2,\"num_key_value_heads\":1,\"intermediate_size\":12,"
	"\"max_position_embeddings\":64,\"rope_theta\":50000.0,\"hidden_act\":\"silu\","
	"\"rms_norm_eps\":1e-06,\"bos_token_id\":1,\"eos_token_id\":[2,3],"
	"\"tie_word_embeddings\":false}";

static const struct made_tensor llama_tensors[MAX_MADE] = {
	{"model.embed_tokens.weight", {10, 8}, NULL},
	{"lm_head.weight", {10, 8}, NULL},
	{"model.norm.weight", {8}, NULL},
	{"model.layers.0.input_layernorm.weight", {8}, NULL},
	{"model.layers.0.post_attention_layernorm.weight", {8}, NULL},
	{"model.layers.0.self_attn.q_proj.weight", {8, 8}, NULL},
	{"model.layers.0.self_attn.k_proj.weight", {4, 8}, NULL},
	{"model.layers.0.self_attn.v_proj.weight", {4, 8}, NULL},
	{"model.layers.0.self_attn.o_proj.weight", {8, 8}, NULL},
	{"model.layers.0.mlp.gate_proj.weight", {12, 8}, NULL},
	{"model.layers.0.mlp.up_proj.weight", {12, 8}, NULL},
	{"model.layers.0.mlp.down_proj.weight", {8, 12}, NULL},
};

static const struct made_pair llama_pairs[MAX_MADE] = {
	{"general.architecture", GGUF_STRING, "llama", 0},
	{"general.name", GGUF_STRING, "Tiny \033[1mLlama", 0},
	{"llama.block_count", GGUF_U32, NULL, 1},
	{"llama.context_length", GGUF_U32, NULL, 64},
	{"llama.embedding_length", GGUF_U32, NULL, 8},
	{"llama.feed_forward_length", GGUF_U32, NULL, 12},
	{"llama.attention.head_count", GGUF_U32, NULL, 2},
	{"llama.attention.head_count_kv", GGUF_U32, NULL, 1},
	{"llama.attention.layer_norm_rms_epsilon", GGUF_F32, NULL, 1e-5},
	{"llama.rope.freq_base", GGUF_F32, NULL, 50000},
	{"tokenizer.ggml.eos_token_id", GGUF_U32, NULL, 2},
};

static const struct made_tensor llama_gguf_tensors[MAX_MADE] = {
	{"token_embd.weight", {10, 8}, NULL},       {"output_norm.weight", {8}, NULL},
	{"output.weight", {10, 8}, NULL},           {"blk.0.attn_norm.weight", {8}, NULL},
	{"blk.0.ffn_norm.weight", {8}, NULL},       {"blk.0.attn_q.weight", {8, 8}, NULL},
	{"blk.0.attn_k.weight", {4, 8}, NULL},      {"blk.0.attn_v.weight", {4, 8}, NULL},
	{"blk.0.attn_output.weight", {8, 8}, NULL}, {"blk.0.ffn_gate.weight", {12, 8}, NULL},
	{"blk.0.ffn_up.weight", {12, 8}, NULL},     {"blk.0.ffn_down.weight", {8, 12}, NULL},
};

static const struct made_pair neox_pairs[MAX_MADE] = {
	{"general.architecture", GGUF_STRING, "gptneox", 0},
	{"gptneox.block_count", GGUF_U32, NULL, 1},
	{"gptneox.context_length", GGUF_U32, NULL, 64},
	{"gptneox.embedding_length", GGUF_U32, NULL, 8},
	{"gptneox.feed_forward_length", GGUF_U32, NULL, 12},
	{"gptneox.attention.head_count", GGUF_U32, NULL, 2},
	{"gptneox.rope.dimension_count", GGUF_U32, NULL, 2},
	{"gptneox.attention.layer_norm_epsilon", GGUF_F32, NULL, 1e-5},
	{"gptneox.use_parallel_residual", GGUF_BOOL, NULL, 0},
};

static const struct made_tensor neox_gguf_tensors[MAX_MADE] = {
	{"token_embd.weight", {10, 8}, NULL},       {"output.weight", {10, 8}, NULL},
	{"output_norm.weight", {8}, NULL},          {"output_norm.bias", {8}, NULL},
	{"blk.0.attn_norm.weight", {8}, NULL},      {"blk.0.attn_norm.bias", {8}, NULL},
	{"blk.0.ffn_norm.weight", {8}, NULL},       {"blk.0.ffn_norm.bias", {8}, NULL},
	{"blk.0.attn_qkv.weight", {24, 8}, NULL},   {"blk.0.attn_qkv.bias", {24}, NULL},
	{"blk.0.attn_output.weight", {8, 8}, NULL}, {"blk.0.attn_output.bias", {8}, NULL},
	{"blk.0.ffn_up.weight", {12, 8}, NULL},     {"blk.0.ffn_up.bias", {12}, NULL},
	{"blk.0.ffn_down.weight", {8, 12}, NULL},   {"blk.0.ffn_down.bias", {8}, NULL},
};

/* A folder of its own for a test, and files in it. */
struct made_dir {
	char path[64];
};

static inline void made_dir_create(struct made_dir *dir)
{
	const char *base = getenv("TMPDIR");
	snprintf(dir->path, sizeof dir->path, "%s/sk-model-XXXXXX",
		 base && strlen(base) < 40 ? base : "/tmp");
	if (!mkdtemp(dir->path))
		abort();
}

static inline const char *made_dir_file(const struct made_dir *dir, const char *name)
{
	static __thread char path[512];
	snprintf(path, sizeof path, "%s/%s", dir->path, name);
	return path;
}

static inline void made_dir_write(const struct made_dir *dir, const char *name, const void *data,
				  size_t n)
{
	FILE *file = fopen(made_dir_file(dir, name), "wb");
	if (!file || fwrite(data, 1, n, file) != n || fclose(file) != 0)
		abort();
}

static inline void made_dir_write_text(const struct made_dir *dir, const char *name,
				       const char *text)
{
	made_dir_write(dir, name, text, strlen(text));
}

static inline void made_dir_write_bytes(const struct made_dir *dir, const char *name,
					struct bytes b)
{
	made_dir_write(dir, name, b.at, b.n);
	bytes_free(&b);
}

static inline void made_dir_remove(const struct made_dir *dir)
{
	DIR *listing = opendir(dir->path);
	for (struct dirent *entry; listing && (entry = readdir(listing));) {
		if (unlink(made_dir_file(dir, entry->d_name)) < 0)
			rmdir(made_dir_file(dir, entry->d_name));
	}
	if (listing)
		closedir(listing);
	rmdir(dir->path);
}
