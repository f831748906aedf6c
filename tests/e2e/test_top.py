"""top on a terminal: what it draws there, and that the terminal is afterwards as it was."""
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
import unittest

from look import Look, until
from streamkv_test import DEADLINE, Daemon, Program


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


if __name__ == "__main__":
    unittest.main()
