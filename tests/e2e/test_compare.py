"""compare: the table, its forms and its arithmetic, against ppl, model and generate, and against the rule of section 2. One
long file, of one command."""
import csv
import io
import json
import os
import pty
import select
import signal
import subprocess
import time
import unittest

from streamkv_test import DEADLINE, Case, Program

STORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../golden/story.txt")
SLOW = any(name in os.environ.get("STREAMKV_SANITIZE", "") for name in ("thread", "address"))
N, P, REPEAT = (160, 40, 2) if SLOW else (360, 60, 2)
SINK, WINDOW, SLACK = 4, 60, 16
POLICY = ["-S", str(SINK), "-W", str(WINDOW), "-K", str(SLACK)]
COLUMNS = ("mode,sink,window,slack,capacity,tokens,perplexity,weight_bytes,cache_bytes,scratch_bytes,total_bytes,"
           "tokens_per_s,ttft_ms,tpot_ms,attention_ms,parameters,mean_live,flops_per_token,cache_bytes_per_token,"
           "perplexity_change_percent")
TIMINGS = ("tokens_per_s", "ttft_ms", "tpot_ms")


def schedule(n_tokens, capacity=None, slack=0):
    """Design section 2, a token at a time: the entries cached before each, and the oldest of those after the sinks that
    it leaves, as if there were no sinks."""
    live, dropped = 0, 0
    for _ in range(n_tokens):
        yield live, dropped
        live += 1
        if capacity and live > capacity + slack:
            dropped += live - capacity
            live = capacity


