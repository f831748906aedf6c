"""64 clients of four users at once: every text is what it is alone, and nothing is left behind. Minutes long as
e2e_tenants_nightly."""
import json
import random
import time
import unittest

from streamkv_test import SANITIZED, Case, Daemon, skip
from tenants import (IS_ROOT, NIGHTLY, USERS, drop_sessions, resident_bytes, run_alone, run_clients,
                     small_memory_pages, what_was_said, words)

N_CLIENTS = 64
IS_LONG = NIGHTLY and not SANITIZED
WORDS = words()
SMALL_STRUCT = 64  # bytes


def what_was_asked(ask):
    return json.dumps({name: value for name, value in ask.items() if name not in ("again", "pause")})


class Asker:
    """Draws what a client asks: of any length and any policy, from a few hundred that are asked again and again."""

    def __init__(self, seed, n_kinds, most_words):
        self.random = random.Random(seed)
        self.most_words = most_words
        self.kinds = [self.draw() for _ in range(n_kinds)]

    def text(self, n_words):
        at = self.random.randrange(len(WORDS) - n_words)
        return " ".join(WORDS[at:at + n_words])

    def draw(self):
        kind, r = self.random.randrange(6), self.random
        if kind == 0:  # a token or two, for a token or two
            return {"prompt": r.choice("AThe"), "n": r.randint(1, 3)}
        if kind == 1:  # evicts at every token, or in cuts
            return {"prompt": self.text(r.randint(1, 30)), "n": r.randint(60, 120), "sink": r.choice((0, 1, 4)),
                    "window": r.randint(12, 40), "slack": r.choice((0, 0, 7, 16))}
        if kind == 2:
            return {"prompt": self.text(r.randint(1, 60)), "n": r.randint(20, 90), "mode": "window",
                    "window": r.randint(8, 48), "slack": r.choice((0, 5))}
        if kind == 3:
            return {"prompt": self.text(r.randint(1, 30)), "n": r.randint(5, 60), "mode": "dense"}
        if kind == 4:  # a prompt of more than one step
            return {"prompt": self.text(r.randint(self.most_words // 2, self.most_words)), "n": r.randint(1, 12),
                    "window": r.randint(30, 90)}
        return {"prompt": self.text(r.randint(1, 40)), "n": r.randint(10, 70), "sink": r.choice((0, 4, 33)),
                "window": r.randint(16, 60)}

    def turn(self, session):
        """Of a session that goes on: of a policy of its own, which the later turns leave as it is."""
        return dict(session=session, prompt=self.text(self.random.randint(1, 25)), n=self.random.randint(1, 100))

    def pauses(self):
        """Now and then, of reading: which makes no difference, not even where the daemon waits for its reader."""
        return {"pause": [self.random.randint(0, 9), self.random.randint(1, 300)]} if self.random.random() < 0.1 else {}


class Tenants(Case):
    model = "pythia-books"
    # No more KV cache than is soon all in use: what is touched for the first time late would look like a leak.
    options = ("--weights", "f32", "--socket-mode", "666", "--queue-timeout", "0", "--kv-memory", "48M")
    seconds = 600 if IS_LONG else 8
    n_kinds, n_asks, most_words = (400, 8, 400) if IS_LONG else (24, 3, 250)

    @classmethod
    def setUpClass(cls):
        if SANITIZED and cls.model == "pythia-books":
            skip("64 clients on " + cls.model, "a sanitizer takes many minutes for its arithmetic; tiny-llama takes the same ways")
        with small_memory_pages():
            cls.daemon = Daemon(*cls.options, model=cls.model)

    def clients(self, asker, chains):
        """For each user as many: one with a session that goes on round after round (of the same name as the other
        users'), the others with this and that."""
        clients = {}
        for uid in USERS:
            turn = asker.turn("diary")
            if not chains[uid]:
                turn.update(sink=4, window=asker.random.randint(20, 60), slack=asker.random.choice((0, 9)))
            chains[uid].append(turn)
            clients[uid] = [[dict(turn, again=True, **asker.pauses())]]
            for _ in range(N_CLIENTS // len(USERS) - 1):
                asks = [dict(asker.random.choice(asker.kinds)) for _ in range(self.n_asks)]
                for ask in asks:
                    ask.update(again=asker.random.random() < 0.5, **asker.pauses())
                clients[uid].append(asks)
        return clients

    def check(self, key, answer):
        """Whoever asks the same is told the same, and without a fault."""
        said = what_was_said(answer)
        self.assertEqual(said["stop"], "limit", answer)
        self.assertEqual(self.answers.setdefault(key, said), said, "asked: %s" % (key,))

    def crowd(self, asker, seconds):
        """Rounds of N_CLIENTS until the time is over. Everything is as it was at the end of each."""
        chains = {uid: [] for uid in USERS}
        self.answers, self.most_place, self.n_requests = {}, 0, 0
        resident, end = [], time.monotonic() + seconds
        while len(resident) < 2 or time.monotonic() < end:
            clients = self.clients(asker, chains)
            told = run_clients(self.daemon, clients)
            for uid in USERS:
                for asks, answers in zip(clients[uid], told[uid], strict=True):
                    for ask, answer in zip(asks, answers, strict=True):
                        key = ("chain", uid, len(chains[uid])) if "session" in ask else what_was_asked(ask)
                        self.check(key, answer)
                        self.most_place = max(self.most_place, answer["place"])
                        self.n_requests += 1
            self.assert_idle(sessions=len(USERS))
            resident.append(resident_bytes(self.daemon))
        return chains, resident

    def compare(self, chains):
        """With a daemon that does nothing else, each alone."""
        alone = Daemon(*self.options, model=self.model)
        self.addCleanup(alone.stop)
        singles = [key for key in self.answers if isinstance(key, str)]
        for key, (answer,) in zip(singles, run_alone(alone, [[json.loads(key)] for key in singles]), strict=True):
            self.check(key, answer)
        whole = [[dict(turn, session="diary-of-%d" % uid) for turn in chain] for uid, chain in chains.items()]
        for uid, answers in zip(chains, run_alone(alone, whole), strict=True):
            for i, answer in enumerate(answers):
                if i > 0:
                    self.assertGreater(answer["reused_tokens"], 0)
                self.check(("chain", uid, i + 1), answer)

    def test_every_text_is_what_it_is_alone(self):
        chains, resident = self.crowd(Asker(7, self.n_kinds, self.most_words), self.seconds)
        for uid in USERS:
            drop_sessions(self.daemon, uid, ["diary"])
        self.assert_idle()
        self.compare(chains)
        if IS_LONG:  # in the short form, touching memory for the first time is most of what is seen
            n_requests = self.n_requests * 3 // 4
            self.assertLess(resident[-1] - resident[len(resident) // 4], n_requests * SMALL_STRUCT, resident)
        self.assertGreater(sum(answer["evicted_tokens"] > 0 for answer in self.answers.values()), 10)
        self.assertGreater(len({answer["scores"] for answer in self.answers.values()}), 0.9 * len(self.answers))
        if not IS_ROOT:
            skip("four users", "only root can be four users; they were one")


class TenantsInLine(Tenants):
    """With memory for a few of them at a time."""
    seconds = Tenants.seconds / 4
    options = (*Tenants.options[:-1], "20M", "--window", "60", "--max-batch", "16", "--step-tokens", "64")

    def test_every_text_is_what_it_is_alone(self):
        super().test_every_text_is_what_it_is_alone()
        self.assertGreater(self.most_place, N_CLIENTS // 4)


class LlamaTenants(Tenants):
    model = "tiny-llama"
    seconds = Tenants.seconds / 4
    options = (*Tenants.options[:-1], "16M")
    most_words = 90  # of several tokens each


class Memory(Case):
    """Rounds of many small requests: what one of them left behind would be seen."""
    options = ("--socket-mode", "666", "--queue-timeout", "0", "--kv-memory", "8M")
    n_asks = 100 if not SANITIZED else 5

    @classmethod
    def setUpClass(cls):
        with small_memory_pages():
            cls.daemon = Daemon(*cls.options, model="tiny-llama")

    def round(self, asker):
        clients = {uid: [[dict(prompt=asker.text(asker.random.randint(1, 3)), n=asker.random.randint(1, 2), window=24,
                               again=asker.random.random() < 0.2) for _ in range(self.n_asks)]
                         for _ in range(N_CLIENTS // len(USERS))] for uid in USERS}
        for answers in run_clients(self.daemon, clients).values():
            for answer in sum(answers, []):
                self.assertEqual(answer["stop"], "limit", answer)
        self.assert_idle()
        return resident_bytes(self.daemon)

    def test_requests_leave_nothing_behind(self):
        asker = Asker(11, 0, 0)
        resident = [self.round(asker) for _ in range(5)]
        if SANITIZED:
            skip("the daemon's memory", "a sanitizer keeps what is freed; it tells leaks at the daemon's end")
        n_requests = 3 * N_CLIENTS // len(USERS) * len(USERS) * self.n_asks
        self.assertLess(resident[4] - resident[1], n_requests * SMALL_STRUCT, resident)


if __name__ == "__main__":
    unittest.main()
