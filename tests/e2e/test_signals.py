"""Clients and daemons that are interrupted, killed or stopped: documented exit codes, and nothing left over."""
import signal
import time
import unittest

import wire
from streamkv_test import DEADLINE, Case, Daemon


CANCELLED = 4  # of StopReason


class Signals(Case):
    options = ("--stall-timeout", "1", "--ring-slots", "256")

    def tearDown(self):
        self.assert_idle()
        self.assertEqual(self.daemon.run("generate", "-n", "3", "x").returncode, 0)

    def endless(self):
        process = self.daemon.start("generate", "--endless", "It was")
        self.assertTrue(process.stdout.read(100))
        return process

    def test_interrupted(self):
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            with self.endless() as process:
                process.send_signal(number)
                out, err = process.communicate(timeout=DEADLINE)
                self.assertEqual((process.returncode, err), (code, b""))

    def test_cancelled_as_soon_as_asked(self):
        """The request has not become tokens yet when it is cancelled, or just has."""
        with wire.Client(self.daemon) as client:
            for request in range(1, 101):
                client.sendall(wire.generate(request, b"It was", 0, endless=True) + wire.cancel(request))
                _, finished = client.answer(request, wire.FINISHED)
                self.assertEqual(finished[1], [CANCELLED])
                client.take_slots()

    def test_killed(self):
        with self.endless() as process:
            process.kill()

    def test_stopped_reader_stalls_itself_alone(self):
        with self.endless() as process:
            process.send_signal(signal.SIGSTOP)
            done = self.daemon.run("generate", "-n", "200", "The king")
            self.assertEqual(done.returncode, 0)
            end = time.monotonic() + DEADLINE
            while self.daemon.status()["running"]:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)
            process.send_signal(signal.SIGCONT)
            _, err = process.communicate(timeout=DEADLINE)
            self.assertEqual(process.returncode, 75)
            self.assertIn(b"stopped reading", err)


class DaemonEnds(unittest.TestCase):
    def end(self, number):
        daemon = Daemon("--drain-timeout", "1000000")  # a stream without an end is not waited for
        with daemon.start("generate", "--endless", "It was") as process:
            self.assertTrue(process.stdout.read(100))
            daemon.process.send_signal(number)
            _, err = process.communicate(timeout=DEADLINE)
        daemon.stop()
        self.assertEqual(process.returncode, 75)
        return err

    def test_killed(self):
        self.assertIn(b"the daemon has gone away", self.end(signal.SIGKILL))

    def test_terminated(self):
        self.assertIn(b"the daemon is stopping", self.end(signal.SIGTERM))


if __name__ == "__main__":
    unittest.main()
