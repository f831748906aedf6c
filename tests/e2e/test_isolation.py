"""What one user can neither see nor touch of another's, and what a client cannot do to its own ring. As two users, where root
runs it."""
import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import shutil
import socket
import stat
import subprocess
import unittest

from streamkv_test import CLIENT, DEADLINE, LIBC, Case, Daemon
from tenants import USERS, as_user, drop_sessions, needs_root, run_alone, run_clients, wait_for, what_was_said
import wire

ALICE, BOB = USERS[:2] if len(USERS) > 1 else (None, None)
SECRET, NO_SECRET = b"alices-diary", b"nobodys-book"
POLICY = {"sink": 4, "window": 40}
TURNS = [dict(POLICY, prompt="It was a dark night, and the king", n=50), {"prompt": "", "n": 50}]


class Isolation(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--socket-mode", "666", "--weights", "f32")
        os.chmod(cls.daemon.folder, 0o711)

    def setUp(self):
        needs_root(self.id())

    def tearDown(self):
        self.doCleanups()
        self.assert_idle()

    def one(self, uid, *asks):
        """One client's answers."""
        return run_clients(self.daemon, {uid: [list(asks)]})[uid][0]

    def alone(self, *asks):
        """What such a session would have said, had it ever been the only one."""
        daemon = Daemon("--weights", "f32")
        try:
            return run_alone(daemon, [[dict(ask, session="x") for ask in asks]])[0]
        finally:
            daemon.stop()

    def assert_same(self, answers, expected):
        self.assertEqual([what_was_said(answer) for answer in answers], [what_was_said(answer) for answer in expected])

    # --- Sessions ---

    def test_a_name_is_ones_own(self):
        """Bob's session of the name of Alice's is another, and both go on as if there were no other."""
        turns = [dict(turn, session="shared-name") for turn in TURNS]
        other = [dict(POLICY, prompt="The morning", n=20, session="shared-name"),
                 {"prompt": "and", "n": 20, "session": "shared-name"}]
        alices, bobs = self.one(ALICE, turns[0]), self.one(BOB, other[0])
        for uid in (ALICE, BOB):
            self.addCleanup(drop_sessions, self.daemon, uid, ["shared-name"])
        self.assertEqual(bobs[0]["reused_tokens"], 0)
        alices, bobs = alices + self.one(ALICE, turns[1]), bobs + self.one(BOB, other[1])
        self.assertGreater(alices[1]["reused_tokens"], 0)
        self.assert_same(alices, self.alone(*TURNS))
        self.assert_same(bobs, self.alone(*other))
        self.assertEqual(self.daemon.status()["sessions"], 2)

    def pry(self, name):
        """All that the daemon tells who asks about a session of that name, and what it tells of all."""
        told = []
        for verb in (wire.SHOW, wire.FORK, wire.RESET, wire.DELETE, wire.SAVE, wire.KEEP):
            with wire.Client(self.daemon) as client:
                client.sendall(wire.session(1, verb, name, *([wire.field(3, b"mine")] if verb == wire.FORK else [])))
                told.append(wire.read_frame(client)[0])
        with wire.Client(self.daemon) as client:
            client.sendall(wire.frame(wire.field(1, 1) + wire.field(11, b"")))
            listing = wire.read_frame(client)[0]
            assert wire.LISTING in wire.fields(listing)
        return told, listing

    def assert_nothing_told(self):
        told, listing = as_user(BOB, self.pry, SECRET)
        for_none, _ = as_user(BOB, self.pry, NO_SECRET)
        self.assertEqual([message.replace(SECRET, NO_SECRET) for message in told], for_none)
        for message in told:
            self.assertIn(wire.FAILED, wire.fields(message))
        self.assertNotIn(SECRET, listing)
        self.assertNotIn(wire.varint(ALICE), listing)

    def test_a_session_of_anothers_is_one_that_is_not_there(self):
        """Whatever Bob asks, while it is idle and while it runs; and it goes on as if he had not."""
        first = self.one(ALICE, dict(TURNS[0], session=SECRET.decode()))
        self.addCleanup(drop_sessions, self.daemon, ALICE, [SECRET.decode()])
        self.assert_nothing_told()
        self.assert_same(first + self.one(ALICE, dict(TURNS[1], session=SECRET.decode())), self.alone(*TURNS))
        with as_user_client(ALICE, self.daemon) as alice:
            alice.sendall(wire.generate(1, b"", 0, session=SECRET, endless=True))
            wait_for(self.daemon, paused=1)  # its ring is full
            self.assert_nothing_told()

    def test_what_is_kept_on_disk(self):
        """From one start of the daemon to the next: not even the names of its files can be seen, and everybody goes on with
        a session of one's own."""
        turns = {ALICE: TURNS, BOB: [dict(POLICY, prompt="The morning", n=20), {"prompt": "and", "n": 20}]}
        state = os.path.join(self.daemon.folder, "kept")
        options = ("--socket-mode", "666", "--weights", "f32", "--state-dir", state)
        answers = {uid: [] for uid in turns}
        for i in range(2):
            daemon = Daemon(*options)
            try:
                for uid in turns:
                    ask = dict(turns[uid][i], session=SECRET.decode())
                    answers[uid] += run_clients(daemon, {uid: [[ask]]})[uid][0]
            finally:
                daemon.stop()
            files = [os.path.join(folder, name) for folder, _, names in os.walk(state) for name in names]
            self.assertGreaterEqual(len(files), 2)

            def can_see():
                seen = []
                for path in (state, *files):
                    try:
                        os.close(os.open(path, os.O_RDONLY))
                        seen.append(path)
                    except PermissionError:
                        pass
                return seen

            self.assertEqual(as_user(BOB, can_see), [])
        for uid in turns:
            self.assert_same(answers[uid], self.alone(*turns[uid]))

    # --- Requests ---

    def test_a_cancel_reaches_ones_own_connection_alone(self):
        """Not another user's request of that number, nor one of one's own on another connection."""
        n = 600  # more than the ring has room for
        (expected,), = run_alone(self.daemon, [[{"prompt": "It was", "n": n}]])

        def cancel_them():
            with wire.Client(self.daemon) as client:
                for target in range(1, 20):
                    client.sendall(wire.cancel(target))
                client.sendall(wire.status(1))
                client.answer(1, wire.STATUS)  # so they have been seen

        with as_user_client(ALICE, self.daemon) as alice:
            alice.sendall(wire.generate(7, b"It was", n))
            wait_for(self.daemon, paused=1)
            for uid in (BOB, ALICE):
                as_user(uid, cancel_them)
            slots = alice.take_slots()
            while not wire.is_last(slots):
                alice.wait()
                slots += alice.take_slots()
            self.assertEqual(wire.ids_of(slots), expected["ids"])

    def test_status_tells_of_ones_own_alone(self):
        """Not how much the others ask, nor how long their answers are; who runs the daemon sees all."""
        def status():
            return json.loads(subprocess.run([CLIENT, "status", "--json", "--socket", self.daemon.socket], check=True,
                                             capture_output=True, timeout=60).stdout)

        told = ("sessions", "running", "requests", "prompt_tokens", "generated_tokens", "pages_used", "steps", "connections")
        before, all_before = as_user(BOB, status), self.daemon.status()
        self.addCleanup(drop_sessions, self.daemon, ALICE, ["heard"])
        self.one(ALICE, dict(POLICY, prompt="It was a dark night", n=20, session="heard"))
        after, all_after = as_user(BOB, status), self.daemon.status()
        self.assertEqual({key: after[key] for key in told}, {key: before[key] for key in told})
        self.assertEqual(all_after["sessions"], all_before["sessions"] + 1)
        self.assertEqual(all_after["generated_tokens"], all_before["generated_tokens"] + 20)
        own = as_user(ALICE, status)
        self.assertEqual((own["sessions"], own["connections"]), (1, 1))
        self.assertGreaterEqual(own["generated_tokens"], 20)

    def test_one_user_leaves_connections_to_the_others(self):
        daemon = Daemon("--socket-mode", "666", "--max-connections", "8")
        self.addCleanup(daemon.stop)
        os.chmod(daemon.folder, 0o711)

        def connect(n):
            with contextlib.ExitStack() as clients:
                for done in range(n):
                    try:
                        clients.enter_context(wire.Client(daemon))
                    except Exception:  # refused: no welcome
                        return done
            return n

        self.assertEqual(as_user(ALICE, connect, 8), 6)
        wait_for(daemon, connections=1)  # the one that asks
        with as_user_client(ALICE, daemon), as_user_client(ALICE, daemon), as_user_client(ALICE, daemon), \
                as_user_client(ALICE, daemon), as_user_client(ALICE, daemon), as_user_client(ALICE, daemon):
            self.assertEqual(as_user(BOB, connect, 1), 1)

    # --- Who one is ---

    def test_the_sockets_mode(self):
        private = Daemon()
        self.addCleanup(private.stop)
        os.chmod(private.folder, 0o711)
        self.assertEqual(stat.S_IMODE(os.stat(private.socket).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(self.daemon.socket).st_mode), 0o666)

        def can_connect(path):
            with socket.socket(socket.AF_UNIX) as client:
                return client.connect_ex(path) == 0

        self.assertFalse(as_user(BOB, can_connect, private.socket))
        self.assertTrue(as_user(BOB, can_connect, self.daemon.socket))

        def can_lock(path):  # which would keep the next daemon from starting
            try:
                os.close(os.open(path + ".lock", os.O_RDONLY))
                return True
            except PermissionError:
                return False

        self.assertFalse(as_user(BOB, can_lock, self.daemon.socket))

    def test_a_connection_is_whose_who_made_it(self):
        """Handed on to another user's process, it is still Alice's; and what a client says of itself counts nothing."""
        first = self.one(ALICE, dict(TURNS[0], session="handed-on"))
        self.addCleanup(drop_sessions, self.daemon, ALICE, ["handed-on"])
        client = as_user_client(ALICE, self.daemon)

        def go_on():
            client.sendall(wire.generate(1, b"", TURNS[1]["n"], session=b"handed-on"))
            client.answer(1, wire.FINISHED)
            return wire.ids_of(client.take_slots())

        with client:
            ids = as_user(BOB, go_on)
        self.assertEqual([first[0]["ids"], ids], [answer["ids"] for answer in self.alone(*TURNS)])

    # --- The ring ---

    def test_a_ring_is_opened_by_nobody_else(self):
        """Nor any other descriptor or memory of Alice's client or of the daemon: Alice's client opens its own."""
        program = os.path.join(self.daemon.folder, "client")
        shutil.copy(CLIENT, program)  # where every user finds it
        with subprocess.Popen([program, "generate", "--socket", self.daemon.socket, "--endless", "It was"],
                              stdout=subprocess.PIPE, user=ALICE, group=ALICE, extra_groups=[]) as alice:
            self.addCleanup(alice.kill)
            self.assertTrue(alice.stdout.read(10))

            def open_rings(pid, numbers):
                opened = []
                for name in ["mem", "maps", *("fd/%d" % number for number in numbers)]:
                    try:
                        os.close(os.open("/proc/%d/%s" % (pid, name), os.O_RDONLY | os.O_NONBLOCK))
                        opened.append(name)
                    except OSError:
                        pass
                return opened

            numbers = [int(name) for name in os.listdir("/proc/%d/fd" % alice.pid)]
            rings = [number for number in numbers if "streamkv-ring" in os.readlink("/proc/%d/fd/%d" % (alice.pid, number))]
            self.assertEqual(len(rings), 1)
            of_daemon = [int(name) for name in os.listdir("/proc/%d/fd" % self.daemon.process.pid)]
            self.assertEqual(as_user(BOB, open_rings, alice.pid, numbers), [])
            self.assertEqual(as_user(BOB, open_rings, self.daemon.process.pid, of_daemon), [])
            self.assertEqual(as_user(ALICE, open_rings, self.daemon.process.pid, of_daemon), [])
            self.assertIn("fd/%d" % rings[0], as_user(ALICE, open_rings, alice.pid, numbers))
            alice.kill()


class FullCache(Case):
    """Of who has the pages that one lacks, a refusal tells nothing."""

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--socket-mode", "666", "--weights", "f32", "--kv-memory", "6M", "--max-batch", "1",
                            "--step-tokens", "16", "--queue-timeout", "2", "-W", "200")
        os.chmod(cls.daemon.folder, 0o711)
        cls.client = shutil.copy(CLIENT, os.path.join(cls.daemon.folder, "client"))

    def setUp(self):
        needs_root(self.id())

    def ask(self, uid, *arguments):
        command = [self.client, "generate", "--socket", self.daemon.socket, "--ignore-eos", *arguments]
        return as_user(uid, lambda: subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE))

    def test_who_holds_it(self):
        names = [SECRET.decode() + str(i) for i in range(2)]
        self.addCleanup(drop_sessions, self.daemon, ALICE, names)
        too_much = []
        for name in names:
            too_much.append(self.ask(BOB, "--mode", "dense", "-n", "10000", "Hello").stderr)
            self.assertEqual(self.ask(ALICE, "--session", name, "-n", "230", "It was a dark night").returncode, 0)
        self.assertIn(b"pages of KV cache, and there are", too_much[0])
        self.assertEqual(len(set(too_much)), 1)
        shutil.rmtree(os.path.join(self.daemon.folder, "state"))  # no idle session can be stored
        refused = self.ask(BOB, "-n", "230", "Hello")
        self.assertEqual(refused.returncode, 75)
        self.assertIn(b"none can be stored: No such file or directory", refused.stderr)
        self.assertNotIn(SECRET, refused.stderr)
        self.assertNotIn(str(ALICE).encode(), refused.stderr)
        self.assertIn(SECRET.decode(), self.daemon.log())  # who keeps the daemon wants to know


