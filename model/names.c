/* The tables of tensor names. */
#include "model/names.h"

#include "model/model_impl.h"

#include <string.h>

#define TOP(member)   offsetof(struct sk_model_top, member)
#define LAYER(member) offsetof(struct sk_model_layer, member)
/* clang-format off */
#define PLAIN(name, rows) {name, rows, SK_ORDER_PLAIN}

static const struct sk_role neox_hf_top[] = {
	{TOP(embedding),       0, SK_DIM_EMBD, {PLAIN("gpt_neox.embed_in.weight", SK_DIM_VOCAB)}},
	{TOP(final_norm),      0, SK_DIM_ONE,  {PLAIN("gpt_neox.final_layer_norm.weight", SK_DIM_EMBD)}},
	{TOP(final_norm_bias), 0, SK_DIM_ONE,  {PLAIN("gpt_neox.final_layer_norm.bias", SK_DIM_EMBD)}},
	{TOP(output), SK_HAS_OUTPUT, SK_DIM_EMBD, {PLAIN("embed_out.weight", SK_DIM_VOCAB)}},
	{0},
};
static const struct sk_role neox_hf_layer[] = {
	{LAYER(attn_norm),      0, SK_DIM_ONE,  {PLAIN("input_layernorm.weight", SK_DIM_EMBD)}},
	{LAYER(attn_norm_bias), 0, SK_DIM_ONE,  {PLAIN("input_layernorm.bias", SK_DIM_EMBD)}},
	{LAYER(qkv),            0, SK_DIM_EMBD, {{"attention.query_key_value.weight", SK_DIM_QKV, SK_ORDER_NEOX_QKV}}},
	{LAYER(qkv_bias), SK_HAS_QKV_BIAS, SK_DIM_ONE, {{"attention.query_key_value.bias", SK_DIM_QKV, SK_ORDER_NEOX_QKV}}},
	{LAYER(attn_out),       0, SK_DIM_Q,    {PLAIN("attention.dense.weight", SK_DIM_EMBD)}},
	{LAYER(attn_out_bias), SK_HAS_OUT_BIAS, SK_DIM_ONE, {PLAIN("attention.dense.bias", SK_DIM_EMBD)}},
	{LAYER(ffn_norm),       0, SK_DIM_ONE,  {PLAIN("post_attention_layernorm.weight", SK_DIM_EMBD)}},
	{LAYER(ffn_norm_bias),  0, SK_DIM_ONE,  {PLAIN("post_attention_layernorm.bias", SK_DIM_EMBD)}},
	{LAYER(ffn_up),         0, SK_DIM_EMBD, {PLAIN("mlp.dense_h_to_4h.weight", SK_DIM_FF)}},
	{LAYER(ffn_up_bias),    0, SK_DIM_ONE,  {PLAIN("mlp.dense_h_to_4h.bias", SK_DIM_FF)}},
	{LAYER(ffn_down),       0, SK_DIM_FF,   {PLAIN("mlp.dense_4h_to_h.weight", SK_DIM_EMBD)}},
	{LAYER(ffn_down_bias),  0, SK_DIM_ONE,  {PLAIN("mlp.dense_4h_to_h.bias", SK_DIM_EMBD)}},
	{0},
};

