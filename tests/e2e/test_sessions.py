"""sessions: what is done with them by name, and who is shown them."""
import fcntl
import json
import os
import pty
import re
import resource
import shutil
import stat
import struct
import subprocess
import termios
import time
import unittest

from look import Look, until
from streamkv_test import BACKEND, CLIENT, DEADLINE, Daemon, skip
import wire

NOBODY = 65534


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
        until(lambda: self.session("busy"), bool)  # which its request makes once it is no longer queued
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

    def test_another_who_saved_is_just_going(self):
        """Its connection is over, and the engine, in the middle of a step, does not know yet."""
        self.make("taken")
        for _ in range(10):
            with wire.Client(self.daemon) as first, wire.Client(self.daemon) as second:
                first.sendall(wire.session(1, wire.SAVE, b"taken"))
                first.answer(1, wire.SESSION)
                first.sendall(wire.generate(2, b"It was a dark night. " * 200, 1))
                until(lambda: self.daemon.status()["running"], lambda n: n == 1)
                first.close()
                second.sendall(wire.session(1, wire.SAVE, b"taken"))
                second.answer(1, wire.SESSION)
            until(lambda: self.daemon.status()["running"], lambda n: n == 0)

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

    def test_pages_of_another_format_are_refused(self):
        """F16 and BF16 take as many bytes, so nothing but the layout's name tells them apart."""
        self.make("halves")
        halves = self.path("halves.saved")
        self.verb("save", "halves", halves)
        other = Daemon("--kv", "bf16")
        self.addCleanup(other.stop)
        refused = other.run("sessions", "load", halves, "halves")
        self.assertEqual((refused.returncode, refused.stderr.count(b"\n")), (65, 1), refused.stderr)
        for words in (b" f16", b" bf16", b"--kv"):
            self.assertIn(words, refused.stderr)
        other.generate("-n", "5", "--session", "own", "It was a dark night")
        saved = other.run("sessions", "save", "own", "-").stdout
        self.assertEqual(len(saved), len(self.content(halves)))
        self.assertEqual(other.run("sessions", "load", "-", "copy", stdin=saved).returncode, 0)
        ids = [[token["id"] for token in other.generate("-n", "10", "--session", name, "")[0]] for name in ("own", "copy")]
        self.assertEqual(ids[0], ids[1])
        self.verb("load", "-", "theirs", code=65, stdin=saved)

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

    def test_a_saved_session_is_nothing_for_a_terminal(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        for command in (["save", "a", "-"], ["load", "-", "a"]):
            done = subprocess.run(self.daemon.command("sessions", *command), stdin=slave, stdout=slave,
                                  stderr=subprocess.PIPE, timeout=DEADLINE)
            self.assertEqual(done.returncode, 64)
            self.assertIn(b"redirect standard", done.stderr)


class FromOneToTheNext(unittest.TestCase):
    """What is left of a session for another one, and for the daemon that comes next."""

    def begin(self, *options):
        self.daemon = Daemon(*options, manager=True)
        self.addCleanup(self.daemon.stop)

    def names(self):
        return [session["name"] for session in json.loads(self.daemon.run("sessions", "list", "--json").stdout)]

    def saved(self, name):
        path = os.path.join(self.daemon.folder, "saved")
        self.assertEqual(self.daemon.run("sessions", "save", name, path).returncode, 0)
        with open(path, "rb") as file:
            return path, file.read()

    def restart(self):
        self.daemon.process.terminate()
        self.assertEqual(self.daemon.process.wait(DEADLINE), 0)
        self.daemon.launch()

    def test_a_saved_session_holds_its_own_text_alone(self):
        """A file has whole pages: of those, what the session has not written is 0, whoever had them before."""
        pages = []
        for before in (False, True):
            self.begin()
            if before:
                self.daemon.generate("--session", "secret", "-n", "300", "--ignore-eos", "The password is")
                self.daemon.run("sessions", "delete", "secret")
            self.daemon.generate("--session", "x", "-n", "3", "--ignore-eos", "It was")
            pages.append(self.saved("x")[1][20480:])  # behind the header
        self.assertGreater(len(pages[0]), 1000)
        self.assertEqual(pages[0], pages[1])

    def test_time_to_live_begins_when_it_is_loaded_or_forked(self):
        """Also for the next daemon, whatever the file said before."""
        second = 8 if BACKEND else 1  # a simulated device takes its time to start
        self.begin("--session-ttl", str(5 * second))
        self.daemon.generate("--session", "a", "-n", "2", "It was")
        path, _ = self.saved("a")
        self.restart()  # it is stored now
        time.sleep(3 * second)
        self.assertEqual(self.daemon.run("sessions", "fork", "a", "forked").returncode, 0)
        self.assertEqual(self.daemon.run("sessions", "load", path, "loaded").returncode, 0)
        self.restart()
        time.sleep(2.5 * second)
        self.assertEqual(self.names(), ["forked", "loaded"])

    def test_a_beginning_in_common_stays(self):
        """Where memory is short, the session that has what waiting requests begin with is the last to go."""
        self.begin("--weights", "f32", "--kv-memory", "24M", "--max-batch", "16", "--step-tokens", "32", "--queue-timeout", "0")
        text = "It was a dark night, and the king had gone to the sea. " * 24
        self.daemon.generate("--session", "kept", "--mode", "dense", "-n", "1", text)
        before = self.daemon.status()["prompt_tokens"]
        n_tokens = 2 if BACKEND else 20  # a simulated device's take seconds
        with wire.Client(self.daemon, n_slots=1024) as client:  # all at once, and soon done: none waits for longer than patience
            client.sendall(b"".join(wire.generate(i, b"%s %d" % (text.encode(), i), n_tokens, mode=wire.DENSE) for i in range(1, 9)))
            n_finished = 0
            while n_finished < 8:
                message, _ = wire.read_frame(client)
                found = wire.fields(message)
                self.assertTrue(message and wire.FAILED not in found, message)
                n_finished += wire.FINISHED in found
        self.assertLess(self.daemon.status()["prompt_tokens"] - before, 200)  # of some 2700

    def test_what_is_asked_in_a_row_is_done_in_a_row(self):
        """Also where the session is on its way somewhere meanwhile."""
        self.begin()
        for verb in (wire.RESET, wire.DELETE):
            self.daemon.generate("--session", "s", "-n", "300", "--ignore-eos", "It was")
            with wire.Client(self.daemon) as client:
                client.sendall(wire.session(1, wire.SAVE, b"s") + wire.session(2, verb, b"s") +
                               wire.generate(3, b"Hello there", 3, session=b"s"))
                told = {}
                while len(told) < 3:
                    message, descriptors = wire.read_frame(client)
                    for descriptor in descriptors:
                        os.close(descriptor)
                    found = wire.fields(message)
                    body = next(number for number in found if number > 1)
                    if body != wire.PROGRESS:
                        told[found[1][0]] = body, wire.fields(found[body][0])
            self.assertEqual([told[request][0] for request in (1, 2)], [wire.SESSION] * 2)
            self.assertNotIn(5, told[3][1])  # reused_tokens: it began anew, or was asked to come again


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
        until(lambda: self.session("hidden"), bool)
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
