#!/usr/bin/env python3
"""Makes the references: what every backend must compute for the models of tests/models.

    python tests/golden/make_references.py [--full DIR] [--only NAME]

MODEL.dense.ref                 transformers' code in float64, checked against the oracle
MODEL.dense-rows.ref            pythia-books only: every logit of some positions
MODEL.sS-wW-kK.ref              the oracle's streaming cache of sink S, window W, slack K
MODEL.recompute-sS-wW.ref       the oracle's recomputation of the last S + W tokens
MODEL.greedy                    prompts and their 64 greedy tokens, without near ties
--full DIR   also every logit of the dense runs, float32, as DIR/MODEL.dense-full.ref
"""
import argparse
import os
import sys

import torch
import transformers

import gguf_models
import golden
import streaming_oracle as oracle

HERE = golden.HERE
N_DENSE, N_GREEDY, LEAST_GAP = 256, 64, 0.01
PROMPTS = [
    "Once upon a time", "The ferry was late, and the river", "She opened the door and said", "In the morning the rain",
    "He had never seen such a", "\"I do not know,\" said the old man", "There were seven of them", "The house on the hill",
    "It was a dark night, and", "My dear friend, I have", "The captain looked at the sea", "When the war was over",
    "Nobody in the village could", "At ten o'clock the bell", "I will tell you a story", "The children came down to the water",
    "A good many years ago", "Far away in the north", "They walked for three days", "The king and his daughter",
]


def transformers_model(config, weights):
    kind = transformers.GPTNeoXConfig if config["model_type"] == "gpt_neox" else transformers.LlamaConfig
    m = transformers.AutoModelForCausalLM.from_config(kind.from_dict(config), attn_implementation="eager").double()
    # The class names GPT-NeoX's output as Llama's; the files keep the older name.
    state = {k.replace("embed_out.", "lm_head."): v.double() for k, v in weights.items()}
    missing, unexpected = m.load_state_dict(state, strict=False)
    assert not unexpected and missing == (["lm_head.weight"] if config["tie_word_embeddings"] else []), missing
    m.tie_weights()
    return m.eval()


class InFloat64:
    """Transformers' own code, but what it always does in float32 (norms, softmax, angles) in float64."""

    def __init__(self, model):
        self.model = model
        self.module = sys.modules[type(model).__module__]
        rotary = model.base_model.rotary_emb
        half = rotary.inv_freq.numel()
        base = model.config.rope_parameters["rope_theta"]
        rotary.inv_freq = base ** (-torch.arange(half, dtype=torch.float64) / half)

    def __getattr__(self, name):  # stands in for the module torch
        return torch.float64 if name in ("float", "float32") else getattr(torch, name)

    def __call__(self, ids):
        single = torch.Tensor.float
        self.module.torch, torch.Tensor.float = self, torch.Tensor.double
        try:
            return self.model(torch.tensor([ids])).logits[0]
        finally:
            self.module.torch, torch.Tensor.float = torch, single


def load_both(name):
    """-> transformers' model and the oracle's of a folder or a .gguf in tests/models."""
    path = golden.model_path(name)
    if name.endswith(".gguf"):
        config, weights = gguf_models.load(path)
        m = transformers_model(config, weights)
        plain = oracle.load
        oracle.load = lambda _: (config, {k: v.double() for k, v in weights.items()})
        exact = oracle.Model(path)
        oracle.load = plain
    else:
        m = transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager",
                                                              dtype=torch.float64).double().eval()
        exact = oracle.Model(path)
    return InFloat64(m), exact


