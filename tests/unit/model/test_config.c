/* What config.json may say, what it must, and the check that shapes fit. */
#include "model/config.h"

#include "make_files.h"
#include "model/model_impl.h"
#include "sk_test.h"

#include <errno.h>
#include <math.h>

static int read_text(const char *text, struct sk_model_config *config, unsigned *options,
		     struct sk_diag *diag)
{
	json_t *json;
	diag->text[0] = '\0';
	int r = sk_json_parse(text, strlen(text), 1000, "dir/config.json", &json, diag);
	if (r < 0)
		return r;
	r = sk_hf_config_read(json, "dir/config.json", config, options, diag);
	json_decref(json);
	return r;
}

/* The text with one more pair, or with `key` put in the place of its old value. */
static const char *with(const char *text, const char *key, const char *value)
{
	static char out[2048];
	json_t *json = json_loads(text, 0, NULL), *item = json_loads(value, JSON_DECODE_ANY, NULL);
	assert_non_null(json);
	assert_non_null(item);
	json_object_set_new(json, key, item);
	size_t n = json_dumpb(json, out, sizeof out - 1, 0);
	assert_true(n < sizeof out);
	out[n] = '\0';
	json_decref(json);
	return out;
}

static const char *without(const char *text, const char *key)
{
	return with(text, key, "null");
}

static void reads_an_old_neox(void **state)
{
	(void)state;
	struct sk_model_config c;
	struct sk_diag diag;
	unsigned options;
	assert_int_equal(read_text(neox_config, &c, &options, &diag), 0);
	assert_int_equal(c.arch, SK_ARCH_NEOX);
	assert_int_equal(c.activation, SK_GELU_ERF);
	assert_int_equal(c.n_vocab, 10);
	assert_int_equal(c.n_context, 64);
	assert_int_equal(c.n_layers, 1);
	assert_int_equal(c.n_embd, 8);
	assert_int_equal(c.n_heads, 2);
	assert_int_equal(c.n_kv_heads, 2);
	assert_int_equal(c.head_dim, 4);
	assert_int_equal(c.n_rot, 2);
	assert_int_equal(c.n_ff, 12);
	assert_true(c.rope_base == 10000);
	assert_true(c.norm_eps == 1e-5f);
	assert_true(c.parallel_residual);
	assert_false(c.tied_output);
	assert_int_equal(c.bos_id, 0);
	assert_int_equal(c.eos_id, 1);
	assert_int_equal(options, SK_HAS_QKV_BIAS | SK_HAS_OUT_BIAS | SK_HAS_UP_BIAS |
					  SK_HAS_DOWN_BIAS | SK_HAS_OUTPUT);
	assert_int_equal(sk_model_config_kv_floats(&c), 2 * 1 * 2 * 4);
}

static void reads_a_llama(void **state)
{
	(void)state;
	struct sk_model_config c;
	struct sk_diag diag;
	unsigned options;
	assert_int_equal(read_text(llama_config, &c, &options, &diag), 0);
	assert_int_equal(c.arch, SK_ARCH_LLAMA);
	assert_int_equal(c.activation, SK_SWIGLU);
	assert_int_equal(c.n_kv_heads, 1);
	assert_int_equal(c.head_dim, 4);
	assert_int_equal(c.n_rot, 4);
	assert_true(c.rope_base == 50000);
	assert_true(c.norm_eps == 1e-6f);
	assert_false(c.parallel_residual);
	assert_int_equal(c.eos_id, 2); /* the first of an array */
	assert_int_equal(options, SK_HAS_OUTPUT);
}

