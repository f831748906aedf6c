"""Weights held apart: a holder, engines that use its copy, and what becomes of each when the other dies."""
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

from streamkv_test import BACKEND, BIN, DEADLINE, MODELS, Daemon, Manager, Program

DAEMON = os.path.join(BIN, "streamkvd")


class Holder:
    """streamkvd --hold-weights, ready, until stop()."""

    def __init__(self, *options, model="pythia-books", limit_descriptors=None):
        self.folder = tempfile.mkdtemp(prefix="streamkv-e2e-")
        self.socket = os.path.join(self.folder, "w")
        self.command = [DAEMON, "--model", os.path.join(MODELS, model), "--hold-weights", "--holder-socket", self.socket,
                        "--log-level", "info", *BACKEND, *options]
        self.launch(limit_descriptors)

    def launch(self, limit_descriptors=None):
        with open(os.path.join(self.folder, "log"), "w") as log:
            self.process = Program(self.command, stderr=log, limit_descriptors=limit_descriptors)
        self.wait_for("ready: holding")

    def log(self):
        with open(os.path.join(self.folder, "log")) as file:
            return file.read()

    def wait_for(self, words, n=1):
        end = time.monotonic() + DEADLINE
        while self.log().count(words) < n:
            assert self.process.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.01)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE)
        shutil.rmtree(self.folder)
        return code


def pss_of_weights(pid):
    """Bytes of the held weights that are counted for a process, and of all of them."""
    size = pss = 0
    with open("/proc/%d/smaps" % pid) as file:
        for line in file:
            if re.match(r"[0-9a-f]+-", line):
                inside = "streamkv-weights" in line
            elif inside and line.startswith("Size:"):
                size += int(line.split()[1]) << 10
            elif inside and line.startswith("Pss:"):
                pss += int(line.split()[1]) << 10
    return pss, size


def ticks(process):
    """Of the processor's time that it has used."""
    with open("/proc/%d/stat" % process.pid) as file:
        return sum(int(field) for field in file.read().rsplit(")", 1)[1].split()[11:13])


class Crowded(unittest.TestCase):
    N_DESCRIPTORS = 40

    def say(self, number, *fields, descriptors=()):
        """A message of proto/holder.proto, whose fields are strings from 1 on."""
        def field(n, content):
            return bytes([n << 3 | 2, len(content)]) + content

        message = field(number, b"".join(field(i + 1, content) for i, content in enumerate(fields)))
        socket.send_fds(self.engines[0], [struct.pack("<I", len(message)) + message], descriptors)

    def n_open(self):
        return len(os.listdir("/proc/%d/fd" % self.holder.process.pid))

    def test_it_waits_until_it_has_descriptors(self):
        self.holder = Holder(limit_descriptors=self.N_DESCRIPTORS)
        self.addCleanup(self.holder.stop)
        self.engines = []
        self.addCleanup(lambda: [engine.close() for engine in self.engines])
        for _ in range(60):
            self.engines.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            self.engines[-1].connect(self.holder.socket)  # the last of them wait in the backlog
        time.sleep(0.5)
        self.say(1, b"key")
        for name in (b"a", b"b", b"c"):  # not even one is left for a connection
            if self.n_open() < self.N_DESCRIPTORS:
                self.say(3, name, descriptors=[0])
                time.sleep(0.3)
        self.assertEqual(self.n_open(), self.N_DESCRIPTORS)
        before = ticks(self.holder.process)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one_more:
            one_more.connect(self.holder.socket)
            time.sleep(1.5)
        self.assertLess(ticks(self.holder.process) - before, 0.3 * os.sysconf("SC_CLK_TCK"))
        self.assertIn("an engine has to wait: Too many open files", self.holder.log())
        for engine in self.engines[:50]:
            engine.close()
        self.engines[-1].settimeout(DEADLINE)
        self.assertTrue(self.engines[-1].recv(1))


class Waiting(unittest.TestCase):
    def test_the_manager_waits_as_long_as_the_holder_loads(self):
        folder = tempfile.mkdtemp(prefix="streamkv-e2e-")
        self.addCleanup(shutil.rmtree, folder)
        manager = Manager(os.path.join(folder, "n"))
        self.addCleanup(manager.close)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as loading:
            loading.bind(os.path.join(folder, "w"))
            loading.listen()
            process = Program([DAEMON, "--model", os.path.join(MODELS, "pythia-books"), "--socket", os.path.join(folder, "s"),
                               "--state-dir", "none", "--weights-from", os.path.join(folder, "w"), *BACKEND],
                              stderr=subprocess.PIPE, env=dict(os.environ, NOTIFY_SOCKET=manager.path))
            said = manager.hear("^STATUS=Waiting for the weights that are held at ", 0, process)
            self.assertIn("\nEXTEND_TIMEOUT_USEC=", said)
        _, err = process.communicate(timeout=DEADLINE)  # the holder has ended
        self.assertEqual(process.returncode, 69, err)
        self.assertIn(b"the holder of weights has ended", err)


