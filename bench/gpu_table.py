#!/usr/bin/env python3
"""The lines of bench_gpu, and of transformers_beside.py where it ran, as one table of Markdown. FILE...

A row's floor is what the memory would take to read what must be read, at the speed that was measured; of a prompt that is the
weights with each step of 512 tokens, whatever it takes to multiply; of a far position it is the step at a near one, of plain
launches the same step as a graph, and of five launches a layer the same with three. "of it": the floor over what was measured.
Without a measured speed there are no floors.
"""
import json
import sys

HEAD = ["measured", "ms", "floor, ms", "of it", "tokens/s", "transformers, eager: ms", "compiled: ms"]


def read(paths):
    for path in paths:
        with open(path) as file:
            for line in file:
                try:
                    found = json.loads(line)
                except ValueError:  # whoever wrote it was ended there
                    found = None
                if isinstance(found, dict) and "what" in found:
                    yield found
                else:
                    print("gpu_table: %s: not a measurement: %s" % (path, line.strip()[:60]), file=sys.stderr)


def sessions(n):
    return "%d session%s" % (n, "" if n == 1 else "s")


def row(what, ms, floor=None, rate=None, beside=(None, None)):
    return [what, "%.4g" % ms, floor and "%.4g" % floor, floor and "%.2f" % (floor / ms), rate and "%.0f" % rate,
            *(other and "%.4g (%.2f of ours)" % (other, other / ms) for other in beside)]


def rows(lines):
    beside = {(line["mode"], line["sessions"]): line["median_ms"] for line in lines if line["what"] == "transformers"}
    for line in lines:
        what = line["what"]
        if what == "decode":
            n, cache = line["sessions"], line.get("cache", "f16")
            is_other = line["drawn_read"] or cache != "f16"
            yield row("decode, %s%s%s" % (sessions(n), ", ids read" if line["drawn_read"] else "",
                                          "" if cache == "f16" else ", cache of " + cache.upper()), line["median_ms"],
                      line.get("floor_ms"), line["tokens_per_s"],
                      [None if is_other else beside.get((mode, n)) for mode in ("eager", "compiled")])
        elif what in ("prefill", "first_token"):
            yield row("%s, a prompt of %d" % ("prefill" if what == "prefill" else "time to first token", line["tokens"]),
                      line["median_ms"], line.get("floor_ms"), rate=line["tokens_per_s"] if what == "prefill" else None)
        elif what == "far":
            yield row("at position %d; floor: at %d" % (line["position"], line["near"]), line["far_ms"], line["near_ms"])
        elif what == "graphs":
            yield row("plain launches, %s; floor: a graph" % sessions(line["sessions"]), line["plain_ms"], line["graph_ms"])
        elif what == "launches":
            yield row("five launches a layer, %s; floor: three" % sessions(line["sessions"]), line["five_ms"], line["three_ms"])
        elif what == "operation":
            ms = line["us"] * 1e-3
            yield row("%s, %d row%s" % (line["operation"], line["rows"], "" if line["rows"] == 1 else "s"), ms,
                      "of_bandwidth" in line and ms * line["of_bandwidth"])


def main():
    lines = list(read(sys.argv[1:]))
    for line in lines:
        if line["what"] == "device":
            speed = line.get("bandwidth_gb_s")
            print("%s; reading: %s\n" % (line["name"], "%.0f GB/s" % speed if speed else "not measured"))
        elif line["what"] == "left_out":
            print("%s: left out: the memory holds %d\n" % (sessions(line["sessions"]), line["most"]))
        elif line["what"] == "beside":
            print("PyTorch %s, transformers %s\n" % (line["torch"], line["transformers"]))
    print("| %s |\n|---|%s" % (" | ".join(HEAD), "---:|" * (len(HEAD) - 1)))
    for cells in rows(lines):
        print("| %s |" % " | ".join(cell or "" for cell in cells))


if __name__ == "__main__":
    main()
