"""What the configuration file allows to users: clients of two uids, root and one that nobody else has."""
import os
import shutil
import subprocess
import time
import unittest

from streamkv_test import CLIENT, DEADLINE, Daemon, Program, skip

ROOT, GUEST = 0, 65534


class Limits(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0:
            skip("limits of users", "it takes root to be two users")

    def begin(self, configuration, *options):
        """A daemon with that configuration file, which both users can reach."""
        with open(os.path.join(self.folder(), "conf"), "w") as file:
            file.write(configuration)
        self.daemon = Daemon("--config", file.name, "--socket-mode", "666", *options)
        self.addCleanup(self.daemon.stop)
        os.chmod(self.daemon.folder, 0o711)
        self.client = os.path.join(self.daemon.folder, "client")
        shutil.copy(CLIENT, self.client)  # the build's own folder may be closed to others
        os.chmod(self.client, 0o755)

    def folder(self):
        folder = subprocess.run(["mktemp", "-d"], capture_output=True, check=True, text=True).stdout.strip()
        self.addCleanup(shutil.rmtree, folder)
        return folder

    def start(self, uid, *arguments):
        who = {"user": uid, "group": uid, "extra_groups": []}
        return Program([self.client, "generate", "--socket", self.daemon.socket, *arguments], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", **who)

    def ends(self, process, code, words=b""):
        _, err = process.communicate(timeout=DEADLINE)
        self.assertEqual(process.returncode, code, err)
        self.assertIn(words, err)

    def wait_for(self, **wanted):
        end = time.monotonic() + DEADLINE
        while any(status[key] != value for status in (self.daemon.status(),) for key, value in wanted.items()):
            self.assertLess(time.monotonic(), end, wanted)
            time.sleep(0.02)

    def test_sessions(self):
        self.begin("[user %d]\nweight = 2\n[user *]\nmax-sessions = 1\n[user root]\nmax-sessions = 2\n" % GUEST)
        self.ends(self.start(GUEST, "-n", "3", "--session", "a", "It was"), 0)
        self.ends(self.start(GUEST, "-n", "3", "--session", "b", "It was"), 77, b"limit of 1 named session is reached")
        self.ends(self.start(GUEST, "-n", "3", "--session", "a", "and"), 0)
        self.ends(self.start(GUEST, "-n", "3", "It was"), 0)
        for name, code in (("a", 0), ("b", 0), ("c", 77)):
            self.ends(self.start(ROOT, "-n", "3", "--session", name, "It was"), code)
        self.assertEqual(self.daemon.status()["sessions"], 3)

    def test_memory_and_queue(self):
        self.begin("")
        status = self.daemon.status()
        window = ("--sink", "4", "--window", "100")  # comes to 6 pages; beside another it is too much
        self.begin("[user %d]\nkv-memory = %d\nmax-queued = 1\n" % (GUEST, 9 * status["page_bytes"]), "--stall-timeout", "0")
        self.ends(self.start(GUEST, "--window", "400", "--endless", "It was"), 77, b"of the 9 that you may have")
        with self.start(GUEST, *window, "--endless", "It was") as stream:
            self.assertTrue(stream.stdout.read(10))
            with self.start(GUEST, *window, "-n", "200", "It was") as waiting:
                self.wait_for(running=1, queued=1)
                self.ends(self.start(GUEST, "-n", "3", "It was"), 75, b"limit of 1 waiting request is reached")
                self.ends(self.start(ROOT, "-n", "3", "It was"), 0)  # past them
                self.wait_for(running=1, queued=1)
                stream.kill()
                self.ends(waiting, 0)
        self.wait_for(running=0, queued=0, sessions=0, pages_used=0)

    def test_tokens_per_second(self):
        self.begin("[user *]\ntokens-per-second = 20\n[user 0]\ntokens-per-second = 0\n")
        with self.start(GUEST, "--endless", "It was") as stream:
            self.assertTrue(stream.stdout.read(10))
            self.ends(self.start(ROOT, "-n", "300", "It was"), 0)
            self.assertIsNone(stream.poll())
            stream.kill()
        # The least time that it may take, which no machine is too slow for: 20 of them at once, the others as allowed.
        begun = time.monotonic()
        self.ends(self.start(GUEST, "-n", "60", "It was"), 0)
        self.assertGreaterEqual(time.monotonic() - begun, 2)


if __name__ == "__main__":
    unittest.main()
