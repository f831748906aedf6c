"""The installed service under a real systemd: this machine's own tree, with a layer over it that takes all writes, booted by
systemd-nspawn into nothing but the tests (booted.py)."""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from streamkv_test import BIN, DEADLINE, MODELS, skip

WHAT = "a booted systemd"
HERE = os.path.dirname(os.path.abspath(__file__))
UNITS = {
    "streamkv-test.target": "[Unit]\nRequires=streamkv-test.service\n",
    # The network is the machine's own and empty; its other services are not wanted by this target.
    "streamkv-test.service": "[Service]\nType=oneshot\nTimeoutStartSec=%d\nExecStart=/bin/sh /srv/begin\n" % DEADLINE,
}


def call(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, **options)
    return done.returncode, done.stdout + done.stderr


class Boot(unittest.TestCase):
    def setUp(self):
        if os.geteuid() != 0:
            skip(WHAT, "it takes root")
        if os.environ.get("STREAMKV_SANITIZE"):
            skip(WHAT, "a sanitizer needs what the sandbox forbids")
        for program in ("systemd-nspawn", "cmake", "/lib/systemd/systemd"):
            if not shutil.which(program):
                skip(WHAT, "%s is not here" % program)
        # On a tmpfs: a layer cannot lie on a layer, which a container's root may be.
        self.folder = tempfile.mkdtemp(prefix="streamkv-boot-")
        self.addCleanup(os.rmdir, self.folder)
        self.mount("-t", "tmpfs", "none", self.folder)
        self.root = os.path.join(self.folder, "root")
        for name in ("upper", "work", "root"):
            os.mkdir(os.path.join(self.folder, name))
        self.mount("-t", "overlay", "-o", "lowerdir=/,upperdir=%s/upper,workdir=%s/work" % (self.folder, self.folder), "none",
                   self.root)

    def mount(self, *arguments):
        code, said = call("mount", *arguments)
        if code:
            skip(WHAT, "no mounts here: " + said.strip().replace("\n", " "))
        self.addCleanup(call, "umount", arguments[-1])

    def write(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def install(self):
        code, said = call("cmake", "--install", os.path.abspath(os.path.join(BIN, "..")), env=dict(os.environ, DESTDIR=self.root))
        self.assertEqual(code, 0, said)
        shutil.copytree(os.path.join(MODELS, "pythia-books"), os.path.join(self.root, "srv/pythia-books"))
        for name in ("booted.py", "stopped.py"):
            shutil.copy(os.path.join(HERE, name), os.path.join(self.root, "srv", name))

    def test_the_service_as_it_is_installed(self):
        self.install()
        self.write("etc/machine-id", "")
        for name, text in UNITS.items():
            self.write("etc/systemd/system/" + name, text)
        self.write("srv/begin", "%s /srv/booted.py >/srv/said 2>&1\necho $? >/srv/code\nsystemctl --force --force poweroff\n"
                   % sys.executable)
        code, said = call("systemd-nspawn", "--quiet", "--boot", "--directory", self.root, "--register=no", "--keep-unit",
                          "--private-network", "--link-journal=no", "--console=pipe", "systemd.unit=streamkv-test.target",
                          stdin=subprocess.DEVNULL, env=dict(os.environ, SYSTEMD_NSPAWN_UNIFIED_HIERARCHY="1"))
        result = os.path.join(self.root, "srv/code")
        if not os.path.exists(result):
            skip(WHAT, "systemd-nspawn boots nothing here (%d): %s" % (code, said.strip().replace("\n", " ")))
        with open(os.path.join(self.root, "srv/said")) as file:
            said = file.read()
        with open(result) as file:
            self.assertEqual(file.read(), "0\n", said)
        print(said, file=sys.stderr)


if __name__ == "__main__":
    unittest.main()
