"""The real streamkvd and streamkv-client on a private socket, for the tests of this folder. Python's standard library only."""
import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

BIN = os.environ.get("STREAMKV_BIN", "build/release/bin")
BACKEND = ["--backend", os.environ["STREAMKV_TEST_BACKEND"]] if "STREAMKV_TEST_BACKEND" in os.environ else []
MODELS = os.environ.get("STREAMKV_TEST_MODELS", "tests/models")
CLIENT = os.path.join(BIN, "streamkv-client")
DEADLINE = 400  # seconds that anything may take before the test fails; ThreadSanitizer on a busy machine takes minutes

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

    def __init__(self, command, limit_descriptors=None, **options):
        def prepare():
            LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if limit_descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit_descriptors, limit_descriptors))

        super().__init__(command, preexec_fn=prepare, **options)

    def __exit__(self, kind, *rest):
        if kind:
            self.kill()
        super().__exit__(kind, *rest)


class Daemon:
    """streamkvd, started and ready (it has said READY=1), until stop()."""

    def __init__(self, *options, model="pythia-books", limit_descriptors=None):
        self.folder = tempfile.mkdtemp(prefix="streamkv-e2e-")
        self.socket = os.path.join(self.folder, "s")
        notify_path = os.path.join(self.folder, "n")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(notify_path)
            notify.settimeout(0.1)
            environment = dict(os.environ, NOTIFY_SOCKET=notify_path)
            with open(os.path.join(self.folder, "log"), "w") as log:
                self.process = Program(
                    [os.path.join(BIN, "streamkvd"), "--model", os.path.join(MODELS, model), "--socket", self.socket,
                     "--kv-memory", "64M", "--state-dir", os.path.join(self.folder, "state"), *BACKEND, *options],
                    stderr=log, env=environment, limit_descriptors=limit_descriptors)
            self.said = b""
            while b"READY=1" not in self.said:
                try:
                    self.said += notify.recv(4096) + b"\n"
                except TimeoutError:
                    assert self.process.poll() is None, self.log()
        self.status()
        self.baseline = -1
        while self.baseline != self.n_descriptors():  # the sockets of READY and of that status are still being closed
            self.baseline = self.n_descriptors()
            time.sleep(0.1)

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
        shutil.rmtree(self.folder)
        return code


class Case(unittest.TestCase):
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(*cls.options)

    @classmethod
    def tearDownClass(cls):
        assert cls.daemon.stop() == 0, "the daemon did not end well"

    def assert_idle(self, sessions=0):
        """No request, page or descriptor is left over; waits until the daemon has seen what there is to see."""
        end = time.monotonic() + DEADLINE
        while True:
            status = self.daemon.status()
            left = (status["running"], status["sessions"] - sessions, 0 if sessions else status["pages_used"],
                    status["connections"] - 1, self.daemon.n_descriptors() - self.daemon.baseline)
            if left == (0, 0, 0, 0, 0):
                return
            if time.monotonic() > end:
                self.fail("running, sessions, pages, connections, descriptors left over: %s" % (left,))
            time.sleep(0.01)
