"""sessions, ps, top: what there is, who is shown it, and what is done with sessions by name."""
import fcntl
import json
import os
import pty
import pwd
import re
import resource
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import termios
import time
import unittest

from streamkv_test import CLIENT, DEADLINE, Case, Daemon, Program, skip
import wire
from wire import HELLO, field, frame

NOBODY = 65534
SLOW = "thread" in os.environ.get("STREAMKV_SANITIZE", "")


def until(look, wanted):
    """What look() returns, once wanted() finds it so."""
    end = time.monotonic() + DEADLINE
    while True:
        seen = look()
        if wanted(seen):
            return seen
        assert time.monotonic() < end, "it did not come to be: %s" % (seen,)
        time.sleep(0.02)


class Look(Case):
    def sessions(self):
        return json.loads(self.daemon.run("sessions", "list", "--json").stdout)

    def session(self, name):
        return next((session for session in self.sessions() if session["name"] == name), None)

    def requests(self):
        return json.loads(self.daemon.run("ps", "--json").stdout)

    def make(self, name, *options):
        done = self.daemon.run("generate", "-n", "5", "--session", name, *options, "It was a dark night")
        self.assertEqual(done.returncode, 0, done.stderr)

    def stream(self, *options):
        """One that runs for ever."""
        process = self.daemon.start("generate", "--endless", *options, "It was")
        self.addCleanup(process.__exit__, None, None, None)
        self.addCleanup(process.kill)
        until(self.requests, lambda requests: process.pid in [request["pid"] for request in requests])
        return process

    def tearDown(self):
        self.doCleanups()
        until(self.requests, lambda requests: not requests)


class Lists(Look):
    options = ("--ring-slots", "256", "--stall-timeout", "0")

    def test_sessions(self):
        self.make("notes", "-W", "60")
        self.make("log")
        self.make("log")
        log, notes = self.session("log"), self.session("notes")
        self.assertEqual((log["name"], log["requests"], log["generated_tokens"]), ("log", 2, 10))
        self.assertEqual((notes["name"], notes["requests"], notes["generated_tokens"]), ("notes", 1, 5))
        self.assertEqual((notes["mode"], notes["window"], notes["sink"], notes["slack"]), ("streaming", 60, 4, 0))
        for session in (log, notes):
            self.assertEqual((session["uid"], session["user"]), (os.getuid(), pwd.getpwuid(os.getuid()).pw_name))
            self.assertEqual((session["state"], session["position"]), ("idle", session["live"] + 1))
            self.assertGreater(session["pages"], 0)
            self.assertGreater(session["age_ns"], session["idle_ns"])
        self.assertEqual(self.daemon.status()["stored"], 0)
        lines = self.daemon.run("sessions").stdout.decode().splitlines()
        names = [line.split()[1] for line in lines]
        self.assertEqual((names[0], names[1:]), ("SESSION", sorted(names[1:])))
        self.assertLessEqual({"log", "notes"}, set(names))

    def test_a_stream_that_runs(self):
        with open(os.devnull, "w") as nowhere:
            process = Program(self.daemon.command("generate", "--endless", "--session", "endless", "It was"),
                              stdin=subprocess.DEVNULL, stdout=nowhere)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        first = until(self.requests, lambda requests: [r for r in requests if r["state"] == "decode"])[0]
        self.assertEqual((first["pid"], first["kind"], first["session"]), (process.pid, "generate", "endless"))
        self.assertEqual((first["uid"], first["ring_slots"], first["queue_place"]), (os.getuid(), 256, 0))
        self.assertEqual(first["evaluated_tokens"], first["prompt_tokens"])
        later = until(self.requests, lambda requests: requests[0]["generated_tokens"] > first["generated_tokens"])[0]
        self.assertGreater(later["age_ns"], first["age_ns"])
        session = self.session("endless")
        self.assertEqual((session["state"], session["idle_ns"]), ("running", 0))
        line = self.daemon.run("ps").stdout.decode().splitlines()[1].split()
        self.assertEqual(line[:5], [pwd.getpwuid(os.getuid()).pw_name, str(process.pid), "1", "decode", "endless"])

        def rate():
            text = self.daemon.run("top", "--once", "--interval", "0.2").stdout.decode()
            self.assertIn("pythia-books on cpu", text)
            self.assertRegex(text, r"1 running, 0 of them paused, 0 queued")
            self.assertRegex(text, r"(?m)^\S+ +%d +1 +decode +endless " % process.pid)
            return float(re.search(r"([0-9.]+) generated tokens/s", text).group(1))
        until(rate, lambda speed: speed > 0)
        process.send_signal(signal.SIGINT)
        until(self.requests, lambda requests: not requests)
        self.assertEqual(self.session("endless")["state"], "idle")

    def test_a_reader_that_stands_still(self):
        process = self.stream()
        process.send_signal(signal.SIGSTOP)
        paused = until(self.requests, lambda requests: requests[0]["state"] == "paused")[0]
        self.assertEqual((paused["pid"], paused["ring_fill"], paused["ring_slots"]), (process.pid, 256, 256))
        self.assertIn(b" 100% ", self.daemon.run("ps").stdout)

    def test_a_text_that_is_scored(self):
        text = os.path.join(self.daemon.folder, "text")
        with open(text, "w") as file:
            file.write("It was the best of times, it was the worst of times. " * 3000)
        process = self.daemon.start("ppl", "--file", text)
        self.addCleanup(process.__exit__, None, None, None)
        self.addCleanup(process.kill)
        seen = until(self.requests, lambda requests: [r for r in requests if r["state"] == "prompt"])[0]
        self.assertEqual((seen["kind"], seen["pid"]), ("evaluate", process.pid))
        self.assertLess(seen["evaluated_tokens"], seen["prompt_tokens"])

    def test_what_is_not_there_is_not_listed(self):
        self.assertEqual(self.requests(), [])
        self.assertEqual(len(self.daemon.run("ps").stdout.splitlines()), 1)
        for command in (["ps", "x"], ["top", "x"], ["top", "-i", "0"], ["top", "--interval", "soon"]):
            done = self.daemon.run(*command)
            self.assertEqual((done.returncode, done.stdout), (64, b""))
            self.assertEqual(done.stderr.count(b"\n"), 1)

    def test_a_reader_that_goes_away(self):
        for command in (["sessions"], ["sessions", "--json"], ["ps"], ["top"]):
            reading, writing = os.pipe()
            os.close(reading)
            done = subprocess.run(self.daemon.command(*command), stdout=writing, stderr=subprocess.PIPE)
            os.close(writing)
            self.assertEqual((done.returncode, done.stderr), (141, b""))


