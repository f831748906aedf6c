"""kill -9, and the next daemon has the sessions that the service manager kept, and answers go on."""
import json
import os
import random
import signal
import tempfile
import time
import unittest

from streamkv_test import DEADLINE, SANITIZED, THREADS_CHECKED, Daemon

N = 150
PROMPT = "It was a dark night, and the king had gone to the sea"


class Rig(unittest.TestCase):
    options = ("-W", "60", "--kv-memory", "20M", "--drain-timeout", "0")

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(*cls.options, manager=True)
        cls.whole = cls.ids("-n", str(N), PROMPT)

    @classmethod
    def tearDownClass(cls):
        assert cls.daemon.stop() == 0, cls.daemon.log()

    @classmethod
    def ids(cls, *arguments):
        tokens, end = cls.daemon.generate(*arguments)
        assert end["stop"] in ("limit", "stop"), end
        return [token["id"] for token in tokens if "id" in token]

    def die(self):
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.daemon.launch()

    def session(self):
        Rig.n_names = getattr(Rig, "n_names", 0) + 1
        return "s%d" % Rig.n_names

    def read(self, process, n):
        tokens = []
        while len(tokens) < n:
            token = json.loads(process.stdout.readline())
            tokens += [token["id"]] if "id" in token else []
        return tokens

    def until(self, what):
        end = time.monotonic() + DEADLINE
        while not what():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)


