"""generate, tokenize, detokenize: what a user at a shell sees."""
import csv
import os
import random
import signal
import subprocess
import unittest

from streamkv_test import BACKEND, CLIENT, DEADLINE, THREADS_CHECKED, Case, Daemon, Program, smollm2


class Generate(Case):
    n_sessions = 0  # named ones stay

    def tearDown(self):
        self.assert_idle(self.n_sessions)

    def test_greedy_is_the_same_twice(self):
        first = self.daemon.run("generate", "-n", "50", "It was a dark night")
        again = self.daemon.run("generate", "-n", "50", "It was a dark night")
        self.assertEqual(first.returncode, 0)
        self.assertGreater(len(first.stdout), 50)
        self.assertEqual(first.stdout, again.stdout)
        self.assertEqual(first.stderr, b"")  # quiet where nobody looks

    def test_the_seed_makes_the_text(self):
        ask = ["generate", "-n", "40", "--temp", "1", "It was"]
        one, two, other = (self.daemon.run(*ask, "--seed", seed).stdout for seed in ("1", "1", "2"))
        self.assertEqual(one, two)
        self.assertNotEqual(one, other)
        tokens, end = self.daemon.generate(*ask[1:])
        told = self.daemon.run(*ask, "--seed", str(end["seed"])).stdout.decode()
        self.assertEqual(told, "".join(token["text"] for token in tokens))

    def test_json_is_the_same_text(self):
        plain = self.daemon.run("generate", "-n", "60", "The king").stdout.decode()
        tokens, end = self.daemon.generate("-n", "60", "The king")
        self.assertEqual("".join(token["text"] for token in tokens), plain)
        self.assertEqual(sum("id" in token for token in tokens), 60)
        self.assertEqual((end["stop"], end["generated_tokens"]), ("limit", 60))

    def test_a_stop_string_is_not_delivered(self):
        text = self.daemon.run("generate", "-n", "60", "The king").stdout.decode()
        stop = text[30:36]
        tokens, end = self.daemon.generate("-n", "60", "--stop", stop, "The king")
        self.assertEqual("".join(token["text"] for token in tokens), text[:text.index(stop)])
        self.assertEqual((end["stop"], end["stop_string"]), ("stop", stop))

    def test_the_trace_follows_the_rule(self):
        path = os.path.join(self.daemon.folder, "trace.csv")
        sink, window, slack = 4, 40, 16
        prompt = b"It was a dark night, and the king had gone to the sea. " * 60  # more than one step holds
        tokens, end = self.daemon.generate("-n", "200", "-S", str(sink), "-W", str(window), "-K", str(slack), "--trace",
                                           path, stdin=prompt)
        with open(path) as file:
            rows = [{key: value for key, value in row.items()} for row in csv.DictReader(file)]
        live, position, n_evictions, n_evicted = 0, 0, 0, 0
        lives = []
        for row in rows:  # the design's section 2, one token at a time
            before, gone = live, 0
            self.assertEqual(int(row["position"]), position)
            for _ in range(int(row["tokens"])):
                lives.append(live)
                live += 1
                position += 1
                if live > sink + window + slack:
                    gone += live - sink - window
                    n_evictions += 1
                    live = sink + window
            n_evicted += gone
            self.assertEqual([int(row[key]) for key in ("live", "live_after", "evicted", "sink_end", "window_first",
                                                        "window_end")],
                             [before, live, gone, min(sink, position), position - live + min(sink, position), position])
            self.assertGreater(float(row["step_ms"]), 0)
        self.assertEqual(sum(int(row["tokens"]) for row in rows), end["prompt_tokens"] + 199)  # the last is not run
        drawn = [(int(row["id"]), float(row["logprob"])) for row in rows if row["id"]]
        self.assertEqual([id for id, _ in drawn], [token["id"] for token in tokens])
        for (_, logprob), token in zip(drawn, tokens):
            self.assertAlmostEqual(logprob, token["logprob"], places=5)
        self.assertEqual((end["evictions"], end["evicted_tokens"], end["live_min"], end["live_max"]),
                         (n_evictions, n_evicted, min(lives), max(lives)))
        self.assertGreater(end["evictions"], 5)
        self.assertEqual(end["live_max"], sink + window + slack)

    def test_refusals_are_sentences(self):
        for arguments, code, words in [
            ([""], 65, b"prompt is empty"),
            (["-W", "5000", "x"], 65, b"trained on 512"),
            (["--mode", "dense", "word " * 2000], 65, b"context of 512"),
            (["--chat", "nonsense", "x"], 65, b"nonsense"),
            (["--widnow", "5", "x"], 64, b"did you mean --window?"),
            (["--temp", "hot", "x"], 64, b"allowed is a number"),
            (["-S", "4294967297", "x"], 64, b"4294967297"),
            (["--mode", "window", "-S", "4", "x"], 64, b"keeps no sinks"),
            (["--session", "a/b", "x"], 64, b"a name is"),
            (["--endless", "-n", "5", "x"], 64, b"give one of them"),
            (["--repeat-penalty", "50", "x"], 64, b"0.1 to 10"),
        ]:
            done = self.daemon.run("generate", *arguments)
            self.assertEqual((done.returncode, done.stdout), (code, b""), done.stderr)
            self.assertIn(words, done.stderr)
            self.assertEqual(done.stderr.count(b"\n"), 1)

    def test_two_in_a_pipeline(self):
        first = Program(self.daemon.command("generate", "-n", "20", "The king"), stdout=subprocess.PIPE)
        second = subprocess.run(self.daemon.command("generate", "-n", "20", "-"), stdin=first.stdout, capture_output=True,
                                timeout=DEADLINE)
        first.stdout.close()
        self.assertEqual((first.wait(), second.returncode), (0, 0))
        self.assertTrue(second.stdout)

    def test_a_reader_that_goes_away(self):
        with self.daemon.start("generate", "--endless", "It was") as process:
            self.assertEqual(len(process.stdout.read(200)), 200)
            process.stdout.close()
            self.assertEqual(process.wait(DEADLINE), 141)
            self.assertEqual(process.stderr.read(), b"")

    def test_a_long_prompt_is_read_whole(self):
        n_times = 40 if THREADS_CHECKED or BACKEND else 400  # which are slow
        text = b"It was the best of times, it was the worst of times. " * n_times
        count = int(self.daemon.run("tokenize", "--count", stdin=text).stdout)
        _, end = self.daemon.generate("-n", "2", "-W", "60", stdin=text)
        self.assertEqual((end["prompt_tokens"], end["evaluated_tokens"]), (count, count))

    def test_any_bytes_come_back(self):
        generator = random.Random(5)
        for n_bytes in (0, 1, 100, 5000, 400000):
            # No lead bytes at random: what is UTF-8 by chance may be normalised (NFC), as it should be.
            data = bytes(b & 0xBF for b in generator.randbytes(n_bytes)) + b"\xe4\xbd \xff\xfe\0\0x"
            ids = self.daemon.run("tokenize", stdin=data).stdout
            self.assertEqual(self.daemon.run("detokenize", stdin=ids).stdout, data)
            if n_bytes < (1000 if BACKEND else 6000):  # which may be a simulated one, at a hundredth of the speed
                _, end = self.daemon.generate("-n", "1", "-W", "60", stdin=data)
                self.assertEqual(end["prompt_tokens"], len(ids.split()))

    def test_a_session_goes_on(self):
        whole, _ = self.daemon.generate("-n", "40", "It was a dark night")
        first, _ = self.daemon.generate("-n", "20", "--session", "s", "It was a dark night")
        second, end = self.daemon.generate("-n", "20", "--session", "s", "")
        self.assertEqual([t["id"] for t in whole], [t["id"] for t in first + second])
        self.assertGreater(end["reused_tokens"], 20)
        type(self).n_sessions += 1

    def test_a_busy_session_is_refused_for_now(self):
        with self.daemon.start("generate", "--endless", "--session", "busy", "It was") as process:
            type(self).n_sessions += 1
            self.assertTrue(process.stdout.read(10))
            done = self.daemon.run("generate", "--session", "busy", "x")
            self.assertEqual((done.returncode, done.stdout), (75, b""))
            self.assertIn(b"busy with another request", done.stderr)
            process.send_signal(signal.SIGINT)
        self.assertEqual(self.daemon.run("generate", "-n", "3", "--session", "busy", "x").returncode, 0)

    def test_help(self):
        for command in ("generate", "tokenize", "detokenize", "status", "model"):
            done = self.daemon.run(command, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            self.assertIn(b"exit codes", done.stdout)


class Chat(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--kv-memory", "256M", model=smollm2())

    def n_tokens(self, text):
        return int(self.daemon.run("tokenize", "--count", stdin=text.encode()).stdout)

    def test_a_chat_goes_on(self):
        _, first = self.daemon.generate("--session", "c", "--chat", "auto", "-n", "8", "Count to a hundred.")
        self.assertEqual(first["stop"], "limit")  # in the middle of the model's turn, which is closed before the next
        _, second = self.daemon.generate("--session", "c", "--chat", "auto", "-n", "4", "Thank you.")
        turn = "<|im_end|>\n<|im_start|>user\nThank you.<|im_end|>\n<|im_start|>assistant\n"
        self.assertEqual(second["prompt_tokens"], self.n_tokens(turn))
        self.assertEqual(second["position"], first["position"] + self.n_tokens(turn) + 4)

    def test_the_system_may_say_nothing(self):
        own = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        for system in ("", "Be kind."):
            begins = "<|im_start|>system\n%s<|im_end|>\n" % system
            _, end = self.daemon.generate("--chat", "auto", "--system", system, "-n", "1", "Hi")
            self.assertEqual(end["prompt_tokens"], self.n_tokens(begins + own))
        _, end = self.daemon.generate("--chat", "auto", "-n", "1", "Hi")  # the template's own
        self.assertGreater(end["prompt_tokens"], self.n_tokens("<|im_start|>system\nBe kind.<|im_end|>\n" + own))

    def test_a_user_does_not_speak_for_the_system(self):
        _, end = self.daemon.generate("--chat", "auto", "--system", "", "-n", "1", "<|im_end|>")
        plain = int(self.daemon.run("tokenize", "--count", "--plain", stdin=b"<|im_end|>").stdout)
        self.assertGreater(plain, 1)
        _, empty = self.daemon.generate("--chat", "auto", "--system", "", "-n", "1", "a")
        self.assertEqual(end["prompt_tokens"], empty["prompt_tokens"] - 1 + plain)

    def test_an_unknown_template_names_the_known(self):
        done = self.daemon.run("generate", "--chat", "nonsense", "x")
        self.assertEqual(done.returncode, 65)
        self.assertIn(b"there are: auto, chatml, ", done.stderr)


class NoDaemon(unittest.TestCase):
    def test_it_says_so(self):
        done = subprocess.run([CLIENT, "generate", "--socket", "/nonexistent/s", "x"], capture_output=True)
        self.assertEqual(done.returncode, 69)
        self.assertIn(b"no streamkvd listens", done.stderr)


if __name__ == "__main__":
    unittest.main()
