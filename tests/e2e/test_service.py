"""The daemon as an administrator meets it: its socket, its configuration file, its exit codes."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from streamkv_test import BIN, CLIENT, DEADLINE, MODELS, Daemon, Program, skip

DAEMON = os.path.join(BIN, "streamkvd")
MODEL = os.path.join(MODELS, "pythia-books")


def run(*arguments, cwd=None):
    return subprocess.run([DAEMON, *arguments], capture_output=True, text=True, timeout=DEADLINE, cwd=cwd)


class Service(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="streamkv-e2e-")
        self.addCleanup(self.folder.cleanup)

    def path(self, name, text=None):
        path = os.path.join(self.folder.name, name)
        if text is not None:
            with open(path, "w") as file:
                file.write(text)
        return path

    def assert_says(self, done, code, words):
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        self.assertIn(words, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1)

    def test_configuration(self):
        good = self.path("good", "model = %s\nsink = 8\nkv-memory = 64M\nmode = window\n" % MODEL)
        users = self.path("users", "  model = %s\n[user root]\n  weight = 1000\n  kv-memory = 1G\n[user *]\nmax-sessions=3\n"
                          "max-queued = 4\ntokens-per-second = 0\n[ user 5 ]\n[streamkvd]\nsink = 8\n" % MODEL)
        done = run("--config", users, "--check-config")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for form in (["--config", good], ["--config=" + good], ["-c", good], ["-c" + good]):
            done = run(*form, "--check-config")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        for text, words in [
            ("sink = 8\nnonsense = 3\n", ":2: there is no option nonsense; allowed are model, backend, "),
            ("[user 5]\nnonsense = 3\n", ":2: there is no option nonsense; allowed are weight, max-sessions, "),
            ("config = /etc/x\n", ":1: there is no option config; allowed are "),
            ("# a comment\n\nsink = many\n", ":3: sink: 'many' is not allowed"),
            ("this is no line\nnonsense = 3\n", ":1: this is no line"),
            ("nonsense = 3\nthis is no line\n", ":1: there is no option"),
            ("windwo = 3\n", "did you mean window?"),
            ("sink = 8\n[users]\n", ":2: there is no section [users]; allowed are [streamkvd], [user NAME]"),
            ("[user 5\n", ":1: this is no line"),
            ("[user nobody-has-this-name]\n", ":1: there is no user 'nobody-has-this-name'"),
            ("[user 4294967295]\n", ":1: there is no user '4294967295'"),
            ("[user *]\n\n[user *]\n", ":3: '*' has a section already"),
            ("[user root]\n[user 0]\n", ":2: '0' has a section already"),
            ("[user 5]\nweight = 0\n", ":2: weight: '0' is not allowed; allowed is a whole number from 1 to 1000"),
            ("[user 5]\n  weight = 1\n  max-session = 1\n", ":3: there is no option max-session; did you mean max-sessions?"),
            ("[user 5]\nsink = 1\n", ":2: sink is an option of the daemon"),
            ("weight = 3\n", ":1: weight is an option of users"),
            ("[user 5]\nkv-memory = lots\n", ":2: kv-memory: 'lots' is not allowed"),
            ("sink = 8\nmodel = %s\n" % ("x" * 300), ":2: the line is longer than"),
        ]:
            bad = self.path("bad", text)
            self.assert_says(run("--config", bad, "--model", MODEL, "--check-config"), 78, words)
        self.assert_says(run("--config", self.path("missing"), "--model", MODEL), 78, "cannot be read")
        # Only where it is an option: not as the value of another.
        self.assert_says(run("--socket", "--config", "--model", self.path("none"), cwd=self.folder.name), 66, "none")
        self.assert_says(run("--", "--config", good), 64, "options only")

    def test_values_that_are_wrong_only_together(self):
        """Or that only the machine tells to be so."""
        for text, words in [
            ("model = x\nsocket-mode = 689\n", ":2: socket-mode: '689' is not allowed; allowed are three octal digits"),
            ("model = x\nstep-tokens = 4\n", ":2: step-tokens 4 is less than max-batch 64"),
            ("max-batch = 9\nstep-tokens = 8\nmodel = x\n", ":2: step-tokens 8 is less than max-batch 9"),
            ("step-tokens = 8\n[user *]\n[streamkvd]\nmax-batch = 9\n", ":4: max-batch 9 is more than step-tokens 8"),
            ("sink = 8\n", ": no model is named; say model = DIR"),
            ("", ": no model is named; say model = DIR"),
            ("sink = 8\nmodel =\n", ":2: model: '' is not allowed"),
            ("model = x\nbackend = cpu\ninstructions = nonsense\n", ":3: instructions: backend cpu: no instructions 'nonsense'"),
            ("model = x\nsocket = /%s\n" % ("x" * 120), ":2: socket: /xx"),
            ("model = x\nholder-socket =\n", ":2: holder-socket: '' is not allowed"),
        ]:
            bad = self.path("bad", text)
            self.assert_says(run("--config", bad, "--check-config"), 78, bad + words)
        # The command line's are its own fault, or mend the file's.
        bad = self.path("bad", "model = %s\nsocket-mode = 689\nkv-memory = 64M\n[user *]\nkv-memory = 1G\n" % MODEL)
        self.assertEqual(run("--config", bad, "--check-config", "--socket-mode", "600").returncode, 0)
        self.assert_says(run("--config", bad, "--check-config", "--socket-mode", "689"), 64, "--socket-mode: '689'")
        self.assert_says(run("--config", bad, "--socket-mode", "600", "--step-tokens", "4"), 64, "--step-tokens 4 is less than --max-")
        self.assert_says(run("--model", "", "--check-config"), 64, "--model: '' is not allowed")
        self.assert_says(run("--model", MODEL, "--backend", "cpu", "--instructions", "x"), 64, "--instructions: backend cpu: no ")

    def test_drop_ins(self):
        main = self.path("main", "model = %s\nmax-batch = 32\n[user 5]\nweight = 2\nmax-queued = 3\n" % MODEL)
        folder = main + ".d"
        os.mkdir(folder)

        def drop_in(name, text):
            return self.path(os.path.join("main.d", name), text)

        drop_in("b.conf", "step-tokens = 32\n[user 5]\nweight = 4\n[user *]\nmax-queued = 4\n")
        drop_in(".hidden.conf", "nonsense")
        drop_in("b.conf.saved", "nonsense")
        check = ("--config", main, "--check-config")
        self.assertEqual(run(*check).returncode, 0)
        # In the order of their names: each of these faults is one of two values together, and the last one counts.
        drop_in("a.conf", "max-batch = 48\n")
        self.assert_says(run(*check), 78, "main.d/b.conf:1: step-tokens 32 is less than max-batch 48")
        last = drop_in("c.conf", "step-tokens = 64\n")
        self.assertEqual(run(*check).returncode, 0)
        self.assertEqual(run(*check, "--step-tokens", "4", "--max-batch", "4").returncode, 0)  # argv comes before all
        self.assert_says(run(*check, "--step-tokens", "4"), 64, "--step-tokens 4 is less")
        for text, words in [
            ("\nnonsense = 3\n", "main.d/c.conf:2: there is no option nonsense; allowed are model"),
            ("sink = -1\n", "main.d/c.conf:1: sink: '-1' is not allowed; allowed is a whole number"),
            ("[user 5]\n[user 5]\n", "main.d/c.conf:2: '5' has a section already"),
            ("[user *]\n[user *]\n", "main.d/c.conf:2: '*' has a section already"),
        ]:
            drop_in("c.conf", text)
            self.assert_says(run(*check), 78, words)
        os.remove(last)
        os.mkdir(last)
        self.assert_says(run(*check), 78, "main.d/c.conf: cannot be read")

    def test_priorities_where_standard_error_is_the_journal(self):
        path = self.path("stderr")
        for offset, opens in ((0, "<3>"), (1, "streamkvd: ")):  # the journal's; a file that has taken its place
            with open(path, "w") as file:
                there = os.fstat(file.fileno())
                stream = "%d:%d" % (there.st_dev, there.st_ino + offset)
                subprocess.run([DAEMON, "--modle", "x"], stderr=file, timeout=DEADLINE, env=dict(os.environ, JOURNAL_STREAM=stream))
            with open(path) as file:
                self.assertEqual(file.read(), opens + "there is no option --modle; did you mean --model?\n")

    def test_options(self):
        for arguments, words in [([], "no model is named"), (["--modle", "x"], "did you mean --model?"),
                                 (["--model", MODEL, "extra"], "options only"),
                                 (["--model", MODEL, "--socket-mode", "689"], "octal"),
                                 (["--model", MODEL, "--step-tokens", "65536"], "65535"),
                                 (["--model", MODEL, "--step-tokens", "2"], "less than --max-batch")]:
            self.assert_says(run(*arguments), 64, words)
        self.assert_says(run("--model", MODEL, "--window", "5000", "--socket", self.path("s")), 64, "trained on 512")

    def test_models_that_are_none(self):
        there = self.path("s")
        for model, code, words in [(self.path("missing"), 66, "missing"),
                                   (self.path("torn.gguf", "GGUF\3\0"), 65, "torn.gguf"),
                                   (self.path("text", "hello"), 65, "text")]:
            self.assert_says(run("--model", model, "--socket", there), code, words)
            self.assertFalse(os.path.exists(there))

    def test_two_on_one_socket_and_one_that_was_left(self):
        daemon = Daemon()
        self.assert_says(run("--model", MODEL, "--socket", daemon.socket), 69, "another streamkvd listens there")
        self.assertEqual(daemon.status()["running"], 0)  # the first is unharmed
        daemon.process.kill()
        daemon.process.wait()
        self.assertTrue(os.path.exists(daemon.socket))
        self.assertEqual(daemon.run("status").returncode, 69)
        again = Program([DAEMON, "--model", MODEL, "--socket", daemon.socket], stderr=subprocess.DEVNULL)
        while daemon.run("status").returncode:
            self.assertIsNone(again.poll())
        again.send_signal(signal.SIGTERM)
        self.assertEqual(again.wait(DEADLINE), 0)
        self.assertFalse(os.path.exists(daemon.socket))
        daemon.stop()

    def test_it_says_that_it_loads_and_that_it_serves(self):
        daemon = Daemon()
        self.addCleanup(daemon.stop)
        said = daemon.said.split(b"\n")
        self.assertTrue(said[0].startswith(b"STATUS=Loading"), said)
        self.assertLess(said.index(b"STATUS=Loading the model: 0%"), said.index(b"READY=1"))
        self.assertTrue(any(line.startswith(b"STATUS=Serving pythia-books") for line in said), said)

    def test_a_hangup_is_survived(self):
        daemon = Daemon()
        self.addCleanup(daemon.stop)
        daemon.process.send_signal(signal.SIGHUP)
        while "the configuration has been read again" not in daemon.log():
            self.assertIsNone(daemon.process.poll())
        self.assertEqual(daemon.run("generate", "-n", "3", "x").returncode, 0)

    def test_ended_while_it_loads(self):
        for _ in range(10):  # in one of its many states
            there = self.path("s")
            daemon = Program([DAEMON, "--model", MODEL, "--socket", there], stderr=subprocess.DEVNULL)
            while not os.path.exists(there):
                self.assertIsNone(daemon.poll())
            daemon.send_signal(signal.SIGTERM)
            self.assertIn(daemon.wait(DEADLINE), (0, -signal.SIGTERM))
            self.assertFalse(os.path.exists(there))

    def test_at_the_limit_clients_wait(self):
        daemon = Daemon("--max-connections", "2")
        self.addCleanup(daemon.stop)
        with Program(daemon.command("generate", "--endless", "It was"), stdout=subprocess.PIPE) as one, \
                Program(daemon.command("generate", "--endless", "It was"), stdout=subprocess.PIPE) as two:
            self.assertTrue(one.stdout.read(10) and two.stdout.read(10))
            with Program(daemon.command("generate", "-n", "3", "x"), stdout=subprocess.PIPE) as third:
                with self.assertRaises(subprocess.TimeoutExpired):
                    third.wait(0.3)
                one.kill()
                self.assertTrue(third.stdout.read())
                self.assertEqual(third.wait(DEADLINE), 0)
            two.kill()

    def listener(self, backlog):
        """Of a daemon that accepts nobody yet."""
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(self.path("s"))
        listener.listen(backlog)
        return listener

    def asks(self, seconds):
        return Program([CLIENT, "generate", "--socket", self.path("s"), "--retry", seconds, "-n", "2", "x"],
                       stderr=subprocess.PIPE, text=True)

    def test_one_client_takes_one_place_while_it_waits(self):
        listener = self.listener(16)
        client = self.asks("4.5")
        begun = time.monotonic()
        _, said = client.communicate(timeout=DEADLINE)
        self.assertEqual((client.returncode, said), (75, "streamkv-client: the daemon has not answered in time\n"))
        self.assertTrue(4.4 < time.monotonic() - begun < 7)
        listener.setblocking(False)
        listener.accept()[0].close()
        self.assertRaises(BlockingIOError, listener.accept)

    def test_waiting_for_a_place_has_an_end(self):
        listener = self.listener(0)
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(self.path("s"))  # and nobody else finds a place
            given_up, served = self.asks("1"), self.asks("60")
            _, said = given_up.communicate(timeout=DEADLINE)
            self.assertEqual((given_up.returncode, said), (75, "streamkv-client: the daemon has not answered in time\n"))
            self.assertIsNone(served.poll())
            for _ in range(2):  # then one is free
                connection, _ = listener.accept()
                connection.close()
            listener.settimeout(DEADLINE)
            with listener.accept()[0] as connection:  # who lost its place, and asks again
                self.assertTrue(connection.recv(1))
            served.kill()
            served.communicate()

    def test_few_descriptors_are_enough_for_few(self):
        few = Daemon(limit_descriptors=72)
        self.addCleanup(few.stop)
        self.assertIn("descriptors are enough for 2 clients at once", few.log())
        clients = [Program(few.command("generate", "-n", "20", "It was"), stdout=subprocess.PIPE) for _ in range(8)]
        for client in clients:
            out, _ = client.communicate(timeout=DEADLINE)
            self.assertEqual(client.returncode, 0)
            self.assertTrue(out)

    def test_a_file_in_the_way_stays(self):
        path = self.path("file", "precious")
        self.assert_says(run("--model", MODEL, "--socket", path), 73, "no socket")
        with open(path) as file:
            self.assertEqual(file.read(), "precious")

    def test_a_path_too_long(self):
        path = "/tmp/" + "x" * 120
        self.assert_says(run("--model", MODEL, "--socket", path), 64, "--socket: %s: the path of a socket may have 102 bytes" % path)
        done = subprocess.run([DAEMON, "--model", MODEL], capture_output=True, text=True, env=dict(os.environ, STREAMKV_SOCKET=path))
        self.assert_says(done, 73, "bytes at most")

    def test_socket_activation_by_systemd(self):
        if not shutil.which("systemd-socket-activate"):
            skip("systemd-socket-activate", "it is not here")
        path = self.path("s")
        daemon = Program(["systemd-socket-activate", "--listen", path, DAEMON, "--model", MODEL, "--state-dir", "none"],
                         stderr=subprocess.DEVNULL)
        self.addCleanup(daemon.kill)
        while not os.path.exists(path):
            self.assertIsNone(daemon.poll())
        # The first starts it, and all of them wait for it.
        clients = [Program([CLIENT, "generate", "--socket", path, "-n", "5", "It was"], stdout=subprocess.PIPE) for _ in range(4)]
        for client in clients:
            out, _ = client.communicate(timeout=DEADLINE)
            self.assertEqual(client.returncode, 0)
            self.assertTrue(out)
        daemon.send_signal(signal.SIGTERM)
        self.assertEqual(daemon.wait(DEADLINE), 0)
        self.assertTrue(os.path.exists(path))

    def test_socket_activation(self):
        for name in ("", "streamkvd.socket", "streamkv-small.socket"):  # a second daemon's, beside what is parked
            path = self.path("s" + name)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
                listener.listen(8)
                # A client that comes before there is a daemon waits, and is served.
                early = Program([CLIENT, "generate", "--socket", path, "--retry", str(DEADLINE), "-n", "5", "It was"],
                                stdout=subprocess.PIPE)
                program = ("import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); "
                           "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=sys.argv[2]); "
                           "os.execv(sys.argv[3], sys.argv[3:])")
                daemon = Program([sys.executable, "-c", program, str(listener.fileno()), name, DAEMON, "--model", MODEL,
                                  "--state-dir", "none", "--socket", self.path("another")], pass_fds=[listener.fileno()],
                                 stderr=subprocess.PIPE, text=True)
                said = next(line for line in daemon.stderr if "loading: " not in line)  # told where it takes long
                self.assertIn("at the socket handed over", said)
                out, _ = early.communicate(timeout=DEADLINE)
                self.assertEqual(early.returncode, 0)
                self.assertTrue(out)
                daemon.send_signal(signal.SIGTERM)
                self.assertEqual(daemon.wait(DEADLINE), 0)
                daemon.communicate()
            self.assertTrue(os.path.exists(path))  # whoever made it takes it away


if __name__ == "__main__":
    unittest.main()
