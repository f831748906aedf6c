"""The real streamkvd and streamkv-client on a private socket, for the tests of this folder. Python's standard library only."""
import ctypes
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

BIN = os.environ.get("STREAMKV_BIN", "build/release/bin")
BACKEND = ["--backend", os.environ["STREAMKV_TEST_BACKEND"]] if "STREAMKV_TEST_BACKEND" in os.environ else []
MODELS = os.environ.get("STREAMKV_TEST_MODELS", "tests/models")
SANITIZED = bool(os.environ.get("STREAMKV_SANITIZE"))  # empty where there is none
THREADS_CHECKED = "thread" in os.environ.get("STREAMKV_SANITIZE", "")  # which makes arithmetic slow
CLIENT = os.path.join(BIN, "streamkv-client")
# Seconds that anything may take before the test fails; ThreadSanitizer on a busy machine takes minutes, a simulated device more.
DEADLINE = 2000 if BACKEND else 400

LIBC = ctypes.CDLL(None)


def skip(what, reason):
    """Skips, on a line that tools/test repeats in its summary."""
    print("SKIP %s: %s" % (what, reason), file=sys.stderr, flush=True)
    raise unittest.SkipTest(reason)


def smollm2():
    """The default model's file, where it is (tools/fetch-model); else the test is skipped by name."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = os.environ.get("STREAMKV_SMOLLM2") or os.path.join(cache, "streamkv/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    if not os.path.exists(path):
        skip("SmolLM2", "%s is not here" % path)
    return path


class Program(subprocess.Popen):
    """A program that a failing test neither waits for nor leaves behind."""

    def __init__(self, command, limit_descriptors=None, place=None, **options):
        def prepare():
            if place:
                place()
            LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if limit_descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit_descriptors, limit_descriptors))

        super().__init__(command, preexec_fn=prepare, **options)

    def __exit__(self, kind, *rest):
        if kind:
            self.kill()
        super().__exit__(kind, *rest)


class Manager:
    """A service manager's end of NOTIFY_SOCKET, read by a thread: who speaks to it waits for it to read. It keeps the
    descriptors that it is given (FDSTORE=1) for the next process of the service."""

    def __init__(self, path):
        self.path = path
        self.said = []
        self.kept = []  # (name, descriptor)
        self.news = threading.Condition()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        while True:
            message, descriptors, _, _ = socket.recv_fds(self.socket, 4096, 4)
            if not message:  # it ends
                return
            message = message.decode()
            with self.news:
                self._keep(message, descriptors)
                self.said.append(message)
                self.news.notify_all()

    def _keep(self, message, descriptors):
        name = re.search("^FDNAME=(.*)$", message, re.M)
        if re.search("^FDSTORE=1$", message, re.M):
            self.kept += [(name[1], descriptor) for descriptor in descriptors]
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if re.search("^FDSTOREREMOVE=1$", message, re.M):
            for kept in [kept for kept in self.kept if kept[0] == name[1]]:
                self.kept.remove(kept)
                os.close(kept[1])

    def hand_over(self):
        """For Popen: what makes these the new process' descriptors from 3 on, as sd_listen_fds(3) says."""
        with self.news:
            kept = list(self.kept)

        def place():
            high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 500) for _, descriptor in kept]
            for i, descriptor in enumerate(high):
                os.dup2(descriptor, 3 + i)
                os.close(descriptor)

        names = {"LISTEN_FDS": str(len(kept)), "LISTEN_FDNAMES": ":".join(name for name, _ in kept)}
        return place, names if kept else {}

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self.path)
        self.reader.join()
        self.socket.close()
        while self.kept:
            os.close(self.kept.pop()[1])

    def mark(self):
        with self.news:
            return len(self.said)

    def hear(self, pattern, since=0, process=None, timeout=DEADLINE):
        """The first message from number `since` on that has the pattern in it, waited for."""
        end = time.monotonic() + timeout
        with self.news:
            while True:
                for message in self.said[since:]:
                    if re.search(pattern, message, re.M):
                        return message
                assert time.monotonic() < end, (pattern, self.said[since:])
                assert process is None or process.poll() is None, self.said[since:]
                self.news.wait(0.1)


