"""bench: many clients from one process, whose counts must be the daemon's. One long file, of one command."""
import csv
import io
import json
import os
import pty
import shutil
import signal
import subprocess
import tempfile
import unittest

from streamkv_test import CLIENT, DEADLINE, MODELS, Case, Daemon

QUICK = ("-p", "uniform:5-60", "-o", "uniform:2-12")


class Bench(Case):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="streamkv-e2e-")
        self.addCleanup(self.folder.cleanup)

    def tearDown(self):
        self.assert_idle()

    def path(self, name, text=None):
        path = os.path.join(self.folder.name, name)
        if text is not None:
            with open(path, "w") as file:
                file.write(text)
        return path

    def bench(self, *arguments, code=0):
        """What it says, a row for each request, and what the daemon's counters moved by."""
        rows = self.path("rows.csv")
        before = self.daemon.status()
        done = self.daemon.run("bench", "--json", "--per-request", rows, *arguments)
        after = self.daemon.status()
        self.assertEqual(done.returncode, code, done.stderr)
        self.said = done.stderr.decode()
        with open(rows) as file:
            requests = list(csv.DictReader(file))
        moved = {key: after[key] - before[key] for key in ("requests", "prompt_tokens", "generated_tokens", "steps")}
        return json.loads(done.stdout), requests, moved

    def assert_adds_up(self, result, rows, moved):
        """The rows, the figures and the daemon tell the same."""
        self.assertEqual(len(rows), sum(result[key] for key in ("successful", "failed", "cancelled", "refused")))
        for outcome, key in (("done", "successful"), ("failed", "failed"), ("cancelled", "cancelled"),
                             ("refused", "refused")):
            self.assertEqual(sum(row["outcome"] == outcome for row in rows), result[key])
        self.assertEqual(sum(int(row["evaluated_tokens"]) for row in rows), result["prompt_tokens"])
        self.assertEqual(sum(int(row["output_tokens"]) for row in rows), result["output_tokens"])
        self.assertEqual(sum(result["client_tokens"]), result["output_tokens"])
        self.assertEqual(len(result["client_tokens"]), result["clients"])
        self.assertEqual(result["generated_tokens"], moved["generated_tokens"])
        for key, value in moved.items():
            self.assertEqual(result["daemon_" + key], value, key)
        self.assertEqual(result["daemon_requests"], len(rows))
        for row in rows:
            if row["outcome"] != "done":
                continue
            self.assertEqual(row["output_tokens"], row["output_asked"])
            self.assertEqual(row["output_tokens"], row["generated_tokens"])
            self.assertEqual(len(row["itl_ms"].split()), int(row["output_tokens"]) - 1)
            times = [float(row[key]) for key in ("due_s", "sent_s", "first_s", "last_s", "end_s")]
            self.assertEqual(times, sorted(times))
            self.assertAlmostEqual(float(row["ttft_ms"]), 1e3 * (times[2] - times[0]), delta=0.01)
            if row["tpot_ms"]:
                self.assertAlmostEqual(float(row["tpot_ms"]),
                                       1e3 * (times[3] - times[2]) / (int(row["output_tokens"]) - 1), delta=0.01)

    def test_closed_loop(self):
        result, rows, moved = self.bench("-c", "6", "-n", "30", *QUICK, "--warmup", "5")
        self.assert_adds_up(*[result, rows, dict(moved, **{k: result["daemon_" + k] for k in moved})])
        self.assertEqual((result["successful"], result["off"], result["short"], result["is_whole"]), (30, 0, 0, True))
        self.assertEqual(moved["requests"], 35)  # the warm-up's are not counted
        self.assertEqual(result["peak_concurrency"], 6)
        self.assertEqual([row["prompt_asked"] for row in rows], [row["prompt_tokens"] for row in rows])
        self.assertEqual({row["client"] for row in rows}, set("012345"))
        self.assertTrue(0 < result["jain"] <= 1)
        lowest, highest = (sorted(int(row["output_asked"]) for row in rows)[i] for i in (0, -1))
        self.assertTrue(2 <= lowest < highest <= 12)
        self.assertEqual(self.said, "")  # quiet where nobody looks
        for latency in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms", "queue_ms", "handover_us"):
            figures = [result[latency + "_" + which] for which in ("p50", "p90", "p99", "max")]
            self.assertEqual(figures, sorted(figures))
            self.assertGreaterEqual(figures[0], 0)
            self.assertLessEqual(result[latency + "_mean"], figures[-1])
        self.assertAlmostEqual(result["ttft_ms_mean"], sum(float(row["ttft_ms"]) for row in rows) / 30, places=3)

    def test_counts_are_the_daemons(self):
        self.assert_adds_up(*self.bench("-c", "3", "-n", "20", *QUICK))

    def test_the_seed_makes_the_requests(self):
        def lengths(seed):
            _, rows, _ = self.bench("-c", "4", "-n", "12", "-p", "lognormal:30,0.7", "-o", "exp:5", "--seed", seed)
            return [(row["prompt_asked"], row["output_asked"], row["prompt_tokens"]) for row in rows]
        first = lengths("7")
        self.assertEqual(first, lengths("7"))
        self.assertNotEqual(first, lengths("8"))

    def test_a_connection_runs_several(self):
        result, rows, moved = self.bench("-c", "1", "-n", "40", "--rate", "inf", *QUICK)
        self.assert_adds_up(result, rows, moved)
        self.assertEqual((result["successful"], result["peak_concurrency"]), (40, 16))  # the others wait, ...
        self.assertEqual({float(row["due_s"]) for row in rows}, {0})  # ... and their times count from when they were due
        late = [row for row in rows if float(row["sent_s"]) > min(float(other["end_s"]) for other in rows)]
        self.assertEqual(len(late), 24)
        for row in late:
            self.assertGreater(float(row["ttft_ms"]), 1e3 * float(row["sent_s"]))
        result, rows, moved = self.bench("-c", "2", "-n", "12", "--per-connection", "3", *QUICK)
        self.assert_adds_up(result, rows, moved)
        self.assertEqual(result["peak_concurrency"], 6)

    def test_open_loop(self):
        result, rows, moved = self.bench("-c", "4", "-n", "25", "--rate", "200", "--burstiness", "0.5", *QUICK,
                                         "--goodput", "ttft:1000000,e2e:1000000")
        self.assert_adds_up(result, rows, moved)
        due = [float(row["due_s"]) for row in rows]
        self.assertEqual(due, sorted(due))
        self.assertEqual(due[0], 0)
        self.assertEqual([int(row["client"]) for row in rows], [i % 4 for i in range(25)])  # all have their turn
        self.assertGreater(len(set(due)), 15)
        self.assertEqual((result["successful"], result["rate"], result["burstiness"]), (25, 200, 0.5))
        self.assertEqual((result["goodput"], result["good_percent"]), (result["request_throughput"], 100))
        result, _, _ = self.bench("-c", "4", "-n", "5", "--rate", "200", *QUICK, "--goodput", "ttft:0.0001")
        self.assertEqual((result["goodput"], result["good_percent"]), (0, 0))

    def test_seconds(self):
        result, rows, moved = self.bench("-c", "3", "--seconds", "0.5", *QUICK)
        self.assert_adds_up(result, rows, moved)
        self.assertTrue(rows and all(float(row["sent_s"]) < 0.5 for row in rows))
        self.assertEqual((result["successful"], result["is_whole"]), (len(rows), True))
        result, rows, _ = self.bench("-c", "3", "--seconds", "0.5", "--rate", "20", *QUICK)
        self.assertTrue(rows and all(float(row["due_s"]) < 0.5 for row in rows))
        self.assertEqual(result["successful"], len(rows))

    def test_trace(self):
        lengths = [(20, 3), (7, 1), (300, 5), (33, 8), (5, 2)]
        trace = self.path("trace.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
            "2023-11-16 18:15:%02d.5,%d,%d\n" % (46 + i, *pair) for i, pair in enumerate(lengths)))
        result, rows, moved = self.bench("-c", "2", "--trace", trace, "--speedup", "10")
        self.assert_adds_up(result, rows, moved)
        self.assertEqual([(int(row["prompt_tokens"]), int(row["output_tokens"])) for row in rows], lengths)
        for i, row in enumerate(rows):
            self.assertAlmostEqual(float(row["due_s"]), i / 10, places=5)
        _, rows, _ = self.bench("--trace", trace, "--speedup", "1000", "-n", "3")
        self.assertEqual(len(rows), 3)

    def test_a_trace_that_is_none(self):
        bad = self.path("bad.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n1,5,5\n2,many,5\n")
        for path, code, words in ((bad, 65, "bad.csv:3: ContextTokens"), (self.path("none.csv"), 66, "none.csv"),
                                  (self.path("empty.csv", ""), 65, "holds no request")):
            done = self.daemon.run("bench", "--trace", path)
            self.assertEqual((done.returncode, done.stdout), (code, b""))
            self.assertIn(words, done.stderr.decode())
            self.assertEqual(done.stderr.count(b"\n"), 1)

    def test_multi_turn(self):
        for arguments in ((), ("--rate", "50")):
            result, rows, _ = self.bench("-c", "2", "--per-connection", "1", "-n", "12", "--multi-turn", "3", *QUICK,
                                         "--warmup", "4", *arguments)
            self.assert_idle()  # also where the last conversation was cut short
            self.assertEqual(result["successful"], 12)
            self.assertEqual(result["daemon_generated_tokens"], result["output_tokens"])
            for client in "01":
                its = [row for row in rows if row["client"] == client]
                length, turns = 0, [int(row["turn"]) for row in its]
                for turn, after in zip([2] + turns, turns):
                    self.assertIn(after, ((turn + 1) % 3, 0))
                for row in its:  # each goes on from the last of its conversation
                    length = length if row["turn"] != "0" else 0
                    self.assertEqual(int(row["reused_tokens"]), length - 1 if length else 0)
                    length += int(row["prompt_tokens"]) + int(row["output_tokens"])
            self.assertTrue(any(row["turn"] == "2" for row in rows))

    def test_conversations_that_fill_a_connection(self):
        """A session that is to go counts towards a connection's 16 requests until it has."""
        for arguments in (("--rate", "inf"), ("--per-connection", "16"), ("--rate", "inf", "--cancel-rate", "0.5")):
            result, rows, _ = self.bench("-c", "2", "-n", "200", "--multi-turn", "3", "-p", "uniform:5-20", "-o", "uniform:2-10",
                                         *arguments)
            self.assert_idle()
            self.assertEqual((result["refused"], result["failed"], self.said), (0, 0, ""))
            self.assertEqual(result["successful"] + result["cancelled"], len(rows))
            self.assertTrue(all(int(row["reused_tokens"]) == 0 for row in rows if row["turn"] == "0"))

    def test_sessions_while_it_runs(self):
        with self.daemon.start("bench", "-c", "2", "-n", "100000", "--multi-turn", "2", "-p", "10", "-o", "30", "--label",
                               "talk") as process:
            names = []
            while not names:
                self.assertIsNone(process.poll())
                names = self.daemon.run("sessions", "list").stdout.decode().split()
                names = [name for name in names if name.startswith("talk.")]
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=DEADLINE)
        self.assertTrue(set(names) <= {"talk.%d-%d-0" % (process.pid, client) for client in range(2)}, names)

    def test_cancels(self):
        result, rows, moved = self.bench("-c", "4", "-n", "40", "--cancel-rate", "1", "-p", "20", "-o", "60")
        self.assert_adds_up(result, rows, moved)
        self.assertEqual(result["successful"] + result["cancelled"], 40)
        self.assertGreater(result["cancelled"], 20)  # one may be done before its cancel comes
        self.assertTrue(all(int(row["output_tokens"]) <= int(row["generated_tokens"]) for row in rows))
        self.assertEqual((result["ttft_ms_p50"] is None, self.said), (result["successful"] == 0, ""))
        self.assert_adds_up(*self.bench("-c", "4", "-n", "40", "--cancel-rate", "1", "-p", "300", "-o", "1"))  # before the first
        result, rows, moved = self.bench("-c", "4", "-n", "40", "--cancel-rate", "0.4", "-p", "20", "-o", "60")
        self.assert_adds_up(result, rows, moved)
        self.assertTrue(0 < result["cancelled"] < 40)

    def test_slow_readers(self):
        result, rows, moved = self.bench("-c", "4", "-n", "16", "--slow-readers", "0.5:15", "-p", "10", "-o", "10")
        self.assert_adds_up(result, rows, moved)
        self.assertEqual({row["client"] for row in rows if row["slow"] == "1"}, {"0", "1"})
        self.assertEqual(result["slow"], sum(row["slow"] == "1" for row in rows))
        for row in rows:
            if row["slow"] == "1":
                self.assertGreaterEqual(float(row["last_s"]) - float(row["first_s"]), 9 * 0.015)
        fast = [float(row["ttft_ms"]) for row in rows if row["slow"] == "0"]
        self.assertAlmostEqual(result["ttft_ms_max"], max(fast), places=3)

    def test_a_slow_reader_stalls_itself(self):
        with self.daemon.start("bench", "--json", "-c", "2", "-n", "2", "--slow-readers", "0.5:100000", "--ring-slots", "256",
                               "-p", "10", "-o", "600") as process:
            while not self.daemon.status()["paused"] or self.daemon.status()["running"] > 1:
                self.assertIsNone(process.poll())
            process.send_signal(signal.SIGINT)  # then it reads what there is
            out, _ = process.communicate(timeout=DEADLINE)
        result = json.loads(out)
        self.assertEqual((process.returncode, result["successful"], result["slow"], result["cancelled"]), (130, 1, 0, 1))
        self.assertEqual(result["client_tokens"][1], 600)
        self.assertIn(result["client_tokens"][0], range(256, 260))

    def test_refusals(self):
        result, rows, moved = self.bench("-c", "2", "-n", "4", "--mode", "dense", "-p", "600", "-o", "2", code=75)
        self.assert_adds_up(result, rows, moved)
        self.assertEqual((result["refused"], result["successful"], result["ttft_ms_p50"]), (4, 0, None))
        self.assertIn("4 requests were refused, the first one since: ", self.said)
        self.assertIn("512", self.said)
        result, _, _ = self.bench("-c", "2", "-n", "20", "--mode", "dense", "-p", "uniform:200-800", "-o", "2")
        self.assertTrue(0 < result["refused"] < 20)  # some were answered

    def test_texts(self):
        text = self.path("text", "It was the best of times, it was the worst of times: naïve, 1234 – «so».\n" * 40)
        result, rows, moved = self.bench("-c", "2", "-n", "12", "-f", text, "-p", "uniform:2-900", "-o", "1")
        self.assert_adds_up(result, rows, moved)
        self.assertEqual((result["successful"], result["off"]), (12, 0))
        for content, code, words in ((b"", 65, b"is empty"), (b"caf\xe9", 65, b"no UTF-8 at byte 3")):
            done = self.daemon.run("bench", "-f", "-", stdin=content)
            self.assertEqual((done.returncode, done.stdout), (code, b""))
            self.assertIn(words, done.stderr)
        result, _, _ = self.bench("-c", "1", "-n", "2", "-f", self.path("one", "x"), "-p", "9", "-o", "1")  # anything will do
        self.assertEqual(result["successful"], 2)

    def test_forms(self):
        ask = ["bench", "-c", "2", "-n", "6", "--label", "one", *QUICK]
        told = json.loads(self.daemon.run(*ask, "--json").stdout)
        heading, row = csv.reader(io.StringIO(self.daemon.run(*ask, "--csv").stdout.decode()))
        self.assertEqual(len(heading), len(row))
        self.assertEqual(set(heading) | {"model", "backend", "client_tokens"}, set(told))
        values = dict(zip(heading, row))
        self.assertEqual((values["label"], values["successful"], values["is_whole"], values["goodput"]), ("one", "6", "1", ""))
        self.assertEqual(float(values["prompt_tokens"]), told["prompt_tokens"])
        text = self.daemon.run(*ask).stdout.decode().splitlines()
        self.assertTrue(text[1].startswith("====") and text[1].strip("=") == " Serving Benchmark Result ")
        self.assertEqual(set(text[-1]), {"="})
        self.assertEqual(len({len(line) for line in text if line[0] in "=-"}), 1)
        values = {line.split(":")[0]: line for line in text if ":" in line}
        self.assertEqual(values["Successful requests"].split()[-1], "6")
        self.assertEqual(values["Total input tokens"].split()[-1], str(told["prompt_tokens"]))
        self.assertEqual(len({line.index(line.split(":")[1].strip()) for line in values.values()}), 1)  # one column
        for name in ("TTFT (ms)", "TPOT (ms)", "ITL (ms)", "E2E (ms)", "queue (ms)", "hand-over (us)"):
            for which in ("Mean", "Median", "P90", "P99", "Max"):
                self.assertIn("%s %s" % (which, name), values)
        tables = [line for line in self.daemon.run(*ask, "--markdown").stdout.decode().splitlines() if line.startswith("|")]
        self.assertEqual([tables[0].count("|"), tables[1].count("|"), tables[2].count("|")], [7, 7, 7])
        self.assertIn("| Successful requests | 6 |", tables)

    def test_a_terminal_sees_progress(self):
        master, slave = pty.openpty()
        with self.daemon.start("bench", "-c", "2", "--seconds", "1", *QUICK, stderr=slave) as process:
            os.close(slave)
            seen = b""
            try:
                while portion := os.read(master, 4096):
                    seen += portion
            except OSError:  # the end, of a terminal
                os.close(master)
            out = process.stdout.read()
        self.assertEqual(process.returncode, 0)
        self.assertIn(b"bench: ", seen)
        self.assertTrue(seen.endswith(b"\r\x1b[K"), seen)  # and it is gone at the end
        self.assertTrue(out.startswith(b"pythia-books on "))

    def test_ctrl_c(self):
        for extra in ([], ["--slow-readers", "0.5:1000"], ["--rate", "inf"], ["--multi-turn", "2"]):
            with self.daemon.start("bench", "--json", "-c", "3", "-n", "100000", "-p", "10", "-o", "4", *extra) as process:
                while not self.daemon.status()["running"]:
                    self.assertIsNone(process.poll())
                process.send_signal(signal.SIGINT)
                out, said = process.communicate(timeout=DEADLINE)
            self.assertEqual(process.returncode, 130, said)
            self.assertIn(b"interrupted", said)
            result = json.loads(out)
            self.assertEqual((result["is_whole"], result["failed"]), (False, 0))
            self.assert_idle()

    def test_a_reader_that_goes_away(self):
        done = subprocess.run("%s | true" % " ".join(self.daemon.command("bench", "-c", "1", "-n", "2", *QUICK)), shell=True,
                              capture_output=True, timeout=DEADLINE)
        self.assertEqual(done.stderr, b"")

    def test_options(self):
        for arguments, words in [
            (["-c", "0"], b"--clients"), (["--prompt-tokens", "uniform:9-2"], b"uniform:32-512"),
            (["--output-tokens", "0"], b"--output-tokens: '0'"), (["--rate", "0"], b"--rate: '0'"),
            (["--rate", "fast"], b"--rate: 'fast'"), (["--rate", "1", "--trace", "x"], b"--speedup"),
            (["--trace", "x", "--multi-turn", "2"], b"--multi-turn"), (["--cancel-rate", "1.5"], b"0 to 1"),
            (["--slow-readers", "2"], b"--slow-readers: '2'"), (["--slow-readers", "0.5:"], b"'0.5:'"),
            (["--goodput", "speed:1"], b"--goodput: 'speed:1'"), (["--ring-slots", "300"], b"power of two"),
            (["--per-connection", "17"], b"--per-connection"), (["--label", "a/b"], b"--label"), (["--json", "--csv"], b"one of"),
            (["x"], b"options only"), (["--mode", "window", "-S", "4"], b"keeps no sinks"), (["--burstiness", "0"], b"burstiness"),
        ]:
            done = self.daemon.run("bench", *arguments)
            self.assertEqual((done.returncode, done.stdout), (64, b""), done.stderr)
            self.assertIn(words, done.stderr)
            self.assertEqual(done.stderr.count(b"\n"), 1)
        done = self.daemon.run("bench", "-n", "1", "--per-request", "/nonexistent/rows")
        self.assertEqual((done.returncode, done.stdout), (73, b""))

    def test_policies(self):
        result, rows, moved = self.bench("-c", "2", "-n", "4", "-S", "2", "-W", "30", "-K", "8", "-p", "100", "-o", "3")
        self.assert_adds_up(result, rows, moved)


