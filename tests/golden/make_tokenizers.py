#!/usr/bin/env python3
"""What the `tokenizers` package makes of small tokenizer.json files made by hand: tests/golden/tokenizers.json.

    python tests/golden/make_tokenizers.py            from the project's root

"tests" is a list of {"name", "tokenizer" (a tokenizer.json whose "model" is an index into "models"), "cases": [[text, ids],
...]}. The vocabularies join nearly every pair of a few characters, so that the ids tell where a text was split.
Needs: tokenizers 0.23.
"""
import itertools
import json

from tokenizers import Tokenizer

MARK = "\u2581"


def byte_spellings():
    """GPT-2's spelling of the 256 bytes, by byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return [chr(b) if b in plain else chr(0x100 + others.index(b)) for b in range(256)]


def model(alphabet, joined, **options):
    """All pairs of `joined`, and pairs of the first of those pairs."""
    vocab = {token: i for i, token in enumerate(alphabet)}
    pairs = list(itertools.product(joined, repeat=2))
    merges = [list(p) for p in pairs]
    twos = ["".join(p) for p in pairs][:9]
    merges += [list(p) for p in itertools.product(twos, repeat=2)]
    for merge in merges:
        vocab.setdefault("".join(merge), len(vocab))
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocab, "merges": merges, **options}


def bytes_model(joined="a-b1\u0120\u010a", **options):
    return model(byte_spellings(), joined, **options)


def marks_model(with_bytes=True, **options):
    alphabet = ["<unk>", "<s>", "</s>"]
    if with_bytes:
        alphabet += ["<0x%02X>" % b for b in range(256)]
    return model(alphabet + list(MARK + "ab-1\u00e9\u4f60\n"), MARK + "ab-", unk_token="<unk>", fuse_unk=True,
                 byte_fallback=with_bytes, **options)


def added(tokenizer_model, *tokens):
    following, out = len(tokenizer_model["vocab"]), []
    for content, flags in tokens:
        known = tokenizer_model["vocab"].get(content)
        out.append({"id": following if known is None else known, "content": content,
                    "single_word": "w" in flags, "lstrip": "l" in flags, "rstrip": "r" in flags,
                    "normalized": "n" in flags, "special": "s" in flags})
        following += known is None
    return out


def whole(tokenizer_model, pre=None, normalizer=None, tokens=()):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": list(tokens),
            "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": None, "decoder": None,
            "model": tokenizer_model}


def byte_level(prefix=False, regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def metaspace(scheme):
    return {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": False}


def normalizers(*steps):
    return {"type": "Sequence", "normalizers": list(steps)}


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
PREPEND = {"type": "Prepend", "prepend": MARK}
LEGACY = normalizers(PREPEND, REPLACE)

SPLIT_TEXTS = ["", "-", "a", "a-b", "-a-", "--", "a--b", "--a--b--", "ab---ba-1-", "a.b", "..a", "a+*b", "1a1b--",
               "a -b", " - ", "\n-\n"]
DIGIT_TEXTS = ["1", "11", "a1b", "11a11", " 1 11", "a\u00bd1", "\u0661\u0662a", "\u2167-1", "1-1"]
PREFIX_TEXTS = ["", "a", " a", "\na", "a b", "  a  b", "<s>a", "a<s> b", "<t>a", " <t> a", "<s><t>b", "a ", " "]
MARK_TEXTS = ["", "a", " a", "  a", "a b", "a  b-", "ab-ba b", "<s>a", "a<s>a", " <s>a", "<s> a", "a<t>b", "<t>a",
              "<s><t>a", "a <t> b", "\u00e9a", "\u4f60 \u597d", "\U0001f600a", "a\nb", "\n", "z", "azza", "<0x41>", " ",
              "   "]
FLAG_TEXTS = ["", "<x>", "a<x>b", "a <x> b", "a  <x>  b", "<x><x>", " <x> <x> ", "a\n<x>\tb", "-<x>-", "1<x>", "<x>1",
              "_<x>", "\u00e9<x>", "\u4f60<x>", "<x>\u0301", "a\u00a0<x>\u2003b", "a\u3000<x>", "\u0085<x>\u2028",
              "\u200b<x>", "\u2167<x>", "<x>\u24b6", "<x>\u200d", "a<xy>b", "<x", "<x><xyz>", "a <xy>b <x>", "<X>"]
FORM_TEXTS = ["e\u0301", "\u00e9", "ae\u0301<n>e\u0301", "\ufb01", "\u00bd", "\uac00", "\u1100\u1161", "A\u030a\u0327a",
              "\u1e9b\u0323", "a\u0300\u0301b", "\u2126", "<\u00e9>", "<e\u0301>", "a<e\u0301> b", "\u0344"]


def everything():
    for behavior in ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in [False, True]:
            for pattern in [{"String": "-"}, {"Regex": "-|1"}, {"String": "."}, {"Regex": "\\s*-+"}]:
                name = "split %s %s%s" % (behavior, list(pattern.values())[0], " inverted" if invert else "")
                yield name, whole(bytes_model(), sequence(split(pattern, behavior, invert), byte_level())), SPLIT_TEXTS
    yield "three steps", whole(bytes_model(), sequence(
        split({"Regex": "\\n"}, "Isolated"), split({"String": "-"}, "MergedWithNext"), byte_level(regex=True))), SPLIT_TEXTS
    yield "nested sequences", whole(bytes_model(), sequence(
        sequence(split({"String": "-"}, "Removed")), sequence(byte_level()))), SPLIT_TEXTS
    yield "a sign of expressions as text", whole(bytes_model(), sequence(
        split({"String": "+*"}, "Isolated"), byte_level())), SPLIT_TEXTS
    for individual in [False, True]:
        yield "digits %s" % individual, whole(bytes_model(), sequence(
            {"type": "Digits", "individual_digits": individual}, byte_level(regex=True))), DIGIT_TEXTS
    for regex in [False, True]:
        for prefix in [False, True]:
            m = bytes_model()
            yield "byte-level %s %s" % (regex, prefix), whole(
                m, byte_level(prefix, regex), tokens=added(m, ("<s>", "s"), ("<t>", "n"))), PREFIX_TEXTS + SPLIT_TEXTS
    for scheme in ["always", "first", "never"]:
        m = marks_model()
        yield "metaspace " + scheme, whole(
            m, metaspace(scheme), tokens=added(m, ("<s>", "s"), ("<t>", "n"))), MARK_TEXTS
    m = marks_model()
    yield "llama-2", whole(m, normalizer=LEGACY, tokens=added(m, ("<unk>", "s"), ("<s>", "s"), ("<t>", ""))), MARK_TEXTS
    m = marks_model()
    yield "llama-2, normalized", whole(m, normalizer=LEGACY, tokens=added(m, ("<s>", "s"), ("<t>", "n"))), MARK_TEXTS
    m = marks_model(False)
    yield "unknown, fused", whole(m, metaspace("never"), tokens=added(m, ("<unk>", "s"))), MARK_TEXTS
    m = marks_model(False)
    m["fuse_unk"] = False
    yield "unknown, one by one", whole(m, metaspace("never"), tokens=added(m, ("<unk>", "s"))), MARK_TEXTS
    yield "gemma", whole(marks_model(), split({"String": " "}, "MergedWithPrevious"), REPLACE), MARK_TEXTS
    for ignore in [False, True]:
        m = bytes_model(ignore_merges=ignore)
        for token in ["a1b-", "\u0120b-1", "zz"]:
            m["vocab"][token] = len(m["vocab"])
        yield "merges ignored %s" % ignore, whole(m, sequence(
            split({"Regex": "\\s?\\S+"}, "Isolated"), byte_level())), ["a1b-", "a1b- b-1", "zz", " zz", "zzz zz"]
    for flags in ["", "s", "l", "r", "lr", "w", "wlr", "n", "nlr", "nw", "slr", "sw"]:
        m = bytes_model()
        yield "added token " + (flags or "plain"), whole(
            m, byte_level(), tokens=added(m, ("<x>", flags), ("<xyz>", ""), ("<xy", ""))), FLAG_TEXTS
    m = bytes_model()
    yield "added words", whole(m, byte_level(regex=True), tokens=added(
        m, ("ab", "w"), ("b1", ""), ("a", "w"), ("--", "wn"), (" ", "w"))), [
        "ab", "ab ab", "abab", "aab", "a ab a", "a", "aa", "-- -", "a--", "---", "1ab", "ab1", "\u00e9ab", "ab-a"]
    m = bytes_model()
    yield "added spaces", whole(m, byte_level(regex=True), tokens=added(
        m, ("  ", "n"), ("    ", "n"), ("\n\n", ""))), [" " * n + "a" for n in range(1, 10)] + ["a\n\n\nb", "\n  \n"]
    for form in ["NFC", "NFD", "NFKC", "NFKD"]:
        m = bytes_model()
        yield form, whole(m, byte_level(), {"type": form}, added(m, ("<n>", "n"), ("<\u00e9>", "n"))), FORM_TEXTS


def main():
    models, tests = [], []
    for name, tokenizer, texts in everything():
        package = Tokenizer.from_str(json.dumps(tokenizer))
        if tokenizer["model"] not in models:
            models.append(tokenizer["model"])
        tokenizer["model"] = models.index(tokenizer["model"])
        tests.append({"name": name, "tokenizer": tokenizer,
                      "cases": [[t, package.encode(t, add_special_tokens=False).ids] for t in texts]})
    with open("tests/golden/tokenizers.json", "w") as f:
        lines = [",\n".join(json.dumps(entry, separators=(",", ":")) for entry in part) for part in (models, tests)]
        f.write('{"models":[\n%s\n],"tests":[\n%s\n]}\n' % tuple(lines))


if __name__ == "__main__":
    main()