class Kept(Rig):
    """By the manager."""

    def test_an_answer_goes_on(self):
        text = self.daemon.run("generate", "-n", str(N), PROMPT).stdout
        generator = random.Random(3)
        for _ in range(2 if SANITIZED else 6):
            n_bytes = generator.randrange(1, len(text) * 3 // 4)
            with self.daemon.start("generate", "-n", str(N), "--session", self.session(), PROMPT) as process:
                got = process.stdout.read(n_bytes)
                time.sleep(generator.random() * 0.01)
                self.die()
                got += process.stdout.read()
                self.assertEqual((process.wait(DEADLINE), process.stderr.read()), (0, b""))
            self.assertEqual(got, text)

    def test_it_dies_twice(self):
        with self.daemon.start("generate", "--json", "-n", str(N), "--session", self.session(), PROMPT) as process:
            got = self.read(process, 20)
            self.die()
            got += self.read(process, 20)
            self.die()
            lines = [json.loads(line) for line in process.stdout.read().splitlines()]
            self.assertEqual(process.wait(DEADLINE), 0, process.stderr.read())
        self.assertEqual(got + [line["id"] for line in lines if "id" in line], self.whole)
        self.assertEqual((lines[-1]["stop"], lines[-1]["generated_tokens"]), ("limit", N))
        self.assertEqual(lines[-1]["prompt_tokens"], int(self.daemon.run("tokenize", "--count", PROMPT).stdout))

    def test_it_is_replaced(self):
        """An orderly end, as of an upgrade: who asked for it waits for the next one."""
        with self.daemon.start("generate", "--json", "--retry", "60", "-n", str(N), "--session", self.session(),
                               PROMPT) as process:
            got = self.read(process, 20)
            self.daemon.process.send_signal(signal.SIGTERM)
            self.assertEqual(self.daemon.process.wait(DEADLINE), 0)
            self.daemon.launch()
            got += [token["id"] for token in map(json.loads, process.stdout.read().splitlines()) if "id" in token]
            self.assertEqual(process.wait(DEADLINE), 0, process.stderr.read())
        self.assertLess(20, len(got))
        self.assertEqual(got, self.whole)

    def test_it_comes_while_one_daemon_ends(self):
        with self.daemon.start("generate", "--endless", "x", pipesize=4096) as held:
            held.stdout.read(1)
            self.daemon.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.daemon.process.pid, os.WSTOPPED)
            with self.daemon.start("generate", "--retry", "60", "-n", str(N), "--session", self.session(), PROMPT) as process:
                self.daemon.process.send_signal(signal.SIGTERM)
                self.daemon.process.send_signal(signal.SIGCONT)
                self.assertEqual(self.daemon.process.wait(DEADLINE), 0)
                self.daemon.launch()
                self.assertEqual(len(process.stdout.read()), len(self.daemon.run("generate", "-n", str(N), PROMPT).stdout))
                self.assertEqual(process.wait(DEADLINE), 0, process.stderr.read())
            held.kill()

    def test_a_look_changes_nothing(self):
        """The client has more to read than it had when its daemon died."""
        name = self.session()
        with self.daemon.start("generate", "--json", "-n", str(N), "--session", name, PROMPT, pipesize=4096) as process:
            got = self.read(process, 1)
            self.until(lambda: self.daemon.status()["paused"] == 1)
            self.die()
            shown = [json.loads(self.daemon.run("sessions", "show", name, "--json").stdout) for _ in range(2)]
            self.assertEqual(shown[0]["position"], shown[1]["position"])
            got += [token["id"] for token in map(json.loads, process.stdout.read().splitlines()) if "id" in token]
            self.assertEqual(process.wait(DEADLINE), 0, process.stderr.read())
        self.assertEqual(got, self.whole)

    def test_what_is_drawn_at_random_goes_on(self):
        ask = ["-n", str(N), "--temp", "1", "--seed", "11", PROMPT]
        whole = self.ids(*ask)
        with self.daemon.start("generate", "--json", "--session", self.session(), *ask) as process:
            got = self.read(process, 30)
            self.die()
            got += [token["id"] for token in map(json.loads, process.stdout.read().splitlines()) if "id" in token]
        self.assertEqual(got, whole)

    def test_another_client_goes_on_where_the_first_had_read_to(self):
        for n_read in (1, 17, 90):
            name = self.session()
            with self.daemon.start("generate", "--json", "--retry", "0", "-n", str(N), "--session", name,
                                   PROMPT) as process:
                got = self.read(process, n_read)
                self.die()
                rest = [json.loads(line) for line in process.stdout.read().splitlines()]
                got += [token["id"] for token in rest if "id" in token]
                self.assertIn(process.wait(DEADLINE), (0, 75), process.stderr.read())
            if len(got) < N:
                got += self.ids("-n", str(N - len(got)), "--session", name, "")
            self.assertEqual(got, self.whole)

    def test_idle_sessions_are_there(self):
        names = [self.session() for _ in range(5)]
        for name in names:
            self.ids("-n", "40", "--session", name, PROMPT)
        self.assertEqual(self.daemon.run("sessions", "fork", names[0], names[0] + "-fork").returncode, 0)
        before = {s["name"]: s for s in json.loads(self.daemon.run("sessions", "list", "--json").stdout)}
        self.die()
        after = {s["name"]: s for s in json.loads(self.daemon.run("sessions", "list", "--json").stdout)}
        for name in names + [names[0] + "-fork"]:
            for key in ("position", "live", "requests", "generated_tokens"):
                self.assertEqual(after[name][key], before[name][key])
            self.assertEqual(self.ids("-n", "60", "--session", name, ""), self.whole[40:100])
        self.daemon.run("sessions", "delete", names[0])
        self.die()
        self.assertEqual(self.ids("-n", "20", "--session", names[0] + "-fork", ""), self.whole[100:120])
        self.assertNotEqual(self.daemon.run("sessions", "show", names[0]).returncode, 0)

    def test_a_prompt_is_broken_off(self):
        text = "word " * 4000
        name = self.session()
        ask = ["--json", "-n", "30", "-W", "60"]
        whole = self.ids(*ask[1:], text)
        with self.daemon.start("generate", *ask, "--session", name, "x") as process:
            process.wait(DEADLINE)
        position = json.loads(self.daemon.run("sessions", "show", name, "--json").stdout)["position"]
        with self.daemon.start("generate", *ask, "--session", self.session(), text) as process:
            time.sleep(0.05)
            self.die()
            lines = [json.loads(line) for line in process.stdout.read().splitlines()]
            code, said = process.wait(DEADLINE), process.stderr.read()
        if code == 0:
            self.assertEqual([line["id"] for line in lines if "id" in line], whole)
        else:  # more of it had been dropped than can be brought back
            self.assertIn(b"does not stand where", said)
        shown = json.loads(self.daemon.run("sessions", "show", name, "--json").stdout)
        self.assertEqual(shown["position"], position)

    def test_a_reader_that_dies_with_it_far_behind(self):
        """The daemon was ahead of it, and goes back: also its random numbers."""
        ask = ["--temp", "1", "--ignore-eos"]
        whole = self.ids("-n", str(N), "--seed", "5", *ask, PROMPT)
        n_prompt = int(self.daemon.run("tokenize", "--count", PROMPT).stdout)
        name = self.session()
        with self.daemon.start("generate", "--json", "-n", str(N), "--seed", "5", "--session", name, *ask, PROMPT,
                               pipesize=4096) as process:
            self.read(process, 1)
            self.until(lambda: self.daemon.status()["paused"] == 1)
            self.daemon.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.daemon.process.pid, os.WSTOPPED)
            process.kill()
        self.die()
        n = json.loads(self.daemon.run("sessions", "show", name, "--json").stdout)["position"] - n_prompt
        self.assertTrue(16 <= n < N - 40, n)  # a reader tells of so many at once
        self.assertEqual(self.ids("-n", "20", "--session", name, *ask, ""), whole[n:n + 20])