class Queue(Look):
    options = ("--kv-memory", "5M", "--max-batch", "4", "--step-tokens", "64")

    def test_places(self):
        first, *others = [self.stream() for _ in range(4)]
        requests = until(self.requests, lambda requests: [r["queue_place"] for r in requests] == [0, 1, 2, 3])
        self.assertEqual([r["state"] for r in requests][1:], ["queued"] * 3)
        self.assertEqual([r["pid"] for r in requests], [process.pid for process in [first] + others])
        places = [line.split()[8] for line in self.daemon.run("ps").stdout.decode().splitlines()]
        self.assertEqual(places, ["PLACE", "-", "1", "2", "3"])
        self.assertIn(b"3 queued", self.daemon.run("top", "--once", "-i", "0.1").stdout)
        first.kill()
        requests = until(self.requests, lambda requests: len(requests) == 3)
        requests = until(self.requests, lambda requests: [r["queue_place"] for r in requests] == [0, 1, 2])
        self.assertEqual([r["pid"] for r in requests], [process.pid for process in others])


def fields(message):
    """(number, value) of a protobuf message that has numbers and bytes alone."""
    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    at = 0
    while at < len(message):
        tag = varint()
        value = varint()
        if tag & 7 == 2:
            at += value
            value = message[at - value:at]
        yield tag >> 3, value


