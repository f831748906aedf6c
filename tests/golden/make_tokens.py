#!/usr/bin/env python3
"""Digests of what the `tokenizers` package makes of whole texts: tests/golden/tokens.txt.

    python tests/golden/make_tokens.py            from the project's root

A line is TOKENIZER TEXT N_IDS HASH..., the hash of every 10,000 ids in turn (64-bit FNV-1a over little-endian int32), so that
a difference can be found. Texts and the NeoX tokenizer are looked for in $STREAMKV_TEST_DATA (default ../shared/data),
SmolLM2 in the cache where tools/fetch-model puts it; all must be there. tests/golden/multilingual.txt and its ids with
pythia-books (the last lines, in full) are the project's own.
Needs: tokenizers, gguf.
"""
import os
import struct

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

data = os.environ.get("STREAMKV_TEST_DATA", "../shared/data")
cache = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))


def strings(field):
    return [bytes(field.parts[i]).decode() for i in field.data]


def from_gguf(path):
    fields = GGUFReader(path).fields
    tokens = strings(fields["tokenizer.ggml.tokens"])
    merges = [tuple(m.split(" ")) for m in strings(fields["tokenizer.ggml.merges"])]
    types = fields["tokenizer.ggml.token_type"]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    special = [t for t, i in zip(tokens, types.data) if types.parts[i][0] == 3]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return tokenizer


def fnv(ids):
    value = 0xCBF29CE484222325
    for byte in struct.pack("<%di" % len(ids), *ids):
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return "%016x" % value


def main():
    tokenizers = {
        "neox": Tokenizer.from_file(data + "/tokenizer/20B_tokenizer.json"),
        "smollm2": from_gguf(cache + "/streamkv/models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        "pythia-books": Tokenizer.from_file("tests/models/pythia-books/tokenizer.json"),
    }
    out = []
    for name, tokenizer in tokenizers.items():
        texts = {"tests/golden/multilingual.txt": "multilingual.txt", "tests/golden/story.txt": "story.txt"}
        if name != "pythia-books":
            texts = {data + "/text/wikitext2-test.raw": "wikitext2-test.raw",
                     data + "/text/gutenberg-10800.txt": "gutenberg-10800.txt", **texts}
        for path, text in texts.items():
            ids = tokenizer.encode(open(path, newline="", encoding="utf-8").read(), add_special_tokens=False).ids
            hashes = [fnv(ids[i:i + 10000]) for i in range(0, len(ids), 10000)]
            out.append(" ".join([name, text, str(len(ids))] + hashes))
    with open("tests/golden/tokens.txt", "w") as f:
        f.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