class Ends(unittest.TestCase):
    def test_a_session_that_stays(self):
        """The daemon answers what it has, and takes nothing more."""
        daemon = Daemon("--drain-timeout", "1000000")
        self.addCleanup(daemon.stop)
        with daemon.start("bench", "--json", "-c", "1", "-n", "1", "--multi-turn", "2", "-p", "10", "-o", "2000") as process:
            while not daemon.status()["running"]:
                self.assertIsNone(process.poll())
            daemon.process.send_signal(signal.SIGTERM)
            out, said = process.communicate(timeout=DEADLINE)
        self.assertEqual(json.loads(out)["successful"], 1)
        self.assertIn(b"1 conversations' sessions could not be deleted, the first one since: the daemon ", said)
        self.assertEqual(process.returncode, 75)

    def test_a_daemon_that_dies(self):
        daemon = Daemon()
        self.addCleanup(daemon.stop)
        with daemon.start("bench", "--json", "-c", "3", "-n", "9", "-p", "10", "-o", "100000") as process:
            while daemon.status()["running"] < 3:
                self.assertIsNone(process.poll())
            daemon.process.kill()
            out, said = process.communicate(timeout=DEADLINE)
        self.assertEqual(process.returncode, 75)
        self.assertIn(b"3 requests failed, the first one since: the daemon has gone away", said)
        result = json.loads(out)
        self.assertEqual((result["failed"], result["is_whole"]), (3, False))

    def test_prompts_are_exact_in_other_vocabularies(self):
        """Where the model wants a token before every text, or a space, or both."""
        begins = {"type": "TemplateProcessing", "pair": [], "special_tokens": {},
                  "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]}
        prepends = {"type": "Prepend", "prepend": "\u2581"}
        for normalizer, post_processor in ((None, begins), (prepends, None), (prepends, begins)):
            with tempfile.TemporaryDirectory(prefix="streamkv-e2e-") as folder:
                model = os.path.join(folder, "model")
                shutil.copytree(os.path.join(MODELS, "tiny-llama"), model)
                path = os.path.join(model, "tokenizer.json")
                with open(path) as file:
                    tokenizer = json.load(file)
                tokenizer["normalizer"], tokenizer["post_processor"] = normalizer, post_processor
                with open(path, "w") as file:
                    json.dump(tokenizer, file)
                daemon = Daemon(model=model)
                n_before = len(daemon.run("tokenize", "--bos", stdin=b" a").stdout.split())
                done = daemon.run("bench", "--json", "-c", "2", "-n", "20", "-p", "uniform:3-70", "-o", "1")
                daemon.stop()
            self.assertEqual(n_before, 1 + bool(normalizer) + bool(post_processor))
            result = json.loads(done.stdout)
            self.assertEqual((result["successful"], result["off"]), (20, 0))

    def test_no_daemon(self):
        done = subprocess.run([CLIENT, "bench", "--socket", "/nonexistent/s"], capture_output=True)
        self.assertEqual((done.returncode, done.stdout), (69, b""))
        self.assertIn(b"no streamkvd listens", done.stderr)

    def test_fewer_connections_than_clients(self):
        daemon = Daemon("--max-connections", "3")
        self.addCleanup(daemon.stop)
        done = daemon.run("bench", "-c", "5", *QUICK)
        self.assertEqual((done.returncode, done.stdout), (75, b""))
        self.assertIn(b"took 2 of 5 clients", done.stderr)  # and one that asks


if __name__ == "__main__":
    unittest.main()
