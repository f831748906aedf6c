/* Models in Hugging Face directories: what opens, where its weights are found, and the sentence for
 * what does not open. */
#include "open_models.h"

static void write_hf(const char *config, const struct made_tensor *tensors)
{
	made_dir_write_text(&dir, "config.json", config);
	made_dir_write_bytes(&dir, "model.safetensors", make_safetensors(tensors));
}

/* In the file head h has its queries in rows 12h.., its keys in 12h + 4.., its values in 12h + 8...
 */
static const float neox_rows[24] = {0,  1,  2,  3,  12, 13, 14, 15, 4,  5,  6,  7,
				    16, 17, 18, 19, 8,  9,  10, 11, 20, 21, 22, 23};

static void neox_queries_keys_values_are_sorted(void **state)
{
	(void)state;
	write_hf(neox_config, neox_tensors);
	struct sk_model *model = open_good(dir.path);
	const struct sk_model_layer *layer = sk_model_layer(model, 0);
	assert_shape(&layer->qkv, 24, 8);
	assert_shape(&layer->qkv_bias, 24, 1);
	for (uint32_t row = 0; row < 24; row++) {
		assert_true(value(&layer->qkv, row, 5) == neox_rows[row] * 1000 + 5);
		assert_true(value(&layer->qkv_bias, row, 0) == neox_rows[row] * 1000);
	}
	assert_shape(&layer->attn_norm, 8, 1);
	assert_shape(&layer->attn_norm_bias, 8, 1);
	assert_shape(&layer->attn_out, 8, 8);
	assert_shape(&layer->attn_out_bias, 8, 1);
	assert_shape(&layer->ffn_norm, 8, 1);
	assert_shape(&layer->ffn_norm_bias, 8, 1);
	assert_shape(&layer->ffn_up, 12, 8);
	assert_shape(&layer->ffn_up_bias, 12, 1);
	assert_shape(&layer->ffn_down, 8, 12);
	assert_shape(&layer->ffn_down_bias, 8, 1);
	assert_shape(sk_model_embedding(model), 10, 8);
	assert_shape(sk_model_output(model), 10, 8);
	assert_shape(sk_model_final_norm(model), 8, 1);
	assert_shape(sk_model_final_norm_bias(model), 8, 1);
	assert_true(sk_model_output(model)->parts[0].tensor !=
		    sk_model_embedding(model)->parts[0].tensor);
	assert_string_equal(sk_model_path(model), dir.path);
	assert_string_equal(sk_model_directory(model), dir.path);
	assert_null(sk_model_gguf(model));
	assert_string_equal(sk_model_config(model)->name, strrchr(dir.path, '/') + 1);
	assert_int_equal(sk_model_n_parameters(model),
			 2 * 80 + 2 * 8 + 4 * 8 + 24 * 9 + 64 + 8 + 96 + 12 + 96 + 8);
	assert_int_equal(sk_model_weight_bytes(model), 4 * sk_model_n_parameters(model));
	assert_int_equal(sk_model_main_dtype(model), SK_DTYPE_F32);
	sk_model_close(model);
	sk_model_close(NULL);
}

static void llama_matrices_are_stacked(void **state)
{
	(void)state;
	write_hf(llama_config, llama_tensors);
	struct sk_model *model = open_good(dir.path);
	const struct sk_model_layer *layer = sk_model_layer(model, 0);
	assert_shape(&layer->qkv, 16, 8);
	assert_int_equal(layer->qkv.n_parts, 3);
	static const float rows[16] = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 0, 1, 2, 3};
	for (uint32_t row = 0; row < 16; row++)
		assert_true(value(&layer->qkv, row, 2) == rows[row] * 1000 + 2);
	assert_string_equal(layer->qkv.parts[1].tensor->name,
			    "model.layers.0.self_attn.k_proj.weight");
	assert_shape(&layer->ffn_up, 24, 8);
	assert_string_equal(layer->ffn_up.parts[0].tensor->name,
			    "model.layers.0.mlp.gate_proj.weight");
	assert_string_equal(layer->ffn_up.parts[1].tensor->name,
			    "model.layers.0.mlp.up_proj.weight");
	assert_true(sk_matrix_is_absent(&layer->qkv_bias));
	assert_true(sk_matrix_is_absent(&layer->attn_norm_bias));
	assert_true(sk_matrix_is_absent(&layer->ffn_up_bias));
	assert_true(sk_matrix_is_absent(sk_model_final_norm_bias(model)));
	sk_model_close(model);
}

