#!/usr/bin/env python3
"""Makes the small random models of tests/models: tiny-llama and tiny-neox-serial.

    python tests/golden/make_models.py [--check]

Attention of a random model is flat, and flat attention hides errors in positions. So queries and keys
are scaled until attention is peaked; --check measures that, and how far the logits move when the sinks
are put one place off. Seeds are fixed and every byte is the same at every run.
"""
import argparse
import json
import math
import os

import numpy as np
import torch
from safetensors.torch import save_file

import golden
import streaming_oracle as oracle

N_VOCAB = 512  # the first 512 entries of the tokenizer of pythia-books: itself a valid tokenizer


def write_json(path, value, **options):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, **options)
        f.write("\n")


def write_tokenizer(folder, n_context):
    with open(os.path.join(golden.model_path("pythia-books"), "tokenizer.json"), encoding="utf-8") as f:
        t = json.load(f)
    vocab = t["model"]["vocab"]
    pairs = [m if isinstance(m, list) else m.split(" ") for m in t["model"]["merges"]]
    t["model"]["vocab"] = {s: i for s, i in vocab.items() if i < N_VOCAB}
    t["model"]["merges"] = [m for m in pairs if vocab["".join(m)] < N_VOCAB]
    write_json(os.path.join(folder, "tokenizer.json"), t, separators=(",", ":"))
    write_json(os.path.join(folder, "tokenizer_config.json"), {
        "tokenizer_class": "GPTNeoXTokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>", "add_prefix_space": False, "model_max_length": n_context})


class Random:
    """Normal variates; `gain` is the standard deviation of the output for an input of unit variance."""

    def __init__(self, seed):
        self.source = np.random.Generator(np.random.PCG64(seed))

    def matrix(self, n_out, n_in, gain):
        return self.vector(n_out * n_in, 0, gain / math.sqrt(n_in)).view(n_out, n_in).contiguous()

    def vector(self, n, mean, deviation):
        v = mean + deviation * self.source.standard_normal(n)
        return torch.from_numpy(v.astype(np.float32))


def make_llama(name):
    n_embd, n_layers, n_heads, n_kv, head_dim, n_ff = 64, 3, 4, 2, 16, 96
    folder, r, w = golden.model_path(name), Random(20261), {}
    os.makedirs(folder, exist_ok=True)
    w["model.embed_tokens.weight"] = r.vector(N_VOCAB * n_embd, 0, 0.35).view(N_VOCAB, n_embd)
    w["model.norm.weight"] = r.vector(n_embd, 0.7, 0.15)
    for l in range(n_layers):
        p = "model.layers.%d." % l
        w[p + "input_layernorm.weight"] = r.vector(n_embd, 1, 0.2)
        w[p + "self_attn.q_proj.weight"] = r.matrix(n_heads * head_dim, n_embd, 2.0)
        w[p + "self_attn.k_proj.weight"] = r.matrix(n_kv * head_dim, n_embd, 2.0)
        w[p + "self_attn.v_proj.weight"] = r.matrix(n_kv * head_dim, n_embd, 0.8)
        w[p + "self_attn.o_proj.weight"] = r.matrix(n_embd, n_heads * head_dim, 0.8)
        w[p + "post_attention_layernorm.weight"] = r.vector(n_embd, 1, 0.2)
        w[p + "mlp.gate_proj.weight"] = r.matrix(n_ff, n_embd, 1)
        w[p + "mlp.up_proj.weight"] = r.matrix(n_ff, n_embd, 1)
        w[p + "mlp.down_proj.weight"] = r.matrix(n_embd, n_ff, 0.8)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": N_VOCAB,
        "hidden_size": n_embd, "num_hidden_layers": n_layers, "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv, "head_dim": head_dim, "intermediate_size": n_ff, "hidden_act": "silu",
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None,
        "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True, "torch_dtype": "float32",
        "bos_token_id": 0, "eos_token_id": 0}
    write_json(os.path.join(folder, "config.json"), config, indent=2)
    write_tokenizer(folder, 512)
    # Two shards, cut in the middle of a layer.
    order = list(w)
    cut = order.index("model.layers.1.self_attn.v_proj.weight")
    shards = {"model-00001-of-00002.safetensors": order[:cut], "model-00002-of-00002.safetensors": order[cut:]}
    for file, names in shards.items():
        save_file({n: w[n] for n in names}, os.path.join(folder, file), metadata={"format": "pt"})
    write_json(os.path.join(folder, "model.safetensors.index.json"), {
        "metadata": {"total_size": sum(t.nbytes for t in w.values())},
        "weight_map": {n: file for file, names in shards.items() for n in names}}, indent=1)


