/* The check that a configuration's shapes fit each other. The bounds lie far above any model of
 * these architectures, and low enough that no product of three of them passes 64 bits.
 */
#include "model/config.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>

static const struct {
	const char *what;
	size_t offset;
	uint32_t most;
} bounds[] = {
	{"vocabulary", offsetof(struct sk_model_config, n_vocab), 1 << 24},
	{"context", offsetof(struct sk_model_config, n_context), 1 << 28},
	{"number of layers", offsetof(struct sk_model_config, n_layers), 1 << 12},
	{"embedding width", offsetof(struct sk_model_config, n_embd), 1 << 18},
	{"number of heads", offsetof(struct sk_model_config, n_heads), 1 << 12},
	{"number of key-value heads", offsetof(struct sk_model_config, n_kv_heads), 1 << 12},
	{"head width", offsetof(struct sk_model_config, head_dim), 1 << 12},
	{"number of rotary dimensions", offsetof(struct sk_model_config, n_rot), 1 << 12},
	{"MLP width", offsetof(struct sk_model_config, n_ff), 1 << 20},
};

int sk_model_config_check(const struct sk_model_config *c, const char *source, struct sk_diag *diag)
{
	for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
		uint32_t value = *(const uint32_t *)((const char *)c + bounds[i].offset);
		if (value < 1 || value > bounds[i].most)
			return sk_diag_fail(diag, EINVAL, "%s: the %s is %u, outside 1 to %u",
					    source, bounds[i].what, value, bounds[i].most);
	}
	if (c->n_heads % c->n_kv_heads != 0)
		return sk_diag_fail(diag, EINVAL,
				    "%s: %u heads cannot share %u key-value heads evenly", source,
				    c->n_heads, c->n_kv_heads);
	if (c->arch == SK_ARCH_NEOX && c->n_kv_heads != c->n_heads)
		return sk_diag_fail(
			diag, EINVAL,
			"%s: a GPT-NeoX model with %u heads has as many key-value heads, not %u",
			source, c->n_heads, c->n_kv_heads);
	if (c->n_rot > c->head_dim || c->n_rot % 2 != 0)
		return sk_diag_fail(diag, EINVAL,
				    "%s: %u rotary dimensions are no even part of a head of %u",
				    source, c->n_rot, c->head_dim);
	if ((c->arch == SK_ARCH_LLAMA) != (c->activation == SK_SWIGLU))
		return sk_diag_fail(diag, EINVAL, "%s: the activation is not the architecture's",
				    source);
	if (!isfinite(c->rope_base) || c->rope_base <= 0)
		return sk_diag_fail(diag, EINVAL, "%s: the rotary base %g is not a number above 0",
				    source, c->rope_base);
	if (!isfinite(c->norm_eps) || c->norm_eps <= 0 || c->norm_eps >= 1)
		return sk_diag_fail(diag, EINVAL,
				    "%s: the norm's epsilon %g is not between 0 and 1", source,
				    (double)c->norm_eps);
	return 0;
}