static void biases_and_ties_follow_the_configuration(void **state)
{
	(void)state;
	char config[1024];
	struct tensors t = copy(llama_tensors);
	snprintf(config, sizeof config, "%.*s,\"attention_bias\":true,\"mlp_bias\":true}",
		 (int)strlen(llama_config) - 1, llama_config);
	write_hf(config, t.list);
	open_fails(dir.path, EINVAL, "'model.layers.0.self_attn.q_proj.bias'", "missing");
	add(&t, "model.layers.0.self_attn.q_proj.bias", 8, 0, NULL);
	add(&t, "model.layers.0.self_attn.k_proj.bias", 4, 0, NULL);
	add(&t, "model.layers.0.self_attn.v_proj.bias", 4, 0, NULL);
	add(&t, "model.layers.0.self_attn.o_proj.bias", 8, 0, NULL);
	add(&t, "model.layers.0.mlp.gate_proj.bias", 12, 0, NULL);
	add(&t, "model.layers.0.mlp.up_proj.bias", 12, 0, NULL);
	add(&t, "model.layers.0.mlp.down_proj.bias", 8, 0, NULL);
	write_hf(config, t.list);
	struct sk_model *model = open_good(dir.path);
	const struct sk_model_layer *layer = sk_model_layer(model, 0);
	assert_shape(&layer->qkv_bias, 16, 1);
	assert_shape(&layer->attn_out_bias, 8, 1);
	assert_shape(&layer->ffn_up_bias, 24, 1);
	assert_shape(&layer->ffn_down_bias, 8, 1);
	sk_model_close(model);

	/* A bias that the configuration denies is not silently dropped. */
	write_hf(llama_config, t.list);
	open_fails(dir.path, ENOTSUP, ".bias'", "no place");

	/* Tied: with and without the output matrix in the file. */
	t = copy(llama_tensors);
	char *tied = strstr(strcpy(config, llama_config), "\"tie_word_embeddings\":false");
	memcpy(tied, "\"tie_word_embeddings\":true ", 27);
	for (unsigned i = 0; i < 2; i++) {
		write_hf(config, t.list);
		model = open_good(dir.path);
		assert_true(sk_model_config(model)->tied_output);
		assert_ptr_equal(sk_model_output(model)->parts[0].tensor,
				 sk_model_embedding(model)->parts[0].tensor);
		assert_int_equal(sk_model_n_parameters(model),
				 80 + 3 * 8 + 64 + 32 + 32 + 64 + 3 * 96);
		sk_model_close(model);
		t.list[1].name = ""; /* lm_head.weight */
	}
	write_hf(llama_config, t.list);
	open_fails(dir.path, EINVAL, "'lm_head.weight'", "missing");
}

static void legacy_buffers_are_passed_over(void **state)
{
	(void)state;
	struct tensors t = copy(neox_tensors);
	add(&t, "gpt_neox.layers.0.attention.bias", 4, 4, NULL);
	add(&t, "gpt_neox.layers.0.attention.masked_bias", 1, 0, "I32");
	add(&t, "gpt_neox.layers.0.attention.rotary_emb.inv_freq", 2, 0, NULL);
	write_hf(neox_config, t.list);
	struct sk_model *model = open_good(dir.path);
	assert_shape(&sk_model_layer(model, 0)->qkv, 24, 8);
	sk_model_close(model);
}

