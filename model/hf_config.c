/* config.json of a Hugging Face model. Old files and those of transformers 5 (rope_parameters)
 * differ in where the rotary embedding is described; a key that is absent has its architecture's
 * default.
 */
#include "model/model_impl.h"
#include "model/printable.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

static bool is_set(const json_t *json, const char *key)
{
	const json_t *value = sk_json_get(json, key);
	return value && !json_is_false(value) &&
	       !(json_is_number(value) && json_number_value(value) == 0);
}

/* Features that change what is computed, and that the forward pass does not have. */
static int refuse_features(const json_t *json, const char *source, struct sk_diag *diag)
{
	static const struct {
		const char *key, *what;
	} features[] = {
		{"quantization_config", "weights quantised in safetensors"},
		{"num_local_experts", "a mixture of experts"},
		{"num_experts", "a mixture of experts"},
		{"n_routed_experts", "a mixture of experts"},
	};
	for (size_t i = 0; i < sizeof features / sizeof features[0]; i++) {
		if (is_set(json, features[i].key))
			return sk_diag_fail(diag, ENOTSUP, "%s: '%s': %s is not supported", source,
					    features[i].key, features[i].what);
	}
	const json_t *use = sk_json_get(json, "use_sliding_window");
	if (is_set(json, "sliding_window") && !(use && json_is_false(use)))
		return sk_diag_fail(
			diag, ENOTSUP,
			"%s: 'sliding_window': a model with a sliding window of its own is not "
			"supported",
			source);
	return 0;
}

/* The rotary embedding. `rotated` is the part of a head that is rotated. */
static int read_rope(const json_t *json, const char *source, struct sk_model_config *config,
		     double *rotated, struct sk_diag *diag)
{
	static const char *const places[] = {"rope_parameters", "rope_scaling"};
	bool is_neox = config->arch == SK_ARCH_NEOX;
	int r;

	/* Top-level keys first: those of an object override them. */
	if ((r = sk_json_read_positive(json, "rope_theta", &config->rope_base, source, diag)) < 0)
		return r;
	if (is_neox) {
		if ((r = sk_json_read_positive(json, "rotary_emb_base", &config->rope_base, source,
					       diag)) < 0 ||
		    (r = sk_json_read_positive(json, "rotary_pct", rotated, source, diag)) < 0)
			return r;
	}
	if ((r = sk_json_read_positive(json, "partial_rotary_factor", rotated, source, diag)) < 0)
		return r;

	for (unsigned i = 0; i < 2; i++) {
		const json_t *rope = sk_json_get(json, places[i]);
		const char *type = "default", *key;
		json_t *value;
		if (!rope)
			continue;
		if (!json_is_object(rope))
			return sk_diag_fail(diag, EINVAL, "%s: '%s' is not an object", source,
					    places[i]);
		json_object_foreach ((json_t *)rope, key, value) {
			if (json_is_object(value))
				return sk_diag_fail(
					diag, ENOTSUP,
					"%s: '%s' that differ by layer are not supported", source,
					places[i]);
		}
		if ((r = sk_json_read_string(rope, "type", &type, source, diag)) < 0 ||
		    (r = sk_json_read_string(rope, "rope_type", &type, source, diag)) < 0)
			return r;
		struct sk_printable words;
		if (strcmp(type, "default") != 0)
			return sk_diag_fail(
				diag, ENOTSUP,
				"%s: '%s' of the type '%s': only 'default' is supported", source,
				places[i], sk_printable(&words, type, strlen(type)));
		if ((r = sk_json_read_positive(rope, "rope_theta", &config->rope_base, source,
					       diag)) < 0 ||
		    (r = sk_json_read_positive(rope, "partial_rotary_factor", rotated, source,
					       diag)) < 0)
			return r;
	}
	if (*rotated > 1)
		return sk_diag_fail(diag, EINVAL, "%s: %g of a head cannot be rotated", source,
				    *rotated);
	return 0;
}

static int read_activation(const json_t *json, const char *source, struct sk_model_config *config,
			   struct sk_diag *diag)
{
	static const struct {
		enum sk_arch arch;
		const char *name;
		enum sk_activation activation;
	} known[] = {
		{SK_ARCH_NEOX, "gelu", SK_GELU_ERF},
		{SK_ARCH_NEOX, "gelu_python", SK_GELU_ERF},
		{SK_ARCH_NEOX, "gelu_new", SK_GELU_TANH},
		{SK_ARCH_NEOX, "gelu_fast", SK_GELU_TANH},
		{SK_ARCH_NEOX, "gelu_pytorch_tanh", SK_GELU_TANH},
		{SK_ARCH_LLAMA, "silu", SK_SWIGLU},
		{SK_ARCH_LLAMA, "swish", SK_SWIGLU},
	};
	const char *name = config->arch == SK_ARCH_NEOX ? "gelu" : "silu";
	int r = sk_json_read_string(json, "hidden_act", &name, source, diag);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		if (known[i].arch == config->arch && strcmp(known[i].name, name) == 0) {
			config->activation = known[i].activation;
			return 0;
		}
	}
	struct sk_printable words;
	return sk_diag_fail(diag, ENOTSUP, "%s: 'hidden_act' is '%s', which is not supported",
			    source, sk_printable(&words, name, strlen(name)));
}

