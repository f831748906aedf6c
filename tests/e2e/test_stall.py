"""Readers that stop reading: they stop themselves alone, and lose nothing."""
import os
import unittest

from streamkv_test import THREADS_CHECKED, Case
from tenants import drop_sessions, run_alone, run_clients, wait_for, what_was_said
import wire

PROMPT = "It was a dark night, and the king"
N = 400
OTHERS = [{"prompt": "The morning", "n": 60, "sink": 4, "window": 28}, {"prompt": "and", "n": 3},
          {"prompt": "A " * 300, "n": 10}]
MODEL = "tiny-llama" if THREADS_CHECKED else Case.model  # whose arithmetic is short


class Stalled(Case):
    model = MODEL
    options = ("--weights", "f32", "--ring-slots", "256", "--stall-timeout", "0")

    def tearDown(self):
        self.assert_idle()

    def stall(self, *clients):
        for client in clients:
            client.sendall(wire.generate(1, PROMPT.encode(), N))
        return wait_for(self.daemon, paused=len(clients))

    def read(self, client):
        """What comes until the end, and how it ended."""
        slots = []
        while not wire.is_last(slots):
            client.wait()
            slots += client.take_slots()
        return slots, client.answer(1, wire.FINISHED)[1]

    def test_others_go_on_and_nothing_is_lost(self):
        (whole,), *others = run_alone(self.daemon, [[{"prompt": PROMPT, "n": N}], *([ask] for ask in OTHERS)])
        with wire.Client(self.daemon) as client, wire.Client(self.daemon) as another:
            before = self.stall(client, another)
            told = run_clients(self.daemon, {os.getuid(): [OTHERS * 4] * 4})[os.getuid()]
            for answers in told:
                for answer, (expected,) in zip(answers, others * 4, strict=True):
                    self.assertEqual(what_was_said(answer), what_was_said(expected))
            after = self.daemon.status()
            self.assertEqual((after["running"], after["paused"]), (2, 2))
            self.assertEqual(after["generated_tokens"] - before["generated_tokens"],
                             16 * sum(ask["n"] for ask in OTHERS))  # the stalled drew none meanwhile
            for stalled in (another, client):
                slots, end = self.read(stalled)
                self.assertEqual(wire.ids_of(slots), whole["ids"])
                self.assertEqual(b"".join(text for *_, text in slots).hex(), whole["text"])
                self.assertEqual(end[6], [N])

    def test_requests_of_one_connection_that_reads_again_and_again(self):
        """Slowly, never more than a part of what has come; they share the ring, and each is whole."""
        n = 400
        (whole,), = run_alone(self.daemon, [[{"prompt": PROMPT, "n": n}]])
        with wire.Client(self.daemon) as client:
            for request in range(1, 5):
                client.sendall(wire.generate(request, PROMPT.encode(), n))
            slots, n_last = [], 0
            while n_last < 4:
                client.wait()
                taken = client.take_slots(most=100)
                slots += taken
                n_last += sum(bool(flags & wire.LAST) for _, _, flags, _ in taken)
            for request in range(1, 5):
                self.assertEqual(wire.ids_of([slot for slot in slots if slot[0] == request]), whole["ids"])


class GivenUp(Case):
    model = MODEL
    options = ("--weights", "f32", "--ring-slots", "256", "--stall-timeout", "1")

    def tearDown(self):
        self.doCleanups()
        self.assert_idle()

    def give_up(self, client, session=""):
        """What a reader was given before its time was over."""
        client.sendall(wire.generate(1, PROMPT.encode(), N, session=session.encode()))
        if session:
            self.addCleanup(drop_sessions, self.daemon, os.getuid(), [session])
        end = client.answer(1, wire.FINISHED)[1]
        self.assertEqual(end[1], [5])  # STOP_DISCONNECTED
        self.assertIn(b"stopped reading", end[2][0])
        ids = wire.ids_of(client.take_slots())
        self.assertGreater(len(ids), 30)
        return ids

    def go_on(self, prompt, n, session):
        (answer,), = run_alone(self.daemon, [[{"prompt": prompt, "n": n, "session": session}]])
        self.assertEqual(answer["stop"], "limit", answer)
        return answer

    def test_its_session_goes_on_from_what_it_was_given(self):
        (whole,), = run_alone(self.daemon, [[{"prompt": PROMPT, "n": N}]])
        with wire.Client(self.daemon) as client:
            ids = self.give_up(client, "kept")
            for n in (1, 50):
                ids += self.go_on("", n, "kept")["ids"]
            self.assertEqual(ids, whole["ids"][:len(ids)])

    def test_a_prompt_comes_after_what_it_was_given(self):
        with wire.Client(self.daemon) as client:
            ids = self.give_up(client, "with-a-prompt")
            answer = self.go_on(" And then", 50, "with-a-prompt")
            first, second = run_alone(self.daemon, [[{"prompt": PROMPT, "n": len(ids), "session": "same"},
                                                     {"prompt": " And then", "n": 50, "session": "same"}]])[0]
            drop_sessions(self.daemon, os.getuid(), ["same"])
            self.assertEqual(first["ids"], ids)
            self.assertEqual((answer["ids"], answer["position"]), (second["ids"], second["position"]))

    def test_its_connection_goes_on(self):
        (expected,), = run_alone(self.daemon, [[{"prompt": "The morning", "n": 50}]])
        with wire.Client(self.daemon) as client:
            self.give_up(client)
            client.sendall(wire.generate(2, b"The morning", 50))
            client.answer(2, wire.FINISHED)
            self.assertEqual(wire.ids_of(client.take_slots()), expected["ids"])


if __name__ == "__main__":
    unittest.main()
