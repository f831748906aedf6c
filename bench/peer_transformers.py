"""For bench/peers: transformers on the CPU in bfloat16. MODEL THREADS DECODE

Says "ready" once the model is loaded; each line read then ("decode 8", "prefill 256") brings tokens a second.
"""
import sys
import time

import torch
from transformers import AutoModelForCausalLM

model_path, threads, decode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
model = AutoModelForCausalLM.from_pretrained(model_path, torch_dtype=torch.bfloat16)
model.eval()


def generate(n_streams):
    """Tokens a second of n_streams together, greedily, from a prompt of two tokens."""
    with torch.inference_mode():
        ids = torch.randint(256, 40000, (n_streams, 2))
        out = model(ids, use_cache=True)
        begun = time.perf_counter()
        for _ in range(decode):
            ids = out.logits[:, -1:].argmax(-1)
            out = model(ids, past_key_values=out.past_key_values, use_cache=True)
        return n_streams * decode / (time.perf_counter() - begun)


def read(n_tokens):
    with torch.inference_mode():
        ids = torch.randint(256, 40000, (1, n_tokens))
        begun = time.perf_counter()
        model(ids, use_cache=True, logits_to_keep=1)
        return n_tokens / (time.perf_counter() - begun)


read(8)
print("ready", flush=True)
for line in sys.stdin:
    what, n = line.split()
    print({"decode": generate, "prefill": read}[what](int(n)), flush=True)
