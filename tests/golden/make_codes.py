#!/usr/bin/env python3
"""Makes codes.txt: floats beside the blocks that GGML makes of them, which --weights q8 and q4 must make, too.

Needs numpy and gguf (0.19 made the committed file; quantize_row_q8_0_ref and quantize_row_q4_0_ref of llama.cpp b11434 make
the same blocks). The seed is fixed; a second run gives the same file.
A line is: FORMAT, the floats' bits in hexadecimal (little-endian words), the blocks in hexadecimal.
"""
import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import quantize

N_BLOCKS = 32
rng = np.random.default_rng(20261125)


def block(i, top):
    """Most are random. Some lie on steps and between two of them, where the way to round shows; `top`: the largest code."""
    if i == 0:
        return np.zeros(32)
    if i % 4 == 1:  # a scale of one, or a power of two: ties
        steps = rng.integers(-2 * top, 2 * top, 32) / 2
        steps[rng.integers(32)] = -top
        return steps * 2.0 ** -(i % 12)
    if i % 4 == 2:  # a hair below and above a tie
        steps = np.float32(rng.integers(-2 * top + 2, 2 * top - 2, 32) / 2)
        steps = np.nextafter(steps, np.float32(rng.choice([-1e3, 1e3], 32)))
        steps[rng.integers(32)] = -top
        return steps
    if i % 8 == 3:  # few values: which of the largest is first
        return rng.integers(-6, 7, 32) / 16
    return rng.standard_normal(32) * 10.0 ** rng.integers(-5, 2)


for name, top in ("Q8_0", 127), ("Q4_0", 8):
    floats = np.array([block(i, top) for i in range(N_BLOCKS)], dtype="<f4")
    with np.errstate(divide="ignore", invalid="ignore"):
        blocks = quantize(floats, Type[name])
    sys.stdout.write(f"{name} {floats.tobytes().hex()} {blocks.tobytes().hex()}\n")