class Daemon:
    """streamkvd, started and ready (it has said READY=1), until stop(). What it says to its manager is heard as long as it
    runs where `manager`: else its manager has gone away by then."""

    def __init__(self, *options, model="pythia-books", limit_descriptors=None, manager=False, notifies=True,
                 environment=None, kept=()):
        self.folder = tempfile.mkdtemp(prefix="streamkv-e2e-")
        self.socket = os.path.join(self.folder, "s")
        self.manager = Manager(os.path.join(self.folder, "n"))
        self.manager.kept += kept
        self.options = options
        self.model = model
        self.environment = dict(os.environ, NOTIFY_SOCKET=self.manager.path, **(environment or {}))
        if not notifies:
            del self.environment["NOTIFY_SOCKET"]
        self.launch(limit_descriptors)
        self.said = "\n".join(self.manager.said).encode()
        if not manager:
            self.manager.close()
            os.remove(self.manager.path)
        self.status()
        self.baseline = -1
        while self.baseline != self.n_descriptors():  # the sockets of READY and of that status are still being closed
            self.baseline = self.n_descriptors()
            time.sleep(0.1)

    def begin(self, limit_descriptors=None, limit=None):
        """`limit`: called in the process before it becomes streamkvd."""
        place, environment = self.manager.hand_over()

        def prepare():
            place()
            if limit:
                limit()

        with open(os.path.join(self.folder, "log"), "a") as log:
            self.process = Program(
                ["sh", "-c", "LISTEN_PID=$$ exec \"$@\"", "sh", os.path.join(BIN, "streamkvd"), "--model", os.path.join(MODELS, self.model), "--socket", self.socket,
                 "--kv-memory", "64M", "--state-dir", os.path.join(self.folder, "state"), *BACKEND, *self.options],
                stderr=log, env={**self.environment, **environment}, close_fds=False, place=prepare,
                limit_descriptors=limit_descriptors)

    def launch(self, limit_descriptors=None):
        since = self.manager.mark()
        self.begin(limit_descriptors)
        try:
            if "NOTIFY_SOCKET" in self.environment:
                self.manager.hear("^READY=1$", since, self.process)
            while "NOTIFY_SOCKET" not in self.environment and self.run("status").returncode:
                assert self.process.poll() is None
                time.sleep(0.01)
        except AssertionError:
            raise AssertionError(self.log()) from None

    def log(self):
        with open(os.path.join(self.folder, "log")) as file:
            return file.read()

    def n_descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def command(self, *arguments):
        return [CLIENT, arguments[0], "--socket", self.socket, *arguments[1:]]

    def run(self, *arguments, stdin=b"", **options):
        options.setdefault("timeout", DEADLINE)
        return subprocess.run(self.command(*arguments), input=stdin, capture_output=True, **options)

    def start(self, *arguments, **options):
        options.setdefault("stderr", subprocess.PIPE)
        return Program(self.command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **options)

    def status(self):
        return json.loads(self.run("status", "--json").stdout)

    def generate(self, *arguments, **options):
        """Token objects and the last record of generate --json."""
        done = self.run("generate", "--json", *arguments, **options)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return lines[:-1], lines[-1]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE)
        if os.path.exists(self.manager.path):
            self.manager.close()
        shutil.rmtree(self.folder)
        return code


class Case(unittest.TestCase):
    options, model = (), "pythia-books"

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(*cls.options, model=cls.model)

    @classmethod
    def tearDownClass(cls):
        assert cls.daemon.stop() == 0, "the daemon did not end well"

    def assert_idle(self, sessions=0):
        """No request, page or descriptor is left over; waits until the daemon has seen what there is to see."""
        end = time.monotonic() + DEADLINE
        while True:
            status = self.daemon.status()
            n_descriptors = self.daemon.n_descriptors()
            # At the start it may have been slow to close a socket, twice in a row.
            self.daemon.baseline = min(self.daemon.baseline, n_descriptors)
            left = (status["running"], status["sessions"] - sessions, 0 if sessions else status["pages_used"],
                    status["connections"] - 1, n_descriptors - self.daemon.baseline)
            if left == (0, 0, 0, 0, 0):
                return
            if time.monotonic() > end:
                self.fail("running, sessions, pages, connections, descriptors left over: %s" % (left,))
            time.sleep(0.01)