static void every_tensor_is_needed_in_its_shape(void **state)
{
	(void)state;
	const struct made_tensor *lists[] = {neox_tensors, llama_tensors};
	const char *configs[] = {neox_config, llama_config};
	for (unsigned k = 0; k < 2; k++) {
		for (unsigned i = 0; lists[k][i].name; i++) {
			char quoted[128];
			const char *name = lists[k][i].name;
			struct tensors t = copy(lists[k]);
			snprintf(quoted, sizeof quoted, "'%s'", name);
			t.list[i].name = "";
			write_hf(configs[k], t.list);
			open_fails(dir.path, EINVAL, quoted, "missing");
			t.list[i].name = name;
			t.list[i].dims[0]++;
			write_hf(configs[k], t.list);
			open_fails(dir.path, EINVAL, quoted, "wants");
			t.list[i].dims[0]--;
			if (t.list[i].dims[1]) {
				t.list[i].dims[1]--;
				write_hf(configs[k], t.list);
				open_fails(dir.path, EINVAL, quoted, "wants");
			}
		}
	}
	struct tensors t = copy(llama_tensors);
	add(&t, "model.layers.0.self_attn.q_norm.weight", 4, 0, NULL);
	write_hf(llama_config, t.list);
	open_fails(dir.path, ENOTSUP, "q_norm.weight'", "no place");
	t = copy(llama_tensors);
	add(&t, "model.layers.1.input_layernorm.weight", 8, 0, NULL);
	write_hf(llama_config, t.list);
	open_fails(dir.path, ENOTSUP, "'model.layers.1.input_layernorm.weight'", "no place");
}

/* Splits the tiny Llama after its fifth tensor into two shards and writes the index given. */
static void write_shards(const char *index)
{
	struct tensors first = copy(llama_tensors), second = copy(llama_tensors);
	for (unsigned i = 0; llama_tensors[i].name; i++)
		(i < 5 ? &second : &first)->list[i].name = "";
	made_dir_write_text(&dir, "config.json", llama_config);
	made_dir_write_bytes(&dir, "model-1.safetensors", make_safetensors(first.list));
	made_dir_write_bytes(&dir, "model-2.safetensors", make_safetensors(second.list));
	made_dir_write_text(&dir, "model.safetensors.index.json", index);
}

/* The right index, with one tensor's shard replaced (NULL: left out). */
static const char *make_index(const char *odd_tensor, const char *odd_shard)
{
	static char text[4096];
	int n = snprintf(text, sizeof text, "{\"metadata\":{},\"weight_map\":{");
	const char *comma = "";
	for (unsigned i = 0; llama_tensors[i].name; i++) {
		const char *name = llama_tensors[i].name;
		const char *shard = i < 5 ? "model-1.safetensors" : "model-2.safetensors";
		if (odd_tensor && strcmp(name, odd_tensor) == 0)
			shard = odd_shard;
		if (!shard)
			continue;
		n += snprintf(text + n, sizeof text - (size_t)n, "%s\"%s\":\"%s\"", comma, name,
			      shard);
		comma = ",";
	}
	snprintf(text + n, sizeof text - (size_t)n, "}}");
	return text;
}

static void shards_are_one_model(void **state)
{
	(void)state;
	write_shards(make_index(NULL, NULL));
	struct sk_model *model = open_good(dir.path);
	assert_shape(&sk_model_layer(model, 0)->qkv, 16, 8);
	assert_true(value(&sk_model_layer(model, 0)->ffn_down, 7, 11) == 7011);
	sk_model_close(model);
}

static void shards_must_agree_with_their_index(void **state)
{
	(void)state;
	static const char norm[] = "model.norm.weight";
	static const char *const outside[] = {
		"../model-1.safetensors", "/etc/passwd",         "..",          "sub/m.safetensors",
		".safetensors",           ".hidden.safetensors", "model-1.bin", ""};
	for (unsigned i = 0; i < sizeof outside / sizeof outside[0]; i++) {
		write_shards(make_index(norm, outside[i]));
		open_fails(dir.path, EINVAL, "'model.norm.weight'", "beside it");
	}
	write_shards(make_index(norm, "model-2.safetensors"));
	open_fails(dir.path, EINVAL, "'model.norm.weight'", "not in model-2.safetensors");
	write_shards(make_index(norm, NULL));
	open_fails(dir.path, EINVAL, "'model.norm.weight'", "not listed");
	write_shards(make_index(norm, "model-3.safetensors"));
	open_fails(dir.path, ENOENT, "model-3.safetensors", "cannot be opened");
	write_shards("{\"weight_map\":[]}");
	open_fails(dir.path, EINVAL, "index.json", "'weight_map'");
	write_shards("{\"weight_map\":{}}");
	open_fails(dir.path, EINVAL, "index.json", "0 shards");
	write_shards("{\"weight_map\":{\"a\":7}}");
	open_fails(dir.path, EINVAL, "index.json", "'a'");
	write_shards("{");
	open_fails(dir.path, EINVAL, "index.json", "malformed");

	/* Both shards have one tensor. */
	write_shards(make_index(NULL, NULL));
	struct tensors both = copy(llama_tensors);
	for (unsigned i = 0; i < 5; i++) {
		if (i != 2)
			both.list[i].name = "";
	}
	made_dir_write_bytes(&dir, "model-2.safetensors", make_safetensors(both.list));
	open_fails(dir.path, EINVAL, "'model.norm.weight' is in", "model-2.safetensors");
}