def field(number, value):
    """Of a protobuf message: a number below 128, or bytes."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


class Upgrades(unittest.TestCase):
    def served(self, held):
        """The log of a daemon that is ready all the same, beside a holder that says `held`."""
        folder = tempfile.mkdtemp(prefix="streamkv-e2e-")
        self.addCleanup(shutil.rmtree, folder)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as holder:
            holder.bind(os.path.join(folder, "w"))
            holder.listen()
            holder.settimeout(DEADLINE)

            def serve():
                connection, _ = holder.accept()
                with connection:
                    for body in (field(1, held), field(2, b"")):  # FromHolder: Held, and Claimed for its Claim
                        connection.sendall(struct.pack("<I", len(body)) + body)
                    while connection.recv(4096):
                        pass

            thread = threading.Thread(target=serve)
            thread.start()
            daemon = Daemon("--weights-from", os.path.join(folder, "w"), notifies=False)
            text(daemon)
            log = daemon.log()
            self.assertEqual(daemon.stop(), 0)
            thread.join()
        return log

    def test_a_holder_of_another_version(self):
        log = self.served(field(1, 1) + field(2, b"streamkvd 0.0.9"))
        self.assertIn("the holder is of another version (streamkvd 0.0.9, 1; wanted is 2): start it again, with this "
                      "streamkvd; until then this one packs its own\n", log)

    def test_a_holder_of_another_layout(self):
        for layout in (b"cpu weights 0", b"cpu weights 10", b"cuda weights 0 00"):
            log = self.served(field(1, 2) + field(2, b"streamkvd") + field(3, b"m") + field(4, bytes(16)) + field(6, layout) +
                              field(7, 1) + field(9, bytes(64)))
            self.assertIn("the weights held lie as '%s' wants them, which this streamkvd does not: start their holder again, "
                          "with this one; until then this one packs its own\n" % layout.decode(), log)


def text(daemon):
    done = daemon.run("generate", "-n", "12", "--seed", "3", "It was the best of")
    assert done.returncode == 0, done.stderr
    return done.stdout


class Weights(unittest.TestCase):
    def setUp(self):
        self.holder = Holder()

    def tearDown(self):
        if self.holder.process.poll() is None:
            self.assertEqual(self.holder.stop(), 0)

    def engine(self, *options):
        daemon = Daemon("--weights-from", self.holder.socket, *options)
        self.addCleanup(lambda: daemon.process.poll() is None and daemon.stop())
        return daemon

    def test_two_engines_share_one_copy(self):
        alone = Daemon()
        expected = text(alone)
        self.assertEqual(alone.stop(), 0)
        engines = [self.engine(), self.engine()]
        for engine in engines:
            self.assertEqual(text(engine), expected)
        if not BACKEND:
            pss, size = zip(*(pss_of_weights(process.pid) for process in
                              [self.holder.process] + [engine.process for engine in engines]))
            self.assertGreater(size[0], 1 << 20)
            self.assertEqual(size, size[:1] * 3)
            self.assertLess(sum(pss), size[0] * 1.01)  # together they have it once
        for n, engine in enumerate(engines):
            self.assertEqual(engine.stop(), 0)
            self.holder.wait_for("has left", n + 1)

    def test_an_engine_is_killed(self):
        engine = self.engine()
        expected = text(engine)
        with engine.start("generate", "--endless", "It was") as process:
            self.assertTrue(process.stdout.read(20))
            engine.process.kill()
            process.communicate(timeout=DEADLINE)
        self.holder.wait_for("has left")
        self.assertEqual(text(self.engine()), expected)
        engine.stop()

    def test_the_holder_is_killed(self):
        engine = self.engine()
        expected = text(engine)
        if "handle" in os.environ.get("STREAMKV_TEST_HOLDER", ""):
            self.skipTest("memory with a handle goes with its process")
        self.holder.process.kill()
        self.holder.process.wait()
        self.assertEqual(text(engine), expected)
        self.assertEqual(engine.stop(), 0)
        shutil.rmtree(self.holder.folder)

    def test_it_costs_nothing_to_hold(self):
        engine = self.engine()
        before, end = -1, time.monotonic() + DEADLINE
        while before != ticks(self.holder.process):  # it is still handing them over
            self.assertLess(time.monotonic(), end)
            before = ticks(self.holder.process)
            time.sleep(0.5)
        text(engine)
        time.sleep(0.5)
        self.assertEqual(ticks(self.holder.process), before)

    def test_what_is_not_held(self):
        def refused(code, words, *options, model="pythia-books"):
            done = subprocess.run([DAEMON, "--model", os.path.join(MODELS, model), "--socket",
                                   os.path.join(self.holder.folder, "s"), "--state-dir", "none", "--weights-from",
                                   self.holder.socket, *BACKEND, *options],
                                  capture_output=True, text=True, timeout=DEADLINE)
            self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
            said = [line for line in done.stderr.splitlines() if "waiting for the weights" not in line]  # where it is slow
            self.assertEqual(len(said), 1, done.stderr)
            self.assertIn(words, said[0])

        refused(65, "the weights held are of", "--weights", "q8")
        refused(65, "with --weights auto; this is", model="tiny-llama")
        refused(69, "nobody holds weights there; start streamkvd --hold-weights", "--weights-from",
                os.path.join(self.holder.folder, "nothing"))
        refused(69, "another streamkvd listens there", "--hold-weights", "--holder-socket", self.holder.socket)
        self.assertEqual(text(self.engine()), text(self.engine()))


if __name__ == "__main__":
    unittest.main()
