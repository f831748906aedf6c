#!/usr/bin/env python3
"""Makes the references for SmolLM2-135M-Instruct in Q4_1, whose file is not part of this project.

    python tests/golden/make_smollm2.py [--gguf FILE] [--simulate]

The reference is the same weights, dequantised, in transformers' code in float64.
smollm2.txt     pos,id,logprob of the first 256 tokens of story.txt (row 0 has no prediction: 0)
smollm2.greedy  20 greedy tokens after "Once upon a time"
--simulate      prints what rounding the input of every matrix product does to those log-probabilities
"""
import argparse
import os

import gguf
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import gguf_models
import golden
import make_references

N_TOKENS, N_GREEDY = 256, 20
USUAL = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")),
                     "streamkv/models/SmolLM2-135M-Instruct.Q4_1.gguf")


def load_tokenizer(path):
    r = gguf.GGUFReader(path)
    tokens = gguf_models.field(r, "tokenizer.ggml.tokens")
    merges = [tuple(m.split(" ")) for m in gguf_models.field(r, "tokenizer.ggml.merges")]
    t = Tokenizer(models.BPE({s: i for i, s in enumerate(tokens)}, merges))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    return t


def greedy(m, prompt):
    generated, gaps = [], []
    for _ in range(N_GREEDY):
        best = m(prompt + generated)[-1].topk(2)
        generated.append(best.indices[0].item())
        gaps.append((best.values[0] - best.values[1]).item())
    return generated, gaps


def blocks(bits):
    """Rounds to integers of so many bits with one scale for 32 values."""
    most = 2 ** (bits - 1) - 1

    def round_(x):
        b = x.reshape(*x.shape[:-1], -1, 32)
        scale = b.abs().amax(-1, keepdim=True).float().double() / most
        q = torch.where(scale > 0, (b / scale).round(), 0)
        return (q * scale).reshape(x.shape)
    return round_


def simulate(m, ids, right):
    kinds = {"int8 by 32": blocks(8), "int16 by 32": blocks(16),
             "bfloat16": lambda x: x.bfloat16().double(), "float16": lambda x: x.half().double()}
    for name, round_ in kinds.items():
        for with_output in (True, False):
            hooks = [layer.register_forward_pre_hook(lambda _, x: (round_(x[0]),))
                     for key, layer in m.model.named_modules()
                     if isinstance(layer, torch.nn.Linear) and (with_output or key != "lm_head")]
            logits = m(ids)
            for h in hooks:
                h.remove()
            p = logits.log_softmax(-1)
            wrong = p[torch.arange(len(ids) - 1), ids[1:]] - right
            agree = (logits.argmax(-1) == m.right.argmax(-1)).double().mean().item()
            print("%-12s output %-7s log-probability: most %.2e, mean %.2e, mean signed %+.2e; "
                  "logits: most %.2e; same best token at %.1f%%"
                  % (name, "rounded" if with_output else "exact", wrong.abs().max().item(), wrong.abs().mean().item(),
                     wrong.mean().item(), (logits - m.right).abs().max().item(), 100 * agree), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", default=USUAL)
    parser.add_argument("--simulate", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    with torch.inference_mode():
        tokenizer = load_tokenizer(options.gguf)
        ids = tokenizer.encode(golden.story()).ids[:N_TOKENS]
        m, exact = make_references.load_both(os.path.abspath(options.gguf))
        logits = m(ids)
        other = exact.step(torch.tensor(ids), [None] * exact.L)
        print("transformers and the oracle differ by at most %.1e" % (logits - other).abs().max().item())
        assert (logits - other).abs().max() < 1e-9
        del exact, other
        right = logits.log_softmax(-1)[torch.arange(N_TOKENS - 1), ids[1:]]
        print("mean log-probability %.4f" % right.mean().item())
        with open(os.path.join(golden.HERE, "smollm2.txt"), "w") as f:
            f.write("pos,id,logprob\n0,%d,0\n" % ids[0])
            for t, p in enumerate(right.tolist(), 1):
                f.write("%d,%d,%.9g\n" % (t, ids[t], p))
        text = "Once upon a time"
        prompt = tokenizer.encode(text).ids
        generated, gaps = greedy(m, prompt)
        print("greedy: %r; gaps %s" % (tokenizer.decode(generated), " ".join("%.2f" % g for g in gaps)))
        golden.write_greedy(os.path.join(golden.HERE, "smollm2.greedy"), [(text, prompt, generated, min(gaps))])
        if options.simulate:
            m.right = logits
            simulate(m, ids, right)
