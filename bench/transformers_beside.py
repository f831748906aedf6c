#!/usr/bin/env python3
"""For tools/gpu-day: transformers on the shape that bench_gpu runs, a line of JSON a measurement, as bench_gpu's are.

    bench/transformers_beside.py [--tiny] [--device cpu] [--steps N]

GPT-NeoX of Pythia-2.8b's shape with random weights in bfloat16 and a static cache of 256 entries decodes greedily, eagerly
and compiled with CUDA graphs. A step is timed from its call to its end on the device; the ids stay there. Lines come as they
are measured, so that whoever runs out of patience has those; what could not be measured is a line on standard error. Ends with
1 where nothing was, with 77, and says why, where PyTorch is not installed or sees no device. --tiny is for trying the program itself.
"""
import argparse
import inspect
import json
import statistics
import sys
import time

ENTRIES = 256
PROMPT = 32
WARM = 8
SESSIONS = (1, 16, 64)
SHAPE = {"hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 10240,
         "vocab_size": 50304, "max_position_embeddings": 2048, "use_parallel_residual": True}
TINY = dict(SHAPE, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256, vocab_size=500)


def skip(why):
    print("transformers: skipped: %s" % why, file=sys.stderr)
    sys.exit(77)


def say(**line):
    print(json.dumps(line), flush=True)


class Run:
    """A batch of sessions, each with a prompt in its cache."""

    def __init__(self, model, n_sessions, device):
        self.model, self.device, self.forward = model, device, model.forward
        wanted = inspect.signature(model.forward).parameters
        self.cache_name = "cache" if "cache" in wanted else "past_key_values"
        self.has_places = "cache_position" in wanted  # until the cache counted for itself
        self.cache = self.new_cache(n_sessions)
        ids = torch.randint(0, model.config.vocab_size, (n_sessions, PROMPT), device=device)
        self.place = torch.arange(PROMPT, device=device)
        self.ids = self.run(ids)
        self.place = self.place[-1:] + 1

    def new_cache(self, n_sessions):
        given = {"config": self.model.config, "max_cache_len": ENTRIES, "max_batch_size": n_sessions,
                 "batch_size": n_sessions, "device": self.device, "dtype": self.model.dtype}
        wanted = inspect.signature(StaticCache.__init__).parameters
        return StaticCache(**{name: value for name, value in given.items() if name in wanted})

    def run(self, ids):
        more = {self.cache_name: self.cache}
        if self.has_places:
            more["cache_position"] = self.place
        out = self.forward(input_ids=ids, position_ids=self.place.unsqueeze(0), use_cache=True, **more)
        return out.logits[:, -1:].argmax(-1).clone()

    def step(self):
        torch.compiler.cudagraph_mark_step_begin()
        self.ids = self.run(self.ids)
        self.place += 1

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def compile(self):
        self.forward = torch.compile(self.model.forward, mode="reduce-overhead", fullgraph=True, dynamic=False)

    def milliseconds(self, n):
        for _ in range(WARM):  # compiles, and records the graphs
            self.step()
        times = []
        for _ in range(n):
            self.wait()
            begun = time.perf_counter()
            self.step()
            self.wait()
            times.append((time.perf_counter() - begun) * 1e3)
        return times


def measure(model, n_sessions, device, mode, n_steps):
    run = Run(model, n_sessions, device)
    if mode == "compiled":
        run.compile()
    times = run.milliseconds(n_steps)
    median = statistics.median(times)
    say(what="transformers", mode=mode, sessions=n_sessions, least_ms=round(min(times), 4), median_ms=round(median, 4),
        tokens_per_s=round(n_sessions / median * 1e3, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    if PROMPT + WARM + options.steps > ENTRIES:
        parser.error("at most %d steps: the cache has %d entries" % (ENTRIES - PROMPT - WARM, ENTRIES))
    if options.device == "cuda" and not torch.cuda.is_available():
        skip("PyTorch sees no device")
    torch.manual_seed(1)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(options.device):
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**(TINY if options.tiny else SHAPE))).eval()
    say(what="beside", torch=torch.__version__, transformers=transformers.__version__,
        gb=round(sum(p.numel() * p.element_size() for p in model.parameters()) * 1e-9, 3))
    n_measured = 0
    with torch.no_grad():
        for mode in ("eager", "compiled"):
            for n_sessions in SESSIONS:
                try:
                    measure(model, n_sessions, options.device, mode, options.steps)
                    n_measured += 1
                except Exception as e:  # of many kinds: the others are still worth having
                    print("transformers: missing: %s, %d: %s: %s" % (mode, n_sessions, type(e).__name__, (str(e).split("\n")[0])),
                          file=sys.stderr)
    if not n_measured:
        sys.exit("nothing was measured")


if __name__ == "__main__":
    try:
        import torch
        import transformers
        from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, StaticCache
    except ImportError as e:
        skip("%s is not installed" % {"torch": "PyTorch"}.get(e.name, e.name))
    main()
