"""What the makers of golden data share: paths, the story's ids, the .ref and .greedy writers.

The formats are specified in README.md, and read by reference.h.
"""
import os
import struct

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = os.path.join(os.path.dirname(HERE), "models")
STORY = os.path.join(HERE, "story.txt")

MODES = {"dense": 0, "streaming": 1, "recompute": 2}
HEADER = struct.Struct("<8s14I")  # 64 bytes


def model_path(name):
    return os.path.join(MODELS, name)


def story():
    with open(STORY, encoding="utf-8") as f:
        return f.read()


def story_ids(name, n):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.path.join(model_path(name), "tokenizer.json"))
    ids = tokenizer.encode(story(), add_special_tokens=False).ids
    assert len(ids) >= n, "the story is too short"
    return ids[:n]


def subset_ids(pos, n_vocab, n_subset):
    """Which vocabulary ids a row at `pos` holds: evenly spread, and drifting with the position."""
    stride = n_vocab // n_subset
    first = 0 if n_subset == n_vocab else pos * 97
    return (first + stride * np.arange(n_subset)) % n_vocab


def write_reference(path, ids, logits, live, n_subset, mode, sink=0, window=0, slack=0, positions=None):
    """logits: float64 (len(ids), n_vocab). Rows are written for `positions` (default: all)."""
    logits = np.asarray(logits, dtype=np.float64)
    n, n_vocab = logits.shape
    pos = np.arange(n) if positions is None else np.asarray(positions)
    most = logits.max(-1)
    lse = most + np.log(np.exp(logits - most[:, None]).sum(-1))
    following = np.full(n, np.nan)
    following[:-1] = [logits[t, ids[t + 1]] - lse[t] for t in range(n - 1)]
    best = logits.argmax(-1)
    parts = np.sort(logits, -1)
    rows = np.stack([logits[t, subset_ids(int(t), n_vocab, n_subset)] for t in pos])
    with open(path, "wb") as f:
        f.write(HEADER.pack(b"SKREF1\0\0", n, len(pos), n_vocab, n_subset, MODES[mode],
                            sink, window, slack, *[0] * 6))
        f.write(lse[pos].astype("<f8").tobytes())
        f.write(following[pos].astype("<f8").tobytes())
        f.write(np.asarray(ids, dtype="<i4").tobytes())
        f.write(pos.astype("<u4").tobytes())
        f.write(np.asarray(live)[pos].astype("<u4").tobytes())
        f.write(best[pos].astype("<i4").tobytes())
        f.write((parts[:, -1] - parts[:, -2])[pos].astype("<f4").tobytes())
        f.write(rows.astype("<f4").tobytes())
    print("%-52s %8d bytes" % (os.path.relpath(path, HERE), os.path.getsize(path)))


def write_greedy(path, cases):
    """cases: (text, prompt ids, generated ids, smallest top-2 gap)."""
    with open(path, "w", encoding="utf-8") as f:
        for text, prompt, generated, gap in cases:
            assert "\n" not in text
            f.write("text %s\n" % text)
            f.write("prompt %d %s\n" % (len(prompt), " ".join(map(str, prompt))))
            f.write("tokens %d %s\n" % (len(generated), " ".join(map(str, generated))))
            f.write("gap %.6f\n" % gap)
    print("%-52s %8d bytes" % (os.path.relpath(path, HERE), os.path.getsize(path)))
