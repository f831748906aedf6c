#!/usr/bin/env python3
"""Makes the GGUF files of tests/models from the models of make_models.py.

    python tests/golden/make_gguf.py

tiny-llama-{f32,q8_0,q4_0,q4_1,q5_0,q5_1}.gguf  tiny-llama, its matrices in that type
tiny-neox-serial-f16.gguf                       tiny-neox-serial; float16 holds its weights exactly
tiny-llama-k.gguf                               one wide layer of random Q4_K, Q5_K and Q6_K blocks
"""
import json
import os

import gguf
import numpy as np
import torch
from safetensors import safe_open

import golden
import gguf_models

TYPES = gguf.GGMLQuantizationType
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "k": 15}


def add_tokenizer(writer):
    with open(os.path.join(golden.model_path("tiny-llama"), "tokenizer.json"), encoding="utf-8") as f:
        t = json.load(f)["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(t["vocab"], key=t["vocab"].get))
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(t["vocab"]) - 1))
    writer.add_token_merges([" ".join(pair) for pair in t["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)


def open_writer(path, config, name, file_type):
    neox = config["model_type"] == "gpt_neox"
    w = gguf.GGUFWriter(path, "gptneox" if neox else "llama")
    w.add_name(name)
    w.add_file_type(FILE_TYPES[file_type])
    w.add_block_count(config["num_hidden_layers"])
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(config["num_attention_heads"])
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    if neox:
        w.add_rope_dimension_count(int(head_dim * config["rotary_pct"]))
        w.add_rope_freq_base(float(config["rotary_emb_base"]))
        w.add_parallel_residual(config["use_parallel_residual"])
        w.add_layer_norm_eps(config["layer_norm_eps"])
    else:
        w.add_head_count_kv(config["num_key_value_heads"])
        w.add_rope_dimension_count(head_dim)
        w.add_rope_freq_base(config["rope_theta"])
        w.add_layer_norm_rms_eps(config["rms_norm_eps"])
        w.add_vocab_size(config["vocab_size"])
    add_tokenizer(w)
    return w


def finish(writer, path):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print("%-40s %8d bytes" % (os.path.basename(path), os.path.getsize(path)))


def convert(model, type_name, path):
    folder = golden.model_path(model)
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    weights = {}
    for file in sorted(f for f in os.listdir(folder) if f.endswith(".safetensors")):
        with safe_open(os.path.join(folder, file), "pt") as s:
            weights.update({k: s.get_tensor(k) for k in s.keys()})
    writer = open_writer(path, config, model, type_name)
    for name, hf in gguf_models.gguf_names(config):
        if hf not in weights:
            continue
        w = weights[hf].float().numpy()
        if "attn_qkv" in name:
            w = gguf_models.sort_qkv(w, config["num_attention_heads"])
        elif name.endswith("attn_q.weight"):
            w = gguf_models.interleave(w, config["num_attention_heads"])
        elif name.endswith("attn_k.weight"):
            w = gguf_models.interleave(w, config["num_key_value_heads"])
        kind = TYPES[type_name.upper()] if w.ndim == 2 else TYPES.F32
        w = np.ascontiguousarray(w)
        if kind == TYPES.F16:
            assert (w.astype(np.float16).astype(np.float32) == w).all(), name
        if kind in (TYPES.F16, TYPES.F32):
            writer.add_tensor(name, w.astype(np.float16 if kind == TYPES.F16 else np.float32))
        else:
            data = gguf.quants.quantize(w, kind)
            writer.add_tensor(name, data, raw_dtype=kind)
    finish(writer, path)


def k_blocks(source, n_out, n_in, kind, deviation):
    """Random blocks whose half-precision scales make a matrix of about this standard deviation."""
    _, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = source.integers(0, 256, (n_out * n_in // 256, n_bytes), dtype=np.uint8)
    half = lambda v: v.astype("<f2").view(np.uint8).reshape(-1, 2)
    # Some jitter in the scales, which the deviation of the codes at a scale of one is then divided by.
    jitter = source.uniform(0.7, 1.3, len(blocks))
    ones = np.ones(len(blocks))
    middle = {TYPES.Q4_K: 7.5, TYPES.Q5_K: 15.5}.get(kind)  # the offset that centres the codes
    def put(d):
        if kind == TYPES.Q6_K:
            blocks[:, -2:] = half(d)
        else:
            blocks[:, 0:2], blocks[:, 2:4] = half(d), half(d * middle)
        return blocks.reshape(n_out, -1)
    unit = gguf.quants.dequantize(put(ones), kind).std()
    return put(jitter * deviation / unit).copy()


def make_k(path):
    n_embd, n_heads, n_kv, head_dim, n_ff, n_vocab = 256, 4, 2, 64, 256, 512
    config = {"model_type": "llama", "hidden_size": n_embd, "num_hidden_layers": 1, "intermediate_size": n_ff,
              "num_attention_heads": n_heads, "num_key_value_heads": n_kv, "max_position_embeddings": 512,
              "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "vocab_size": n_vocab}
    source = np.random.Generator(np.random.PCG64(20264))
    writer = open_writer(path, config, "tiny-llama-k", "k")
    each = 1 / 16  # of a matrix of 256 inputs that keeps the variance
    matrices = [
        ("token_embd", n_vocab, TYPES.Q6_K, 0.15),  # and the output: tied
        ("blk.0.attn_q", n_heads * head_dim, TYPES.Q4_K, 1.5 * each),
        ("blk.0.attn_k", n_kv * head_dim, TYPES.Q5_K, 1.5 * each),
        ("blk.0.attn_v", n_kv * head_dim, TYPES.Q6_K, each), ("blk.0.attn_output", n_embd, TYPES.Q4_K, each),
        ("blk.0.ffn_gate", n_ff, TYPES.Q5_K, each), ("blk.0.ffn_up", n_ff, TYPES.Q4_K, each),
        ("blk.0.ffn_down", n_embd, TYPES.Q6_K, each)]
    for name, n_out, kind, deviation in matrices:
        writer.add_tensor(name + ".weight", k_blocks(source, n_out, 256, kind, deviation), raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        norm = 1 + 0.2 * source.standard_normal(n_embd)
        writer.add_tensor(name + ".weight", norm.astype(np.float32))
    finish(writer, path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for kind in ("f32", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"):
        convert("tiny-llama", kind, golden.model_path("tiny-llama-%s.gguf" % kind))
    convert("tiny-neox-serial", "f16", golden.model_path("tiny-neox-serial-f16.gguf"))
    make_k(golden.model_path("tiny-llama-k.gguf"))