/* One token id, or the first of several; the tokenizer knows the others. */
static int32_t read_id(const json_t *json, const char *key, uint32_t n_vocab)
{
	const json_t *value = sk_json_get(json, key);
	if (json_is_array(value))
		value = json_array_get(value, 0);
	json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
	return id >= 0 && id < (json_int_t)n_vocab ? (int32_t)id : -1;
}

static int read_arch(const json_t *json, const char *source, enum sk_arch *ret,
		     struct sk_diag *diag)
{
	struct sk_printable words;
	const char *type = "";
	int r = sk_json_read_string(json, "model_type", &type, source, diag);
	if (r < 0)
		return r;
	if (strcmp(type, "gpt_neox") == 0)
		*ret = SK_ARCH_NEOX;
	else if (strcmp(type, "llama") == 0)
		*ret = SK_ARCH_LLAMA;
	else if (!*type)
		return sk_diag_fail(diag, EINVAL, "%s: has no 'model_type'", source);
	else
		return sk_diag_fail(
			diag, ENOTSUP,
			"%s: 'model_type' is '%s'; only gpt_neox and llama are supported", source,
			sk_printable(&words, type, strlen(type)));
	return 0;
}

static int read_shapes(const json_t *json, const char *source, struct sk_model_config *config,
		       struct sk_diag *diag)
{
	const struct {
		const char *key;
		uint32_t *value;
		bool is_needed;
	} shapes[] = {
		{"vocab_size", &config->n_vocab, true},
		{"hidden_size", &config->n_embd, true},
		{"num_hidden_layers", &config->n_layers, true},
		{"num_attention_heads", &config->n_heads, true},
		{"intermediate_size", &config->n_ff, true},
		{"max_position_embeddings", &config->n_context, true},
		{"num_key_value_heads", &config->n_kv_heads, false},
		{"head_dim", &config->head_dim, false},
	};
	for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
		/* GPT-NeoX knows neither of the last two. */
		if (!shapes[i].is_needed && config->arch == SK_ARCH_NEOX)
			continue;
		int r = sk_json_read_count(json, shapes[i].key, INT_MAX, shapes[i].value, source,
					   diag);
		if (r < 0)
			return r;
		if (shapes[i].is_needed && *shapes[i].value == 0)
			return sk_diag_fail(diag, EINVAL, "%s: has no '%s'", source, shapes[i].key);
	}
	if (config->n_kv_heads == 0)
		config->n_kv_heads = config->n_heads;
	if (config->head_dim == 0) {
		if (config->n_embd % config->n_heads != 0)
			return sk_diag_fail(diag, EINVAL,
					    "%s: 'hidden_size' %u is not divided by %u heads",
					    source, config->n_embd, config->n_heads);
		config->head_dim = config->n_embd / config->n_heads;
	}
	return 0;
}

int sk_hf_config_read(const json_t *json, const char *source, struct sk_model_config *ret_config,
		      unsigned *ret_options, struct sk_diag *diag)
{
	struct sk_model_config config = {.rope_base = 10000, .parallel_residual = false};
	double eps, rotated;
	bool attention_bias, mlp_bias, is_tied = false;
	int r;

	if ((r = read_arch(json, source, &config.arch, diag)) < 0 ||
	    (r = refuse_features(json, source, diag)) < 0)
		return r;
	bool is_neox = config.arch == SK_ARCH_NEOX;
	eps = is_neox ? 1e-5 : 1e-6;
	rotated = is_neox ? 0.25 : 1;
	attention_bias = mlp_bias = is_neox;
	config.parallel_residual = is_neox;

	if ((r = read_shapes(json, source, &config, diag)) < 0 ||
	    (r = read_activation(json, source, &config, diag)) < 0 ||
	    (r = read_rope(json, source, &config, &rotated, diag)) < 0 ||
	    (r = sk_json_read_positive(json, is_neox ? "layer_norm_eps" : "rms_norm_eps", &eps,
				       source, diag)) < 0 ||
	    (r = sk_json_read_bool(json, "attention_bias", &attention_bias, source, diag)) < 0 ||
	    (r = sk_json_read_bool(json, "tie_word_embeddings", &is_tied, source, diag)) < 0)
		return r;
	if (is_neox)
		r = sk_json_read_bool(json, "use_parallel_residual", &config.parallel_residual,
				      source, diag);
	else
		r = sk_json_read_bool(json, "mlp_bias", &mlp_bias, source, diag);
	if (r < 0)
		return r;
	if (!is_neox && rotated != 1)
		return sk_diag_fail(diag, ENOTSUP,
				    "%s: a Llama model that rotates %g of a head is not supported",
				    source, rotated);

	config.n_rot = (uint32_t)(config.head_dim * rotated);
	config.norm_eps = (float)eps;
	config.tied_output = is_tied;
	config.bos_id = read_id(json, "bos_token_id", config.n_vocab);
	config.eos_id = read_id(json, "eos_token_id", config.n_vocab);
	if ((r = sk_model_config_check(&config, source, diag)) < 0)
		return r;

	*ret_options = (attention_bias ? SK_HAS_QKV_BIAS | SK_HAS_OUT_BIAS : 0) |
		       (mlp_bias ? SK_HAS_UP_BIAS | SK_HAS_DOWN_BIAS : 0) |
		       (is_tied ? 0 : SK_HAS_OUTPUT);
	*ret_config = config;
	return 0;
}
