"""Sessions and clients that come and go, many and badly: at the end every counter is where it was. Minutes long as
e2e_churn_nightly."""
import os
import random
import signal
import socket
import subprocess
import time
import unittest

from streamkv_test import DEADLINE, LIBC, SANITIZED, Case, Daemon, Program
from tenants import NIGHTLY, Clients, drop_sessions, needs_descriptors, run_alone, run_clients, what_was_said
import wire

ME = os.getuid()
CHECK = {"prompt": "It was a dark night, and the king", "n": 40, "sink": 4, "window": 28}


class Churn(Case):
    model = "tiny-llama"

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(*cls.options, model=cls.model)
        (cls.expected,), = run_alone(cls.daemon, [[CHECK]])
        assert cls.expected["stop"] == "limit" and cls.expected["evicted_tokens"], cls.expected

    def tearDown(self):
        self.assert_idle()
        (answer,), = run_alone(self.daemon, [[CHECK]])
        self.assertEqual(what_was_said(answer), what_was_said(self.expected))


class Sessions(Churn):
    options = ("--queue-timeout", "0", "--kv-memory", "64M")
    n_all = 1000 if SANITIZED else 10000

    def test_sessions_that_are_used_once(self):
        """Opened, used for a token or three, and dropped: to their end, cancelled, or left."""
        n_clients, r = 20, random.Random(3)
        clients = [[{"prompt": "It was" + " so" * r.randrange(9), "n": r.randint(1, 3), "again": r.random() < 0.1,
                     **r.choice(({}, {}, {}, {"cancel": r.randrange(2)}, {"leave": r.randrange(2)}))}
                    for _ in range(self.n_all // n_clients)] for _ in range(n_clients)]
        before = self.daemon.status()
        told = run_clients(self.daemon, {ME: clients})[ME]
        stops = [answer["stop"] for answers in told for answer in answers]
        self.assertEqual(len(stops), self.n_all)
        self.assertLessEqual(set(stops), {"limit", "cancelled", "left"})
        self.assertGreater(stops.count("limit"), self.n_all // 2)
        self.assert_idle()
        self.assertEqual(self.daemon.status()["requests"] - before["requests"], self.n_all)


class NamedSessions(Churn):
    """Sessions that are kept, of which a few have room at once: the others lie on disk meanwhile."""
    options = ("--queue-timeout", "0", "--kv-memory", "2M", "--window", "60", "--max-batch", "16", "--step-tokens", "64")
    n_all, n_turns = (150, 2) if SANITIZED else (1500, 3)

    def test_each_goes_on_from_where_it_stood(self):
        n_clients, n_kinds = 20, 7
        kinds = [dict(prompt="It was" + " so" * i, n=1 + i % 3, sink=2, window=14 + i) for i in range(n_kinds)]
        chains = [[dict(kinds[i % n_kinds], session="s%d" % i)] * self.n_turns for i in range(self.n_all)]
        clients = [[turn for turns in zip(*chains[client::n_clients]) for turn in turns] for client in range(n_clients)]
        alone = run_alone(self.daemon, [[dict(kind, session="alone-%d" % i)] * self.n_turns for i, kind in enumerate(kinds)])
        told = run_clients(self.daemon, {ME: clients})[ME]
        n_turns = {}
        for asks, answers in zip(clients, told, strict=True):
            for ask, answer in zip(asks, answers, strict=True):
                name = ask["session"]
                expected = alone[int(name[1:]) % n_kinds][n_turns.get(name, 0)]
                n_turns[name] = n_turns.get(name, 0) + 1
                self.assertEqual(what_was_said(answer), what_was_said(expected))
        status = self.daemon.status()
        self.assertEqual(status["sessions"], self.n_all + n_kinds)
        self.assertGreater(status["stored"], self.n_all // 2)
        drop_sessions(self.daemon, ME, [*n_turns, *("alone-%d" % i for i in range(n_kinds))])
        left = [name for _, _, names in os.walk(os.path.join(self.daemon.folder, "state")) for name in names]
        self.assertLess(len(left), 3, left)


def most_connections(daemon, clients):
    """While they run."""
    most = 0
    while clients.are_running():
        most = max(most, daemon.status()["connections"])
    return most


class Together(Churn):
    """A thousand clients at the same moment, fewer where a sanitizer makes each slow."""
    n_clients = 300 if SANITIZED else 1000
    options = ("--max-connections", str(n_clients + 8), "--queue", "4096", "--queue-timeout", "0", "--kv-memory", "64M")

    def test_all_at_once(self):
        needs_descriptors(self.id(), 8 * self.n_clients + 200)
        clients = Clients(self.daemon, {ME: [[CHECK]] * self.n_clients}, together=True)
        self.assertGreater(most_connections(self.daemon, clients), self.n_clients)
        for answers in clients.wait()[ME]:
            self.assertEqual(what_was_said(answers[0]), what_was_said(self.expected))


class InLine(Churn):
    """The same with room for a few of them: the others wait to be taken."""
    n_clients = Together.n_clients
    options = ("--max-connections", "40", "--queue-timeout", "0", "--kv-memory", "64M")

    def test_more_than_are_taken(self):
        needs_descriptors(self.id(), 5 * self.n_clients + 200)
        clients = Clients(self.daemon, {ME: [[dict(CHECK, n=5)]] * self.n_clients})
        self.assertLessEqual(most_connections(self.daemon, clients), 40)
        for answers in clients.wait()[ME]:
            self.assertEqual((answers[0]["stop"], answers[0]["ids"]), ("limit", self.expected["ids"][:5]))


class Forked:
    """A child of this process, with what of subprocess.Popen is wanted here."""

    def __init__(self, pid):
        self.pid = pid

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Killed(Churn):
    """Clients that are killed whenever it may be. A few have pages, the others wait for them."""
    options = ("--ring-slots", "256", "--stall-timeout", "0", "--queue-timeout", "0", "--queue", "16", "--kv-memory", "1M",
               "--window", "60", "--max-batch", "4", "--step-tokens", "64", "--hello-timeout", "60")
    seconds, n_at_once = 300 if NIGHTLY and not SANITIZED else 20, 24

    # --- What they are doing when it comes: each for ever ---

    def streams(self, _, *options):
        return Program(self.daemon.command("generate", "--endless", *options, "It was"), stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def goes_on_with_a_session(self, r):
        return self.streams(r, "--session", "s%d" % r.randrange(4))

    def reads_a_long_prompt(self, r):
        return self.forked(lambda client: client.sendall(wire.generate(1, b"so " * r.randrange(100000, 300000), 3)))

    def does_not_read(self, r):
        """Its ring is full soon, of one request or several."""
        asks = b"".join(wire.generate(i, b"It was", 0, endless=True) for i in range(1, r.randint(2, 6)))
        return self.forked(lambda client: client.sendall(asks))

    def has_sent_half_a_frame(self, r):
        whole = wire.generate(1, b"It was " * 50, 3)
        return self.forked(lambda client: client.sendall(whole[:r.randrange(1, len(whole))]))

    def has_not_said_hello(self, r):
        return self.forked(lambda client: client.sendall(wire.HELLO[:r.randrange(len(wire.HELLO))]), greets=False)

    def says_nothing(self, _):
        return self.forked(lambda client: None)

    def does_not_read_its_session(self, r):
        ask = wire.generate(1, b"It was", 0, session=b"s%d" % r.randrange(4), endless=True)
        return self.forked(lambda client: client.sendall(ask))

    def forked(self, act, greets=True):
        child = os.fork()
        if child == 0:
            try:
                LIBC.prctl(1, signal.SIGKILL)
                if greets:
                    client = wire.Client(self.daemon)
                else:
                    client = socket.socket(socket.AF_UNIX)
                    client.connect(self.daemon.socket)
                act(client)
                signal.pause()
            finally:
                os._exit(1)
        return Forked(child)

    # --- The killing ---

    def kill_for(self, seconds, kinds):
        """Longer where it is slow: until some were killed while there were requests of every state."""
        r, victims, n_killed = random.Random(seconds), [], 0
        seen = {"running": 0, "queued": 0, "paused": 0}
        end, look = time.monotonic() + seconds, 0
        try:
            while time.monotonic() < end or n_killed < 30 or not all(seen.values()):
                self.assertLess(time.monotonic(), end + DEADLINE, (n_killed, seen))
                if len(victims) < self.n_at_once:
                    victims.append(r.choice(kinds)(r))
                if r.random() < 0.3 or len(victims) == self.n_at_once:
                    n_killed += 1
                    self.kill(victims.pop(r.randrange(len(victims))))
                if time.monotonic() > look:
                    status = self.daemon.status()
                    seen = {name: max(most, status[name]) for name, most in seen.items()}
                    look = time.monotonic() + 0.2
        finally:
            while victims:
                self.kill(victims.pop())

    def kill(self, victim):
        victim.kill()
        # Not of something else, before; but a client may be told that the queue is full.
        self.assertIn(victim.wait(), (-signal.SIGKILL, os.EX_TEMPFAIL))

    def test_clients_that_are_killed(self):
        self.kill_for(self.seconds, [self.streams, self.streams, self.reads_a_long_prompt, self.does_not_read,
                                     self.does_not_read, self.has_sent_half_a_frame, self.has_not_said_hello,
                                     self.says_nothing])

    def test_sessions_outlive_the_killed(self):
        names = ["s%d" % i for i in range(4)]
        for name in names:  # on a slow machine all who go on with one may be killed in their prompt, which is taken back
            run_alone(self.daemon, [[{"prompt": "It was", "n": 3, "session": name}]])
        self.kill_for(self.seconds / 4, [self.goes_on_with_a_session, self.does_not_read_its_session, self.streams])
        end = time.monotonic() + DEADLINE
        while self.daemon.status()["running"] or self.daemon.status()["queued"]:
            self.assertLess(time.monotonic(), end)
        for name in names:  # none is busy, or lost, or back where it began
            (answer,), = run_alone(self.daemon, [[{"prompt": "and", "n": 5, "session": name}]])
            self.assertEqual(answer["stop"], "limit", answer)
            self.assertGreater(answer["reused_tokens"], 0)
        drop_sessions(self.daemon, ME, names)


if __name__ == "__main__":
    unittest.main()
