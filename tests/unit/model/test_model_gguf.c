/* Models in GGUF files: what opens, where its weights are found, and the sentence for what does
 * not. */
#include "open_models.h"

static void write_gguf(uint32_t version, const struct made_pair *pairs,
		       const struct made_tensor *tensors)
{
	made_dir_write_bytes(&dir, "m.gguf", make_gguf(version, pairs, tensors, 32));
}

static struct sk_model *open_gguf(void)
{
	return open_good(made_dir_file(&dir, "m.gguf"));
}

/* Dims i and i + 2 of a head of 4 lie side by side in the file. */
static const float paired[8] = {0, 2, 1, 3, 4, 6, 5, 7};

static void gguf_llama_rows_are_unpaired(void **state)
{
	(void)state;
	struct tensors t = copy(llama_gguf_tensors);
	add(&t, "blk.0.attn_q.bias", 8, 0, NULL);
	add(&t, "blk.0.attn_k.bias", 4, 0, NULL);
	add(&t, "blk.0.attn_v.bias", 4, 0, NULL);
	for (uint32_t version = 2; version <= 3; version++) {
		write_gguf(version, llama_pairs, t.list);
		struct sk_model *model = open_gguf();
		const struct sk_model_config *c = sk_model_config(model);
		const struct sk_model_layer *layer = sk_model_layer(model, 0);
		assert_int_equal(c->arch, SK_ARCH_LLAMA);
		assert_int_equal(c->n_vocab, 10);
		assert_int_equal(c->n_kv_heads, 1);
		assert_int_equal(c->n_rot, 4);
		assert_true(c->rope_base == 50000 && c->norm_eps == 1e-5f);
		assert_int_equal(c->bos_id, -1);
		assert_int_equal(c->eos_id, 2);
		assert_string_equal(c->name, "Tiny ?[1mLlama");
		assert_non_null(sk_model_gguf(model));
		assert_null(sk_model_directory(model));
		assert_shape(&layer->qkv, 16, 8);
		assert_shape(&layer->qkv_bias, 16, 1);
		assert_true(sk_matrix_is_absent(&layer->attn_out_bias));
		for (uint32_t row = 0; row < 8; row++) {
			assert_true(value(&layer->qkv, row, 3) == paired[row] * 1000 + 3);
			assert_true(value(&layer->qkv_bias, row, 0) == paired[row] * 1000);
		}
		for (uint32_t row = 0; row < 4; row++) {
			assert_true(value(&layer->qkv, 8 + row, 3) == paired[row] * 1000 + 3);
			assert_true(value(&layer->qkv, 12 + row, 3) == (float)row * 1000 + 3);
		}
		assert_string_equal(layer->ffn_up.parts[0].tensor->name, "blk.0.ffn_gate.weight");
		sk_model_close(model);
	}
	named(&t, "output.weight")->name = "";
	write_gguf(3, llama_pairs, t.list);
	struct sk_model *model = open_gguf();
	assert_true(sk_model_config(model)->tied_output);
	sk_model_close(model);
}

static void gguf_neox_is_already_sorted(void **state)
{
	(void)state;
	write_gguf(3, neox_pairs, neox_gguf_tensors);
	struct sk_model *model = open_gguf();
	const struct sk_model_config *c = sk_model_config(model);
	assert_int_equal(c->arch, SK_ARCH_NEOX);
	assert_int_equal(c->activation, SK_GELU_ERF);
	assert_int_equal(c->n_rot, 2);
	assert_true(c->rope_base == 10000);
	assert_false(c->parallel_residual);
	assert_string_equal(c->name, "m.gguf");
	for (uint32_t row = 0; row < 24; row++)
		assert_true(value(&sk_model_layer(model, 0)->qkv, row, 1) == (float)row * 1000 + 1);
	sk_model_close(model);
}

static void every_gguf_tensor_is_needed(void **state)
{
	(void)state;
	const struct made_tensor *lists[] = {neox_gguf_tensors, llama_gguf_tensors};
	const struct made_pair *pairs[] = {neox_pairs, llama_pairs};
	for (unsigned k = 0; k < 2; k++) {
		for (unsigned i = 0; lists[k][i].name; i++) {
			char quoted[128];
			struct tensors t = copy(lists[k]);
			bool is_optional = strcmp(lists[k][i].name, "output.weight") == 0 ||
					   strcmp(lists[k][i].name, "blk.0.attn_qkv.bias") == 0 ||
					   strcmp(lists[k][i].name, "blk.0.attn_output.bias") == 0;
			snprintf(quoted, sizeof quoted, "'%s'", t.list[i].name);
			if (i > 0) { /* the first sets the vocabulary */
				t.list[i].dims[0]++;
				write_gguf(3, pairs[k], t.list);
				open_fails(made_dir_file(&dir, "m.gguf"), EINVAL, quoted, "wants");
			}
			t.list[i].name = "";
			write_gguf(3, pairs[k], t.list);
			if (is_optional)
				sk_model_close(open_gguf());
			else
				open_fails(made_dir_file(&dir, "m.gguf"), EINVAL, quoted,
					   "missing");
		}
	}
}

