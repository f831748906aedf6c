"""A daemon of one's own for a measurement, and its client."""
import atexit
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Daemon:
    def __init__(self, programs, model, *arguments, pause_s=0.05):
        self.programs = programs
        self.folder = tempfile.TemporaryDirectory(prefix="streamkv-bench-")
        self.socket = self.path("s")
        self.log = open(self.path("log"), "w")
        self.process = subprocess.Popen([os.path.join(programs, "streamkvd"), "--model", model, "--socket", self.socket,
                                         *map(str, arguments)], stderr=self.log)
        atexit.register(self.close)  # also where a measurement fails
        while not os.path.exists(self.socket):
            if self.process.poll() is not None:
                sys.exit("streamkvd ended at once: " + open(self.log.name).read().strip())
            time.sleep(pause_s)
        self.status = json.loads(self.run("status", "--json"))  # answered once the model is there

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def run(self, command, *arguments):
        done = subprocess.run([os.path.join(self.programs, "streamkv-client"), command, "--socket", self.socket,
                               *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            sys.exit("streamkv-client %s: %s" % (command, done.stderr.strip()))
        return done.stdout

    def decode(self, n, prompt="ab"):
        """tokens/s of one stream"""
        out = self.run("generate", "--json", "--ignore-eos", "--temp", 0, "-n", n, prompt)
        return (n - 1) / json.loads(out.strip().splitlines()[-1])["decode_ns"] * 1e9

    def close(self):
        atexit.unregister(self.close)
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()