class Compare(Case):
    def setUp(self):
        self.path = os.path.join(self.daemon.folder, "text")

    def tearDown(self):
        self.assert_idle()

    def text(self, data):
        with open(self.path, "wb") as file:
            file.write(data)
        return self.path

    def long_text(self):
        with open(STORY, "rb") as file:
            return self.text(file.read() * 60)

    def compare(self, *arguments):
        done = self.daemon.run("compare", *arguments)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return done.stdout.decode()

    def rows(self, *arguments):
        return list(csv.DictReader(io.StringIO(self.compare("--csv", *arguments))))

    def perplexity(self, *arguments):
        done = self.daemon.run("ppl", "--json", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["perplexity"]

    def assert_close(self, one, other, part=1e-6):
        self.assertLessEqual(abs(one - other), part * abs(other), (one, other))

    # --- The table ---

    def test_json_adds_up(self):
        """Every number that is no time is computed here again."""
        answer = json.loads(self.compare("--json", "-f", STORY, "-n", str(N), "-p", str(P), "--repeat", str(REPEAT), *POLICY))
        model = json.loads(self.daemon.run("model", "--json").stdout)
        status = self.daemon.status()
        self.assertEqual((answer["tokens"], answer["repeat"], answer["is_whole"]), (N, REPEAT, True))
        n_prompt, n_generated = answer["prompt_tokens"], answer["generated_tokens"]
        self.assertEqual(n_prompt + n_generated, N)
        self.assertLessEqual(abs(n_prompt - P), 2)
        dense, streaming = answer["runs"]
        self.assertEqual((dense["mode"], dense["sink"], dense["capacity"]), ("dense", None, None))
        self.assertEqual([streaming[name] for name in ("mode", "sink", "window", "slack", "capacity")],
                         ["streaming", SINK, WINDOW, SLACK, SINK + WINDOW])
        self.assert_close(dense["perplexity"], self.perplexity("-f", STORY, "-n", str(N), "--mode", "dense", "-S", "0"))
        self.assert_close(streaming["perplexity"], self.perplexity("-f", STORY, "-n", str(N), "--mode", "streaming", *POLICY))
        self.assertGreater(abs(streaming["perplexity"] / dense["perplexity"] - 1), 1e-5)

        for run, capacity, sink in ((dense, None, 0), (streaming, SINK + WINDOW, SINK)):
            steps = list(schedule(N - 1, capacity, SLACK))  # the last token drawn is run by no step
            lives = [live for live, _ in steps[n_prompt:]]
            self.assertEqual(len(lives), n_generated - 1)
            self.assert_close(run["mean_live"], sum(lives) / len(lives))
            attention = 4 * model["layers"] * model["heads"] * model["head_dim"]
            entries = [live + 1 for live in lives]  # a token attends to itself, too
            self.assert_close(run["flops_per_token"],
                              2 * model["matrix_parameters"] + attention * sum(entries) / len(entries))
            size = status["page_tokens"]
            pages = max(len({i // size for i in range(sink)} | {i // size for i in range(sink + dropped, token + 1)})
                        for token, (_, dropped) in enumerate(steps))
            self.assertEqual(run["cache_bytes"], pages * size * model["kv_bytes_per_token"])
            self.assertEqual(run["weight_bytes"], model["weight_bytes"])
            self.assertEqual(run["scratch_bytes"], status["scratch_bytes"])
            self.assertEqual(run["total_bytes"], run["weight_bytes"] + run["cache_bytes"] + run["scratch_bytes"])
            self.assertEqual(run["parameters"], model["parameters"])
            self.assertEqual(run["cache_bytes_per_token"], model["kv_bytes_per_token"])
            self.assertEqual((run["tokens"], run["timed_runs"]), (N, REPEAT))
            for name in TIMINGS:
                self.assertTrue(0 < run[name + "_min"] <= run[name] <= run[name + "_max"], name)
            self.assert_close(1000 / run["tpot_ms_min"], run["tokens_per_s_max"])
            self.assertGreater(run["attention_ms"], 0)
        self.assertIsNone(dense["change_percent"])
        for name, change in streaming["change_percent"].items():
            self.assert_close(1 + change / 100, streaming[name] / dense[name])
        self.assertEqual(len(streaming["change_percent"]), 13)

    def test_timing_attention_slows_nothing_else(self):
        """Steps are timed in the runs of their own alone: as many as those take."""
        before = self.daemon.status()
        answer = json.loads(self.compare("--json", "-f", STORY, "-n", "100", "-p", "30", "--repeat", "3", *POLICY))
        after = self.daemon.status()
        of_a_run = answer["generated_tokens"]  # the prompt in one step, and a step for each token but the last
        self.assertEqual(after["profiled_steps"] - before["profiled_steps"], 2 * of_a_run)
        self.assertGreater(after["steps"] - before["steps"], 8 * of_a_run)

    def test_the_schedule_is_the_daemons(self):
        """What compare computes of the steps is what generate sees of them."""
        with open(STORY, "rb") as file:
            ids = self.daemon.run("tokenize", stdin=file.read()).stdout.split()[:P]
        prompt = self.daemon.run("detokenize", stdin=b" ".join(ids)).stdout
        run = json.loads(self.compare("--json", "-f", STORY, "-n", str(N), "-p", str(P), "--repeat", "1", "--no-dense",
                                      *POLICY))
        tokens, end = self.daemon.generate("-n", str(run["generated_tokens"]), "--ignore-eos", *POLICY, stdin=prompt)
        self.assertEqual(run["prompt_tokens"], end["prompt_tokens"])
        lives = [token["live"] for token in tokens if "id" in token][:-1]
        self.assert_close(run["runs"][0]["mean_live"], sum(lives) / len(lives))
        self.assertIsNone(run["runs"][0]["change_percent"])

    def test_all_forms_say_the_same(self):
        ask = ["-f", STORY, "-n", "100", "-p", "20", "--repeat", "1", *POLICY]
        text, markdown = self.compare(*ask), self.compare("--markdown", *ask)
        dense, streaming = self.rows(*ask)
        self.assertEqual(self.compare("--csv", "--no-speed", *ask).splitlines()[0], COLUMNS)
        self.assertEqual([dense[name] for name in ("mode", "sink", "window", "slack", "capacity", "tokens")],
                         ["dense", "", "", "", "", "100"])
        self.assertEqual([streaming[name] for name in ("mode", "sink", "window", "slack", "capacity", "tokens")],
                         ["streaming", str(SINK), str(WINDOW), str(SLACK), str(SINK + WINDOW), "100"])
        self.assertTrue(all(float(row[name]) > 0 for row in (dense, streaming) for name in COLUMNS.split(",")[6:-1]))
        self.assertEqual(dense["perplexity_change_percent"], "")
        self.assert_close(1 + float(streaming["perplexity_change_percent"]) / 100,
                          float(streaming["perplexity"]) / float(dense["perplexity"]), 1e-5)

        table = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"]
        self.assertEqual(table[0], ["", "dense", "streaming %d+%d" % (SINK, WINDOW), "change"])
        self.assertEqual(table[1], ["---", "---:", "---:", "---:"])
        cells = {row[0]: row[1:] for row in table[2:]}
        for label, name, unit, form in (("perplexity", "perplexity", 1, "%.3f"),
                                        ("peak memory: weights, MB", "weight_bytes", 1e6, "%.2f"),
                                        ("peak memory: KV cache, MB", "cache_bytes", 1e6, "%.2f"),
                                        ("peak memory: scratch, MB", "scratch_bytes", 1e6, "%.2f")):
            one, other = float(dense[name]), float(streaming[name])
            change = 100 * (other / one - 1)
            self.assertEqual(cells[label], [form % (one / unit), form % (other / unit),
                                            "0.0 %" if abs(change) < 0.05 else "%+.1f %%" % change])
        self.assertEqual(len(cells), 14)
        said = [line for line in text.splitlines() if line[:1] not in ("", " ")]
        for label in cells:  # in the same order below each other, the two deterministic numbers alike
            line = next(line for line in said if line.startswith(label))
            self.assertEqual(len(line[len(label):].replace(" %", "").split()), 3, line)
            if not label.startswith(("throughput", "time", "attention")):
                self.assertEqual(line[len(label):].split()[:2], cells[label][:2])
        self.assertEqual([line[:9] for line in said][-14:], [label[:9] for label in cells])
        self.assertEqual(len({len(line) for line in said[-14:]}), 1)  # aligned

    # --- Grids ---

    def test_a_grid(self):
        ask = ["-f", STORY, "-n", str(N), "--sweep", "48,80", "--sinks", "0,1,8", "-K", "8", "--no-speed"]
        rows = self.rows(*ask)
        self.assertEqual([[row[name] for name in ("mode", "sink", "window", "slack", "capacity")] for row in rows], [
            ["dense", "", "", "", ""],
            ["window", "0", "48", "8", "48"], ["streaming", "1", "47", "8", "48"], ["streaming", "8", "40", "8", "48"],
            ["window", "0", "80", "8", "80"], ["streaming", "1", "79", "8", "80"], ["streaming", "8", "72", "8", "80"]])
        for row in rows:
            self.assertEqual([row[name] for name in (*TIMINGS, "attention_ms")], [""] * 4)
            self.assertEqual(row["tokens"], str(N))
        self.assertEqual(len({row["perplexity"] for row in rows}), 7)
        for row, policy in ((rows[4], ["--mode", "window", "-W", "80"]),
                            (rows[6], ["--mode", "streaming", "-S", "8", "-W", "72"])):
            self.assert_close(float(row["perplexity"]), self.perplexity("-f", STORY, "-n", str(N), "-K", "8", *policy))
        # A stream's pages: what small chunks borrow beside them is little.
        self.assertLess(int(rows[1]["cache_bytes"]), int(rows[0]["cache_bytes"]))
        self.assertLess(int(rows[1]["cache_bytes"]), int(rows[4]["cache_bytes"]))

        lines = [line.split() for line in self.compare(*ask).splitlines()]
        head = next(i for i, line in enumerate(lines) if line[:1] == ["mode"])
        self.assertEqual(lines[head], "mode sink window capacity perplexity change cache MB MFLOPs".split())
        for line, row in zip(lines[head + 1:], rows, strict=True):
            self.assertEqual(line[:4], [row[name] or "-" for name in ("mode", "sink", "window", "capacity")])
            self.assertEqual(line[4], "%.3f" % float(row["perplexity"]))

    def test_a_grid_with_speed(self):
        ask = ["-f", STORY, "-n", "80", "-p", "30", "--repeat", "1", "--sink", "2", "--sweep", "32,40", "--no-dense", "-K", "0"]
        rows = self.rows(*ask)
        self.assertEqual([(row["mode"], row["sink"], row["window"]) for row in rows],
                         [("streaming", "2", "30"), ("streaming", "2", "38")])
        self.assertTrue(all(float(row[name]) > 0 for row in rows for name in COLUMNS.split(",")[6:-1]))
        table = [line.split("|")[1:-1] for line in self.compare("--markdown", *ask).splitlines() if line[:1] == "|"]
        self.assertEqual([len(row) for row in table], [11] * 4)
        rows = self.rows("-f", STORY, "-n", "80", "--sinks", "3,0", "-W", "20", "-S", "12", "--no-speed")
        self.assertEqual([(row["mode"], row["sink"], row["window"]) for row in rows],
                         [("dense", "", ""), ("streaming", "3", "29"), ("window", "0", "32")])

    # --- What goes wrong ---

    def test_refusals_are_sentences(self):
        long = self.long_text()
        for arguments, code, words in [
            ([], 64, b"--file TEXT"),
            (["-f", long, "x"], 64, b"--file TEXT"),
            (["-f", long, "--json", "--csv"], 64, b"one of them"),
            (["-f", long, "--tokens", "1"], 64, b"2 or more"),
            (["-f", long, "-n", "100", "-p", "100"], 64, b"leaves none of --tokens 100"),
            (["-f", long, "--repeat", "0"], 64, b"from 1 to 100"),
            (["-f", long, "--sweep", "256,x12,4"], 64, b"--sweep: 'x12' is no number"),
            (["-f", long, "--sweep", "256,"], 64, b"--sweep: '' is no number"),
            (["-f", long, "--sinks", "4,-1"], 64, b"--sinks: '-1' is no number"),
            (["-f", long, "--sweep", "8,256"], 64, b"a capacity of 8 leaves no window beside 8 sinks"),
            (["-f", long, "--sinks", "0,256"], 64, b"256 sinks leave no window in a capacity of 256"),
            (["-f", long, "--sweep", ",".join(["64"] * 65)], 64, b"more than 64"),
            (["-f", long, "-n", "400", "--sweep", "256,449", "-K", "64"], 65, b"a capacity of 449, slack 64 .* 514 positions"),
            (["-f", long, "-n", "513"], 65, b"a dense run holds at most 512 tokens: --tokens 512 or less, or --no-dense"),
            (["-f", "/nonexistent"], 66, b"No such file"),
        ]:
            self.assert_refused(arguments, code, words)

    def test_texts_that_cannot_be_used(self):
        for data, code, words in [
            (b"", 65, b"is empty"),
            (b"a", 65, b"is one token"),
            (b"caf\xe9 au lait", 65, b"no UTF-8 at byte 3"),
            (b"It was the best of times", 65, b"a prompt of 128 leaves none to generate"),
        ]:
            self.assert_refused(["-f", self.text(data)], code, words)
        done = self.daemon.run("compare", "--csv", "--no-speed", "-f", self.text(b"caf\xe9 au lait"), "--bytes", "-n", "0")
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def assert_refused(self, arguments, code, words):
        done = self.daemon.run("compare", *arguments)
        self.assertEqual((done.returncode, done.stdout), (code, b""), (arguments, done.stderr))
        self.assertRegex(done.stderr, words)
        self.assertEqual(done.stderr.count(b"\n"), 1)

    def test_a_short_text_is_used_whole_and_told(self):
        data = b"It was the best of times, it was the worst of times. " * 3
        path = self.text(data)
        count = int(self.daemon.run("tokenize", "--count", stdin=data).stdout)
        done = self.daemon.run("compare", "--csv", "-q", "--no-speed", "-f", path)
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stderr, b"has %d tokens, fewer than --tokens 1000: all of them are used\n$" % count)
        self.assertEqual(done.stderr.count(b"\n"), 1)
        rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
        self.assertEqual([row["tokens"] for row in rows], [str(count)] * 2)
        self.assert_close(float(rows[0]["perplexity"]), self.perplexity("-f", path, "--mode", "dense", "-S", "0"))

    def test_past_the_context_without_dense(self):
        n = 520 if SLOW else 700
        rows = self.rows("-f", self.long_text(), "-n", str(n), "--no-dense", "--no-speed", *POLICY)
        self.assertEqual([(row["mode"], row["tokens"]) for row in rows], [("streaming", str(n))])
        self.assert_close(float(rows[0]["perplexity"]), self.perplexity("-f", self.path, "-n", str(n), *POLICY))

    # --- Signals, readers, terminals ---

    def until(self, condition):
        end = time.monotonic() + DEADLINE
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_interrupting_prints_what_is_complete(self):
        before = self.daemon.status()["requests"]
        n = "300" if SLOW else "2000"
        with self.daemon.start("compare", "--csv", "-f", self.long_text(), "-n", n, "--no-dense", "--no-speed", "--sweep",
                               ",".join(str(16 + i) for i in range(64)), "-K", "0") as process:
            self.until(lambda: self.daemon.status()["requests"] >= before + 3)  # so it has been told of two of them
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=DEADLINE)
        self.assertEqual(process.returncode, 130, said)
        self.assertRegex(said, b"^streamkv-client: interrupted in run [0-9]+ of 64: this is what is complete\n$")
        rows = list(csv.DictReader(io.StringIO(out.decode())))
        self.assertEqual([row["capacity"] for row in rows], [str(16 + i) for i in range(len(rows))])
        self.assertTrue(2 <= len(rows) < 64, len(rows))
        self.assertEqual({row["tokens"] for row in rows}, {n})

    def test_interrupting_the_speed_runs_keeps_the_perplexity(self):
        before = self.daemon.status()["requests"]
        with self.daemon.start("compare", "--json", "-f", STORY, "-n", "500", "-p", "20", "--repeat", "100",
                               *POLICY) as process:
            self.until(lambda: self.daemon.status()["requests"] >= before + 6)  # 2 scored, 2 warm-ups, 2 speed runs
            process.send_signal(signal.SIGTERM)
            out, said = process.communicate(timeout=DEADLINE)
        self.assertEqual(process.returncode, 143, said)
        answer = json.loads(out)
        self.assertFalse(answer["is_whole"])
        dense, streaming = answer["runs"]
        self.assertTrue(1 <= dense["timed_runs"] < 100)
        self.assertTrue(0 <= dense["timed_runs"] - streaming["timed_runs"] <= 1)
        self.assertGreater(streaming["perplexity"], 0)
        self.assertEqual(streaming["tokens_per_s"] is None, streaming["timed_runs"] == 0)
        self.assertIsNone(dense["attention_ms"])

    def test_nothing_is_complete_yet(self):
        with self.daemon.start("compare", "-f", self.long_text(), "-n", "0", "--no-dense", *POLICY) as process:
            self.until(lambda: self.daemon.status()["running"])
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=DEADLINE)
        self.assertEqual((process.returncode, out), (130, b""))
        self.assertEqual(said, b"streamkv-client: interrupted in run 1 of 6: nothing is complete yet\n")

    def test_a_reader_that_goes_away(self):
        with self.daemon.start("compare", "-f", STORY, "-n", "60", "--no-speed", *POLICY) as process:
            process.stdout.close()
            self.assertEqual(process.wait(DEADLINE), 141)
            self.assertEqual(process.stderr.read(), b"")

    def on_a_terminal(self, *arguments):
        """What comes to a terminal's standard error, until the bar is there or much has been evaluated; then Ctrl-C."""
        keyboard, screen = pty.openpty()
        said, end = b"", time.monotonic() + DEADLINE
        before = self.daemon.status()["requests"]
        with Program(self.daemon.command("compare", "-f", self.long_text(), "--no-dense", "--no-speed", *POLICY, *arguments),
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=screen) as process:
            os.close(screen)
            while b"run " not in said and self.daemon.status()["requests"] < before + 2:
                self.assertLess(time.monotonic(), end)
                if select.select([keyboard], [], [], 0.05)[0]:
                    said += os.read(keyboard, 4096)
            process.send_signal(signal.SIGINT)
            process.wait(DEADLINE)
        os.close(keyboard)
        return said

    def test_a_terminal_sees_which_run_it_is(self):
        self.assertIn(b"run 1 of 1: streaming %d+%d, perplexity " % (SINK, WINDOW), self.on_a_terminal("-n", "0"))
        n = "200" if SLOW else "1000"
        self.assertEqual(self.on_a_terminal("-n", n, "--quiet", "--sweep", "30,40,50,60"), b"")

    def test_help(self):
        done = self.daemon.run("compare", "--help")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        for option in (b"--sweep LIST", b"--sinks LIST", b"--no-speed", b"Default: 1000"):
            self.assertIn(option, done.stdout)


if __name__ == "__main__":
    unittest.main()