static void absent_keys_have_their_defaults(void **state)
{
	(void)state;
	static const char least[] = "\"vocab_size\":10,\"hidden_size\":32,\"num_hidden_layers\":1,"
				    "\"num_attention_heads\":2,\"intermediate_size\":12,"
				    "\"max_position_embeddings\":64}";
	char text[512];
	struct sk_model_config c;
	struct sk_diag diag;
	unsigned options;
	snprintf(text, sizeof text, "{\"model_type\":\"gpt_neox\",%s", least);
	assert_int_equal(read_text(text, &c, &options, &diag), 0);
	assert_int_equal(c.n_rot, 4); /* a quarter of 16 */
	assert_true(c.rope_base == 10000 && c.norm_eps == 1e-5f && c.parallel_residual);
	assert_int_equal(c.activation, SK_GELU_ERF);
	assert_int_equal(c.bos_id, -1);
	assert_int_equal(c.eos_id, -1);
	snprintf(text, sizeof text, "{\"model_type\":\"llama\",%s", least);
	assert_int_equal(read_text(text, &c, &options, &diag), 0);
	assert_int_equal(c.n_kv_heads, 2);
	assert_int_equal(c.n_rot, 16);
	assert_true(c.rope_base == 10000 && c.norm_eps == 1e-6f);
	assert_int_equal(options, SK_HAS_OUTPUT);
}

static void reads_every_variant(void **state)
{
	(void)state;
	struct sk_model_config c;
	struct sk_diag diag;
	unsigned options;
#define READ(text, key, value)                                                                     \
	assert_int_equal(read_text(with(text, key, value), &c, &options, &diag), 0)
	READ(neox_config, "use_parallel_residual", "false");
	assert_false(c.parallel_residual);
	READ(neox_config, "rotary_pct", "1.0");
	assert_int_equal(c.n_rot, 4);
	READ(neox_config, "rotary_emb_base", "500");
	assert_true(c.rope_base == 500);
	/* The newer object wins over the older keys. */
	READ(neox_config, "rope_parameters",
	     "{\"partial_rotary_factor\":1,\"rope_theta\":20000,\"rope_type\":\"default\"}");
	assert_int_equal(c.n_rot, 4);
	assert_true(c.rope_base == 20000);
	READ(llama_config, "rope_parameters", "{\"rope_theta\":7e5,\"rope_type\":\"default\"}");
	assert_true(c.rope_base == 7e5);
	READ(llama_config, "rope_scaling", "{\"type\":\"default\"}");
	READ(llama_config, "rope_scaling", "null");
	static const char *const tanh_names[] = {"\"gelu_new\"", "\"gelu_fast\"",
						 "\"gelu_pytorch_tanh\""};
	for (unsigned i = 0; i < 3; i++) {
		READ(neox_config, "hidden_act", tanh_names[i]);
		assert_int_equal(c.activation, SK_GELU_TANH);
	}
	READ(neox_config, "attention_bias", "false");
	assert_int_equal(options, SK_HAS_UP_BIAS | SK_HAS_DOWN_BIAS | SK_HAS_OUTPUT);
	READ(llama_config, "attention_bias", "true");
	assert_int_equal(options, SK_HAS_QKV_BIAS | SK_HAS_OUT_BIAS | SK_HAS_OUTPUT);
	READ(llama_config, "mlp_bias", "true");
	assert_int_equal(options, SK_HAS_UP_BIAS | SK_HAS_DOWN_BIAS | SK_HAS_OUTPUT);
	READ(llama_config, "tie_word_embeddings", "true");
	assert_true(c.tied_output);
	assert_int_equal(options, 0);
	READ(llama_config, "head_dim", "6");
	assert_int_equal(c.head_dim, 6);
	assert_int_equal(c.n_rot, 6);
	READ(llama_config, "eos_token_id",
	     "10"); /* outside the vocabulary: left to the tokenizer */
	assert_int_equal(c.eos_id, -1);
	READ(llama_config, "sliding_window", "null");
	READ(llama_config, "num_local_experts", "0");
#undef READ
}

