#include "model/fingerprint.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#define ROWS_LOOKED_AT 8 /* of a matrix, spread evenly */

static void add_number(XXH3_state_t *hash, uint64_t number)
{
	XXH3_128bits_update(hash, &number, sizeof number);
}

static void add_matrix(XXH3_state_t *hash, const struct sk_model *model, const struct sk_matrix *m)
{
	add_number(hash, m->n_rows);
	add_number(hash, m->n_cols);
	uint32_t n = m->n_rows < ROWS_LOOKED_AT ? m->n_rows : ROWS_LOOKED_AT;
	for (uint32_t i = 0; i < n; i++) {
		enum sk_dtype dtype;
		uint32_t at = n == 1 ? 0 : (uint32_t)((uint64_t)i * (m->n_rows - 1) / (n - 1));
		const void *row = sk_matrix_row(m, at, &dtype);
		add_number(hash, dtype);
		XXH3_128bits_update(hash, row, sk_dtype_row_bytes(dtype, m->n_cols));
	}
	sk_model_release(model, m); /* a look at a row may have mapped 2 MiB around it */
}

static void add_config(XXH3_state_t *hash, const struct sk_model_config *c)
{
	uint64_t base_bits;
	memcpy(&base_bits, &c->rope_base, sizeof base_bits);
	const uint64_t numbers[] = {c->arch,   c->activation, c->n_vocab,    c->n_layers,
				    c->n_embd, c->n_heads,    c->n_kv_heads, c->head_dim,
				    c->n_rot,  c->n_ff,       base_bits,     c->parallel_residual};
	XXH3_128bits_update(hash, numbers, sizeof numbers);
}

int sk_model_fingerprint(const struct sk_model *model, uint8_t ret[SK_FINGERPRINT_BYTES])
{
	XXH3_state_t *hash = XXH3_createState();
	XXH128_canonical_t canonical;
	const struct sk_model_config *config = sk_model_config(model);

	if (!hash)
		return -ENOMEM;
	XXH3_128bits_reset(hash);
	add_config(hash, config);
	add_matrix(hash, model, sk_model_embedding(model));
	add_matrix(hash, model, sk_model_final_norm(model));
	add_matrix(hash, model, sk_model_output(model));
	for (uint32_t i = 0; i < config->n_layers; i++) {
		const struct sk_model_layer *layer = sk_model_layer(model, i);
		const struct sk_matrix *matrices[] = {
			&layer->attn_norm, &layer->qkv,    &layer->qkv_bias, &layer->attn_out,
			&layer->ffn_norm,  &layer->ffn_up, &layer->ffn_down,
		};
		for (unsigned j = 0; j < sizeof matrices / sizeof *matrices; j++)
			add_matrix(hash, model, matrices[j]);
	}
	XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(hash));
	memcpy(ret, canonical.digest, SK_FINGERPRINT_BYTES);
	XXH3_freeState(hash);
	return 0;
}