def dense(name, n_subset, rows=None, full=None):
    m, exact = load_both(name)
    folder = "tiny-llama" if name.endswith(".gguf") else name
    ids = golden.story_ids(folder, N_DENSE)
    logits = m(ids)
    other = exact.step(torch.tensor(ids), [None] * exact.L)
    print("%s: transformers and the oracle differ by at most %.1e" % (name, (logits - other).abs().max().item()))
    assert (logits - other).abs().max() < 1e-9
    stem = os.path.join(HERE, name.removesuffix(".gguf"))
    live = range(N_DENSE)
    golden.write_reference(stem + ".dense.ref", ids, logits, live, n_subset, "dense")
    if rows:
        at = range(N_DENSE // rows - 1, N_DENSE, N_DENSE // rows)
        golden.write_reference(stem + ".dense-rows.ref", ids, logits, live, logits.shape[1], "dense", positions=at)
    if full:
        path = os.path.join(full, os.path.basename(stem) + ".dense-full.ref")
        golden.write_reference(path, ids, logits, live, logits.shape[1], "dense")


def greedy(name):
    from tokenizers import Tokenizer

    m, exact = load_both(name)
    tokenizer = Tokenizer.from_file(os.path.join(golden.model_path(name), "tokenizer.json"))
    cases = []
    for text in PROMPTS:
        prompt = tokenizer.encode(text, add_special_tokens=False).ids
        cache, generated, gap = [None] * exact.L, [], float("inf")
        logits = exact.step(torch.tensor(prompt), cache)[-1]
        while len(generated) < N_GREEDY:
            best = logits.topk(2)
            gap = min(gap, (best.values[0] - best.values[1]).item())
            if gap < LEAST_GAP:
                break
            generated.append(best.indices[0].item())
            logits = exact.step(torch.tensor(generated[-1:]), cache)[-1]
        if gap < LEAST_GAP or 0 in generated:  # 0 ends the text
            continue
        cases.append((text, prompt, generated, gap))
    assert len(cases) >= 3, "%s: too few prompts without near ties" % name
    cases = sorted(cases, key=lambda c: -len(set(c[2])))[:3]  # those that repeat themselves least
    for text, prompt, generated, gap in cases:
        checked = m(prompt + generated).argmax(-1)[len(prompt) - 1:-1].tolist()
        assert checked == generated, name
        print("%s: %r: smallest gap %.4f, %d different tokens: %r"
              % (name, text, gap, len(set(generated)), tokenizer.decode(generated)[:60]))
    golden.write_greedy(os.path.join(HERE, name + ".greedy"), cases)


def streaming(name, n_subset, settings):
    exact = oracle.Model(golden.model_path(name))
    for sink, window, slack in settings:
        n = 560 if window > 56 else 320
        assert n >= sink + window + slack + 3 * window
        ids = golden.story_ids(name, n)
        logits, live = oracle.run(exact, ids, "streaming", sink, window, slack)
        path = os.path.join(HERE, "%s.s%d-w%d-k%d.ref" % (name, sink, window, slack))
        golden.write_reference(path, ids, logits, live, n_subset, "streaming", sink, window, slack)
    ids = golden.story_ids(name, 160)
    logits, live = oracle.run(exact, ids, "recompute", 4, 56, 0)
    path = os.path.join(HERE, "%s.recompute-s4-w56.ref" % name)
    golden.write_reference(path, ids, logits, live, n_subset, "recompute", 4, 56, 0)


EVERY = [(s, 56, k) for s in (0, 1, 4, 8) for k in (0, 64)] + [(4, 120, 0)]
SOME = [(0, 56, 0), (1, 56, 64), (4, 56, 0), (4, 56, 64), (4, 120, 0)]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", help="a folder for every logit of the dense runs")
    parser.add_argument("--only", help="only the models whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    want = lambda name: not options.only or options.only in name
    with torch.inference_mode():
        for model, n_dense, rows, n_streaming, settings in (("tiny-llama", 512, None, 16, EVERY),
                                                            ("tiny-neox-serial", 512, None, 16, SOME),
                                                            ("pythia-books", 64, 32, 24, EVERY)):
            if want(model):
                dense(model, n_dense, rows, options.full)
                greedy(model)
                streaming(model, n_streaming, settings)
        for kind in ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "k"):
            if want("tiny-llama-" + kind):
                dense("tiny-llama-%s.gguf" % kind, 32, full=options.full)
        if want("tiny-neox-serial-f16"):
            dense("tiny-neox-serial-f16.gguf", 32, full=options.full)
