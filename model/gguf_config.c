/* The architecture out of GGUF metadata. Keys are named after the architecture
 * ("llama.block_count").
 */
#include "model/model_impl.h"
#include "model/printable.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct source {
	const struct sk_gguf *gguf;
	const char *arch;
	struct sk_diag *diag;
};

struct key {
	char text[96];
};

static const char *make_key(const struct source *s, const char *name, struct key *out)
{
	snprintf(out->text, sizeof out->text, "%s.%s", s->arch, name);
	return out->text;
}

static int fail(const struct source *s, int error, const char *key, const char *reason)
{
	return sk_diag_fail(s->diag, error, "%s: metadata '%s' %s", sk_gguf_path(s->gguf), key,
			    reason);
}

/* Absent leaves *value as it is, which is then a fault if that is 0. */
static int read_count(const struct source *s, const char *name, uint32_t *value)
{
	struct key buffer;
	const char *key = make_key(s, name, &buffer);
	uint64_t n = *value;
	int r = sk_gguf_get_uint(s->gguf, key, &n);
	if (r == -EINVAL)
		return fail(s, EINVAL, key, "is not one whole number");
	if (n == 0 || n > INT_MAX)
		return fail(s, EINVAL, key, r == -ENOENT ? "is missing" : "is out of range");
	*value = (uint32_t)n;
	return 0;
}

/* As read_count(): 0 before means that the key must be there. */
static int read_positive(const struct source *s, const char *name, double *value)
{
	struct key buffer;
	const char *key = make_key(s, name, &buffer);
	double number = *value;
	int r = sk_gguf_get_float(s->gguf, key, &number);
	if (r == -EINVAL)
		return fail(s, EINVAL, key, "is not a number with a fraction");
	if (!isfinite(number) || number <= 0)
		return fail(s, EINVAL, key,
			    r == -ENOENT ? "is missing" : "is not a number above 0");
	*value = number;
	return 0;
}

/* Keys of which only the harmless value is supported, or none. */
static int refuse_features(const struct source *s)
{
	static const struct {
		const char *name, *what;
	} counts[] = {
		{"expert_count", "asks for a mixture of experts, which is not supported"},
		{"attention.sliding_window", "asks for a sliding window, which is not supported"},
	};
	static const char *const factors[] = {"rope.scaling.factor", "rope.scale_linear"};
	struct key buffer;
	uint64_t n;
	double factor;
	struct sk_gguf_string type;
	bool is_causal;

	for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
		const char *key = make_key(s, counts[i].name, &buffer);
		int r = sk_gguf_get_uint(s->gguf, key, &n);
		if (r == -EINVAL || (r == 0 && n > 0))
			return fail(s, ENOTSUP, key, counts[i].what);
	}

	const char *key = make_key(s, "attention.causal", &buffer);
	int r = sk_gguf_get_bool(s->gguf, key, &is_causal);
	if (r == -EINVAL || (r == 0 && !is_causal))
		return fail(s, ENOTSUP, key,
			    "asks for attention that is not causal, which is not supported");

	key = make_key(s, "rope.scaling.type", &buffer);
	r = sk_gguf_get_string(s->gguf, key, &type);
	if (r == 0 && type.n_bytes == 4 && memcmp(type.text, "none", 4) == 0)
		return 0;
	if (r == -EINVAL || (r == 0 && (type.n_bytes != 6 || memcmp(type.text, "linear", 6) != 0)))
		return fail(s, ENOTSUP, key, "asks for a rotary scaling that is not supported");
	for (size_t i = 0; i < 2; i++) {
		key = make_key(s, factors[i], &buffer);
		r = sk_gguf_get_float(s->gguf, key, &factor);
		/* Writers put 0 or 1 for no scaling. */
		if (r == -EINVAL || (r == 0 && factor != 0 && factor != 1))
			return fail(s, ENOTSUP, key,
				    "asks for a rotary scaling that is not supported");
	}
	return 0;
}

static int read_arch(struct source *s, enum sk_arch *ret)
{
	static const struct {
		const char *name;
		enum sk_arch arch;
	} known[] = {{"llama", SK_ARCH_LLAMA}, {"gptneox", SK_ARCH_NEOX}};
	struct sk_gguf_string name;
	struct sk_printable words;
	uint64_t n_files;

	if (sk_gguf_get_uint(s->gguf, "split.count", &n_files) == 0 && n_files > 1)
		return fail(s, ENOTSUP, "split.count",
			    "says that this is one of several files; merge them");
	if (sk_gguf_get_string(s->gguf, "general.architecture", &name) < 0)
		return fail(s, EINVAL, "general.architecture", "is missing or not a string");
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		if (name.n_bytes == strlen(known[i].name) &&
		    memcmp(name.text, known[i].name, name.n_bytes) == 0) {
			s->arch = known[i].name;
			*ret = known[i].arch;
			return 0;
		}
	}
	return sk_diag_fail(s->diag, ENOTSUP,
			    "%s: the architecture is '%s'; only llama and gptneox are supported",
			    sk_gguf_path(s->gguf), sk_printable(&words, name.text, name.n_bytes));
}

