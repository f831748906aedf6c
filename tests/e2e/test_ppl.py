"""ppl: what it scores against the golden references (the oracle's output), and what a user at a shell sees."""
import csv
import json
import math
import os
import signal
import struct
import subprocess
import time
import unittest

from streamkv_test import BIN, DEADLINE, MODELS, SANITIZED, Case, Daemon

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden")
STORY = os.path.join(GOLDEN, "story.txt")
with open(STORY, "rb") as story:
    TEXT = story.read()


def read_reference(name):
    """Header, ids, log-probability of the token after each, and entries live before each: golden/README.md."""
    with open(os.path.join(GOLDEN, name), "rb") as file:
        data = file.read()
    n_tokens, n_rows, _, _, mode, sink, window, slack = struct.unpack_from("<8I", data, 8)
    assert n_rows == n_tokens
    at = 64 + 8 * n_rows  # behind the logsumexps
    logprobs = struct.unpack_from("<%dd" % n_rows, data, at)
    ids = struct.unpack_from("<%di" % n_tokens, data, at + 8 * n_rows)
    live = struct.unpack_from("<%dI" % n_rows, data, at + 8 * n_rows + 4 * n_tokens + 4 * n_rows)
    return {"mode": ("dense", "streaming", "recompute")[mode], "sink": sink, "window": window, "slack": slack,
            "ids": ids, "logprobs": logprobs, "live": live}


def options_of(reference):
    mode, sink = reference["mode"], reference["sink"]
    if mode == "dense":
        return ["--mode", "dense"]
    if mode == "streaming" and sink == 0:
        return ["--mode", "window", "-W", str(reference["window"]), "-K", str(reference["slack"])]
    return ["--mode", mode, "-S", str(sink), "-W", str(reference["window"]), "-K", str(reference["slack"])]


class References(unittest.TestCase):
    """Log-probabilities of every token within 1e-3 of the oracle, through the daemon, for every policy there is."""

    def check(self, model):
        names = sorted(name for name in os.listdir(GOLDEN) if name.startswith(model + ".") and name.endswith(".ref") and
                       "rows" not in name)
        self.assertGreaterEqual(len(names), 7)
        daemon = Daemon("--weights", "f32", "--kv", "f32", model=model)
        try:
            for name in names[::3] if SANITIZED else names:
                reference = read_reference(name)
                for chunk in ("0", "13"):
                    with self.subTest(reference=name, chunk=chunk):
                        self.compare(daemon, reference, chunk)
        finally:
            self.assertEqual(daemon.stop(), 0)

    def compare(self, daemon, reference, chunk):
        path = os.path.join(daemon.folder, "scores.csv")
        n = len(reference["ids"])
        done = daemon.run("ppl", "-f", STORY, "-n", str(n), "--no-bos", "--chunk", chunk, "--per-token", path, "--json",
                          *options_of(reference))
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        with open(path) as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([int(row["pos"]) for row in rows], list(range(1, n)))
        self.assertEqual([int(row["id"]) for row in rows], list(reference["ids"][1:]))
        self.assertEqual([int(row["live"]) for row in rows], list(reference["live"][:-1]))
        for row, expected in zip(rows, reference["logprobs"]):
            self.assertLess(abs(float(row["logprob"]) - expected), 1e-3, row)
        end = json.loads(done.stdout)
        nll = -sum(reference["logprobs"][:-1]) / (n - 1)
        self.assertAlmostEqual(end["nll"], nll, delta=1e-4)
        self.assertAlmostEqual(end["perplexity"], math.exp(end["nll"]), delta=1e-5 * end["perplexity"])
        self.assertEqual((end["scored_tokens"], end["live_max"]), (n - 1, max(reference["live"][:-1])))

    def test_gpt_neox(self):
        self.check("pythia-books")

    def test_gpt_neox_with_serial_residual(self):
        self.check("tiny-neox-serial")

    def test_llama(self):
        self.check("tiny-llama")