static void gguf_metadata_is_checked(void **state)
{
	(void)state;
	static const struct {
		const char *replaces; /* "" adds */
		struct made_pair pair;
		int error;
		const char *words;
	} cases[] = {
		{"general.architecture", {"", 0, NULL, 0}, EINVAL, "'general.architecture'"},
		{"general.architecture",
		 {"general.architecture", GGUF_U32, NULL, 1},
		 EINVAL,
		 "'general.architecture'"},
		{"general.architecture",
		 {"general.architecture", GGUF_STRING, "qwen3", 0},
		 ENOTSUP,
		 "'qwen3'"},
		{"llama.block_count", {"", 0, NULL, 0}, EINVAL, "'llama.block_count' is missing"},
		{"llama.block_count",
		 {"llama.block_count", GGUF_U32, NULL, 0},
		 EINVAL,
		 "'llama.block_count'"},
		{"llama.block_count",
		 {"llama.block_count", GGUF_F32, NULL, 1},
		 EINVAL,
		 "'llama.block_count'"},
		{"llama.block_count",
		 {"llama.block_count", GGUF_U32, NULL, 5000},
		 EINVAL,
		 "number of layers"},
		{"llama.block_count",
		 {"llama.block_count", GGUF_U32, NULL, 2},
		 EINVAL,
		 "'blk.1.attn_norm.weight'"},
		{"llama.context_length", {"", 0, NULL, 0}, EINVAL, "'llama.context_length'"},
		{"llama.embedding_length", {"", 0, NULL, 0}, EINVAL, "'llama.embedding_length'"},
		{"llama.embedding_length",
		 {"llama.embedding_length", GGUF_U32, NULL, 7},
		 EINVAL,
		 "not divided"},
		{"llama.feed_forward_length",
		 {"", 0, NULL, 0},
		 EINVAL,
		 "'llama.feed_forward_length'"},
		{"llama.attention.head_count",
		 {"", 0, NULL, 0},
		 EINVAL,
		 "'llama.attention.head_count'"},
		{"llama.attention.layer_norm_rms_epsilon",
		 {"", 0, NULL, 0},
		 EINVAL,
		 "epsilon' is missing"},
		{"llama.attention.layer_norm_rms_epsilon",
		 {"llama.attention.layer_norm_rms_epsilon", GGUF_F32, NULL, __builtin_nan("")},
		 EINVAL,
		 "epsilon'"},
		{"llama.attention.layer_norm_rms_epsilon",
		 {"llama.attention.layer_norm_rms_epsilon", GGUF_U32, NULL, 1},
		 EINVAL,
		 "epsilon'"},
		{"llama.rope.freq_base",
		 {"llama.rope.freq_base", GGUF_F32, NULL, -1},
		 EINVAL,
		 "freq_base'"},
		{"llama.rope.freq_base",
		 {"llama.rope.freq_base", GGUF_F32, NULL, __builtin_inf()},
		 EINVAL,
		 "freq_base'"},
		{"", {"llama.rope.dimension_count", GGUF_U32, NULL, 2}, ENOTSUP, "2 of 4"},
		{"", {"llama.attention.value_length", GGUF_U32, NULL, 2}, ENOTSUP, "values of 2"},
		{"", {"llama.expert_count", GGUF_U32, NULL, 8}, ENOTSUP, "'llama.expert_count'"},
		{"",
		 {"llama.attention.sliding_window", GGUF_U32, NULL, 8},
		 ENOTSUP,
		 "sliding_window'"},
		{"", {"llama.attention.causal", GGUF_BOOL, NULL, 0}, ENOTSUP, "causal'"},
		{"",
		 {"llama.rope.scaling.type", GGUF_STRING, "yarn", 0},
		 ENOTSUP,
		 "'llama.rope.scaling.type'"},
		{"",
		 {"llama.rope.scaling.type", GGUF_U32, NULL, 0},
		 ENOTSUP,
		 "'llama.rope.scaling.type'"},
		{"",
		 {"llama.rope.scaling.factor", GGUF_F32, NULL, 4},
		 ENOTSUP,
		 "'llama.rope.scaling.factor'"},
		{"",
		 {"llama.rope.scale_linear", GGUF_F32, NULL, 4},
		 ENOTSUP,
		 "'llama.rope.scale_linear'"},
		{"", {"split.count", GGUF_U32, NULL, 3}, ENOTSUP, "'split.count'"},
		{"", {"llama.rope.scaling.type", GGUF_STRING, "none", 0}, 0, ""},
		{"", {"llama.rope.scaling.type", GGUF_STRING, "linear", 0}, 0, ""},
		{"", {"llama.rope.scaling.factor", GGUF_F32, NULL, 1}, 0, ""},
		{"", {"llama.attention.key_length", GGUF_U32, NULL, 4}, 0, ""},
		{"", {"llama.expert_count", GGUF_U32, NULL, 0}, 0, ""},
		{"llama.rope.freq_base", {"", 0, NULL, 0}, 0, ""},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct made_pair pairs[MAX_MADE];
		unsigned at = 0;
		memcpy(pairs, llama_pairs, sizeof pairs);
		while (pairs[at].key && strcmp(pairs[at].key, cases[i].replaces) != 0)
			at++;
		assert_true(at < MAX_MADE - 1);
		pairs[at] = cases[i].pair;
		write_gguf(3, pairs, llama_gguf_tensors);
		if (cases[i].error)
			open_fails(made_dir_file(&dir, "m.gguf"), cases[i].error, cases[i].words,
				   "");
		else
			sk_model_close(open_gguf());
	}

	struct tensors t = copy(llama_gguf_tensors);
	add(&t, "rope_freqs.weight", 2, 0, NULL);
	write_gguf(3, llama_pairs, t.list);
	open_fails(made_dir_file(&dir, "m.gguf"), ENOTSUP, "'rope_freqs.weight'", "scaling");
	t = copy(llama_gguf_tensors);
	add(&t, "blk.0.ffn_gate_inp.weight", 8, 8, NULL);
	write_gguf(3, llama_pairs, t.list);
	open_fails(made_dir_file(&dir, "m.gguf"), ENOTSUP, "'blk.0.ffn_gate_inp.weight'",
		   "no place");
}