static void says_what_a_model_is(void **state)
{
	(void)state;
	open_fails(made_dir_file(&dir, "absent"), ENOENT, "absent", "cannot be opened");
	open_fails(dir.path, ENOENT, "config.json", ".gguf");
	made_dir_write_text(&dir, "config.json", llama_config);
	open_fails(dir.path, ENOENT, "model.safetensors", "neither");
	made_dir_write_text(&dir, "pytorch_model.bin", "x");
	open_fails(dir.path, ENOENT, "pytorch_model.bin", "convert it");
	made_dir_write_bytes(&dir, "model.safetensors", make_safetensors(llama_tensors));
	open_fails(made_dir_file(&dir, "model.safetensors"), EINVAL, "give the directory",
		   "config.json");
	open_fails(made_dir_file(&dir, "config.json"), EINVAL, "not a GGUF file", "");
	made_dir_write_text(&dir, "config.json", "");
	open_fails(dir.path, EINVAL, "config.json", "empty");
}

/* The project's own model: values from the safetensors package. */
static void opens_pythia_books(void **state)
{
	(void)state;
	struct sk_model *model;
	struct sk_diag diag;
	assert_int_equal(sk_model_open(sk_test_model("pythia-books"), &model, &diag), 0);
	const struct sk_model_config *c = sk_model_config(model);
	assert_int_equal(c->arch, SK_ARCH_NEOX);
	assert_int_equal(c->activation, SK_GELU_ERF);
	assert_int_equal(c->n_vocab, 4096);
	assert_int_equal(c->n_context, 512);
	assert_int_equal(c->n_layers, 6);
	assert_int_equal(c->n_embd, 256);
	assert_int_equal(c->n_heads, 8);
	assert_int_equal(c->head_dim, 32);
	assert_int_equal(c->n_rot, 8);
	assert_int_equal(c->n_ff, 1024);
	assert_true(c->parallel_residual && !c->tied_output && c->rope_base == 10000);
	assert_string_equal(c->name, "pythia-books");
	assert_int_equal(sk_model_n_parameters(model), 6836224);
	assert_int_equal(sk_model_weight_bytes(model), 13672448);
	assert_int_equal(sk_model_main_dtype(model), SK_DTYPE_F16);
	for (uint32_t i = 0; i < 6; i++) {
		assert_shape(&sk_model_layer(model, i)->qkv, 768, 256);
		assert_shape(&sk_model_layer(model, i)->ffn_up, 1024, 256);
		assert_shape(&sk_model_layer(model, i)->ffn_down, 256, 1024);
	}
	assert_true(value(sk_model_embedding(model), 5, 1) == -0x1.77cp-6f);
	assert_true(value(sk_model_output(model), 4095, 2) == -0x1.8a8p-5f);
	/* The file's row 3 * 96 + 32 + 7: head 3, key 7. */
	assert_true(value(&sk_model_layer(model, 5)->qkv, 256 + 3 * 32 + 7, 0) == -0x1.8dcp-5f);
	/* The file's row 7 * 96 + 64 + 31: head 7, value 31. */
	assert_true(value(&sk_model_layer(model, 2)->qkv_bias, 512 + 7 * 32 + 31, 0) ==
		    -0x1.08cp-13f);
	sk_model_close(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_in_dir(neox_queries_keys_values_are_sorted),
		test_in_dir(llama_matrices_are_stacked),
		test_in_dir(biases_and_ties_follow_the_configuration),
		test_in_dir(legacy_buffers_are_passed_over),
		test_in_dir(every_tensor_is_needed_in_its_shape),
		test_in_dir(shards_are_one_model),
		test_in_dir(shards_must_agree_with_their_index),
		test_in_dir(says_what_a_model_is),
		cmocka_unit_test(opens_pythia_books),
	};
	return sk_test_run(tests, NULL, NULL);
}
