"""What test_boot.py runs inside the machine that it boots: the installed units, under the real manager, as root."""
import os
import re
import signal
import subprocess
import sys
import time
import unittest

DEADLINE = 120
CONFIG = "/etc/streamkv/streamkvd.conf"
MODEL = "model = /srv/pythia-books\nkv-memory = 64M\n"
ONE, OTHER = 65534, 1  # users who are neither root nor the daemon's


def systemctl(*arguments, check=True):
    return subprocess.run(["systemctl", *arguments], check=check, capture_output=True, text=True, timeout=DEADLINE)


def show(name, unit="streamkvd.service"):
    return systemctl("show", "-P", name, unit).stdout.strip()


def client(*arguments, uid=ONE):
    return subprocess.Popen(["/usr/local/bin/streamkv-client", *arguments], user=uid, group=uid, extra_groups=[], cwd="/",
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={"PATH": "/usr/bin"})


def run(*arguments, uid=ONE):
    process = client(*arguments, uid=uid)
    out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


def configure(text=""):
    os.makedirs(os.path.dirname(CONFIG), exist_ok=True)
    with open(CONFIG, "w") as file:
        file.write(MODEL + text)


class Booted(unittest.TestCase):
    def setUp(self):
        configure()
        systemctl("start", "streamkvd.socket")
        systemctl("start", "streamkvd.service")

    def tearDown(self):
        systemctl("stop", "streamkvd.service", "streamkvd.socket", "streamkv-weights.service", check=False)
        systemctl("reset-failed", check=False)

    def until(self, what, *arguments):
        end = time.monotonic() + DEADLINE
        while not what(*arguments):
            self.assertLess(time.monotonic(), end, systemctl("status", "streamkvd.service", check=False).stdout)
            time.sleep(0.05)

    def journal(self, *arguments):
        return subprocess.run(["journalctl", "-o", "cat", "-u", "streamkvd.service", *arguments], capture_output=True, text=True,
                              timeout=DEADLINE).stdout

    def test_the_boot_made_its_user_and_its_folders(self):
        self.assertEqual(subprocess.run(["id", "-u", "streamkv"], capture_output=True).returncode, 0)
        self.assertEqual(os.stat("/run/streamkv").st_mode & 0o777, 0o755)
        self.assertEqual(os.stat("/var/lib/streamkv").st_mode & 0o777, 0o700)

    def test_clients_start_it_and_wait_for_it(self):
        systemctl("stop", "streamkvd.service")
        self.assertEqual(show("ActiveState"), "inactive")
        clients = [client("generate", "-n", "5", "It was") for _ in range(4)]
        for one in clients:
            out, err = one.communicate(timeout=DEADLINE)
            self.assertEqual((one.returncode, err), (0, ""))
            self.assertTrue(out)
        self.until(lambda: show("ActiveState") == "active")
        self.until(lambda: show("StatusText").startswith("Serving pythia-books on cpu"))

    def test_the_sandbox_holds_and_users_are_who_they_are(self):
        pid = show("MainPID")
        with open("/proc/%s/status" % pid) as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        daemon = subprocess.run(["id", "-u", "streamkv"], capture_output=True, text=True).stdout.strip()
        self.assertEqual(status["Uid"].split("\t")[0], daemon)
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"], int(status["CapBnd"], 16)), ("1", "2", 0))
        self.assertEqual(run("generate", "-n", "3", "--session", "mine", "It was")[0], 0)
        self.assertIn("mine", run("sessions")[1])
        self.assertNotIn("mine", run("sessions", uid=OTHER)[1])

    def test_named_sessions_outlive_it_and_so_does_the_socket(self):
        self.assertEqual(run("generate", "-n", "3", "--session", "kept", "It was")[0], 0)
        before = os.stat("/run/streamkv/streamkvd.sock").st_ino
        systemctl("restart", "streamkvd.service")
        self.assertEqual(os.stat("/run/streamkv/streamkvd.sock").st_ino, before)
        self.assertIn("kept", run("sessions")[1])
        self.assertEqual(run("sessions", "delete", "kept")[0], 0)

    def test_reload(self):
        self.assertEqual(run("generate", "-n", "3", "--session", "a", "It was")[0], 0)
        configure("[user *]\nmax-sessions = 1\n")
        systemctl("reload", "streamkvd.service")
        self.until(lambda: show("ActiveState") == "active" and run("generate", "-n", "3", "--session", "b", "x")[0] == 77)
        configure("windwo = 3\n")
        systemctl("reload", "streamkvd.service")
        self.until(lambda: "did you mean window?" in self.journal("-p", "err"))
        self.assertNotIn("ready:", self.journal("-p", "err"))  # a priority of its own
        self.assertEqual(run("generate", "-n", "3", "--session", "b", "x")[0], 77)
        self.assertEqual(run("sessions", "delete", "a")[0], 0)

    def test_a_stop_lets_the_running_ones_finish(self):
        configure("[user *]\ntokens-per-second = 40\n")
        systemctl("restart", "streamkvd.service")
        stream = client("generate", "-n", "150", "--ignore-eos", "It was")
        self.assertTrue(stream.stdout.read(1))
        systemctl("stop", "streamkvd.service")
        _, err = stream.communicate(timeout=DEADLINE)
        self.assertEqual((stream.returncode, err), (0, ""))
        self.assertEqual(show("Result"), "success")

    def test_an_answer_goes_on_when_it_is_killed(self):
        ask = ["generate", "-n", "150", "--ignore-eos", "It was a dark night"]
        _, whole, _ = run(*ask)
        configure("[user *]\ntokens-per-second = 60\n")
        systemctl("restart", "streamkvd.service")
        stream = client(*ask, "--session", "broken")
        got = stream.stdout.read(60)
        systemctl("kill", "--signal=KILL", "streamkvd.service")
        got += stream.stdout.read()
        self.assertEqual((stream.wait(DEADLINE), stream.stderr.read(), got), (0, "", whole))
        self.assertIn("1 in the middle of an answer", self.journal())
        systemctl("kill", "--signal=KILL", "streamkvd.service")
        self.until(lambda: show("NRestarts") == "2" and show("ActiveState") == "active")
        self.assertIn("broken", run("sessions")[1])
        self.assertEqual(run("sessions", "delete", "broken")[0], 0)

    def test_a_stuck_engine_is_started_again(self):
        folder = "/run/systemd/system/streamkvd.service.d"
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "watchdog.conf"), "w") as file:
            file.write("[Service]\nWatchdogSec=2s\n")
        systemctl("daemon-reload")
        systemctl("restart", "streamkvd.service")
        self.assertEqual(run("generate", "-n", "3", "x")[0], 0)
        pid = show("MainPID")
        with Stopped(int(pid), "sk-engine") as engine:
            self.until(engine.is_gone)
        self.until(lambda: show("NRestarts") == "1" and show("ActiveState") == "active")
        self.assertNotEqual(show("MainPID"), pid)
        self.assertIn("atchdog", self.journal())
        self.assertEqual(run("generate", "-n", "3", "x")[0], 0)
        os.remove(os.path.join(folder, "watchdog.conf"))
        systemctl("daemon-reload")

    def test_weights_from_their_holder(self):
        systemctl("start", "streamkv-weights.service")
        configure("weights-from = /run/streamkv/weights.sock\n")
        systemctl("restart", "streamkvd.service")
        self.assertEqual(run("generate", "-n", "3", "x")[0], 0)
        self.until(lambda: re.match("Holding .* for 1 engine$", show("StatusText", "streamkv-weights.service")))
        systemctl("kill", "-s", "KILL", "--kill-who=main", "streamkvd.service")
        self.until(lambda: show("NRestarts") == "1" and show("ActiveState") == "active")
        self.assertEqual(run("generate", "-n", "3", "x")[0], 0)
        self.assertEqual(show("NRestarts", "streamkv-weights.service"), "0")


if __name__ == "__main__":
    from stopped import Stopped
    done = unittest.main(exit=False, verbosity=2)
    if not done.result.wasSuccessful():
        sys.stderr.write(Booted("journal").journal())
    sys.exit(not done.result.wasSuccessful())