class Many(Look):
    options = ("--kv-memory", "600M", "--mode", "window")
    n = 500 if SLOW else 2000

    def read(self, client):
        """The body of one frame: its number and its fields."""
        data = b""
        while len(data) < 4 or len(data) < 4 + struct.unpack("<I", data[:4])[0]:
            wanted = 4 - len(data) if len(data) < 4 else 4 + struct.unpack("<I", data[:4])[0] - len(data)
            part, ancillary, _, _ = client.recvmsg(wanted, socket.CMSG_SPACE(16))
            self.assertTrue(part)
            for _, _, descriptors in ancillary:
                for descriptor in struct.unpack("%di" % (len(descriptors) // 4), descriptors):
                    os.close(descriptor)
            data += part
        return list(fields(data[4:]))[-1]

    def test_in_several_frames(self):
        names = ["%05d" % i for i in range(self.n)]
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE)
            client.connect(self.daemon.socket)
            client.sendall(HELLO)
            self.read(client)
            for at in range(0, self.n, 16):  # as many at once as a connection may have
                part = names[at:at + 16]
                client.sendall(b"".join(frame(field(1, i + 1) + field(3, field(1, b"x") + field(4, 1) + field(6, name.encode())))
                                        for i, name in enumerate(part)))
                n_finished = 0
                while n_finished < len(part):
                    n_finished += self.read(client)[0] == 4
            client.sendall(frame(field(1, 77) + field(11, b"")))
            counts, has_more = [], True
            while has_more:
                number, listing = self.read(client)
                self.assertEqual(number, 11)
                counts.append(sum(number == 1 for number, _ in fields(listing)))
                has_more = (4, 1) in fields(listing)
        self.assertGreater(len(counts), 2)
        self.assertEqual(sum(counts), self.n)
        self.assertEqual([session["name"] for session in self.sessions()], names)
        self.assertEqual(len(self.daemon.run("top", "--once", "-i", "0.1").stdout.splitlines()), self.n + 9)
        self.assertEqual(self.daemon.status()["sessions"], self.n)


class Screen(Look):
    """top on a terminal."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for i in range(30):
            cls.daemon.run("generate", "-n", "1", "--session", "a-session-with-a-long-name-%d" % i, "x")

    def resize(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def begin(self, rows, columns):
        self.master, self.slave = pty.openpty()
        self.addCleanup(os.close, self.master)
        self.addCleanup(os.close, self.slave)
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.process = Program(self.daemon.command("top", "-i", "0.1"), stdin=self.slave, stdout=self.slave, stderr=self.slave)
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.kill)
        self.shown = b""

    def read(self):
        if select.select([self.master], [], [], 0.1)[0]:
            self.shown += os.read(self.master, 65536)

    def draws(self):
        """The lines of every page that has been drawn whole."""
        self.read()
        return [[line.replace(b"\x1b[K", b"").rstrip(b"\r") for line in page.split(b"\x1b[J")[0].split(b"\n")]
                for page in self.shown.split(b"\x1b[H")[1:] if b"\x1b[J" in page]

    def assert_restored(self):
        end = time.monotonic() + DEADLINE
        while b"\x1b[?25h\x1b[?1049l" not in self.shown and time.monotonic() < end:
            self.read()
        self.assertIn(b"\x1b[?25h\x1b[?1049l", self.shown)
        self.assertEqual(termios.tcgetattr(self.slave), self.before)

    def test_it_fits_and_ends_by_q(self):
        self.begin(24, 70)
        pages = until(self.draws, lambda pages: len(pages) >= 3)
        self.assertNotEqual(termios.tcgetattr(self.slave), self.before)
        for page in pages:
            self.assertEqual(len(page), 24)
            self.assertLessEqual(max(len(line) for line in page), 70)
        self.assertIn(b"and", pages[0][-1])
        self.assertIn(b"speed     -", pages[0][1])  # nothing yet to compare with
        self.assertIn(b"tokens/s", pages[-1][1])
        self.assertIn(b"pythia-books", pages[-1][0])
        self.resize(9, 30)
        until(self.draws, lambda pages: len(pages[-1]) == 9 and max(len(line) for line in pages[-1]) <= 30)
        os.write(self.master, b"xq")
        self.assertEqual(self.process.wait(DEADLINE), 0)
        self.assert_restored()

    def test_a_signal_ends_it(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self.begin(24, 80)
            until(self.draws, lambda pages: pages)
            self.process.send_signal(number)
            self.assertEqual(self.process.wait(DEADLINE), -number)
            self.assert_restored()

    def test_the_daemon_goes(self):
        daemon, type(self).daemon = self.daemon, Daemon()
        self.addCleanup(setattr, type(self), "daemon", daemon)
        self.begin(24, 80)
        until(self.draws, lambda pages: pages)
        self.daemon.stop()
        self.assertEqual(self.process.wait(DEADLINE), 75)
        self.assert_restored()
        until(lambda: self.read() or self.shown, lambda shown: b"the daemon has gone away" in shown)
        self.assertLess(self.shown.index(b"\x1b[?1049l"), self.shown.index(b"the daemon has gone away"))

    def test_a_saved_session_is_nothing_for_a_terminal(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        for command in (["save", "a", "-"], ["load", "-", "a"]):
            done = subprocess.run(self.daemon.command("sessions", *command), stdin=slave, stdout=slave,
                                  stderr=subprocess.PIPE, timeout=DEADLINE)
            self.assertEqual(done.returncode, 64)
            self.assertIn(b"redirect standard", done.stderr)


class Verbs(Look):
    def verb(self, *arguments, code=0, **options):
        """What `sessions ARGUMENTS` said, which ended with that code."""
        done = self.daemon.run("sessions", *arguments, **options)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(done.stderr.count(b"\n"), bool(code), done.stderr)
        return done

    def show(self, name):
        return json.loads(self.verb("show", name, "--json").stdout)

    def next_ids(self, name):
        return [token["id"] for token in self.daemon.generate("-n", "10", "--session", name, "")[0]]

    def path(self, name, data=None):
        path = os.path.join(self.daemon.folder, name)
        if data is not None:
            with open(path, "wb") as file:
                file.write(data)
        return path

    def content(self, path):
        with open(path, "rb") as file:
            return file.read()

    def test_what_is_no_command(self):
        for arguments, words in [(["shwo", "a"], b"there are: list, show"), (["show"], b"usage: "),
                                 (["show", "a", "b"], b"usage: "), (["list", "a"], b"usage: "),
                                 (["fork", "a"], b"NAME NEW-NAME"), (["fork", "a", "a"], b"two names"),
                                 (["delete"], b"usage: "), (["save", "a"], b"NAME FILE"), (["load", "a"], b"FILE NAME"),
                                 (["keep", "a"], b"DURATION"), (["keep", "a", "0"], b"'0' is no time"),
                                 (["keep", "a", "-1s"], b"there is no option"), (["keep", "a", "1w"], b"7d"),
                                 (["keep", "a", "36501d"], b"36500d"), (["show", "a/b"], b"a name is"),
                                 (["delete", "a", ""], b"a name is"), (["fork", "a", "n" * 65], b"a name is"),
                                 (["load", "x", "a b"], b"a name is"), (["save", "a", "--replace", "x"], b"--replace"),
                                 (["fork", "a", "b", "--json"], b"--json")]:
            done = self.daemon.run("sessions", *arguments)
            self.assertEqual((done.returncode, done.stdout), (64, b""), (arguments, done.stderr))
            self.assertIn(words, done.stderr)
            self.assertEqual(done.stderr.count(b"\n"), 1)

    def test_what_cannot_be_loaded(self):
        for path, code, words in [(self.path("missing"), 66, b"No such file"), (self.daemon.folder, 66, b"directory"),
                                  (self.path("empty", b""), 65, b"empty"), (os.devnull, 65, b"empty")]:
            done = self.daemon.run("sessions", "load", path, "a")
            self.assertEqual((done.returncode, done.stdout), (code, b""))
            self.assertIn(words, done.stderr)
        done = self.daemon.run("sessions", "load", "-", "a", stdin=b"")
        self.assertEqual(done.returncode, 65)
        self.assertIn(b"standard input is empty", done.stderr)

    def test_show(self):
        self.make("shown")
        listed, shown = self.session("shown"), self.show("shown")
        for entry in (listed, shown):
            del entry["age_ns"], entry["idle_ns"]
        self.assertEqual(listed, shown)
        self.assertIn(b"session   shown of ", self.verb("show", "shown").stdout)
        self.assertIn(b"none", self.verb("show", "none", code=66).stderr)

    def test_fork(self):
        self.make("one")
        self.assertEqual(self.verb("fork", "one", "two").stdout, b"")
        one, two = self.show("one"), self.show("two")
        self.assertEqual((one["position"], one["live"], one["window"]), (two["position"], two["live"], two["window"]))
        self.assertEqual(self.next_ids("two"), self.next_ids("one"))
        self.make("other")
        other = self.show("other")
        self.verb("fork", "one", "other", code=73)
        self.assertEqual(self.show("other")["position"], other["position"])
        self.verb("fork", "--replace", "one", "other")
        self.assertEqual(self.show("other")["position"], self.show("one")["position"])
        self.verb("fork", "none", "new", code=66)
        self.assertIsNone(self.session("new"))

    def test_reset(self):
        self.make("full", "-W", "50")
        fresh = self.next_ids("full")
        self.verb("reset", "full")
        empty = self.show("full")
        self.assertEqual((empty["position"], empty["live"], empty["pages"], empty["window"]), (0, 0, 0, 50))
        self.make("full")
        self.assertEqual(self.next_ids("full"), fresh)
        self.verb("reset", "none", code=66)

    def test_delete(self):
        for name in ("d1", "d2", "d3"):
            self.make(name)
        self.verb("delete", "d1", "none", "d3", code=66)
        self.assertEqual([session["name"] for session in self.sessions() if session["name"].startswith("d")], ["d2"])
        self.verb("delete", "d2")
        self.assertIsNone(self.session("d2"))

    def test_a_busy_session_is_left_alone(self):
        self.stream("--session", "busy")
        saved = self.path("busy.saved", b"as it was")
        for arguments in (["reset", "busy"], ["delete", "busy"], ["save", "busy", saved]):
            self.verb(*arguments, code=75)
        self.assertEqual(self.content(saved), b"as it was")
        self.assertEqual(self.session("busy")["state"], "running")

    def test_save_and_load(self):
        self.make("original", "-W", "70", "-K", "8")
        saved = self.path("saved", b"what was there before")
        os.chmod(saved, 0o644)
        self.verb("save", "original", saved)
        data = self.content(saved)
        self.assertGreater(len(data), 1000)
        self.assertEqual(stat.S_IMODE(os.stat(saved).st_mode), 0o600)  # it holds what was said
        self.assertEqual([name for name in os.listdir(self.daemon.folder) if name.startswith("saved")], ["saved"])
        piped = self.verb("save", "original", "-").stdout
        wanted = self.next_ids("original")
        for name, arguments, stdin in [("copy1", [saved], b""), ("copy2", ["-"], data), ("copy3", ["-"], piped)]:
            self.verb("load", *arguments, name, stdin=stdin)
            copy = self.show(name)
            self.assertEqual((copy["window"], copy["slack"]), (70, 8))
            self.assertIn(copy["state"], ("idle", "stored"))  # until its next request, perhaps
            self.assertEqual(self.next_ids(name), wanted)
        position = self.show("copy1")["position"]
        self.verb("load", saved, "copy1", code=73)
        self.assertEqual(self.show("copy1")["position"], position)
        self.verb("load", "--replace", saved, "copy1")
        self.assertLess(self.show("copy1")["position"], position)

    def test_one_unread_saved_session_a_connection(self):
        """Its memory is the daemon's until somebody reads it."""
        self.make("large")
        with wire.Client(self.daemon) as client:
            def saved(*requests):
                client.sendall(b"".join(wire.session(request, wire.SAVE, b"large") for request in requests))

            def answers(n):
                found = {}
                for _ in range(n):
                    message, descriptors = wire.read_frame(client)
                    for descriptor in descriptors:
                        os.close(descriptor)
                    message = wire.fields(message)
                    found[message[1][0]] = wire.SESSION if wire.SESSION in message else wire.FAILED if wire.FAILED in message else None
                return found

            saved(1, 2)
            self.assertEqual(answers(2), {1: wire.SESSION, 2: wire.FAILED})
            def unread():
                return struct.unpack("i", fcntl.ioctl(client, termios.FIONREAD, b"1234"))[0]

            saved(3)
            n_unread = until(unread, lambda n: n > 0)
            saved(4)
            until(unread, lambda n: n > n_unread)
            self.assertEqual(answers(2), {3: wire.SESSION, 4: wire.FAILED})
            saved(5)
            self.assertEqual(answers(1), {5: wire.SESSION})

    def test_what_is_no_saved_session_changes_nothing(self):
        self.make("safe")
        good = self.verb("save", "safe", "-").stdout
        before = self.show("safe")["position"]
        for bad in (b"x", b"GGUF" * 1000, good[:-1], good[:len(good) // 2], good + b"x",
                    good[:len(good) // 2] + bytes([good[len(good) // 2] ^ 1]) + good[len(good) // 2 + 1:]):
            self.verb("load", "--replace", "-", "safe", code=65, stdin=bad)
            self.verb("load", "-", "new", code=65, stdin=bad)
        self.assertEqual(self.show("safe")["position"], before)
        self.assertIsNone(self.session("new"))

    def test_a_save_that_fails_leaves_what_was_there(self):
        self.make("whole")
        path = self.path("precious", b"precious")
        self.verb("save", "none", path, code=66)
        self.verb("save", "whole", self.daemon.folder, code=73)
        self.verb("save", "whole", self.path("no/folder"), code=73)
        self.verb("save", "whole", "/dev/full", code=74)
        # A disk that is full, as a file may become no longer.
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        done = subprocess.run(self.daemon.command("sessions", "save", "whole", path), capture_output=True, restore_signals=False,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit)))
        self.assertEqual((done.returncode, done.stderr.count(b"\n")), (74, 1))
        self.assertEqual(self.content(path), b"precious")
        self.assertEqual([name for name in os.listdir(self.daemon.folder) if name.startswith("precious")], ["precious"])

    def test_keep(self):
        self.make("kept")
        for text, ttl_ms in [("7d", 604800000), ("90s", 90000), ("90", 90000), ("forever", 0)]:
            self.verb("keep", "kept", text)
            self.assertEqual(self.show("kept")["ttl_ms"], ttl_ms)
        self.verb("keep", "kept", "default")
        self.verb("keep", "none", "7d", code=66)
        self.verb("keep", "kept", "100ms")
        until(lambda: self.session("kept"), lambda session: session is None)


class Users(Look):
    options = ("--socket-mode", "666")

    @classmethod
    def setUpClass(cls):
        if os.getuid() or not shutil.which("setpriv"):
            skip("sessions of two users", "only root with setpriv can be another user")
        super().setUpClass()
        os.chmod(cls.daemon.folder, 0o711)
        cls.client = os.path.join(cls.daemon.folder, "client")  # where everybody may run it
        shutil.copy(CLIENT, cls.client)
        os.chmod(cls.client, 0o755)

    def as_nobody(self, command, *arguments, **options):
        return subprocess.run(["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", self.client, command,
                               "--socket", self.daemon.socket, *arguments], capture_output=True, timeout=DEADLINE, **options)

    def test_a_user_sees_nobody_elses(self):
        self.make("secret")
        self.stream("--session", "hidden")
        for command in (["sessions", "list", "--json"], ["ps", "--json"]):
            self.assertEqual(json.loads(self.as_nobody(*command).stdout), [])
        screen = self.as_nobody("top", "--once", "-i", "0.1")
        self.assertEqual((screen.returncode, len(screen.stdout.splitlines())), (0, 4))

        done = self.as_nobody("generate", "-n", "3", "--session", "secret", "x")
        self.assertEqual(done.returncode, 0, done.stderr)
        theirs = json.loads(self.as_nobody("sessions", "list", "--json").stdout)
        self.assertEqual([(s["name"], s["uid"], s["generated_tokens"]) for s in theirs], [("secret", NOBODY, 3)])
        screen = self.as_nobody("top", "--once", "-i", "0.1").stdout
        self.assertNotIn(b"hidden", screen)
        self.assertEqual(len(re.findall(rb"(?m)^root ", screen)), 0)
        everybody = {(s["name"], s["uid"]) for s in self.sessions()}  # root's list
        self.assertEqual(everybody, {("secret", 0), ("hidden", 0), ("secret", NOBODY)})

    def test_a_user_touches_nobody_elses(self):
        self.make("private")
        for arguments in (["show", "private"], ["fork", "private", "stolen"], ["reset", "private"], ["delete", "private"],
                          ["save", "private", "-"], ["keep", "private", "1s"]):
            done = self.as_nobody("sessions", *arguments)
            self.assertEqual((done.returncode, done.stdout), (66, b""), arguments)
        self.assertEqual(self.session("private")["state"], "idle")
        self.assertNotIn("stolen", [session["name"] for session in self.sessions()])


if __name__ == "__main__":
    unittest.main()
