"""What sessions and requests there are, for tests of what shows them and of what is done with them."""
import json
import time

from streamkv_test import DEADLINE, Case


def until(look, wanted):
    """What look() returns, once wanted() finds it so."""
    end = time.monotonic() + DEADLINE
    while True:
        seen = look()
        if wanted(seen):
            return seen
        assert time.monotonic() < end, "it did not come to be: %s" % (seen,)
        time.sleep(0.02)


class Look(Case):
    def sessions(self):
        return json.loads(self.daemon.run("sessions", "list", "--json").stdout)

    def session(self, name):
        return next((session for session in self.sessions() if session["name"] == name), None)

    def requests(self):
        return json.loads(self.daemon.run("ps", "--json").stdout)

    def make(self, name, *options):
        done = self.daemon.run("generate", "-n", "5", "--session", name, *options, "It was a dark night")
        self.assertEqual(done.returncode, 0, done.stderr)

    def stream(self, *options):
        """One that runs for ever."""
        process = self.daemon.start("generate", "--endless", *options, "It was")
        self.addCleanup(process.__exit__, None, None, None)
        self.addCleanup(process.kill)
        until(self.requests, lambda requests: process.pid in [request["pid"] for request in requests])
        return process

    def tearDown(self):
        self.doCleanups()
        until(self.requests, lambda requests: not requests)