class Activations(unittest.TestCase):
    """--activations rounded (the default) and exact, on the same weights: perplexity within 0.3 % on so short a text, in
    chunks of a prompt and token by token to the same digits."""

    def perplexities(self, *options):
        daemon = Daemon(*options, model="pythia-books")
        try:
            runs = [daemon.run("ppl", "-f", STORY, "--mode", "dense", "-n", "256", "--chunk", chunk, "--json")
                    for chunk in ("0", "1")]
        finally:
            self.assertEqual(daemon.stop(), 0)
        for run in runs:
            self.assertEqual((run.returncode, run.stderr), (0, b""))
        whole, single = (json.loads(run.stdout)["nll"] for run in runs)
        self.assertEqual(whole, single)
        return math.exp(whole)

    def test_both(self):
        for weights in ("q8", "q4", "bf16"):
            with self.subTest(weights=weights):
                exact = self.perplexities("--weights", weights, "--activations", "exact")
                rounded = self.perplexities("--weights", weights)
                self.assertLess(abs(rounded / exact - 1), 0.003)
                named = self.perplexities("--weights", weights, "--activations", "rounded")
                self.assertEqual(rounded, named)

    def test_another(self):
        done = subprocess.run([os.path.join(BIN, "streamkvd"), "--activations", "eight"], capture_output=True, timeout=DEADLINE)
        self.assertEqual(done.returncode, 64)
        self.assertIn(b"rounded", done.stderr)


