"""The daemon and its service manager: readiness, status, the watchdog, a reload; the test is the manager."""
import os
import signal
import tempfile
import time
import unittest

from stopped import Stopped
from streamkv_test import DEADLINE, Daemon


class Case(unittest.TestCase):
    def begin(self, *options, **environment):
        self.daemon = Daemon(*options, manager=True, environment=environment)
        self.addCleanup(self.daemon.stop)
        self.hear = self.daemon.manager.hear
        self.mark = self.daemon.manager.mark

    def endless(self, *arguments):
        stream = self.daemon.start("generate", "--endless", *arguments, "It was")
        self.addCleanup(stream.communicate)
        self.addCleanup(stream.kill)
        self.assertTrue(stream.stdout.read(10))
        return stream


class Words(Case):
    def test_loading_then_ready_then_what_it_does(self):
        self.begin()
        said = self.daemon.manager.said
        self.assertRegex(said[0], r"^STATUS=Loading the model: 0%\nEXTEND_TIMEOUT_USEC=[0-9]+$")
        self.assertEqual(said.count("READY=1"), 1)
        self.hear(r"^STATUS=Serving pythia-books on cpu.*; clients: [01], sessions: 0, running: 0, waiting: 0, tokens/s: 0$")
        self.endless("--session", "a")
        self.hear(r"clients: [12], sessions: 1, running: 1, waiting: 0, tokens/s: [1-9][0-9]{0,5}$")
        self.assertFalse([words for words in said if "WATCHDOG" in words])  # nobody has asked for it

    def test_an_engine_that_moves_feeds_the_watchdog_and_one_that_does_not_starves_it(self):
        period = 0.8
        self.begin(WATCHDOG_USEC=str(int(period * 1e6)))
        for _ in range(3):  # idle
            self.hear("^WATCHDOG=1$", self.mark())
        self.endless()
        for _ in range(3):  # busy
            self.hear("^WATCHDOG=1$", self.mark())
        with Stopped(self.daemon.process.pid, "sk-engine"):
            since = self.mark()
            time.sleep(5 * period)
            told = self.mark()
            # Two may have been on their way: one said, and one for an answer that had been given.
            self.assertLess(sum("WATCHDOG=1" in words for words in self.daemon.manager.said[since:told]), 3)
            self.assertIsNone(self.daemon.process.poll())
        self.hear("^WATCHDOG=1$", told)
        self.assertEqual(self.daemon.run("generate", "-n", "3", "x").returncode, 0)

    def test_it_is_not_ready_before_its_engine_answers(self):
        self.begin()
        with Stopped(self.daemon.process.pid, "sk-engine"):
            since = self.mark()
            self.daemon.process.send_signal(signal.SIGHUP)
            self.hear("^RELOADING=1$", since)
            time.sleep(1)
            self.assertNotIn("READY=1", self.daemon.manager.said[since:])
        self.hear("^READY=1$", since)


class Reload(Case):
    def begin(self, text, *options):
        self.uid = os.getuid()
        folder = tempfile.TemporaryDirectory(prefix="streamkv-e2e-")
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "conf")
        self.write(text)
        super().begin("--config", self.path, *options)

    def write(self, text, path=None):
        with open(path or self.path, "w") as file:
            file.write(text)

    def reload(self):
        since, before = self.mark(), time.clock_gettime(time.CLOCK_MONOTONIC)
        self.daemon.process.send_signal(signal.SIGHUP)
        words = self.hear("^RELOADING=1$", since)
        at = int(words.split("MONOTONIC_USEC=")[1]) / 1e6
        self.assertTrue(before - 0.001 <= at <= time.clock_gettime(time.CLOCK_MONOTONIC), words)
        self.hear("^READY=1$", since)
        said = self.daemon.manager.said[since:]
        self.assertLess(said.index(words), said.index("READY=1"))

    def session(self, name):
        done = self.daemon.run("generate", "-n", "3", "--session", name, "It was")
        if done.returncode == 77:
            self.assertIn(b"limit of", done.stderr)
        return done.returncode

    def test_limits_hold_from_then_on(self):
        self.begin("[user %d]\nmax-sessions = 1\n" % os.getuid())
        stream = self.endless()
        self.assertEqual((self.session("a"), self.session("b")), (0, 77))
        self.write("[user %d]\nmax-sessions = 2\n" % self.uid)
        self.assertEqual(self.session("b"), 77)  # nobody has said so yet
        self.reload()
        self.assertEqual((self.session("b"), self.session("c")), (0, 77))
        os.mkdir(self.path + ".d")
        extra = os.path.join(self.path + ".d", "10-more.conf")
        self.write("[user %d]\nweight = 3\n[user *]\nmax-sessions = 9\n" % self.uid, extra)
        self.reload()
        self.assertEqual(self.session("c"), 77)  # a later file changes what it names alone
        self.write("[user %d]\nmax-sessions = 3\n" % self.uid, extra)
        self.reload()
        os.remove(extra)
        self.assertEqual((self.session("c"), self.session("d")), (0, 77))
        self.assertIsNone(stream.poll())

    def test_who_waits_for_a_limit_is_served_when_it_goes(self):
        daemon = Daemon()
        page = daemon.status()["page_bytes"]
        daemon.stop()
        self.begin("[user %d]\nkv-memory = %d\n" % (os.getuid(), 9 * page), "--stall-timeout", "0", "--queue-timeout", "0")
        window = ("--sink", "4", "--window", "100")
        self.endless(*window)
        waiting = self.daemon.start("generate", *window, "-n", "200", "It was")
        while self.daemon.status()["queued"] != 1:
            self.assertIsNone(waiting.poll())
        self.write("")
        self.reload()
        waiting.communicate(timeout=DEADLINE)
        self.assertEqual(waiting.returncode, 0)

    def test_a_mistake_changes_nothing(self):
        self.begin("[user %d]\nmax-sessions = 1\n" % os.getuid())
        self.assertEqual(self.session("a"), 0)
        for text, words in [("[user %d]\nmax-sessions = 2\n[streamkvd]\nsnik = 1\n" % self.uid,
                             ":4: there is no option snik; did you mean sink?"),
                            ("max-batch = 8\nstep-tokens = 4\n", ":2: step-tokens 4 is less than max-batch 8")]:
            self.write(text)
            self.reload()
            self.assertIn("the configuration stays as it was: ", self.daemon.log())
            self.assertIn(words, self.daemon.log())
            self.assertEqual(self.session("b"), 77)

    def test_log_level_and_what_needs_another_start(self):
        self.begin("sink = 4\n")
        self.assertNotIn("(uid ", self.daemon.log())
        self.reload()
        self.assertNotIn("after the next start", self.daemon.log())
        self.write("log-level = info\nsink = 8\nmode = window\n")
        self.reload()
        self.daemon.status()
        self.assertIn("(uid ", self.daemon.log())
        self.assertIn("in force after the next start: mode, sink\n", self.daemon.log())


if __name__ == "__main__":
    unittest.main()