static const struct sk_role llama_hf_top[] = {
	{TOP(embedding),  0, SK_DIM_EMBD, {PLAIN("model.embed_tokens.weight", SK_DIM_VOCAB)}},
	{TOP(final_norm), 0, SK_DIM_ONE,  {PLAIN("model.norm.weight", SK_DIM_EMBD)}},
	{TOP(output), SK_HAS_OUTPUT, SK_DIM_EMBD, {PLAIN("lm_head.weight", SK_DIM_VOCAB)}},
	{0},
};
static const struct sk_role llama_hf_layer[] = {
	{LAYER(attn_norm), 0, SK_DIM_ONE,  {PLAIN("input_layernorm.weight", SK_DIM_EMBD)}},
	{LAYER(qkv),       0, SK_DIM_EMBD, {PLAIN("self_attn.q_proj.weight", SK_DIM_Q),
					    PLAIN("self_attn.k_proj.weight", SK_DIM_KV),
					    PLAIN("self_attn.v_proj.weight", SK_DIM_KV)}},
	{LAYER(qkv_bias), SK_HAS_QKV_BIAS, SK_DIM_ONE, {PLAIN("self_attn.q_proj.bias", SK_DIM_Q),
							   PLAIN("self_attn.k_proj.bias", SK_DIM_KV),
							   PLAIN("self_attn.v_proj.bias", SK_DIM_KV)}},
	{LAYER(attn_out),  0, SK_DIM_Q,    {PLAIN("self_attn.o_proj.weight", SK_DIM_EMBD)}},
	{LAYER(attn_out_bias), SK_HAS_OUT_BIAS, SK_DIM_ONE, {PLAIN("self_attn.o_proj.bias", SK_DIM_EMBD)}},
	{LAYER(ffn_norm),  0, SK_DIM_ONE,  {PLAIN("post_attention_layernorm.weight", SK_DIM_EMBD)}},
	{LAYER(ffn_up),    0, SK_DIM_EMBD, {PLAIN("mlp.gate_proj.weight", SK_DIM_FF),
					    PLAIN("mlp.up_proj.weight", SK_DIM_FF)}},
	{LAYER(ffn_up_bias), SK_HAS_UP_BIAS, SK_DIM_ONE, {PLAIN("mlp.gate_proj.bias", SK_DIM_FF),
							     PLAIN("mlp.up_proj.bias", SK_DIM_FF)}},
	{LAYER(ffn_down),  0, SK_DIM_FF,   {PLAIN("mlp.down_proj.weight", SK_DIM_EMBD)}},
	{LAYER(ffn_down_bias), SK_HAS_DOWN_BIAS, SK_DIM_ONE, {PLAIN("mlp.down_proj.bias", SK_DIM_EMBD)}},
	{0},
};

/* Converters to GGUF have already sorted GPT-NeoX's QKV into all Q, all K, all V. */
static const struct sk_role neox_gguf_top[] = {
	{TOP(embedding),       0, SK_DIM_EMBD, {PLAIN("token_embd.weight", SK_DIM_VOCAB)}},
	{TOP(final_norm),      0, SK_DIM_ONE,  {PLAIN("output_norm.weight", SK_DIM_EMBD)}},
	{TOP(final_norm_bias), 0, SK_DIM_ONE,  {PLAIN("output_norm.bias", SK_DIM_EMBD)}},
	{TOP(output), SK_HAS_OUTPUT, SK_DIM_EMBD, {PLAIN("output.weight", SK_DIM_VOCAB)}},
	{0},
};
static const struct sk_role neox_gguf_layer[] = {
	{LAYER(attn_norm),      0, SK_DIM_ONE,  {PLAIN("attn_norm.weight", SK_DIM_EMBD)}},
	{LAYER(attn_norm_bias), 0, SK_DIM_ONE,  {PLAIN("attn_norm.bias", SK_DIM_EMBD)}},
	{LAYER(qkv),            0, SK_DIM_EMBD, {PLAIN("attn_qkv.weight", SK_DIM_QKV)}},
	{LAYER(qkv_bias), SK_HAS_QKV_BIAS, SK_DIM_ONE, {PLAIN("attn_qkv.bias", SK_DIM_QKV)}},
	{LAYER(attn_out),       0, SK_DIM_Q,    {PLAIN("attn_output.weight", SK_DIM_EMBD)}},
	{LAYER(attn_out_bias), SK_HAS_OUT_BIAS, SK_DIM_ONE, {PLAIN("attn_output.bias", SK_DIM_EMBD)}},
	{LAYER(ffn_norm),       0, SK_DIM_ONE,  {PLAIN("ffn_norm.weight", SK_DIM_EMBD)}},
	{LAYER(ffn_norm_bias),  0, SK_DIM_ONE,  {PLAIN("ffn_norm.bias", SK_DIM_EMBD)}},
	{LAYER(ffn_up),         0, SK_DIM_EMBD, {PLAIN("ffn_up.weight", SK_DIM_FF)}},
	{LAYER(ffn_up_bias),    0, SK_DIM_ONE,  {PLAIN("ffn_up.bias", SK_DIM_FF)}},
	{LAYER(ffn_down),       0, SK_DIM_FF,   {PLAIN("ffn_down.weight", SK_DIM_EMBD)}},
	{LAYER(ffn_down_bias),  0, SK_DIM_ONE,  {PLAIN("ffn_down.bias", SK_DIM_EMBD)}},
	{0},
};