class as_user_client(wire.Client):
    """A connection of that user's; the process stays what it is."""

    def __init__(self, uid, daemon, **options):
        os.seteuid(uid)
        try:
            super().__init__(daemon, **options)
        finally:
            os.seteuid(0)


class OwnRing(Case):
    """The client can do nothing to the slots but read them, by whatever way."""

    def setUp(self):
        self.client = wire.Client(self.daemon)
        self.addCleanup(self.client.close)
        self.ring, self.cursor = self.client.descriptors[:2]
        self.n_bytes = os.fstat(self.ring).st_size

    def refused(self, call, *arguments, **options):
        with self.assertRaises(OSError) as caught:
            call(*arguments, **options)
        return caught.exception

    def test_no_writable_map(self):
        again = os.open("/proc/self/fd/%d" % self.ring, os.O_RDWR)  # with every right that a descriptor can have
        self.addCleanup(os.close, again)
        for descriptor in (self.ring, again):
            self.refused(mmap.mmap, descriptor, self.n_bytes)
            self.refused(mmap.mmap, descriptor, self.n_bytes, prot=mmap.PROT_WRITE)
            self.refused(os.pwrite, descriptor, b"x", 0)
            self.refused(os.posix_fallocate, descriptor, 0, self.n_bytes + 4096)
            self.assertLess(LIBC.fallocate(descriptor, 3, ctypes.c_long(0), ctypes.c_long(4096)), 0)  # punches a hole
        mmap.mmap(self.cursor, 4096)[0:1] = b"\0"  # as the cursor's may be

    def test_a_map_that_stays_readable(self):
        LIBC.mmap.restype = ctypes.c_void_p
        address = LIBC.mmap(None, ctypes.c_size_t(self.n_bytes), mmap.PROT_READ, mmap.MAP_SHARED, self.ring,
                            ctypes.c_long(0))
        self.assertEqual(ctypes.string_at(address, 8), bytes.fromhex("ff736b72696e6731"))
        of_map = ctypes.c_void_p(address), ctypes.c_size_t(4096)
        self.assertEqual(LIBC.mprotect(*of_map, mmap.PROT_READ), 0)
        self.assertLess(LIBC.mprotect(*of_map, mmap.PROT_READ | mmap.PROT_WRITE), 0)
        self.assertLess(LIBC.madvise(*of_map, 9), 0)  # MADV_REMOVE
        self.assertEqual(LIBC.munmap(ctypes.c_void_p(address), ctypes.c_size_t(self.n_bytes)), 0)

    def test_neither_size_nor_seals_change(self):
        for descriptor in (self.ring, self.cursor):
            n_bytes = os.fstat(descriptor).st_size
            self.refused(os.ftruncate, descriptor, n_bytes - 1)
            self.refused(os.ftruncate, descriptor, n_bytes + 4096)
            self.refused(fcntl.fcntl, descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


if __name__ == "__main__":
    unittest.main()
