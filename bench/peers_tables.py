"""The tables of bench/peers. `results` is what it measured: by format "rounds", by system a list of what each round gave by
column (tokens/s; None or absent: it failed), and "of memory", a list of ratios by round."""
import statistics


def lines_of(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---|---|" + "---:|" * (len(rows[0]) - 2)] + lines[1:])


def median_ratio(mine, others, column):
    """Of one system's rounds over the best of others in the same round; None where there is none."""
    ratios = []
    for i, one in enumerate(mine):
        theirs = [rounds[i][column] for rounds in others if rounds[i].get(column)]
        if one.get(column) and theirs:
            ratios.append(one[column] / max(theirs))
    return statistics.median(ratios) if ratios else None


def beside(results, columns):
    """The best round of each system, and its median ratio to llama.cpp."""
    rows = [["format", "system"] + columns + ["of memory"]]
    for name, result in results.items():
        for system, rounds in result["rounds"].items():
            row, base = [name, system], result["rounds"].get("llama.cpp")
            for column in columns:
                values = [r[column] for r in rounds if r.get(column)]
                ratio = median_ratio(rounds, [base], column) if base and system != "llama.cpp" else None
                row.append(("%.2f" % max(values) if values else "") + (" (%.2fx)" % ratio if ratio else ""))
            memory = [r for one in result["of memory"] for r in one] if system == "streamkv" else []
            rows.append(row + ["%.2f" % statistics.median(memory) if memory else ""])
    return lines_of(rows)


def ratios(results, columns):
    """streamkv over each peer, and over the best of them in each round: medians. Nothing where there is no peer."""
    rows = [["format", "streamkv over"] + columns]
    for name, result in results.items():
        peers = {system: rounds for system, rounds in result["rounds"].items() if system != "streamkv"}
        if "streamkv" not in result["rounds"] or not peers:
            continue
        for peer, others in [(n, [rounds]) for n, rounds in peers.items()] + [("the best", list(peers.values()))]:
            found = [median_ratio(result["rounds"]["streamkv"], others, column) for column in columns]
            rows.append([name, peer] + ["%.2f" % r if r else "" for r in found])
    return lines_of(rows) if len(rows) > 1 else ""