def make_neox(name):
    n_embd, n_layers, n_heads, n_ff, n_context = 64, 3, 4, 160, 288
    head_dim, n_rot, base = 16, 8, 5000
    folder, r, w = golden.model_path(name), Random(20262), {}
    os.makedirs(folder, exist_ok=True)

    def put(key, t):
        t = t.bfloat16()
        w[key] = torch.where(t.abs() < 2.0 ** -14, torch.zeros_like(t), t)  # so that float16 is exact too

    put("gpt_neox.embed_in.weight", r.vector(N_VOCAB * n_embd, 0, 0.5).view(N_VOCAB, n_embd))
    put("embed_out.weight", r.matrix(N_VOCAB, n_embd, 2.5))
    put("gpt_neox.final_layer_norm.weight", r.vector(n_embd, 1, 0.2))
    put("gpt_neox.final_layer_norm.bias", r.vector(n_embd, 0, 0.2))
    for l in range(n_layers):
        p = "gpt_neox.layers.%d." % l
        for norm in ("input_layernorm", "post_attention_layernorm"):
            put(p + norm + ".weight", r.vector(n_embd, 1, 0.2))
            put(p + norm + ".bias", r.vector(n_embd, 0, 0.2))
        qkv = r.matrix(3 * n_embd, n_embd, 1).view(n_heads, 3, head_dim, n_embd)
        bias = r.vector(3 * n_embd, 0, 0.3).view(n_heads, 3, head_dim)
        for i, gain in enumerate((2.2, 2.2, 0.8)):  # query, key, value
            qkv[:, i] *= gain
            bias[:, i] *= gain
        put(p + "attention.query_key_value.weight", qkv.reshape(3 * n_embd, n_embd))
        put(p + "attention.query_key_value.bias", bias.reshape(3 * n_embd))
        put(p + "attention.dense.weight", r.matrix(n_embd, n_embd, 0.8))
        put(p + "attention.dense.bias", r.vector(n_embd, 0, 0.2))
        put(p + "mlp.dense_h_to_4h.weight", r.matrix(n_ff, n_embd, 1.2))
        put(p + "mlp.dense_h_to_4h.bias", r.vector(n_ff, 0, 0.3))
        put(p + "mlp.dense_4h_to_h.weight", r.matrix(n_embd, n_ff, 0.8))
        put(p + "mlp.dense_4h_to_h.bias", r.vector(n_embd, 0, 0.2))
        # What old checkpoints carry beside the weights: masks of one or the other type (two, to stay small).
        mask = torch.tril(torch.ones(n_context, n_context, dtype=torch.bool)).view(1, 1, n_context, n_context)
        if l != 1:
            w[p + "attention.bias"] = mask if l == 0 else mask.to(torch.uint8)
        w[p + "attention.masked_bias"] = torch.tensor(-1e9)
        w[p + "attention.rotary_emb.inv_freq"] = base ** (-torch.arange(0, n_rot, 2).float() / n_rot)
    config = {
        "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": N_VOCAB,
        "hidden_size": n_embd, "num_hidden_layers": n_layers, "num_attention_heads": n_heads,
        "intermediate_size": n_ff, "hidden_act": "gelu_new", "max_position_embeddings": n_context,
        "layer_norm_eps": 1e-5, "rotary_pct": 0.5, "rotary_emb_base": base, "use_parallel_residual": False,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 0}
    write_json(os.path.join(folder, "config.json"), config, indent=2)
    write_tokenizer(folder, n_context)
    save_file(w, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


def check(name):
    """Prints how peaked attention is, and how far logits move when the sinks are one place off."""
    m = oracle.Model(golden.model_path(name))
    ids = golden.story_ids(name, 300)
    peaks, softmax, rope = [], torch.Tensor.softmax, oracle.rope

    def watching(t, dim):
        p = softmax(t, dim)
        peaks.append(p.max(-1).values)  # (heads, n)
        return p

    torch.Tensor.softmax = watching
    logits = m.step(torch.tensor(ids[:128]), [None] * m.L)
    torch.Tensor.softmax = softmax
    by_layer = [p[:, 64:].mean().item() for p in peaks]
    alone = m.step(torch.tensor(ids[:128]), [None] * m.L)
    oracle.F = torch.float32
    m32 = oracle.Model(golden.model_path(name))
    single = m32.step(torch.tensor(ids[:128]), [None] * m.L)
    oracle.F = torch.float64
    right, _ = oracle.run(m, ids, "streaming", 4, 56, 0)
    moves = []
    for places in (1, -1):
        def shifted(x, pos, *rest):
            if len(pos) > 4:
                pos = pos.clone()
                pos[:4] += places
            return rope(x, pos, *rest)

        oracle.rope = shifted
        wrong, _ = oracle.run(m, ids, "streaming", 4, 56, 0)
        oracle.rope = rope
        moves.append((wrong - right)[64:].abs().max(-1).values)
    probability = alone.softmax(-1).max(-1).values
    print("%s: mean greatest attention over contexts of 65..128: %.3f (by layer %s); logits' deviation %.2f; "
          "mean greatest token probability %.2f; float32 is off by %.1e"
          % (name, sum(by_layer) / len(by_layer), " ".join("%.3f" % x for x in by_layer),
             logits.std().item(), probability.mean().item(), (single.double() - logits).abs().max().item()))
    for places, move in zip((1, -1), moves):
        print("  sinks %+d place: greatest logit change of a position: median %.3f, most %.3f, above 0.1 at %.0f%%"
              % (places, move.median().item(), move.max().item(), 100 * (move > 0.1).double().mean().item()))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="measure the models that are there; make nothing")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if not options.check:
        make_llama("tiny-llama")
        make_neox("tiny-neox-serial")
    with torch.inference_mode():
        for model in ("tiny-llama", "tiny-neox-serial", "pythia-books"):
            check(model)