class Ppl(Case):
    n_sessions = 0

    def tearDown(self):
        self.assert_idle(self.n_sessions)

    def ppl(self, *arguments, text=STORY):
        done = self.daemon.run("ppl", "-f", text, "--json", *arguments)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return json.loads(done.stdout)

    def file(self, name, data):
        path = os.path.join(self.daemon.folder, name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def test_pieces_in_a_session_are_the_whole(self):
        # The last token of a piece is scored by it, and run by the next.
        text = TEXT[:3000]
        cut = text.index(b" ", 1500)
        parts = [self.file("part", text[:cut]), self.file("rest", text[cut:])]
        whole = self.ppl("-S", "4", "-W", "60", text=self.file("whole", text))
        scored, nll = 0, 0
        for part in parts:
            end = self.ppl("-S", "4", "-W", "60", "--session", "pieces", text=part)
            scored += end["scored_tokens"]
            nll += end["scored_tokens"] * end["nll"]
        type(self).n_sessions += 1
        self.assertEqual(scored, whole["scored_tokens"])
        self.assertAlmostEqual(nll / scored, whole["nll"], places=5)

    def test_a_session_goes_on_from_a_text(self):
        self.ppl("-n", "50", "--session", "read")
        type(self).n_sessions += 1
        tokens, end = self.daemon.generate("-n", "5", "--session", "read", "")
        prefix = self.daemon.run("tokenize", stdin=TEXT).stdout.split()[:50]
        text = self.daemon.run("detokenize", stdin=b" ".join(prefix)).stdout
        self.assertEqual(len(self.daemon.run("tokenize", stdin=text).stdout.split()), 50)
        again, _ = self.daemon.generate("-n", "5", stdin=text)
        self.assertEqual([token["id"] for token in tokens], [token["id"] for token in again])
        self.assertEqual((end["reused_tokens"], end["position"]), (49, 55))

    def test_the_trace_adds_up(self):
        path = os.path.join(self.daemon.folder, "trace.csv")
        end = self.ppl("-n", "700", "-S", "4", "-W", "60", "-K", "9", "--trace", path)
        with open(path) as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(sum(int(row["tokens"]) for row in rows), 699)
        self.assertEqual(sum(int(row["evicted"]) for row in rows), end["evicted_tokens"])
        self.assertEqual(len(rows), end["steps"])
        evictions, live = 0, 0
        for _ in range(699):
            live += 1
            if live > 73:
                live, evictions = 64, evictions + 1
        self.assertEqual(end["evictions"], evictions)
        self.assertEqual(int(rows[-1]["live_after"]), live)

    def test_a_baseline_is_its_runs(self):
        path = os.path.join(self.daemon.folder, "b.csv")
        runs = self.ppl("-n", "150", "-S", "4", "-W", "28", "--mode", "recompute", "--baseline", "--per-token", path)
        self.assertEqual([run["mode"] for run in runs], ["dense", "window", "streaming", "recompute"])
        self.assertEqual((runs[1]["sink"], runs[1]["window"]), (0, 32))  # of the same capacity
        for run in runs:
            with open(path.replace(".csv", "-%s.csv" % run["mode"])) as file:
                scores = [float(row["logprob"]) for row in csv.DictReader(file)]
            self.assertEqual(len(scores), 149)
            self.assertAlmostEqual(-sum(scores) / 149, run["nll"], places=5)
            alone = self.ppl("-n", "150", "-S", "0" if run["mode"] == "window" else "4", "-W",
                             "32" if run["mode"] == "window" else "28", "--mode", run["mode"])
            self.assertEqual(alone["perplexity"], run["perplexity"])
        table = self.daemon.run("ppl", "-f", STORY, "-n", "150", "-S", "4", "-W", "28", "--baseline").stdout.decode()
        self.assertEqual(table.count("\n"), 4)
        for run in runs[:3]:
            self.assertIn("%.4f" % run["perplexity"], table)

    def test_several_at_once(self):
        alone = self.ppl("-n", "600", "-S", "4", "-W", "60")
        processes = [self.daemon.start("ppl", "-f", STORY, "-n", "600", "-S", "4", "-W", "60", "--json") for _ in range(3)]
        with self.daemon.start("generate", "-n", "50", "It was a dark night") as generating:
            text, _ = generating.communicate(timeout=DEADLINE)
        for process in processes:
            with process:
                out, _ = process.communicate(timeout=DEADLINE)
            self.assertEqual(json.loads(out)["nll"], alone["nll"])
        self.assertEqual(text, self.daemon.run("generate", "-n", "50", "It was a dark night").stdout)

    def test_an_interrupt_prints_what_there_is(self):
        long = self.file("long", TEXT * (20 if SANITIZED else 300))
        with self.daemon.start("ppl", "-f", long, "-S", "4", "-W", "60", "--json", "--per-token",
                               os.path.join(self.daemon.folder, "i.csv")) as process:
            before = self.daemon.status()["prompt_tokens"]
            while self.daemon.status()["prompt_tokens"] == before:
                self.assertIsNone(process.poll())
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)  # as timeout(1) does: the same wish twice
            out, err = process.communicate(timeout=DEADLINE)
        self.assertEqual(process.returncode, 130)
        end = json.loads(out)
        self.assertAlmostEqual(math.log(end["perplexity"]), end["nll"], places=5)
        self.assertFalse(end["is_whole"])
        with open(os.path.join(self.daemon.folder, "i.csv")) as file:
            scores = [float(row["logprob"]) for row in csv.DictReader(file)]
        self.assertEqual(len(scores), end["scored_tokens"])
        self.assertIn(b"interrupted", err)

    def test_an_interrupt_before_anything_is_scored(self):
        long = self.file("long", TEXT * 300)
        n_said = 0
        for _ in range(50):  # a signal may come before it listens, or after the first score
            with self.daemon.start("ppl", "-f", long, "--json") as process:
                while self.daemon.status()["connections"] < 2:
                    self.assertIsNone(process.poll())
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=DEADLINE)
            if process.returncode == 130 and not out:
                self.assertIn(b"nothing is scored yet", err)
                n_said += 1
            elif process.returncode == 130:
                self.assertGreater(json.loads(out)["scored_tokens"], 0)
            else:
                self.assertEqual(process.returncode, -signal.SIGINT)
            if n_said == 3:
                break
        self.assertGreater(n_said, 0)

    def test_a_full_disk_ends_it(self):
        long = self.file("long", TEXT * (20 if SANITIZED else 300))
        for option in ("--per-token", "--trace"):
            done = self.daemon.run("ppl", "-f", long, "-S", "4", "-W", "60", "--json", "--chunk", "8", option, "/dev/full")
            self.assertEqual(done.returncode, 74, done.stderr)
            self.assertIn(b"/dev/full: No space left on device", done.stderr)
            end = json.loads(done.stdout)
            self.assertFalse(end["is_whole"])
            self.assertGreater(end["scored_tokens"], 0)
        done = self.daemon.run("generate", "--endless", "-q", "--trace", "/dev/full", "It was")
        self.assertEqual(done.returncode, 74)
        self.assertIn(b"/dev/full: No space left on device", done.stderr)

    def test_a_reader_of_the_rows_that_goes(self):
        long = self.file("long", TEXT * (20 if SANITIZED else 300))
        done = subprocess.run(["bash", "-c", '"$@" --per-token >(head -1 >/dev/null) 2>&1; echo $?', "-",
                               *self.daemon.command("ppl", "-f", long, "-S", "4", "-W", "60")], stdout=subprocess.PIPE)
        self.assertEqual(done.stdout.splitlines()[-1], b"141", done.stdout)

    def test_a_daemon_that_dies(self):
        daemon = Daemon()
        long = self.file("long", TEXT * (20 if SANITIZED else 300))
        with daemon.start("ppl", "-f", long, "-S", "4", "-W", "60", "--json") as process:
            while daemon.status()["prompt_tokens"] < 600:
                self.assertIsNone(process.poll())
            daemon.process.kill()
            out, err = process.communicate(timeout=DEADLINE)
        daemon.stop()
        self.assertEqual(process.returncode, 75, err)
        end = json.loads(out)
        self.assertFalse(end["is_whole"])
        self.assertGreater(end["scored_tokens"], 0)

    def test_what_does_not_fit_is_left_out_of_a_baseline(self):
        done = self.daemon.run("ppl", "-f", STORY, "-S", "4", "-W", "60", "--baseline", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([run["mode"] for run in json.loads(done.stdout)], ["window", "streaming"])
        self.assertIn(b"dense is left out", done.stderr)

    def test_a_session_keeps_its_policy(self):
        self.ppl("-n", "100", "--mode", "dense", "-S", "2", "-W", "30", "--session", "kept")
        self.ppl("-n", "60", "--mode", "streaming", "--session", "kept")
        end = self.ppl("-n", "100", "--session", "kept")
        type(self).n_sessions += 1
        self.assertEqual([end[name] for name in ("mode", "sink", "window", "live_max")], ["streaming", 2, 30, 32])
        self.assertEqual((end["tokens"], end["scored_tokens"], end["evaluated_tokens"]), (100, 100, 99))
        text = self.daemon.run("ppl", "-f", STORY, "-n", "50", "--session", "kept").stdout
        self.assertIn(b"streaming 2+30", text)

    def test_a_client_that_is_killed(self):
        process = self.daemon.start("ppl", "-f", self.file("long", TEXT * 50))
        while self.daemon.status()["running"] == 0:
            self.assertIsNone(process.poll())
        process.kill()
        process.communicate()

    def test_refusals_are_sentences(self):
        empty, latin, one = self.file("empty", b""), self.file("latin", b"Caf\xe9 au lait"), self.file("one", b"the")
        for arguments, code, words in [
            (["-f", empty], 65, b"is empty"),
            (["-f", one], 65, b"one token"),
            (["-f", latin], 65, b"byte 3 (0xe9)"),
            (["-f", "/nowhere"], 66, b"/nowhere: No such file"),
            (["-f", STORY, "-W", "0", "-S", "0"], 64, b"at least 1 token"),
            (["-f", STORY, "-S", "400", "-W", "100", "-K", "50"], 65, b"trained on 512"),
            (["-f", STORY, "-S", "256", "-W", "257", "--mode", "recompute", "-K", "9"], 65,
             b"sink 256 + window 257 are 513 tokens to compute afresh, but the model was trained on 512"),
            (["-f", STORY, "--mode", "recompute", "--trace", "x"], 64, b"no part of a timeline"),
            (["-f", one, "--baseline"], 65, b"one token"),
            (["-f", STORY, "--mode", "dense"], 65, b"context of 512 tokens"),
            (["-f", STORY, "--mode", "recompute", "--session", "x"], 64, b"keeps no cache"),
            (["-f", STORY, "-n", "1"], 64, b"2 or more"),
            (["-f", STORY, "--mode", "window", "-S", "4", "-W", "10"], 64, b"keeps no sinks"),
            (["-f", STORY, "--session", "a b"], 64, b"a name is"),
            (["-f", STORY, "--baseline", "--session", "x"], 64, b"makes no sense"),
            (["-f", STORY, "--mode", "sparse"], 64, b"sparse"),
            ([], 64, b"--file TEXT"),
            (["-f", STORY, "--per-token", "/nowhere/x.csv"], 73, b"/nowhere/x.csv"),
            (["-f", STORY, "--trace", "/nowhere/x.csv"], 73, b"/nowhere/x.csv"),
        ]:
            done = self.daemon.run("ppl", *arguments)
            self.assertEqual((done.returncode, done.stdout), (code, b""), done.stderr)
            self.assertIn(words, done.stderr)
            self.assertEqual(done.stderr.count(b"\n"), 1)
        done = self.daemon.run("ppl", "-f", latin, "--bytes", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        # As much as the context holds can be dense: the last token is scored, not run.
        self.assertEqual(self.ppl("-n", "513", "--mode", "dense")["live_max"], 511)
        done = self.daemon.run("ppl", "-f", STORY, "-n", "514", "--mode", "dense")
        self.assertEqual(done.returncode, 65)


if __name__ == "__main__":
    unittest.main()
