#!/usr/bin/env python3
"""Makes blocks.txt: blocks of every GGUF format beside the floats that the gguf package decodes them to.

Needs numpy and gguf (0.19 made the committed file). The seed is fixed; a second run gives the same file.
A line is: FORMAT, the blocks in hexadecimal, the floats' bits in hexadecimal (little-endian words).
"""
import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

# Where the half-precision scales of a block lie; a random half there would often be NaN.
SCALES = {
    "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}

rng = np.random.default_rng(20261124)
for name in ["F16", "BF16", *SCALES]:
    kind = Type[name]
    n_elements, n_bytes = GGML_QUANT_SIZES[kind]
    n_blocks = 3 if n_elements == 256 else 8
    if n_elements == 1:
        values = (rng.standard_normal(64) * 10.0 ** rng.integers(-6, 4, 64)).astype(np.float32)
        blocks = values.astype(np.float16).view(np.uint8) if name == "F16" else \
            (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    else:
        blocks = rng.integers(0, 256, (n_blocks, n_bytes), dtype=np.uint8)
        for at in SCALES[name]:
            scales = (rng.standard_normal(n_blocks) * 10.0 ** rng.integers(-5, 2, n_blocks)).astype(np.float16)
            blocks[:, at:at + 2] = scales.view(np.uint8).reshape(n_blocks, 2)
        blocks = blocks.reshape(-1)
    floats = dequantize(blocks.reshape(1, -1), kind).astype("<f4").reshape(-1)
    sys.stdout.write(f"{name} {blocks.tobytes().hex()} {floats.tobytes().hex()}\n")
