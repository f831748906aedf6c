/* config.json bytes through the parser and the configuration's checks. */
#include "driver.h"

#include "../unit/model/make_files.h"
#include "model/model_impl.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	json_t *json;
	struct sk_model_config config;
	struct sk_diag diag = {""};
	unsigned options;
	if (sk_json_parse(bytes, n_bytes, 1 << 16, "input", &json, &diag) < 0) {
		if (!*diag.text)
			abort(); /* every refusal has its sentence */
		return 0;
	}
	int r = sk_hf_config_read(json, "input", &config, &options, &diag);
	if (r < 0 && !*diag.text)
		abort();
	if (r == 0 && sk_model_config_check(&config, "input", &diag) < 0)
		abort();
	json_decref(json);
	return 0;
}

size_t sk_fuzz_seed(unsigned index, uint8_t *out, size_t room)
{
	static const char *const seeds[] = {
		neox_config,
		llama_config,
		"{\"model_type\":\"gpt_neox\",\"vocab_size\":10,\"hidden_size\":8,\"num_hidden_"
		"layers\":1,"
		"\"num_attention_heads\":2,\"intermediate_size\":12,\"max_position_embeddings\":64,"
		"\"rope_parameters\":{\"partial_rotary_factor\":0.5,\"rope_theta\":10000,"
		"\"rope_type\":\"default\"},\"rope_scaling\":null}",
	};
	if (index >= sizeof seeds / sizeof seeds[0] || strlen(seeds[index]) > room)
		return 0;
	memcpy(out, seeds[index], strlen(seeds[index]));
	return strlen(seeds[index]);
}
