"""sessions list, ps, top --once: what there is, and what is told of it."""
import os
import pwd
import re
import signal
import socket
import struct
import subprocess
import unittest

from look import Look, until
from streamkv_test import BACKEND, DEADLINE, THREADS_CHECKED, Program
from wire import HELLO, field, fields, frame

SLOW = THREADS_CHECKED


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
            self.assertIn("pythia-books on %s" % (BACKEND[1] if BACKEND else "cpu"), text)
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
        found = fields(data[4:])
        number = list(found)[-1]
        return number, found[number][-1]

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
                found = fields(listing)
                counts.append(len(found.get(1, [])))
                has_more = 1 in found.get(4, [])
        self.assertGreater(len(counts), 2)
        self.assertEqual(sum(counts), self.n)
        self.assertEqual([session["name"] for session in self.sessions()], names)
        self.assertEqual(len(self.daemon.run("top", "--once", "-i", "0.1").stdout.splitlines()), self.n + 9)
        self.assertEqual(self.daemon.status()["sessions"], self.n)


if __name__ == "__main__":
    unittest.main()