static const struct sk_role llama_gguf_top[] = {
	{TOP(embedding),  0, SK_DIM_EMBD, {PLAIN("token_embd.weight", SK_DIM_VOCAB)}},
	{TOP(final_norm), 0, SK_DIM_ONE,  {PLAIN("output_norm.weight", SK_DIM_EMBD)}},
	{TOP(output), SK_HAS_OUTPUT, SK_DIM_EMBD, {PLAIN("output.weight", SK_DIM_VOCAB)}},
	{0},
};
static const struct sk_role llama_gguf_layer[] = {
	{LAYER(attn_norm), 0, SK_DIM_ONE,  {PLAIN("attn_norm.weight", SK_DIM_EMBD)}},
	{LAYER(qkv),       0, SK_DIM_EMBD, {{"attn_q.weight", SK_DIM_Q, SK_ORDER_PAIRED_Q},
					    {"attn_k.weight", SK_DIM_KV, SK_ORDER_PAIRED_KV},
					    PLAIN("attn_v.weight", SK_DIM_KV)}},
	{LAYER(qkv_bias), SK_HAS_QKV_BIAS, SK_DIM_ONE, {{"attn_q.bias", SK_DIM_Q, SK_ORDER_PAIRED_Q},
							   {"attn_k.bias", SK_DIM_KV, SK_ORDER_PAIRED_KV},
							   PLAIN("attn_v.bias", SK_DIM_KV)}},
	{LAYER(attn_out),  0, SK_DIM_Q,    {PLAIN("attn_output.weight", SK_DIM_EMBD)}},
	{LAYER(attn_out_bias), SK_HAS_OUT_BIAS, SK_DIM_ONE, {PLAIN("attn_output.bias", SK_DIM_EMBD)}},
	{LAYER(ffn_norm),  0, SK_DIM_ONE,  {PLAIN("ffn_norm.weight", SK_DIM_EMBD)}},
	{LAYER(ffn_up),    0, SK_DIM_EMBD, {PLAIN("ffn_gate.weight", SK_DIM_FF), PLAIN("ffn_up.weight", SK_DIM_FF)}},
	{LAYER(ffn_up_bias), SK_HAS_UP_BIAS, SK_DIM_ONE, {PLAIN("ffn_gate.bias", SK_DIM_FF), PLAIN("ffn_up.bias", SK_DIM_FF)}},
	{LAYER(ffn_down),  0, SK_DIM_FF,   {PLAIN("ffn_down.weight", SK_DIM_EMBD)}},
	{LAYER(ffn_down_bias), SK_HAS_DOWN_BIAS, SK_DIM_ONE, {PLAIN("ffn_down.bias", SK_DIM_EMBD)}},
	{0},
};

static const struct sk_names tables[][SK_N_FILE_KINDS] = {
	[SK_ARCH_NEOX] = {
		[SK_FILE_HF] = {"gpt_neox.layers.", neox_hf_top, neox_hf_layer},
		[SK_FILE_GGUF] = {"blk.", neox_gguf_top, neox_gguf_layer},
	},
	[SK_ARCH_LLAMA] = {
		[SK_FILE_HF] = {"model.layers.", llama_hf_top, llama_hf_layer},
		[SK_FILE_GGUF] = {"blk.", llama_gguf_top, llama_gguf_layer},
	},
};
/* clang-format on */

const struct sk_names *sk_names(enum sk_arch arch, enum sk_file_kind kind)
{
	return &tables[arch][kind];
}

bool sk_name_is_buffer(const char *name)
{
	static const char *const endings[] = {
		".attention.bias",
		".attention.masked_bias",
		".rotary_emb.inv_freq",
	};
	size_t n = strlen(name);
	for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
		size_t n_ending = strlen(endings[i]);
		if (n >= n_ending && strcmp(name + n - n_ending, endings[i]) == 0)
			return true;
	}
	return false;
}