static int read_heads(const struct source *s, struct sk_model_config *config)
{
	int r = read_count(s, "attention.head_count", &config->n_heads);
	if (r < 0)
		return r;
	config->n_kv_heads = config->n_heads;
	r = read_count(s, "attention.head_count_kv", &config->n_kv_heads);
	if (r < 0)
		return r;

	struct key buffer;
	uint64_t n;
	const char *key = make_key(s, "attention.key_length", &buffer);
	if (sk_gguf_get_uint(s->gguf, key, &n) == -ENOENT && config->n_embd % config->n_heads != 0)
		return sk_diag_fail(s->diag, EINVAL, "%s: a width of %u is not divided by %u heads",
				    sk_gguf_path(s->gguf), config->n_embd, config->n_heads);
	config->head_dim = config->n_embd / config->n_heads;
	uint32_t value_dim = config->head_dim;
	if ((r = read_count(s, "attention.key_length", &config->head_dim)) < 0 ||
	    (r = read_count(s, "attention.value_length", &value_dim)) < 0)
		return r;
	if (value_dim != config->head_dim)
		return sk_diag_fail(
			s->diag, ENOTSUP,
			"%s: keys of %u dimensions beside values of %u are not supported",
			sk_gguf_path(s->gguf), config->head_dim, value_dim);

	config->n_rot = config->head_dim;
	r = read_count(s, "rope.dimension_count", &config->n_rot);
	if (r < 0)
		return r;
	/* The rows of a Llama file are in an order that suits only whole heads. */
	if (config->arch == SK_ARCH_LLAMA && config->n_rot != config->head_dim)
		return sk_diag_fail(
			s->diag, ENOTSUP,
			"%s: a Llama model that rotates %u of %u dimensions is not supported",
			sk_gguf_path(s->gguf), config->n_rot, config->head_dim);
	return 0;
}

static int32_t read_id(const struct source *s, const char *key, uint32_t n_vocab)
{
	uint64_t id;
	return sk_gguf_get_uint(s->gguf, key, &id) == 0 && id < n_vocab ? (int32_t)id : -1;
}

int sk_gguf_config_read(const struct sk_gguf *gguf, struct sk_model_config *ret_config,
			struct sk_diag *diag)
{
	struct source s = {gguf, NULL, diag};
	struct sk_model_config config = {.rope_base = 10000};
	double eps = 0;
	int r;

	if ((r = read_arch(&s, &config.arch)) < 0 || (r = refuse_features(&s)) < 0)
		return r;
	bool is_neox = config.arch == SK_ARCH_NEOX;
	if ((r = read_count(&s, "block_count", &config.n_layers)) < 0 ||
	    (r = read_count(&s, "context_length", &config.n_context)) < 0 ||
	    (r = read_count(&s, "embedding_length", &config.n_embd)) < 0 ||
	    (r = read_count(&s, "feed_forward_length", &config.n_ff)) < 0 ||
	    (r = read_heads(&s, &config)) < 0 ||
	    (r = read_positive(&s, "rope.freq_base", &config.rope_base)) < 0 ||
	    (r = read_positive(&s,
			       is_neox ? "attention.layer_norm_epsilon"
				       : "attention.layer_norm_rms_epsilon",
			       &eps)) < 0)
		return r;
	config.norm_eps = (float)eps;

	/* The file does not say which GELU; the models of this architecture were trained with the
	 * exact. */
	config.activation = is_neox ? SK_GELU_ERF : SK_SWIGLU;
	config.parallel_residual = is_neox;
	if (is_neox && sk_gguf_get_bool(gguf, "gptneox.use_parallel_residual",
					&config.parallel_residual) == -EINVAL)
		return fail(&s, EINVAL, "gptneox.use_parallel_residual",
			    "is neither true nor false");

	const struct sk_tensor *embedding = sk_gguf_tensor(gguf, "token_embd.weight");
	if (!embedding)
		return sk_diag_fail(diag, EINVAL, "%s: tensor 'token_embd.weight' is missing",
				    sk_gguf_path(gguf));
	if (embedding->n_rows > INT_MAX)
		return sk_diag_fail(diag, EINVAL, "%s: tensor 'token_embd.weight' has %llu rows",
				    sk_gguf_path(gguf), (unsigned long long)embedding->n_rows);
	config.n_vocab = (uint32_t)embedding->n_rows;
	config.bos_id = read_id(&s, "tokenizer.ggml.bos_token_id", config.n_vocab);
	config.eos_id = read_id(&s, "tokenizer.ggml.eos_token_id", config.n_vocab);
	if ((r = sk_model_config_check(&config, sk_gguf_path(gguf), diag)) < 0)
		return r;
	*ret_config = config;
	return 0;
}
