"""A daemon that is asked to end: who may finish, who is refused, what is kept, and what a second signal does."""
import os
import signal
import socket
import sys
import unittest

from streamkv_test import BIN, CLIENT, DEADLINE, MODELS, Daemon, Program

FOR_EVER = ("--drain-timeout", "1000000")
ENDS = b"the daemon is ending and takes no new requests"


class Drain(unittest.TestCase):
    def begin(self, *options):
        self.daemon = Daemon("--stall-timeout", "0", "--ring-slots", "256", *options, manager=True)
        self.addCleanup(self.daemon.stop)

    def held(self, *arguments):
        """A request that has an end and does not come to it: its client has been stopped, and its ring is full."""
        stream = self.daemon.start("generate", "-n", "600", "--ignore-eos", *arguments, "It was")
        self.addCleanup(stream.communicate)
        self.addCleanup(stream.kill)
        self.assertTrue(stream.stdout.read(10))
        stream.send_signal(signal.SIGSTOP)
        while self.daemon.status()["paused"] != 1:
            self.assertIsNone(self.daemon.process.poll())
        return stream

    def terminate(self):
        since = self.daemon.manager.mark()
        self.daemon.process.send_signal(signal.SIGTERM)
        return self.daemon.manager.hear("^STOPPING=1$", since)

    def end(self, stream):
        stream.send_signal(signal.SIGCONT)
        out, err = stream.communicate(timeout=DEADLINE)
        return stream.returncode, err

    def test_who_runs_finishes_and_who_comes_is_refused(self):
        self.begin(*FOR_EVER)
        stream = self.held("--session", "a")
        said = self.terminate()
        self.assertIn("EXTEND_TIMEOUT_USEC=1000060000000", said)
        for arguments in (["generate", "-n", "3", "x"], ["ppl", "--tokens", "9", "--file", __file__], ["tokenize", "x"],
                          ["sessions", "delete", "a"]):
            done = self.daemon.run(*arguments)
            self.assertEqual((done.returncode, done.stdout), (75, b""), (arguments, done.stderr))
            self.assertIn(ENDS, done.stderr)
            self.assertEqual(done.stderr.count(b"\n"), 1)
        self.assertEqual(self.daemon.status()["running"], 1)  # who looks sees what it waits for
        self.daemon.process.send_signal(signal.SIGHUP)  # comes too late to matter
        self.assertEqual(self.daemon.status()["running"], 1)
        self.assertEqual(self.end(stream), (0, b""))
        self.assertEqual(self.daemon.process.wait(DEADLINE), 0)
        self.daemon.manager.hear(r"^WATCHDOG=1\nSTATUS=Storing named sessions: 1 of 1\nEXTEND_TIMEOUT_USEC=[0-9]+$")
        self.assertFalse(os.path.exists(self.daemon.socket))
        self.daemon.launch()
        self.assertEqual(self.daemon.status()["sessions"], 1)

    def cancelled(self, *options):
        self.begin(*options)
        stream = self.held("--session", "a")
        self.terminate()
        return stream

    def assert_kept(self, stream):
        self.assertEqual(self.daemon.process.wait(DEADLINE), 0)
        code, err = self.end(stream)
        self.assertEqual(code, 75, err)
        self.daemon.launch()
        self.assertEqual(self.daemon.status()["sessions"], 1)
        done = self.daemon.run("generate", "-n", "3", "--session", "a", "and")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_cancelled_when_the_time_is_up(self):
        self.assert_kept(self.cancelled("--drain-timeout", "0.3"))
        self.assertIn("the requests that still run are cancelled", self.daemon.log())

    def test_cancelled_at_once(self):
        self.assert_kept(self.cancelled("--drain-timeout", "0"))

    def test_a_second_signal_ends_the_waiting(self):
        for second in (signal.SIGTERM, signal.SIGINT):
            stream = self.cancelled(*FOR_EVER)
            self.assertEqual(self.daemon.status()["running"], 1)
            self.daemon.process.send_signal(second)
            self.assert_kept(stream)

    def test_one_that_was_left_is_not_waited_for(self):
        self.begin(*FOR_EVER)
        stream = self.held()
        self.terminate()
        stream.kill()
        self.assertEqual(self.daemon.process.wait(DEADLINE), 0)

    def test_an_idle_one_ends_at_once(self):
        self.begin("--hello-timeout", "1000000", *FOR_EVER)
        with socket.socket(socket.AF_UNIX) as mute:
            mute.connect(self.daemon.socket)  # asks for nothing
            self.terminate()
            self.assertEqual(self.daemon.process.wait(DEADLINE), 0)

    def test_on_a_socket_that_was_handed_over_who_comes_waits_for_the_next_daemon(self):
        self.begin()
        path = os.path.join(self.daemon.folder, "handed")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(8)
            first = self.start_on(listener)
            stream = Program([CLIENT, "generate", "--socket", path, "-n", "2000", "--ignore-eos", "x"], stdout=-1, stderr=-1)
            self.addCleanup(stream.communicate)
            self.assertTrue(stream.stdout.read(10))
            stream.send_signal(signal.SIGSTOP)
            since = self.daemon.manager.mark()
            first.send_signal(signal.SIGTERM)
            self.daemon.manager.hear("^STOPPING=1$", since)
            late = Program([CLIENT, "generate", "--socket", path, "-n", "3", "x"], stdout=-1, stderr=-1)
            second = self.start_on(listener)
            out, err = late.communicate(timeout=DEADLINE)
            self.assertEqual((late.returncode, err), (0, b""))
            stream.kill()
            for daemon in (first, second):
                daemon.send_signal(signal.SIGTERM)
                self.assertEqual(daemon.wait(DEADLINE), 0)

    def start_on(self, listener):
        program = ("import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); "
                   "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])")
        daemon = Program([sys.executable, "-c", program, str(listener.fileno()), os.path.join(BIN, "streamkvd"), "--model",
                          os.path.join(MODELS, "pythia-books"), "--kv-memory", "64M", "--state-dir", "none", "--stall-timeout",
                          "0", "--ring-slots", "256", *FOR_EVER],
                         pass_fds=[listener.fileno()], stderr=-3, env=dict(os.environ, NOTIFY_SOCKET=self.daemon.manager.path))
        self.addCleanup(daemon.kill)
        return daemon


if __name__ == "__main__":
    unittest.main()
