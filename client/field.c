#include "client/field.h"

const struct sk_field sk_fields[SK_N_FIELDS + 1] = {
	{SK_PERPLEXITY, "perplexity", "perplexity", "perplexity", 1, .n_decimals = 3},
	{SK_WEIGHT_BYTES, "weight_bytes", "peak memory: weights, MB", "weights MB", 1e6,
	 .n_decimals = 2, .is_whole = true, .is_common = true},
	{SK_CACHE_BYTES, "cache_bytes", "peak memory: KV cache, MB", "cache MB", 1e6,
	 .n_decimals = 2, .is_whole = true},
	{SK_SCRATCH_BYTES, "scratch_bytes", "peak memory: scratch, MB", "scratch MB", 1e6,
	 .n_decimals = 2, .is_whole = true, .is_common = true},
	{SK_TOTAL_BYTES, "total_bytes", "peak memory: total, MB", NULL, 1e6, .n_decimals = 2,
	 .is_whole = true},
	{SK_TOKENS_PER_S, "tokens_per_s", "throughput, tokens/s", "tokens/s", 1, .n_decimals = 1,
	 .has_range = true},
	{SK_TTFT_MS, "ttft_ms", "time to first token, ms", "TTFT ms", 1, .n_decimals = 1,
	 .has_range = true},
	{SK_TPOT_MS, "tpot_ms", "time per output token, ms", "TPOT ms", 1, .n_decimals = 2,
	 .has_range = true},
	{SK_ATTENTION_MS, "attention_ms", "attention time per step, ms", "attention ms", 1,
	 .n_decimals = 3},
	{SK_PARAMETERS, "parameters", "parameters, millions", NULL, 1e6, .n_decimals = 2,
	 .is_whole = true},
	{SK_MEAN_LIVE, "mean_live", "cached tokens per step, mean", NULL, 1, .n_decimals = 1},
	{SK_FLOPS_PER_TOKEN, "flops_per_token", "FLOPs per token, millions", "MFLOPs", 1e6,
	 .n_decimals = 2},
	{SK_WEIGHT_BYTES, NULL, "weights, bytes", NULL, 1, .n_decimals = 0},
	{SK_CACHE_BYTES_PER_TOKEN, "cache_bytes_per_token", "cache per token, bytes", NULL, 1,
	 .n_decimals = 0, .is_whole = true},
	{.label = NULL},
};

const char *sk_field_mode(const struct streamkv_policy *policy)
{
	static const char *const modes[] = {"default", "streaming", "window", "dense", "recompute"};
	return modes[policy->mode];
}
