"""Hugging Face models to GGUF, and back: the row orders and names of the two kinds of file.

GGUF keeps the query and key rows of Llama in interleaved pairs, where Hugging Face keeps halves; and
it keeps GPT-NeoX's fused QKV as all queries, all keys, all values, where Hugging Face keeps them by head.
"""
import gguf
import numpy as np
import torch

LLAMA = {
    "token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight", "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight", "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight", "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight", "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight", "ffn_down.weight": "mlp.down_proj.weight",
}
NEOX = {
    "token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm", "output": "embed_out",
    "attn_norm": "input_layernorm", "attn_qkv": "attention.query_key_value", "attn_output": "attention.dense",
    "ffn_norm": "post_attention_layernorm", "ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h",
}
NEOX = {a + end: b + end for a, b in NEOX.items() for end in (".weight", ".bias")}


def interleave(w, n_heads):
    """Rows of each head: halves (0 1 2 .. | h ..) to pairs (0 h 1 h+1 ..)."""
    half = w.shape[0] // n_heads // 2
    order = np.arange(w.shape[0]).reshape(n_heads, 2, half).transpose(0, 2, 1).reshape(-1)
    return w[order]


def deinterleave(w, n_heads):
    half = w.shape[0] // n_heads // 2
    order = np.arange(w.shape[0]).reshape(n_heads, half, 2).transpose(0, 2, 1).reshape(-1)
    return w[order]


def sort_qkv(w, n_heads):
    """Rows (head, q/k/v, dim) to (q/k/v, head, dim)."""
    order = np.arange(w.shape[0]).reshape(n_heads, 3, -1).transpose(1, 0, 2).reshape(-1)
    return w[order]


def unsort_qkv(w, n_heads):
    order = np.arange(w.shape[0]).reshape(3, n_heads, -1).transpose(1, 0, 2).reshape(-1)
    return w[order]


def hf_name(name, table, prefix):
    if name.startswith("blk."):
        _, layer, rest = name.split(".", 2)
        return "%slayers.%s.%s" % (prefix, layer, table[rest])
    return table[name]


def gguf_names(config):
    """Every (GGUF name, Hugging Face name) that a model of this config may have."""
    neox = config["model_type"] == "gpt_neox"
    table, prefix = (NEOX, "gpt_neox.") if neox else (LLAMA, "model.")
    for name in table:
        if name.startswith(("token_embd", "output_norm", "output.")):
            yield name, table[name]
        else:
            for l in range(config["num_hidden_layers"]):
                full = "blk.%d.%s" % (l, name)
                yield full, hf_name(full, table, prefix)


def field(reader, key, default=None):
    f = reader.get_field(key)
    return default if f is None else f.contents()


def load(path):
    """-> config as of a config.json, {Hugging Face name: float32 tensor}, dequantised."""
    r = gguf.GGUFReader(path)
    arch = field(r, "general.architecture")
    neox = arch == "gptneox"
    get = lambda key, default=None: field(r, "%s.%s" % (arch, key), default)
    n_heads, n_embd = int(get("attention.head_count")), int(get("embedding_length"))
    config = {
        "model_type": "gpt_neox" if neox else "llama", "hidden_size": n_embd, "num_attention_heads": n_heads,
        "num_hidden_layers": int(get("block_count")), "intermediate_size": int(get("feed_forward_length")),
        "max_position_embeddings": int(get("context_length")), "bos_token_id": 0, "eos_token_id": 0}
    n_kv = int(get("attention.head_count_kv", n_heads))
    base, n_rot = float(get("rope.freq_base", 10000.0)), int(get("rope.dimension_count"))
    if neox:
        config.update(hidden_act="gelu", layer_norm_eps=float(get("attention.layer_norm_epsilon")),
                      rotary_pct=n_rot * n_heads / n_embd, rotary_emb_base=base,
                      use_parallel_residual=bool(get("use_parallel_residual", True)))
    else:
        config.update(hidden_act="silu", rms_norm_eps=float(get("attention.layer_norm_rms_epsilon")),
                      rope_theta=base, num_key_value_heads=n_kv, head_dim=n_embd // n_heads,
                      attention_bias=False, mlp_bias=False)
    weights = {}
    for t in r.tensors:
        w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        if "attn_qkv" in t.name:
            w = unsort_qkv(w, n_heads)
        elif t.name.endswith("attn_q.weight"):
            w = deinterleave(w, n_heads)
        elif t.name.endswith("attn_k.weight"):
            w = deinterleave(w, n_kv)
        name = hf_name(t.name, NEOX if neox else LLAMA, "gpt_neox." if neox else "model.")
        weights[name] = torch.from_numpy(np.ascontiguousarray(w))
    out = "embed_out.weight" if neox else "lm_head.weight"
    config["tie_word_embeddings"] = out not in weights
    config["vocab_size"] = next(t.shape[1] for t in r.tensors if t.name == "token_embd.weight").item()
    return config, weights