class KeptSlow(Rig):
    """One token after the other, so that a test can kill between two of them."""

    @classmethod
    def setUpClass(cls):
        with tempfile.NamedTemporaryFile("w", delete=False) as file:
            file.write("[user *]\ntokens-per-second = 12\n")
        cls.free = Daemon(*cls.options)
        cls.daemon = Daemon(*cls.options, "--config", file.name, manager=True)
        cls.config = file.name

    @classmethod
    def tearDownClass(cls):
        os.remove(cls.config)
        assert (cls.free.stop(), cls.daemon.stop()) == (0, 0), cls.daemon.log()

    def broken_at(self, n, *ask, n_deaths=1):
        """The text of an answer that is broken off once n tokens of it have come, and how it ended. A busy machine may kill too
        late, between the last token and the end, of which nobody can say then how it went: once more."""
        for _ in range(5):
            with self.daemon.start("generate", "--json", "--session", self.session(), *ask) as process:
                lines = [json.loads(process.stdout.readline()) for _ in range(n)]
                for _ in range(n_deaths):
                    self.die()
                lines += [json.loads(line) for line in process.stdout.read().splitlines()]
                self.assertEqual(process.wait(DEADLINE), 0, process.stderr.read())
            if lines[-1]["stop"] != "unknown":
                break
        return "".join(line.get("text", "") for line in lines), lines[-1]["stop"]

    def test_a_stop_string_of_which_a_part_had_come(self):
        ask = ["-n", "20", PROMPT]
        tokens, _ = self.free.generate(*ask)
        texts = [token["text"] for token in tokens]
        text = "".join(texts)
        stops = [(at, "".join(texts[at:at + 4])[1:]) for at in range(2, 16)]
        stops = [(at, stop) for at, stop in stops if text.index(stop) == len("".join(texts[:at])) + 1]
        self.assertGreater(len(stops), 2)
        for at, stop in stops[:3]:
            for n_deaths in (1, 2):  # the second before anything is asked of the daemon between
                self.assertEqual(self.broken_at(at + 2, *ask, "--stop", stop, n_deaths=n_deaths),
                                 (text[:text.index(stop)], "stop"))

    def test_twice_in_one_stop_string(self):
        ask = ["-n", "20", PROMPT]
        tokens, _ = self.free.generate(*ask)
        texts = [token["text"] for token in tokens]
        text = "".join(texts)
        at = next(at for at in range(2, 12) if text.index("".join(texts[at:at + 5])[1:]) == len("".join(texts[:at])) + 1)
        stop = "".join(texts[at:at + 5])[1:]
        with self.daemon.start("generate", "--json", "--session", self.session(), *ask, "--stop", stop) as process:
            lines = [json.loads(process.stdout.readline()) for _ in range(at + 2)]
            self.die()
            lines.append(json.loads(process.stdout.readline()))
            self.die()
            lines += [json.loads(line) for line in process.stdout.read().splitlines()]
            self.assertEqual(process.wait(DEADLINE), 0, process.stderr.read())
        self.assertEqual("".join(line.get("text", "") for line in lines), text[:text.index(stop)])

    def broken_by(self, how, n_before):
        """How an answer went, and how long it took, whose daemon was replaced after n_before tokens of 30."""
        begun = time.monotonic()
        with self.daemon.start("generate", "--json", "--stats", "--retry", "60", "-n", "30", "--ignore-eos", "--seed", "7",
                               "-W", "30", "-K", "1", "--session", self.session(), PROMPT) as process:
            lines = [json.loads(process.stdout.readline()) for _ in range(n_before)]
            self.daemon.process.send_signal(how)
            self.daemon.process.wait()
            self.daemon.launch()
            lines += [json.loads(line) for line in process.stdout.read().splitlines()]
            said = process.stderr.read().decode()
            self.assertEqual(process.wait(DEADLINE), 0, said)
        return lines[:-1], lines[-1], said, time.monotonic() - begun

    def test_what_is_told_of_all_parts(self):
        ask = ("-n", "30", "--ignore-eos", "-W", "30", "-K", "1", PROMPT)
        _, whole = self.free.generate(*ask)
        self.assertGreater(whole["evicted_tokens"], 5)
        of_steps = ("evaluated_tokens", "reused_tokens", "evicted_tokens", "evictions", "live_min", "live_max")
        for how in (signal.SIGKILL, signal.SIGTERM):
            tokens, end, said, passed = self.broken_by(how, 26)
            seconds = [token["seconds"] for token in tokens if "id" in token]
            self.assertEqual(seconds, sorted(seconds))
            self.assertGreater(seconds[-1], 0.5)
            self.assertEqual((end["generated_tokens"], end["seed"]), (30, 7))
            for key in ("prompt_tokens", "position"):
                self.assertEqual(end[key], whole[key])
            self.assertAlmostEqual(end["decode_ns"] * 1e-9, seconds[-1], delta=0.01)
            self.assertLess((end["first_token_ns"] + end["decode_ns"]) * 1e-9, passed)
            if how == signal.SIGTERM:  # it has told of its part
                self.assertEqual({key: end[key] for key in of_steps}, {key: whole[key] for key in of_steps})
                self.assertIn("evaluated in", said)
            else:
                self.assertEqual([key for key in (*of_steps, "queue_ns", "prefill_ns") if key in end], [])
                self.assertNotRegex(said, "evaluated|evicted")
            self.assertIn("generated  30 tokens, first after", said)

    def test_the_time_of_an_answer_that_is_asked_for_again(self):
        with self.daemon.start("generate", "--json", "--session", self.session(), "-n", "2", PROMPT * 3) as process:
            self.until(lambda: self.daemon.status()["running"] == 1)  # and waits for its user's tokens
            time.sleep(0.5)
            self.die()
            end = json.loads(process.stdout.read().splitlines()[-1])
            self.assertEqual(process.wait(DEADLINE), 0, process.stderr.read())
        self.assertGreater(end["first_token_ns"], end["queue_ns"] + end["prefill_ns"] + 5e8)  # of the last try

    def test_a_change_of_policy_before_its_first_step(self):
        for sinks in ((4, 50), (50, 4)):
            name = self.session()
            self.daemon.run("generate", "-n", "2", "--session", name, "-S", str(sinks[0]), "-W", "70", PROMPT * 4)
            with self.daemon.start("generate", "-n", "2", "--retry", "0", "--session", name, "-S", str(sinks[1]), "-W", "70",
                                   PROMPT) as process:  # which waits for its user's tokens
                self.until(lambda: self.daemon.status()["running"] == 1)
                self.die()
                process.kill()
            self.assertNotIn("damaged", self.daemon.log())
            self.assertEqual(self.daemon.run("generate", "-n", "2", "--session", name, "x").returncode, 0)

    def test_a_text_to_score_is_broken_off(self):
        """Its session stands where it was before."""
        name = self.session()
        self.daemon.run("generate", "-n", "2", "--session", name, "x")
        before = self.daemon.run("sessions", "show", name, "--json").stdout
        n_before = self.daemon.status()["prompt_tokens"]
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("word " * 40)
            file.flush()
            with self.daemon.start("ppl", "-f", file.name, "--chunk", "1", "--session", name) as process:
                self.until(lambda: self.daemon.status()["prompt_tokens"] > n_before + 3)
                self.die()
                self.assertEqual(process.wait(DEADLINE), 75, process.stderr.read())
        after = self.daemon.run("sessions", "show", name, "--json").stdout
        self.assertEqual(json.loads(after)["position"], json.loads(before)["position"])

    def test_a_time_to_live_that_the_answer_has_passed(self):
        name = self.session()
        self.daemon.run("generate", "-n", "1", "--session", name, "x")
        self.assertEqual(self.daemon.run("sessions", "keep", name, "1s").returncode, 0)
        with self.daemon.start("generate", "--json", "-n", "30", "--ignore-eos", "--session", name, "x") as process:
            begun = time.monotonic()
            got = self.read(process, 1)
            while time.monotonic() < begun + 1.2:
                got += self.read(process, 1)
            self.die()
            got += [token["id"] for token in map(json.loads, process.stdout.read().splitlines()) if "id" in token]
            self.assertEqual(process.wait(DEADLINE), 0, process.stderr.read())
        self.assertEqual(len(got), 30)

    def test_a_request_that_they_die_of(self):
        with self.daemon.start("generate", "--session", self.session(), "-n", "5", "word " * 200) as process:
            for _ in range(4):
                self.until(lambda: self.daemon.status()["running"] == 1)
                self.die()
            self.assertEqual(process.wait(DEADLINE), 75)
            self.assertIn(b"4 daemons in turn have gone away with this request", process.stderr.read())

    def test_a_character_that_was_open(self):
        ask = ["-n", "20", "--temp", "90", "--seed", "4", "--ignore-eos", PROMPT]  # bytes at random
        tokens, _ = self.free.generate(*ask)
        texts = [token["text"] for token in tokens if "id" in token]
        open_ones = [i for i in range(2, 18) if not texts[i]]  # nothing can be said of them yet
        self.assertTrue(open_ones)
        for i in open_ones[:3]:
            self.assertEqual(self.broken_at(i + 1, *ask), ("".join(token["text"] for token in tokens), "limit"))


if __name__ == "__main__":
    # Under ThreadSanitizer a daemon takes many seconds to start: it sees one of each kind.
    unittest.main(defaultTest=["Kept.test_it_dies_twice", "Kept.test_idle_sessions_are_there"] if THREADS_CHECKED else None)
