"""kill -9 at any instant: what lies in memory then is what the next daemon finds."""
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
import unittest

from streamkv_test import DEADLINE, SANITIZED, Daemon, Program


def copy(descriptor):
    """A memfd with the same bytes, holes and seals."""
    to = os.memfd_create("copy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    size = os.fstat(descriptor).st_size
    os.ftruncate(to, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # holes to the end
            break
        end = os.lseek(descriptor, at, os.SEEK_HOLE)
        while at < end:
            at += os.pwrite(to, os.pread(descriptor, min(end - at, 1 << 20), at), at)
    fcntl.fcntl(to, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return to


class Instants(unittest.TestCase):
    """What lies in memory at any instant is what a daemon that died then would have left: it is copied, again and again,
    while the daemon is stopped in the middle of whatever it does; and each copy is given to another daemon."""
    PROMPTS = ["It was a dark night, and the king had gone to the sea", "Once upon a time", "The old man said",
               "In the beginning there was nothing but the sea, and"]
    options = ("-W", "60", "--kv-memory", "24M")
    N_TOKENS = 3000
    N_IDLE = 0
    N_INSTANTS = 400 if os.environ.get("STREAMKV_NIGHTLY") else 6 if SANITIZED else 12

    def setUp(self):
        self.daemon = Daemon(*self.options, manager=True)
        self.addCleanup(self.daemon.stop)
        self.wholes = []
        for prompt in self.PROMPTS:
            tokens, end = self.daemon.generate("-n", str(self.N_TOKENS), "--ignore-eos", prompt)
            self.wholes.append((end["prompt_tokens"], [token["id"] for token in tokens if "id" in token]))

    def stream(self, i):
        path = os.path.join(self.daemon.folder, "out%d" % i)
        with open(path, "wb") as out:
            process = Program(self.daemon.command("generate", "--json", "--ignore-eos", "-n", str(self.N_TOKENS), "--session",
                                                  "s%d" % i, self.PROMPTS[i]), stdout=out, stdin=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process, path

    def begin(self, before):
        """All anew."""
        for process, _ in before:
            process.kill()
            process.wait()
        for i in range(len(before)):
            self.assertEqual(self.daemon.run("sessions", "delete", "s%d" % i).returncode, 0)
        return [self.stream(i) for i in range(len(self.PROMPTS))]

    def n_read(self, process, path):
        """Tokens that the client has printed, once it has printed all that it was given: then it is over, or sleeps until the
        daemon, which is stopped, gives it more."""
        def state():
            with open("/proc/%d/stat" % process.pid) as file:
                return file.read().rpartition(")")[2].split()[0]

        end = time.monotonic() + DEADLINE
        while process.poll() is None and state() != "S":
            self.assertLess(time.monotonic(), end)
            time.sleep(0.005)
        with open(path) as file:
            return sum('"id"' in line for line in file)

    def churn(self):
        """Sessions come and go beside them, and take each other's pages."""
        while not self.is_over:
            self.daemon.run("generate", "-n", "40", "--session", "churn", self.PROMPTS[0])
            self.daemon.run("sessions", "fork", "churn", "fork")
            self.daemon.run("generate", "-n", "8", "--session", "fork", "x")
            self.daemon.run("sessions", "delete", "churn")
            self.daemon.run("sessions", "delete", "fork")

    def check_session(self, other, name, i):
        """It goes on as it would have. Returns how many tokens of its answer it has."""
        n_prompt, whole = self.wholes[i]
        shown = json.loads(other.run("sessions", "show", name, "--json").stdout or "null")
        n = shown["position"] - n_prompt if shown else 0
        if 0 < n < self.N_TOKENS - 5:
            tokens, _ = other.generate("-n", "5", "--ignore-eos", "--session", name, "")
            self.assertEqual([token["id"] for token in tokens if "id" in token], whole[n:n + 5])
        return max(n, 0)

    def check(self, kept, n_read, state):
        other = Daemon(*self.options, *state, manager=True, kept=kept)
        try:
            self.assertNotIn("damaged", other.log())
            for i in range(len(self.PROMPTS)):
                self.assertEqual(self.check_session(other, "s%d" % i, i), n_read[i])
            for i in range(self.N_IDLE):
                self.check_session(other, "idle%d" % i, i % len(self.PROMPTS))
        finally:
            self.assertEqual(other.stop(), 0)

    def copy_state(self):
        return ("--state-dir", "none")

    def test_any_instant(self):
        generator = random.Random(os.environ.get("STREAMKV_SEED", 1))
        self.is_over = False
        streams = []
        churning = threading.Thread(target=self.churn)
        churning.start()
        try:
            for instant in range(self.N_INSTANTS):
                if instant % 6 == 0:
                    streams = self.begin(streams)
                time.sleep(generator.random() * 0.03)
                self.daemon.process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, self.daemon.process.pid, os.WSTOPPED)
                n_read = [self.n_read(*stream) for stream in streams]
                with self.daemon.manager.news:
                    kept = [(name, copy(descriptor)) for name, descriptor in self.daemon.manager.kept]
                state = self.copy_state()
                self.daemon.process.send_signal(signal.SIGCONT)
                self.check(kept, n_read, state)
        finally:
            self.is_over = True
            self.daemon.process.send_signal(signal.SIGCONT)
            churning.join()


class InstantsOfFewPages(Instants):
    """Where not all sessions have room: they go to their files and come back, also in the middle of an answer."""
    options = ("-W", "60", "--kv-memory", "20M")
    N_IDLE = 8

    def copy_state(self):
        self.n_copies = getattr(self, "n_copies", 0) + 1
        to = os.path.join(self.daemon.folder, "copy%d" % self.n_copies)
        shutil.copytree(os.path.join(self.daemon.folder, "state"), to)
        return ("--state-dir", to)

    def churn(self):
        n = 0
        while not self.is_over:
            for i in range(self.N_IDLE):
                if n % 50 == 0:
                    self.daemon.run("sessions", "delete", "idle%d" % i)
                self.daemon.run("generate", "-n", "10", "--ignore-eos", "--session", "idle%d" % i,
                                "" if n % 50 else self.PROMPTS[i % len(self.PROMPTS)])
            n += 1


if __name__ == "__main__":
    unittest.main()