static void says_what_is_wrong(void **state)
{
	(void)state;
	static const struct {
		const char *text, *key, *value;
		int error;
		const char *words;
	} cases[] = {
		{llama_config, "model_type", "null", EINVAL, "'model_type'"},
		{llama_config, "model_type", "7", EINVAL, "'model_type'"},
		{llama_config, "model_type", "\"qwen2\"", ENOTSUP, "'qwen2'"},
		{llama_config, "model_type", "\"a\\u001bb\"", ENOTSUP, "'a?b'"},
		{neox_config, "vocab_size", "null", EINVAL, "'vocab_size'"},
		{neox_config, "vocab_size", "0", EINVAL, "'vocab_size'"},
		{neox_config, "vocab_size", "-1", EINVAL, "'vocab_size'"},
		{neox_config, "vocab_size", "4294967297", EINVAL, "'vocab_size'"},
		{neox_config, "vocab_size", "2147483647", EINVAL, "vocabulary"},
		{neox_config, "vocab_size", "10.5", EINVAL, "'vocab_size'"},
		{neox_config, "vocab_size", "\"10\"", EINVAL, "'vocab_size'"},
		{neox_config, "hidden_size", "9", EINVAL, "not divided"},
		{neox_config, "hidden_size", "null", EINVAL, "'hidden_size'"},
		{neox_config, "num_hidden_layers", "100000", EINVAL, "layers"},
		{neox_config, "num_attention_heads", "[1]", EINVAL, "'num_attention_heads'"},
		{neox_config, "intermediate_size", "null", EINVAL, "'intermediate_size'"},
		{neox_config, "max_position_embeddings", "null", EINVAL,
		 "'max_position_embeddings'"},
		{neox_config, "rotary_pct", "0", EINVAL, "'rotary_pct'"},
		{neox_config, "rotary_pct", "1.5", EINVAL, "1.5"},
		{neox_config, "rotary_pct", "0.25", EINVAL, "rotary"}, /* one dimension: odd */
		{neox_config, "rotary_pct", "0.01", EINVAL, "rotary"}, /* none */
		{neox_config, "rotary_emb_base", "-1", EINVAL, "'rotary_emb_base'"},
		{neox_config, "layer_norm_eps", "0", EINVAL, "'layer_norm_eps'"},
		{neox_config, "layer_norm_eps", "\"x\"", EINVAL, "'layer_norm_eps'"},
		{neox_config, "layer_norm_eps", "2", EINVAL, "epsilon"},
		{neox_config, "layer_norm_eps", "1e-300", EINVAL, "epsilon"}, /* 0 as a float */
		{neox_config, "hidden_act", "\"relu\"", ENOTSUP, "'relu'"},
		{neox_config, "hidden_act", "\"silu\"", ENOTSUP, "'silu'"},
		{neox_config, "hidden_act", "3", EINVAL, "'hidden_act'"},
		{neox_config, "use_parallel_residual", "1", EINVAL, "'use_parallel_residual'"},
		{neox_config, "tie_word_embeddings", "\"no\"", EINVAL, "'tie_word_embeddings'"},
		{llama_config, "hidden_act", "\"gelu\"", ENOTSUP, "'gelu'"},
		{llama_config, "num_key_value_heads", "3", EINVAL, "3 key-value heads"},
		{llama_config, "num_key_value_heads", "0", EINVAL, "'num_key_value_heads'"},
		{llama_config, "head_dim", "5", EINVAL, "rotary"},
		{llama_config, "head_dim", "1000000", EINVAL, "head width"},
		{llama_config, "rope_theta", "0", EINVAL, "'rope_theta'"},
		{llama_config, "rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8}", ENOTSUP,
		 "'llama3'"},
		{llama_config, "rope_scaling", "{\"type\":\"linear\",\"factor\":2}", ENOTSUP,
		 "'linear'"},
		{llama_config, "rope_scaling", "7", EINVAL, "'rope_scaling'"},
		{llama_config, "rope_parameters", "{\"rope_type\":\"yarn\"}", ENOTSUP, "'yarn'"},
		{llama_config, "rope_parameters", "{\"full_attention\":{\"rope_theta\":1}}",
		 ENOTSUP, "differ by layer"},
		{llama_config, "partial_rotary_factor", "0.5", ENOTSUP, "0.5"},
		{llama_config, "sliding_window", "4096", ENOTSUP, "'sliding_window'"},
		{llama_config, "num_local_experts", "8", ENOTSUP, "'num_local_experts'"},
		{llama_config, "quantization_config", "{\"bits\":4}", ENOTSUP,
		 "'quantization_config'"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sk_model_config c = {.n_vocab = 12345};
		struct sk_diag diag;
		unsigned options = 99;
		int r = read_text(with(cases[i].text, cases[i].key, cases[i].value), &c, &options,
				  &diag);
		if (r != -cases[i].error || strncmp(diag.text, "dir/config.json: ", 17) != 0 ||
		    !strstr(diag.text, cases[i].words))
			fail_msg("%s %s: %d, %s", cases[i].key, cases[i].value, r, diag.text);
		assert_int_equal(c.n_vocab, 12345); /* untouched */
		assert_int_equal(options, 99);
	}
	struct sk_model_config c;
	struct sk_diag diag;
	unsigned options;
	assert_int_equal(read_text("{\"model_type\":\"llama\"", &c, &options, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "malformed at line 1"));
	assert_int_equal(read_text(without(llama_config, "hidden_act"), &c, &options, &diag), 0);
}

static void the_check_knows_every_shape(void **state)
{
	(void)state;
	static const struct sk_model_config good = {
		.arch = SK_ARCH_LLAMA,
		.activation = SK_SWIGLU,
		.n_vocab = 10,
		.n_context = 64,
		.n_layers = 2,
		.n_embd = 8,
		.n_heads = 4,
		.n_kv_heads = 2,
		.head_dim = 2,
		.n_rot = 2,
		.n_ff = 12,
		.rope_base = 10000,
		.norm_eps = 1e-5f,
	};
	struct sk_diag diag;
	assert_int_equal(sk_model_config_check(&good, "m", &diag), 0);
	assert_int_equal(sk_model_config_check(&good, "m", NULL), 0);
#define BREAK(statement)                                                                           \
	do {                                                                                       \
		struct sk_model_config c = good;                                                   \
		statement;                                                                         \
		assert_int_equal(sk_model_config_check(&c, "m", &diag), -EINVAL);                  \
		assert_int_equal(strncmp(diag.text, "m: ", 3), 0);                                 \
	} while (0)
	BREAK(c.n_vocab = 0);
	BREAK(c.n_context = 0);
	BREAK(c.n_layers = 0);
	BREAK(c.n_embd = 0);
	BREAK(c.n_heads = 0);
	BREAK(c.n_kv_heads = 0);
	BREAK(c.head_dim = 0);
	BREAK(c.n_rot = 0);
	BREAK(c.n_ff = 0);
	BREAK(c.n_embd = UINT32_MAX);
	BREAK(c.n_kv_heads = 3);
	BREAK(c.n_rot = 4);
	BREAK((c.head_dim = 3, c.n_rot = 3));
	BREAK((c.arch = SK_ARCH_NEOX, c.activation = SK_GELU_ERF)); /* shares key-value heads */
	BREAK(c.activation = SK_GELU_TANH);
	BREAK(c.rope_base = 0);
	BREAK(c.rope_base = NAN);
	BREAK(c.rope_base = INFINITY);
	BREAK(c.norm_eps = 0);
	BREAK(c.norm_eps = NAN);
	BREAK(c.norm_eps = -1);
#undef BREAK
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_an_old_neox),
		cmocka_unit_test(reads_a_llama),
		cmocka_unit_test(absent_keys_have_their_defaults),
		cmocka_unit_test(reads_every_variant),
		cmocka_unit_test(says_what_is_wrong),
		cmocka_unit_test(the_check_knows_every_shape),
	};
	return sk_test_run(tests, NULL, NULL);
}