/* A quantised Llama of other people's making: values from the gguf package. */
static void opens_smollm2(void **state)
{
	(void)state;
	static const char file[] = "streamkv/models/SmolLM2-135M-Instruct.Q4_1.gguf";
	const char *given = getenv("STREAMKV_SMOLLM2"), *cache = getenv("XDG_CACHE_HOME"),
		   *home = getenv("HOME");
	char path[PATH_MAX];
	if (given)
		snprintf(path, sizeof path, "%s", given);
	else if (cache)
		snprintf(path, sizeof path, "%s/%s", cache, file);
	else
		snprintf(path, sizeof path, "%s/.cache/%s", home ? home : "", file);
	sk_test_need(path);

	struct sk_model *model;
	struct sk_diag diag;
	assert_int_equal(sk_model_open(path, &model, &diag), 0);
	const struct sk_model_config *c = sk_model_config(model);
	assert_int_equal(c->arch, SK_ARCH_LLAMA);
	assert_int_equal(c->n_vocab, 49152);
	assert_int_equal(c->n_context, 8192);
	assert_int_equal(c->n_layers, 30);
	assert_int_equal(c->n_embd, 576);
	assert_int_equal(c->n_heads, 9);
	assert_int_equal(c->n_kv_heads, 3);
	assert_int_equal(c->head_dim, 64);
	assert_int_equal(c->n_ff, 1536);
	assert_true(c->rope_base == 100000 && c->tied_output);
	assert_int_equal(c->bos_id, 1);
	assert_int_equal(c->eos_id, 2);
	assert_int_equal(sk_model_main_dtype(model), SK_DTYPE_Q4_1);
	assert_int_equal(sk_model_n_parameters(model), 134515008);
	assert_int_equal(sk_model_weight_bytes(model), 96576768);
	for (uint32_t i = 0; i < 30; i++) {
		assert_shape(&sk_model_layer(model, i)->qkv, 960, 576);
		assert_shape(&sk_model_layer(model, i)->ffn_up, 3072, 576);
		assert_shape(&sk_model_layer(model, i)->ffn_down, 576, 1536);
	}
	/* Rows as in the Hugging Face model, from which the file was permuted. */
	assert_true(value(&sk_model_layer(model, 0)->qkv, 64 + 33, 0) == -0x1.4p-8f);
	assert_true(value(&sk_model_layer(model, 0)->qkv, 5, 1) == 0x1.614p-3f);
	assert_true(value(&sk_model_layer(model, 29)->ffn_down, 3, 1) == -0x1.38p-5f);
	sk_model_close(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_in_dir(gguf_llama_rows_are_unpaired), test_in_dir(gguf_neox_is_already_sorted),
		test_in_dir(every_gguf_tensor_is_needed),  test_in_dir(gguf_metadata_is_checked),
		cmocka_unit_test(opens_smollm2),
	};
	return sk_test_run(tests, NULL, NULL);
}
